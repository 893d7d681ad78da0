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
        return self._model is not None

    def status(self) -> dict[str, Any]:
        """`name`, `state` (loading, ready or failed), `seconds` since loading began, `error`, and `defaults` of decoding."""
        state = "ready" if self.ready else "failed" if self._error else "loading"
        seconds = round(time.monotonic() - self._started, 1)
        defaults = self._model.config.generation_defaults() if self._model else {}
        return {"name": self.name, "state": state, "seconds": seconds, "error": self._error, "defaults": defaults}

    def hear(self, name: str, waveform: np.ndarray, generation: dict[str, Any]) -> dict[str, Any]:
        """A recording (samples,) at 16 kHz as `model`, `text`, `words`, `note`, `seconds`, and `documents` by format.

        Words are `text` and, where the model has a CTC head, `start` and `end` (seconds) and `confidence`.
        """
        model = self.model
        timed = model.ctc_head is not None
        file = AudioFile(name, {"array": waveform}, Path(name))
        with self.lock:
            began = time.perf_counter()
            (transcript,) = transcribe_files(model, [file], timestamps="phrase" if timed else None, **generation)
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
