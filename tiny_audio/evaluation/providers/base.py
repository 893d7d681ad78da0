"""The one face of all providers: a batch of clips in, for each a hypothesis with its timings out."""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np


@dataclass(frozen=True)
class TimedWord:
    """A word with its seconds in the clip and, where somebody told speakers apart, who said it."""

    text: str
    start: float  # seconds
    end: float  # seconds
    speaker: str | None = None


@dataclass(frozen=True)
class Hypothesis:
    """What was heard in one clip; with an `error` it was not decoded, and is never scored."""

    text: str = ""
    words: list[TimedWord] | None = None  # None where the provider gives no times
    latency: float | None = None  # seconds from asking to the whole text; None: those of the whole batch
    first_token: float | None = None  # seconds to the first piece of text, where it comes in pieces
    error: str | None = None


class Provider(Protocol):
    """Turns audio into text; built from the settings and, but for a service, from where the model is."""

    device: str  # "cpu", "cuda", … or the name of the service
    decoding: dict[str, Any]  # the settings that shape the texts, for metrics.json

    def transcribe(self, batch: list[np.ndarray]) -> list[Hypothesis]:
        """One hypothesis for each clip: float32 (samples,) at 16 kHz, of any length. Returns when all are there.

        What goes wrong with a single clip is its `error`. An exception is taken for one of the whole batch, whose clips
        are then tried one by one. TinyAudioError ends the evaluation: what no other clip would change, as a wrong key.
        """
        ...
