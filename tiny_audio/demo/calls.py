"""What the page can ask for: the state of the demo, text of an upload, text so far, a recording from an address."""

import shutil
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

from tiny_audio import console
from tiny_audio.assets import embedded
from tiny_audio.demo.address import download
from tiny_audio.demo.listener import Listener, differences
from tiny_audio.demo.live import LiveText
from tiny_audio.demo.settings import KNOBS, Settings, generation_of
from tiny_audio.errors import TinyAudioError

HINTS = {"nano": "nano is a miniature: it knows numbers, dates, times, playing cards and short commands."}
BEAT_SECONDS = 1.0  # between two looks whether a visitor is still there
KEPT_SECONDS = 3600  # an upload whose transcription was never asked for


class Demo:
    """What the page can ask for; each call belongs to one visitor and keeps nothing on the demo itself."""

    def __init__(self, models: Sequence[str], settings: Settings, folder: Path):
        self.settings, self.folder = settings, folder
        self.listeners = [Listener(name, settings.device, settings.dtype) for name in models]
        self._workers = ThreadPoolExecutor(thread_name_prefix="hear")
        self.live_text = LiveText(self.listeners[0], settings.queue, 60 * settings.max_minutes)

    def load(self) -> None:
        """Loads the models one after the other; run in a thread of its own."""
        for listener in self.listeners:
            listener.load()
            status = listener.status()
            console.say(status["error"] or f"{listener.name} is loaded, after {status['seconds']:.1f} s.")

    def close(self) -> None:
        """Stops what is being heard: a thread that is inside torch when Python ends aborts the process."""
        for listener in self.listeners:
            listener.close()

    def about(self) -> dict:
        """The models and how far they are, the settings of decoding with their bounds, the limits, the examples."""
        return {
            "models": [listener.status() for listener in self.listeners],
            "knobs": [vars(knob) for knob in KNOBS],
            "max_minutes": self.settings.max_minutes,
            "max_upload_mb": self.settings.max_upload_mb,
            "urls": self.settings.urls,
            "hint": HINTS.get(self.listeners[0].name),
            "examples": [path.name for path in sorted(embedded("clips").glob("*.ogg"))],
        }

    def transcribe(self, path: str, name: str, generation: dict) -> Iterator[dict]:
        """Events of an uploaded recording: `sound`, a `result` for each model, `differences` of two; or `error`; and empty ones.

        `name` is what its documents call it. The upload is deleted.
        """
        from tiny_audio.demo.sound import outline  # with torch, which the page need not wait for

        try:
            waveform = self._taken(path)
            settings = generation_of(generation)
            yield {"sound": outline(waveform)}
            results = []
            for listener in self.listeners:
                heard = yield from self._heard(partial(listener.hear, name, waveform, settings))
                results.append(heard | {"model": listener.name})
                yield {"result": results[-1]}
            if len(results) == 2 and not any("error" in result for result in results):
                yield {"differences": differences(results[0]["words"], results[1]["words"])}
        except Exception as error:  # noqa: BLE001 - becomes one line on the page
            yield _failure(error)

    def _heard(self, hear: Callable[[threading.Event], dict]) -> Generator[dict, None, dict]:
        """Empty events while a model hears: at each, Gradio closes the call of a visitor who has gone. Returns the answer."""
        gone = threading.Event()
        answer = self._workers.submit(_answer, partial(hear, gone))
        try:
            while not wait([answer], BEAT_SECONDS).done:
                yield {}
        finally:
            gone.set()
        return answer.result()

    def live(self, recording: str, chunk: str, generation: dict) -> dict:
        """Adds sound to a recording that goes on; its `text` so far, None where it only comes at the end."""
        return _answer(lambda: {"text": self.live_text.add(recording, chunk, generation_of(generation))})

    def end_live(self, recording: str) -> dict:
        """Forgets the live text of a recording."""
        self.live_text.end(recording)
        return {}

    def fetch(self, url: str) -> dict:
        """Brings a recording from an address among the uploads: its `path`."""
        return _answer(lambda: {"path": str(self._fetched(url))})

    def _fetched(self, url: str) -> Path:
        from tiny_audio.demo.sound import require_audio

        if not self.settings.urls:
            raise TinyAudioError("Addresses are switched off here (--urls of `ta demo`); upload the recording.")
        content = download(url, self.settings.max_bytes)
        require_audio(content)  # nothing else is handed on
        name = Path(urlsplit(url).path).name.strip(".")
        file = Path(tempfile.mkdtemp(dir=self.folder)) / (name[-100:] or "recording")
        file.write_bytes(content)
        return file

    def _taken(self, path: str) -> np.ndarray:
        """The waveform of an upload, which is deleted, as are those that were left behind."""
        from tiny_audio.demo.sound import read

        file = Path(path).resolve()
        if not (file.is_relative_to(self.folder) and file.is_file()):
            raise TinyAudioError("That recording is not here any more; choose it again.")
        try:
            return read(file, self.settings.max_minutes)
        finally:
            file.unlink(missing_ok=True)
            self._sweep()

    def _sweep(self) -> None:
        for folder in self.folder.iterdir():
            with suppress(OSError):
                if folder.stat().st_mtime < time.time() - KEPT_SECONDS:
                    shutil.rmtree(folder, ignore_errors=True)


def _answer(work: Callable[[], dict]) -> dict:
    try:
        return work()
    except Exception as error:  # noqa: BLE001 - becomes one line on the page
        return _failure(error)


def _failure(error: Exception) -> dict:
    """`error`, one line for the visitor; what is a bug goes to the log with its traceback."""
    if isinstance(error, TinyAudioError | ValueError | OSError):
        return {"error": " ".join(str(error).split())}
    traceback.print_exception(error, file=sys.stderr)
    return {"error": f"The recording could not be transcribed ({type(error).__name__}); the server's log says more."}
