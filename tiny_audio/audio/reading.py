"""Audio in: any file, URL, bytes or array becomes a 16 kHz mono float32 waveform."""

import io
import math
import os
import urllib.request
from collections.abc import Iterable, Iterator
from itertools import chain
from numbers import Real
from typing import Any, BinaryIO

import numpy as np
import torch

try:
    import av
except ImportError:  # an exported checkpoint works without PyAV, through soundfile
    av = None  # type: ignore[assignment]

SAMPLING_RATE = 16_000  # Hz, the rate of every encoder here
# Containers that hold their audio themselves: a playlist or session file (concat, hls, sdp) would name others to open.
CONTAINERS = (
    "aac,ac3,aiff,amr,ape,asf,au,avi,caf,dts,eac3,flac,flv,gsm,matroska,mov,mp3,mpeg,mpegts,nistsphere,ogg,sox,tta,voc,"
    "w64,wav,webm,wv"
)
AudioSource = Any  # path | URL | bytes | binary file | {"array", "sampling_rate"} | array of 16 kHz samples


def load_audio(source: AudioSource, sampling_rate: int | None = None) -> np.ndarray:
    """Read audio of any common form as one 16 kHz mono waveform, float32 (samples,).

    Args:
        source: path, http(s) URL, encoded bytes, binary file object, `{"array", "sampling_rate"}`, or a bare array,
            which is taken as 16 kHz unless `sampling_rate` (Hz) says otherwise. Arrays are (samples,), (samples,
            channels) or (channels, samples); the longer axis is time, channels are averaged.

    Raises:
        ValueError: not audio, no samples, NaN or infinite samples. OSError: missing or unreadable file or URL.
    """
    blocks = list(stream_audio(source, sampling_rate))
    return blocks[0] if len(blocks) == 1 else np.concatenate(blocks)


def stream_audio(
    source: AudioSource, sampling_rate: int | None = None, block_seconds: float = 30.0
) -> Iterator[np.ndarray]:
    """Like `load_audio`, a block of `block_seconds` at a time: memory stays bounded however long the audio is."""
    name, empty = _name(source), True
    for block in _blocks(_read(source, sampling_rate), int(block_seconds * SAMPLING_RATE)):
        if not np.isfinite(block).all():
            raise ValueError(f"{name} holds NaN or infinite samples; audio must be finite. Re-export the file.")
        empty = False
        yield block
    if empty:
        raise ValueError(f"{name} holds no audio samples; expected speech. Check how the file was written.")


def is_batch(audio) -> bool:
    """Whether `audio` is a list of clips; a list of numbers is one clip."""
    return isinstance(audio, (list, tuple)) and not (len(audio) > 0 and isinstance(audio[0], Real))


def _blocks(pieces: Iterable[np.ndarray], size: int) -> Iterator[np.ndarray]:
    """The pieces cut anew, `size` samples each but the last."""
    held: list[np.ndarray] = []
    count = 0
    for piece in pieces:
        held.append(piece)
        count += len(piece)
        while count >= size:
            joined = held[0] if len(held) == 1 else np.concatenate(held)
            yield joined[:size]
            held, count = [joined[size:]], count - size
    if count:
        yield np.concatenate(held)


def _read(source: AudioSource, sampling_rate: int | None) -> Iterator[np.ndarray]:
    if isinstance(source, dict):
        array, sampling_rate = source.get("array", source.get("raw")), source.get("sampling_rate", sampling_rate)
        source = array if array is not None else source.get("bytes") or source.get("path")
    if isinstance(source, (np.ndarray, torch.Tensor, list, tuple)):
        yield _resample(_mono(source), sampling_rate or SAMPLING_RATE)
        return
    with _open(source) as file:
        yield from (_decode if av is not None else _decode_without_av)(file, _name(source))


def _mono(source) -> np.ndarray:
    array = source.detach().cpu().numpy() if isinstance(source, torch.Tensor) else np.asarray(source)
    if np.issubdtype(array.dtype, np.integer):
        array = array / np.float32(np.iinfo(array.dtype).max)
    array = array.astype(np.float32, copy=False)
    if array.ndim == 2:
        array = array.mean(axis=int(np.argmin(array.shape)))
    if array.ndim != 1:
        raise ValueError(f"The array has the shape {array.shape}; expected (samples,) or (samples, channels).")
    return array


