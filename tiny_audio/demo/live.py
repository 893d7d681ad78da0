"""Text while a visitor still speaks: the sound that came so far, decoded again as it grows."""

import base64
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from tiny_audio.demo.listener import Listener

if TYPE_CHECKING:
    from tiny_audio.model.modeling import ASRModel

RATE = 16_000  # Hz, which the page records at (page/recorder.js)
IDLE_SECONDS = 30.0  # after which a recording that nothing was added to is forgotten


@dataclass
class Recording:
    """One visitor's microphone: the text of the windows that are full, and the samples of the one that grows."""

    held: list[np.ndarray] = field(default_factory=list)  # int16
    settled: list[str] = field(default_factory=list)
    text: str = ""
    touched: float = field(default_factory=time.monotonic)

    def decode(self, model: "ASRModel", generation: dict[str, Any]) -> None:
        """Brings the text up to date; only the last window is decoded again the next time."""
        samples = np.concatenate(self.held)
        windows = list(model.windows(samples))
        texts = [text for text, _ in model.decode(windows, generation)]
        self.settled += texts[:-1]
        self.held = [samples[windows[-1].start :]]
        self.text = " ".join(filter(None, [*self.settled, texts[-1]]))


class LiveText:
    """The recordings that are going on. A model that is busy leaves the text as it was: nothing ever queues."""

    def __init__(self, listener: Listener, limit: int, max_seconds: float):
        self.listener, self.limit, self.max_seconds = listener, limit, max_seconds
        self._recordings: dict[str, Recording] = {}

    def add(self, name: str, chunk: str, generation: dict[str, Any]) -> str | None:
        """The text so far of the recording `name`, to which a chunk (base64 of int16 at 16 kHz) is added.

        None: more than `limit` record at this time, or it is too long; its text comes at its end.
        """
        recording = self._recording(name)
        if recording is None:
            return None
        recording.touched = time.monotonic()
        samples = np.frombuffer(base64.b64decode(chunk, validate=True), "<i2")
        if len(samples):
            recording.held.append(samples)
        if sum(map(len, recording.held)) > self.max_seconds * RATE:
            self._recordings.pop(name, None)
            return None
        if recording.held and self.listener.ready and self.listener.lock.acquire(blocking=False):
            try:
                recording.decode(self.listener.model, generation)
            finally:
                self.listener.lock.release()
        return recording.text

    def end(self, name: str) -> None:
        """Forgets a recording."""
        self._recordings.pop(name, None)

    def _recording(self, name: str) -> Recording | None:
        stale = time.monotonic() - IDLE_SECONDS
        for each, recording in list(self._recordings.items()):
            if recording.touched < stale:
                self._recordings.pop(each, None)
        if name not in self._recordings and len(self._recordings) >= self.limit:
            return None
        return self._recordings.setdefault(name, Recording())
