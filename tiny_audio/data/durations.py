"""How long clips are, read from the files' headers in parallel, without decoding them."""

import io
import math
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

SAMPLING_RATE = 16_000  # Hz


def probe_durations(sources: Iterable[Callable[[], Any]], threads: int | None = None) -> np.ndarray:
    """Durations of audio cells.

    Args:
        sources: functions that return the audio cell (path, bytes or dict), called in the threads.

    Returns:
        float32 (clips,) seconds, NaN where the audio cannot be read.
    """
    with ThreadPoolExecutor(threads or min(16, 4 * (os.cpu_count() or 1))) as pool:
        return np.array(list(pool.map(_probe, sources)), dtype=np.float32)


def _probe(source: Callable[[], Any]) -> float:
    try:
        return probe_duration(source())
    except (ValueError, OSError):
        return math.nan


def probe_duration(audio: Any) -> float:
    """Seconds of one audio cell from its header, or by decoding where the header does not say; NaN if unreadable."""
    return probe_header(audio)[0]


def probe_header(audio: Any) -> tuple[float, int | None]:
    """Seconds, as `probe_duration`, and the sampling rate in Hz; NaN and None if unreadable."""
    import av

    try:
        return _header(audio)
    except (ValueError, OSError, TypeError, av.error.FFmpegError):
        return math.nan, None


def _header(audio: Any) -> tuple[float, int | None]:
    import av

    if isinstance(audio, dict) and audio.get("array") is not None:
        rate = audio.get("sampling_rate") or SAMPLING_RATE
        return len(audio["array"]) / rate, rate
    if isinstance(audio, dict):
        audio = audio.get("bytes") or audio.get("path")
    file = io.BytesIO(audio) if isinstance(audio, bytes) else os.fspath(audio)
    with av.open(file, mode="r", metadata_errors="ignore") as container:
        if not container.streams.audio:
            return math.nan, None
        stream = container.streams.audio[0]
        if stream.duration and stream.time_base:
            return float(stream.duration * stream.time_base), stream.rate
        if container.duration:
            return container.duration / av.time_base, stream.rate
        rate = stream.rate
    return _decoded_seconds(audio), rate


def _decoded_seconds(audio: Any) -> float:
    from tiny_audio.audio.reading import stream_audio

    return sum(len(block) for block in stream_audio(audio)) / SAMPLING_RATE
