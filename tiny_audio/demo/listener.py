"""A model of the demo: it loads in the background, and hears one recording at a time."""

import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tiny_audio.errors import TinyAudioError
from tiny_audio.transcription import AudioFile, Transcript, as_json, load_model, render, transcribe_files

if TYPE_CHECKING:
    from tiny_audio.model.modeling import ASRModel

ENDED = "The demo has ended, or nobody waits for this recording any more."
FORMATS = ("txt", "srt", "vtt", "json")


class Listener:
    """One model; visitors may come before it is loaded, and wait."""

    def __init__(self, name: str, device: str = "auto", dtype: str = "auto"):
        self.name = "/".join(Path(name).parts[-2:])  # of a folder its end: visitors need not know where it lies
        self.lock = threading.Lock()  # who holds it decodes
        self._load_arguments = (name, device, dtype)
        self._model: ASRModel | None = None
        self._error: str | None = None
        self._loaded = threading.Event()
        self._started = time.monotonic()
        self._closed = threading.Event()

    def load(self) -> None:
        """Loads the model; what goes wrong is told to those who wait for it."""
        self._started = time.monotonic()
        try:
            self._model = load_model(*self._load_arguments)
        except Exception as error:  # noqa: BLE001 - whatever it is, visitors are to see it
            self._error = f"The model {self.name} cannot be loaded: {' '.join(str(error).split())}"
        self._loaded.set()

    @property
    def model(self) -> "ASRModel":
        """The model, as soon as it is loaded. TinyAudioError: it cannot be."""
        self._loaded.wait()
        if self._model is None:
            raise TinyAudioError(str(self._error))
        return self._model

    @property
    def ready(self) -> bool:
        """Whether `model` answers at once, with a model."""
        return self._model is not None and not self._closed.is_set()

    def close(self) -> None:
        """Stops what is being heard, turns away who waits, and returns when nothing decodes any more."""
        self._error = self._error or ENDED
        self._closed.set()
        self._loaded.set()
        with self.lock:
            pass

    def status(self) -> dict[str, Any]:
        """`name`, `state` (loading, ready or failed), `seconds` since loading began, `error`, and `defaults` of decoding."""
        state = "ready" if self.ready else "failed" if self._error else "loading"
        seconds = round(time.monotonic() - self._started, 1)
        defaults = self._model.config.generation_defaults() if self._model else {}
        return {"name": self.name, "state": state, "seconds": seconds, "error": self._error, "defaults": defaults}

    def hear(
        self, name: str, waveform: np.ndarray, generation: dict[str, Any], gone: threading.Event | None = None
    ) -> dict[str, Any]:
        """A recording (samples,) at 16 kHz as `model`, `text`, `words`, `note`, `seconds`, and `documents` by format.

        Words are `text` and, where the model has a CTC head, `start` and `end` (seconds) and `confidence`.
        TinyAudioError: `gone` was set, or the listener closed; the next token notices.
        """
        model = self.model

        def stop(*_: Any, **__: Any) -> bool:  # a stopping criterion of `generate`, asked after each token
            if self._closed.is_set() or (gone is not None and gone.is_set()):
                raise TinyAudioError(ENDED)
            return False

        timed = model.ctc_head is not None
        file = AudioFile(name, {"array": waveform}, Path(name))
        with self.lock:
            stop()
            began = time.perf_counter()
            timestamps = "phrase" if timed else None
            (transcript,) = transcribe_files(model, [file], 8, timestamps, stopping_criteria=[stop], **generation)
        if transcript.error is not None:
            raise TinyAudioError(transcript.error)
        return {
            "model": self.name,
            "text": transcript.text,
            "words": _words(transcript),
            "note": None if timed else "This checkpoint has no CTC head, which word times need (docs/word-times.md).",
            "seconds": round(time.perf_counter() - began, 2),
            "documents": _documents(transcript),
        }


def _words(transcript: Transcript) -> list[dict[str, Any]]:
    segments = as_json(transcript)["segments"]
    untimed = [{"text": word} for segment in segments for word in segment["text"].split()]
    return [word for segment in segments for word in segment.get("words", [])] or untimed


def _documents(transcript: Transcript) -> dict[str, str]:
    """What can be downloaded; `txt` is the text alone, without the times of phrases."""
    plain = replace(transcript, segments=[replace(segment, words=[]) for segment in transcript.segments])
    return {format: render(plain if format == "txt" else transcript, format) for format in FORMATS}


def differences(first: list[dict[str, Any]], second: list[dict[str, Any]]) -> tuple[list[int], list[int]]:
    """Which words of each text the other has not in that place, as indices; case and punctuation aside."""
    from difflib import SequenceMatcher

    sides = [["".join(filter(str.isalnum, word["text"].casefold())) for word in words] for words in (first, second)]
    steps = [
        step for step in SequenceMatcher(a=sides[0], b=sides[1], autojunk=False).get_opcodes() if step[0] != "equal"
    ]
    return [n for _, a, b, *_ in steps for n in range(a, b)], [n for *_, a, b in steps for n in range(a, b)]
