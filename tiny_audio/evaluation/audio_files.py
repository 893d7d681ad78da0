"""Clips as files: WAV bytes for services, and copies in the results folder for those who listen to errors."""

import hashlib
import io
import re
import wave
from dataclasses import replace
from pathlib import Path

import numpy as np

from tiny_audio.audio.reading import SAMPLING_RATE
from tiny_audio.evaluation.clips import LoadedClip
from tiny_audio.evaluation.results import write_atomically

FOLDER = "audio"  # in the results folder


def wav_bytes(waveform: np.ndarray) -> bytes:
    """A 16-bit PCM WAV file of float32 (samples,) at 16 kHz; what lies beyond ±1 is clipped."""
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(SAMPLING_RATE)
        out.writeframes((np.clip(waveform, -1.0, 1.0) * 32767).round().astype("<i2").tobytes())
    return file.getvalue()


def keep(loaded: LoadedClip, results: Path) -> LoadedClip:
    """Write a readable clip to `audio/ID.wav` of a results folder; the clip then names that file."""
    if loaded.waveform is None:
        return loaded
    name = f"{FOLDER}/{_file_name(loaded.clip.id)}.wav"
    (results / FOLDER).mkdir(exist_ok=True)
    write_atomically(results / name, wav_bytes(loaded.waveform))
    return replace(loaded, clip=replace(loaded.clip, audio=name))


def _file_name(clip_id: str) -> str:
    """The id where it is a plain file name, else what can be read of it and a hash that keeps it apart from others."""
    plain = re.sub(r"[^\w.-]", "_", clip_id)[:80]
    digest = hashlib.sha256(clip_id.encode("utf-8", "backslashreplace")).hexdigest()[:8]
    return plain if plain == clip_id and not plain.startswith(".") else f"{plain.lstrip('.')}-{digest}"