def _resample(array: np.ndarray, sampling_rate: int) -> np.ndarray:
    if sampling_rate == SAMPLING_RATE or array.size == 0:
        return array
    if sampling_rate <= 0:
        raise ValueError(f"The sampling rate is {sampling_rate} Hz; expected a positive number.")
    if av is None:  # band-limited by the transform itself: a clip is short enough for one
        spectrum = np.fft.rfft(array)
        samples = math.ceil(len(array) * SAMPLING_RATE / sampling_rate)
        return np.fft.irfft(spectrum[: samples // 2 + 1], samples).astype(np.float32) * (samples / len(array))
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(array[None]), format="fltp", layout="mono")
    frame.sample_rate = sampling_rate
    resampler = av.AudioResampler(format="fltp", layout="mono", rate=SAMPLING_RATE)
    parts = [out.to_ndarray()[0] for part in (frame, None) for out in resampler.resample(part)]
    return np.concatenate([array[:0], *parts])  # of very few samples none is left


def _decode(file: BinaryIO, name: str) -> Iterator[np.ndarray]:
    # Channels kept: its own mix of 5.1 clips. Packed: PyAV reads beyond the planes of 8 channels or more.
    resampler = av.AudioResampler(format="flt", rate=SAMPLING_RATE)
    try:
        with av.open(file, metadata_errors="ignore", options={"format_whitelist": CONTAINERS}) as container:
            if not container.streams.audio:
                raise ValueError(f"{name} has no audio track; expected an audio file.")
            for frame in chain(container.decode(container.streams.audio[0]), [None]):  # type: ignore[union-attr]
                for out in resampler.resample(frame):
                    samples = out.to_ndarray().reshape(-1, out.layout.nb_channels)
                    yield samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1)
    except (av.error.FFmpegError, IndexError) as error:  # PyAV's IndexError: a stream that begins in mid-file
        reason = getattr(error, "strerror", None) or "it changes in mid-file"
        expected = "expected WAV, FLAC, MP3, Ogg, M4A…."
        raise ValueError(f"{name} is not readable audio ({reason}); {expected}") from error


def _decode_without_av(file: BinaryIO, name: str) -> Iterator[np.ndarray]:
    try:
        import soundfile
    except ImportError as error:
        raise ValueError(f"{name} cannot be decoded here; install a reader: pip install av.") from error
    try:
        array, rate = soundfile.read(io.BytesIO(file.read()), dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise ValueError(f"{name} is not readable audio ({error}); expected WAV, FLAC, MP3 or Ogg.") from error
    yield _resample(array.mean(axis=1), rate)


def _open(source) -> BinaryIO:
    if hasattr(source, "read"):
        return source
    if isinstance(source, (bytes, bytearray, memoryview)):
        if not source:
            raise ValueError("The audio is empty (0 bytes); expected an encoded audio file.")
        return io.BytesIO(source)
    if not isinstance(source, (str, os.PathLike)):
        kind = type(source).__name__
        raise ValueError(f"Audio was given as {kind}; expected a path, URL, bytes, file, array or dict.")  # noqa: TRY004
    path = os.fspath(source)
    if path.startswith(("http://", "https://")):
        return io.BytesIO(urllib.request.urlopen(path, timeout=60).read())
    if os.path.isdir(path):
        raise IsADirectoryError(f"{path} is a folder; expected an audio file.")
    if not os.path.exists(path):
        raise FileNotFoundError(f"{path} does not exist; expected an audio file.")
    if os.path.getsize(path) == 0:
        raise ValueError(f"{path} is empty (0 bytes); expected an audio file.")
    try:
        return open(path, "rb")
    except PermissionError as error:
        raise PermissionError(f"{path} may not be read; give yourself read permission.") from error


def _name(source) -> str:
    if isinstance(source, dict):
        return source.get("path") or "The audio"
    return os.fspath(source) if isinstance(source, (str, os.PathLike)) else "The audio"
