"""Datasets made on the spot for the tests of `tiny_audio.data`: tones in every container and layout."""

import csv
import io
import json
import wave
from pathlib import Path

import numpy as np

RATE = 16_000  # Hz
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def sine(seconds: float, rate: int = RATE, hertz: float = 440.0) -> np.ndarray:
    """float32 (samples,)"""
    return (0.3 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def wav_bytes(waveform: np.ndarray, rate: int = RATE, channels: int = 1, width: int = 2) -> bytes:
    """PCM of `width` bytes a sample; one waveform in every channel."""
    repeated = np.repeat(waveform[:, None], channels, axis=1)
    pcm = ((repeated * 127 + 128).astype(np.uint8) if width == 1 else (repeated * 32767).astype("<i2")).tobytes()
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(channels)
        out.setsampwidth(width)
        out.setframerate(rate)
        out.writeframes(pcm)
    return file.getvalue()


def encoded(waveform: np.ndarray, container: str, codec: str, rate: int = RATE) -> bytes:
    """The waveform in another container, made with PyAV."""
    import av

    file = io.BytesIO()
    with av.open(file, "w", format=container) as out:
        stream = out.add_stream(codec, rate=rate, layout="mono")
        frame = av.AudioFrame.from_ndarray((waveform * 32767).astype(np.int16)[None], format="s16", layout="mono")
        frame.sample_rate = rate
        resampler = av.AudioResampler(format=stream.format, layout="mono", rate=rate, frame_size=stream.frame_size)
        for piece in [*resampler.resample(frame), *resampler.resample(None)]:
            out.mux(stream.encode(piece))
        out.mux(stream.encode(None))
    return file.getvalue()


def write_clips(folder: Path, count: int, seconds=lambda i: 0.3 + 0.05 * i) -> list[dict]:
    """`count` tones as WAV files in the folder, and their rows: file_name, text, duration."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for i in range(count):
        name = f"clip{i:03d}.wav"
        (folder / name).write_bytes(wav_bytes(sine(seconds(i))))
        rows.append({"file_name": name, "text": WORDS[i % 10], "duration": round(seconds(i), 3)})
    return rows


def write_csv(file: Path, rows: list[dict], delimiter: str = ",") -> Path:
    with open(file, "w", newline="", encoding="utf-8") as out:
        writer = csv.DictWriter(out, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
    return file


def write_jsonl(file: Path, rows: list[dict]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def write_audiofolder(root: Path, splits: dict[str, int]) -> Path:
    for split, count in splits.items():
        write_csv(root / split / "metadata.csv", write_clips(root / split, count))
    return root


def parquet_rows(count: int, seconds=lambda i: 0.3 + 0.05 * i) -> list[dict]:
    """Rows with audio as encoded bytes, as Parquet datasets hold them."""
    return [
        {
            "audio": {"bytes": wav_bytes(sine(seconds(i))), "path": f"{i}.wav"},
            "text": WORDS[i % 10],
            "duration": round(seconds(i), 3),
            "speaker": f"s{i % 3}",
        }
        for i in range(count)
    ]


def write_parquet(file: Path, rows: list[dict]) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), file)
    return file
