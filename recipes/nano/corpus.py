"""The shipped corpus `quickstart`: synthesised utterances as Ogg Opus in Parquet, and a few single clips.

python -m recipes.nano.corpus --work-dir build/nano
"""

from __future__ import annotations

import argparse
import io
from itertools import islice
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from recipes.nano.features import SAMPLING_RATE, degrade
from recipes.nano.sentences import split_of
from recipes.nano.synthesize import Job, plan, speak, write_shard
from tiny_audio.assets import embedded
from tiny_audio.audio.reading import load_audio

BITS_PER_SECOND = 16_000
COUNTS = {"train": 1000, "validation": 60, "test": 150}
SEED = 1  # nano's own training utterances come from seed 0
CLIPS = 3


def encode(waveform: np.ndarray) -> bytes:
    """(samples,) at 16 kHz → a file of Ogg Opus."""
    file = io.BytesIO()
    with av.open(file, "w", format="ogg") as container:
        stream = container.add_stream("libopus", rate=SAMPLING_RATE, layout="mono")
        stream.bit_rate = BITS_PER_SECOND
        pcm = (np.clip(waveform, -1, 1) * 32767).astype(np.int16)[None]
        frame = av.AudioFrame.from_ndarray(pcm, format="s16", layout="mono")
        frame.sample_rate = SAMPLING_RATE
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    return file.getvalue()


def render_mildly(job: Job) -> np.ndarray:
    """(samples,) at 16 kHz: mostly clean, some in a room or with a little noise."""
    rng = np.random.default_rng(job.seed)
    return degrade(rng, speak(job.voice, job.text), room=0.2, noise=0.25, snr_db=(15.0, 35.0))


def jobs(split: str, count: int, seed: int = SEED) -> list[Job]:
    """The utterances of a split, every sentence once."""
    distinct: dict[str, Job] = {}
    for job in plan(split, seed):
        assert split_of(job.text) == split
        distinct.setdefault(job.text, job)
        if len(distinct) == count:
            return list(distinct.values())
    raise AssertionError("plan() is endless")


def rows(split: str, count: int, seed: int = SEED) -> list[dict]:
    """The corpus rows of a split."""
    return [
        corpus_row(render_mildly(job), job.text, job.voice.speaker, f"{split}-{index:04d}")
        for index, job in enumerate(jobs(split, count, seed))
    ]


def corpus_row(waveform: np.ndarray, text: str, speaker: str, name: str) -> dict:
    """Audio, text, speaker, duration in seconds and id of a clip."""
    data = encode(waveform)
    seconds = round(len(load_audio(data)) / SAMPLING_RATE, 3)
    audio = {"bytes": data, "path": f"{name}.ogg"}
    return {"audio": audio, "text": text, "speaker": speaker, "duration": seconds, "id": name}


def write_parquet(path: Path, made: list[dict]) -> None:
    """Rows as Parquet, uncompressed since Opus is."""
    audio = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    columns = [("audio", audio), ("text", pa.string()), ("speaker", pa.string()), ("duration", pa.float32())]
    table = pa.Table.from_pylist(made, schema=pa.schema([*columns, ("id", pa.string())]))
    pq.write_table(table, path, compression="none")


def write_corpus(folder: Path, counts: dict[str, int], seed: int = SEED) -> None:
    """The three Parquet files."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, count in counts.items():
        write_parquet(folder / f"{split}.parquet", rows(split, count, seed))


def write_clips(folder: Path, test_rows: list[dict]) -> None:
    """A few utterances as single files with their metadata."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["file_name,text,speaker,duration"]
    for row in islice((row for row in test_rows if 2.0 < row["duration"] < 4.0), CLIPS):
        name = f"{row['text'].replace(' ', '-')}.ogg"
        (folder / name).write_bytes(row["audio"]["bytes"])
        lines.append(f"{name},{row['text']},{row['speaker']},{row['duration']:.3f}")
    (folder / "metadata.csv").write_text("\n".join(lines) + "\n")


def cache_train(work_dir: Path, parquet: Path) -> None:
    """The corpus's training clips, as decoded from Opus, as a shard that nano trains on too."""
    folder = work_dir / "quickstart"
    folder.mkdir(parents=True, exist_ok=True)
    table = pq.read_table(parquet).to_pylist()
    clips = [load_audio(row["audio"]["bytes"]) for row in table]
    write_shard(folder, 0, clips, [{"text": row["text"], "speaker": row["speaker"]} for row in table])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work-dir", type=Path, default=Path("build/nano"))
    parser.add_argument("--output", type=Path, default=embedded("quickstart"), help="folder for the Parquet files")
    for split, count in COUNTS.items():
        parser.add_argument(f"--{split}", type=int, default=count, help="utterances of this split")
    options = parser.parse_args()
    write_corpus(options.output, {split: getattr(options, split) for split in COUNTS})
    write_clips(options.output.parent / "clips", pq.read_table(options.output / "test.parquet").to_pylist())
    cache_train(options.work_dir, options.output / "train.parquet")


if __name__ == "__main__":
    main()
