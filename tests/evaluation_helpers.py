"""What the tests of evaluation share: a corpus of noisy tones, and runs over it."""

import json
import wave
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tiny_audio.evaluation.results import read_results
from tiny_audio.evaluation.settings import EvalSettings

WORDS = "zero one two three four five six seven eight nine".split()
RATE = 16_000  # Hz


def write_corpus(folder: Path, lengths: Sequence[float]) -> Path:
    """A manifest of clips of these lengths in seconds, called clip-000 and so on."""
    rng = np.random.default_rng(0)
    rows = []
    for number, seconds in enumerate(lengths):
        noise = rng.standard_normal(round(seconds * RATE)) * rng.uniform(0.01, 0.3)
        write_wav(folder / f"{number:03d}.wav", np.sin(np.cumsum(rng.uniform(0.05, 0.9) + noise)) * 0.3 + noise)
        text = " ".join(rng.choice(WORDS, 3))
        rows.append({"audio": f"{number:03d}.wav", "text": text, "id": f"clip-{number:03d}"})
    return write_manifest(folder / "test.jsonl", rows)


def write_wav(path: Path, waveform: np.ndarray) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes((np.clip(waveform, -1, 1) * 32767).astype("<i2").tobytes())


def write_manifest(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def settings_for(model: Path | str, dataset: Path | str, folder: Path, **options) -> EvalSettings:
    return EvalSettings(model=str(model), dataset=str(dataset), output_dir=folder, device="cpu", **options)


def texts_of(folder: Path) -> dict[str, str | None]:
    return {result.id: result.prediction for result in read_results(folder)}
