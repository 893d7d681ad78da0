"""Long audio into windows: cut where it is quiet, so that no word is lost, halved or doubled at a seam."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

SEARCH_SECONDS = 10.0  # how far back from the end of a full window a quiet place is looked for
QUIET_SECONDS = 0.2  # length over which loudness is averaged: shorter than a pause, longer than a stop consonant
DIGITAL_SILENCE = 1e-4  # peak amplitude (−80 dBFS) below which a window cannot hold speech


@dataclass
class Window:
    """A stretch of one recording: samples (16 kHz, float32) and where it begins, in samples."""

    waveform: np.ndarray
    start: int


def is_silent(waveform: np.ndarray) -> bool:
    """Whether there is no sound at all: a language model would only invent text for it."""
    return float(np.abs(waveform).max(initial=0.0)) < DIGITAL_SILENCE


def split_windows(blocks: Iterable[np.ndarray], max_samples: int, sampling_rate: int = 16_000) -> Iterator[Window]:
    """Cut a stream of blocks into consecutive windows of at most `max_samples`, each cut in a quiet place.

    The windows joined are the input, sample for sample. At most a window and a block are held at a time.
    """
    held, start = np.zeros(0, np.float32), 0
    for block in blocks:
        held = np.concatenate([held, block]) if len(held) else block
        while len(held) > max_samples:
            cut = quietest_cut(held[:max_samples], sampling_rate)
            yield Window(held[:cut], start)
            held, start = held[cut:], start + cut
    if len(held):
        yield Window(held, start)


def quietest_cut(waveform: np.ndarray, sampling_rate: int = 16_000) -> int:
    """The sample in the last `SEARCH_SECONDS` (at most the last half) around which the signal is quietest; latest wins."""
    size = int(QUIET_SECONDS * sampling_rate)
    begin = max(len(waveform) - int(SEARCH_SECONDS * sampling_rate), len(waveform) // 2)
    tail = waveform[begin:].astype(np.float64)
    if len(tail) <= size:
        return len(waveform)
    sums = np.concatenate([[0.0], np.cumsum(tail**2)])
    energy = sums[size:] - sums[:-size]
    return begin + len(energy) - 1 - int(np.argmin(energy[::-1])) + size // 2
