"""Human recordings as shards of raw log-mel: digits, strings of digits of one speaker, and read sentences.

python -m recipes.nano.human --work-dir build/nano --speech ../shared/speech
"""

from __future__ import annotations

import argparse
import csv
import json
from collections import defaultdict
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np

from recipes.nano.features import SAMPLING_RATE, add_noise, add_room, coloured_noise
from recipes.nano.sentences import split_of
from recipes.nano.synthesize import SHARD_UTTERANCES, write_shard
from tiny_audio.audio.reading import load_audio
from tiny_audio.text.labels import clean_label

MOST_SECONDS = 16.0  # of a read sentence
Clip = tuple[np.ndarray, dict]


def read_folder(folder: Path) -> list[dict]:
    """Rows of an audiofolder's metadata, with the file's path."""
    with open(folder / "metadata.csv", newline="") as file:
        return [{**row, "path": folder / row["file_name"]} for row in csv.DictReader(file)]


def resampled(waveform: np.ndarray, rate: float) -> np.ndarray:
    """The waveform played `rate` times as fast: pitch, formants and tempo move together."""
    positions = np.arange(0, len(waveform) - 1, rate)
    return np.interp(positions, np.arange(len(waveform)), waveform).astype(np.float32)


def degraded(rng: np.random.Generator, waveform: np.ndarray) -> np.ndarray:
    """Sometimes in a room, sometimes with noise; the level stays in range."""
    if rng.random() < 0.25:
        waveform = add_room(rng, waveform)
    if rng.random() < 0.4:
        waveform = add_noise(rng, waveform, rng.uniform(8.0, 35.0))
    return (waveform * (rng.uniform(0.2, 0.95) / (np.abs(waveform).max() + 1e-9))).astype(np.float32)


def digit_string(rng: np.random.Generator, takes: list[tuple[np.ndarray, str]], count: int) -> tuple[np.ndarray, str]:
    """`count` digits of one speaker with gaps of up to 0.35 s, over a faint noise; the text."""
    rate = rng.uniform(0.88, 1.14)
    chosen = [takes[i] for i in rng.integers(len(takes), size=count)]
    closest = rng.uniform(-0.02, 0.1)
    pieces = [np.zeros(int(rng.uniform(0, 0.4) * SAMPLING_RATE), np.float32)]
    for waveform, _ in chosen:
        gap = max(0.0, rng.uniform(closest, closest + 0.25))
        level = rng.uniform(0.6, 1.0) / (np.abs(waveform).max() + 1e-9)
        pieces += [resampled(waveform, rate) * level, np.zeros(int(gap * SAMPLING_RATE), np.float32)]
    pieces.append(np.zeros(int(rng.uniform(0, 0.3) * SAMPLING_RATE), np.float32))
    joined = np.concatenate(pieces)
    joined += coloured_noise(rng, len(joined), 1.0) * 10 ** rng.uniform(-4.5, -2.5)
    return joined, " ".join(text for _, text in chosen)


def digit_clips(folder: Path, strings: int, singles_each: int, seed: int) -> Iterator[Clip]:
    """Every single digit `singles_each` times, then strings of 2 to 7; only texts that belong to training."""
    rng = np.random.default_rng(seed)
    takes: dict[str, list[tuple[np.ndarray, str]]] = defaultdict(list)
    for row in read_folder(folder):
        takes[row["speaker"]].append((load_audio(row["path"]), row["text"]))
    for _ in range(singles_each):
        for speaker, own in takes.items():
            for take in own:
                waveform, text = digit_string(rng, [take], 1)
                yield degraded(rng, waveform), {"text": text, "speaker": speaker}
    for _ in range(strings):
        speaker = str(rng.choice(list(takes)))
        waveform, text = digit_string(rng, takes[speaker], int(rng.integers(2, 8)))
        if split_of(text) == "train":
            yield degraded(rng, waveform), {"text": text, "speaker": speaker}


def read_speech(folder: Path, most_seconds: float = MOST_SECONDS) -> Iterator[Clip]:
    """Read sentences, for the CTC loss alone: the small language model is not to learn general English."""
    for row in read_folder(folder):
        text = clean_label(row["text"])
        if float(row["duration"]) <= most_seconds and text:
            yield load_audio(row["path"]), {"text": text, "speaker": row["speaker"], "ctc_only": True}


def plain_clips(folder: Path) -> Iterator[Clip]:
    """A folder's clips as they are."""
    for row in read_folder(folder):
        yield load_audio(row["path"]), {"text": clean_label(row["text"]), "speaker": row["speaker"]}


def cache(folder: Path, clips: Iterator[Clip]) -> None:
    """Clips as shards."""
    folder.mkdir(parents=True, exist_ok=True)
    index = 0
    while part := list(islice(clips, SHARD_UTTERANCES)):
        write_shard(folder, index, [waveform for waveform, _ in part], [row for _, row in part])
        index += 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work-dir", type=Path, default=Path("build/nano"))
    parser.add_argument(
        "--speech", type=Path, default=Path("../shared/speech"), help="only `train` splits are trained on"
    )
    parser.add_argument("--strings", type=int, default=6000)
    parser.add_argument("--singles-each", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    digits = options.speech / "spoken-digits"
    cache(options.work_dir / "digits-validation", plain_clips(digits / "validation"))
    cache(options.work_dir / "librispeech", read_speech(options.speech / "librispeech-small" / "train"))
    cache(
        options.work_dir / "digits", digit_clips(digits / "train", options.strings, options.singles_each, options.seed)
    )
    counts = {path.parent.name: 0 for path in options.work_dir.glob("*/*.jsonl")}
    for path in options.work_dir.glob("*/*.jsonl"):
        counts[path.parent.name] += len(path.read_text().splitlines())
    print(json.dumps(counts))


if __name__ == "__main__":
    main()
