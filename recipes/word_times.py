"""How well word times hit known boundaries: clips joined at known offsets, the true and the recognised text.

python -m recipes.word_times --speech ../shared/speech
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch

from recipes.nano.features import SAMPLING_RATE, coloured_noise
from recipes.nano.human import read_folder
from tiny_audio.assets import embedded
from tiny_audio.audio.reading import load_audio
from tiny_audio.audio.segment import Window
from tiny_audio.model.alignment import Word, align
from tiny_audio.model.modeling import ASRModel

STEP = 80  # samples: 5 ms
DROP_DB = 35.0  # below a clip's loudest 10 ms its speech has not begun, or has ended
FAINT = 1e-4  # amplitude of the noise under all of a recording

Clip = tuple[np.ndarray, str]


@dataclass
class Joined:
    """A recording made of clips, and (text, start, end) of each, in seconds."""

    waveform: np.ndarray
    truth: list[tuple[str, float, float]]


def sounding(waveform: np.ndarray) -> tuple[int, int]:
    """The samples between which a clip sounds."""
    blocks = np.array([np.mean(waveform[i : i + 2 * STEP] ** 2) for i in range(0, len(waveform), STEP)]) + 1e-12
    loud = np.flatnonzero(10 * np.log10(blocks / blocks.max()) > -DROP_DB)
    return loud[0] * STEP, min(len(waveform), (loud[-1] + 1) * STEP)


def join(rng: np.random.Generator, clips: Sequence[Clip], gaps: tuple[float, float], snr_db: float | None) -> Joined:
    """Clips one after another, with silence of `gaps` seconds between them, at one level, over noise."""
    pieces, truth, at = [np.zeros(int(rng.uniform(0.1, 0.5) * SAMPLING_RATE))], [], 0
    for waveform, text in clips:
        at = sum(map(len, pieces))
        start, end = sounding(waveform)
        truth.append((text, (at + start) / SAMPLING_RATE, (at + end) / SAMPLING_RATE))
        pieces += [waveform * (0.5 / np.abs(waveform).max()), np.zeros(int(rng.uniform(*gaps) * SAMPLING_RATE))]
    joined = np.concatenate([*pieces, np.zeros(int(rng.uniform(0.1, 0.5) * SAMPLING_RATE))])
    level = FAINT if snr_db is None else np.sqrt(np.mean(joined**2)) * 10 ** (-snr_db / 20)
    return Joined((joined + level * coloured_noise(rng, len(joined), 1.0)).astype(np.float32), truth)


def digit_strings(
    folder: Path, count: int, gaps: tuple[float, float] = (0.05, 0.4), snr_db: float | None = None, seed: int = 0
) -> list[Joined]:
    """Strings of 3 to 8 single digits of one speaker each."""
    rng, takes = np.random.default_rng(seed), defaultdict(list)
    for row in read_folder(folder):
        takes[row["speaker"]].append((row["path"], row["text"]))
    strings = []
    for _ in range(count):
        own = takes[str(rng.choice(sorted(takes)))]
        chosen = [own[index] for index in rng.integers(len(own), size=int(rng.integers(3, 9)))]
        strings.append(join(rng, [(load_audio(path), text) for path, text in chosen], gaps, snr_db))
    return strings


def sentences(count: int, seed: int = 0) -> list[Joined]:
    """Four test utterances of quickstart each; where their own words meet is not known."""
    rng, rows = np.random.default_rng(seed), pq.read_table(embedded("quickstart") / "test.parquet").to_pylist()
    chosen = rng.permutation(len(rows))[: 4 * count].reshape(-1, 4)
    clips = [[(load_audio(rows[n]["audio"]["bytes"]), rows[n]["text"]) for n in four] for four in chosen]
    return [join(rng, four, (0.2, 0.5), None) for four in clips]


@torch.no_grad()
def aligned(model: ASRModel, waveform: np.ndarray, text: str) -> list[Word]:
    """A known text in a recording of at most one window."""
    inputs = model.processor(waveform)
    frames, _ = model.encoder(inputs[model.encoder.input_name], inputs["audio_attention_mask"].sum(-1))
    scores = model.ctc_scores(frames)[0].numpy()
    return align(scores, text, model.config.ctc_vocabulary, model.encoder.frame_seconds, Window(waveform, 0))


def errors(truth: Sequence[tuple[str, float, float]], words: list[Word]) -> np.ndarray:
    """(clips, 2) seconds by which the first word of each clip starts, and its last word ends, too late."""
    found, rest = [], list(words)
    for text, start, end in truth:
        own, rest = rest[: len(text.split())], rest[len(text.split()) :]
        found.append((own[0].start - start, own[-1].end - end))
    return np.array(found)


def errors_of_text(model: ASRModel, recordings: Sequence[Joined]) -> np.ndarray:
    """Of the true text."""
    texts = [" ".join(text for text, _, _ in joined.truth) for joined in recordings]
    return np.concatenate(
        [errors(j.truth, aligned(model, j.waveform, text)) for j, text in zip(recordings, texts, strict=True)]
    )


def errors_of_recognised(model: ASRModel, recordings: Sequence[Joined]) -> np.ndarray:
    """Of the recognised text, where it is right."""
    decoded = model.transcribe_each([joined.waveform for joined in recordings], 16, word_times=True)
    right = [
        errors(joined.truth, words)
        for joined, (text, words) in zip(recordings, decoded, strict=True)
        if text == " ".join(text for text, _, _ in joined.truth)
    ]
    return np.concatenate(right)


def milliseconds(found: np.ndarray) -> str:
    """Median and 95th percentile of the errors' size, of starts, ends and both."""
    columns = (found[:, 0], found[:, 1], found.ravel())
    return " | ".join(f"{np.median(abs(c)) * 1000:3.0f} {np.percentile(abs(c), 95) * 1000:4.0f}" for c in columns)


