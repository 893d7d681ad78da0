"""An uploaded recording: its waveform, no longer than is taken, and the outline of it that the page draws."""

import base64
from pathlib import Path

import numpy as np

from tiny_audio.audio.reading import SAMPLING_RATE, stream_audio
from tiny_audio.errors import TinyAudioError

PEAKS_A_SECOND = 50  # of the outline


def require_audio(content: bytes) -> None:
    """ValueError: the bytes are no audio file."""
    next(stream_audio(content))


def read(file: Path, max_minutes: float) -> np.ndarray:
    """A file as (samples,) at 16 kHz; nothing is decoded beyond the limit.

    Raises:
        TinyAudioError: it is longer. ValueError: not audio, or empty.
    """
    blocks, samples = [], 0
    for block in stream_audio(file.read_bytes()):  # whose errors name no folder
        blocks.append(block)
        samples += len(block)
        if samples > max_minutes * 60 * SAMPLING_RATE:
            limit = f"{max_minutes:g} minutes, the longest taken here"
            raise TinyAudioError(f"The recording is longer than {limit}; cut it.")
    return np.concatenate(blocks)


def outline(waveform: np.ndarray) -> dict[str, float | str]:
    """`seconds`, and `peaks`: the loudest sample of each 20 ms, base64 of a byte each, 255 for the loudest of all."""
    size = SAMPLING_RATE // PEAKS_A_SECOND
    loudest = np.pad(np.abs(waveform), (0, -len(waveform) % size)).reshape(-1, size).max(1)
    scaled = (255 * loudest / max(float(loudest.max()), 1e-4)).astype(np.uint8)
    return {"seconds": len(waveform) / SAMPLING_RATE, "peaks": base64.b64encode(scaled.tobytes()).decode()}