def alignment_seconds(model: ASRModel) -> float:
    """The best of three times for 30 s of read digits, beyond the encoder's pass."""
    rng = np.random.default_rng(0)
    scores = np.log(rng.dirichlet(np.ones(len(model.config.ctc_vocabulary)), round(30 / model.encoder.frame_seconds)))
    window, taken = Window(rng.normal(0, 0.1, 30 * SAMPLING_RATE).astype(np.float32), 0), []
    for _ in range(3):
        started = time.perf_counter()
        text = "seven eight " * 40
        align(scores, text, model.config.ctc_vocabulary, model.encoder.frame_seconds, window)
        taken.append(time.perf_counter() - started)
    return min(taken)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=str(embedded("nano")))
    parser.add_argument("--speech", type=Path, default=Path("../shared/speech"))
    parser.add_argument("--count", type=int, default=60, help="recordings of each kind")
    options = parser.parse_args()
    model, digits = ASRModel.from_pretrained(options.model), options.speech / "spoken-digits"
    print("median and 95th percentile in ms, of: starts | ends | both")
    for split in ("test", "validation"):
        for name, gaps, snr in (
            ("gaps of 0.05 to 0.4 s", (0.05, 0.4), None),
            ("no gaps", (0.0, 0.0), None),
            ("gaps, noise at 20 dB", (0.05, 0.4), 20.0),
            ("gaps, noise at 10 dB", (0.05, 0.4), 10.0),
        ):
            recordings = digit_strings(digits / split, options.count, gaps, snr)
            print(f"{split + ' digits, ' + name:40} {milliseconds(errors_of_text(model, recordings))}", flush=True)
            found = errors_of_recognised(model, recordings)
            print(f"{f'  recognised, {len(found)} words right':40} {milliseconds(found)}", flush=True)
    print(f"{'quickstart test, four joined':40} {milliseconds(errors_of_text(model, sentences(30)))}")
    print(f"30 s aligned in {1000 * alignment_seconds(model):.0f} ms")


if __name__ == "__main__":
    main()
