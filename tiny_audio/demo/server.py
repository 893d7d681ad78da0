"""The demo's server: Gradio's queue, uploads and logins behind a page of our own; no file outlives its transcription."""

import base64
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from tiny_audio import console
from tiny_audio.assets import embedded
from tiny_audio.audio.reading import SAMPLING_RATE, stream_audio
from tiny_audio.demo.address import download
from tiny_audio.demo.listener import Listener, differences
from tiny_audio.demo.live import LiveText
from tiny_audio.demo.settings import KNOBS, Settings, generation_of
from tiny_audio.errors import TinyAudioError, require_extra
from tiny_audio.model_source import ModelSource

PAGE = Path(__file__).parent / "page"
POLICY = "default-src 'self'; media-src 'self' blob:; img-src 'self' data:; object-src 'none'; base-uri 'none'"
PEAKS_A_SECOND = 50  # of the waveform that is drawn
HINTS = {"nano": "nano is a miniature: it knows numbers, dates, times, playing cards and short commands."}
KEPT_SECONDS = 3600  # an upload whose transcription was never asked for


class Demo:
    """What the page can ask for; each call belongs to one visitor and keeps nothing on the demo itself."""

    def __init__(self, models: Sequence[str], settings: Settings, folder: Path):
        self.settings, self.folder = settings, folder
        self.listeners = [Listener(name, settings.device, settings.dtype) for name in models]
        self.max_samples = int(settings.max_minutes * 60 * SAMPLING_RATE)
        self.live_text = LiveText(self.listeners[0], settings.queue, self.max_samples)

    def load(self) -> None:
        """Loads the models one after the other; run in a thread of its own."""
        for listener in self.listeners:
            listener.load()
            status = listener.status()
            console.say(status["error"] or f"{listener.name} is loaded, after {status['seconds']:.1f} s.")

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
        """Events of an uploaded recording: `sound`, a `result` for each model, `differences` of two; or `error`.

        `name` is what its documents call it. The upload is deleted.
        """
        try:
            waveform = self._taken(path)
            settings = generation_of(generation)
            yield {"sound": {"seconds": len(waveform) / SAMPLING_RATE, "peaks": peaks(waveform)}}
            results = []
            for listener in self.listeners:
                results.append(_answer(partial(listener.hear, name, waveform, settings)) | {"model": listener.name})
                yield {"result": results[-1]}
            if len(results) == 2 and not any("error" in result for result in results):
                yield {"differences": differences(results[0]["words"], results[1]["words"])}
        except Exception as error:  # noqa: BLE001 - becomes one line on the page
            yield _failure(error)

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
        if not self.settings.urls:
            raise TinyAudioError(
                "Addresses are switched off here; upload the recording, or start the demo with --urls."
            )
        content = download(url, self.settings.max_bytes)
        for _ in stream_audio(content):  # nothing but audio is handed on
            break
        file = Path(tempfile.mkdtemp(dir=self.folder)) / (Path(urlsplit(url).path).name[-100:] or "recording")
        file.write_bytes(content)
        return file

    def _taken(self, path: str) -> np.ndarray:
        """The waveform of an upload, which is deleted, as are those that were left behind."""
        file = Path(path).resolve()
        if not (file.is_relative_to(self.folder) and file.is_file()):
            raise TinyAudioError("That recording is not here any more; choose it again.")
        try:
            return self._read(file)
        finally:
            file.unlink(missing_ok=True)
            self._sweep()

    def _read(self, file: Path) -> np.ndarray:
        blocks, samples = [], 0
        with file.open("rb") as opened:
            for block in stream_audio(opened):
                blocks.append(block)
                samples += len(block)
                if samples > self.max_samples:
                    raise TinyAudioError(
                        f"The recording is longer than {self.settings.max_minutes:g} minutes, the longest taken here; cut it."
                    )
        return np.concatenate(blocks)

    def _sweep(self) -> None:
        for folder in self.folder.iterdir():
            with suppress(OSError):
                if folder.stat().st_mtime < time.time() - KEPT_SECONDS:
                    shutil.rmtree(folder, ignore_errors=True)


def peaks(waveform: np.ndarray) -> str:
    """The loudest sample of each 20 ms, base64 of a byte each, 255 for the loudest of all."""
    size = SAMPLING_RATE // PEAKS_A_SECOND
    padded = np.pad(np.abs(waveform), (0, -len(waveform) % size)).reshape(-1, size).max(1)
    return base64.b64encode((255 * padded / max(float(padded.max()), 1e-4)).astype(np.uint8).tobytes()).decode()


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


def build(demo: Demo) -> Any:
    """The application: the page, its files, the shipped clips, and the calls of `demo` in Gradio's queue."""
    from fastapi.responses import FileResponse
    from fastapi.staticfiles import StaticFiles
    from gradio import Server

    server = Server(title="tiny-audio", docs_url=None, redoc_url=None, openapi_url=None)
    server.uploaded_file_dir = str(demo.folder)
    server.mount("/page", StaticFiles(directory=PAGE))
    server.mount("/clips", StaticFiles(directory=embedded("clips")))

    @server.api_route("/", methods=["GET", "HEAD"])
    def page() -> FileResponse:
        headers = {"Content-Security-Policy": POLICY, "Cache-Control": "no-cache", "Referrer-Policy": "no-referrer"}
        return FileResponse(PAGE / "index.html", headers=headers)

    server.api(demo.transcribe, name="transcribe", concurrency_limit=1)
    server.api(demo.fetch, name="fetch", concurrency_limit=2)
    for work in (demo.about, demo.live, demo.end_live):  # at once: none of them waits for a model
        server.api(work, name=work.__name__, queue=False)
    return server


def serve(models: Sequence[str], settings: Settings) -> None:
    """Runs the demo until Ctrl-C or SIGTERM.

    Raises:
        TinyAudioError: Gradio is not installed, no such model, the port is taken, no share link.
    """
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # read when Gradio is imported
    require_extra("gradio", "demo")
    for name in models:
        ModelSource.of(name)
    with _sigterm_interrupts(), tempfile.TemporaryDirectory(prefix="tiny-audio-demo-") as folder:
        demo = Demo(models, settings, Path(folder).resolve())
        server = build(demo)
        try:
            _listen(server, settings)
            threading.Thread(target=demo.load, daemon=True).start()
            threading.Event().wait()
        except KeyboardInterrupt:
            console.say("The demo has ended.")
        finally:
            if server.blocks is not None and server.blocks.is_running:
                server.blocks.close(verbose=False)


@contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    """What stops a container ends like Ctrl-C, so that the folder of uploads goes too."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def is_open_to_others(settings: Settings) -> bool:
    """Whether a host was chosen that others reach, and no password; a Space, which says its host itself, is meant to be."""
    return settings.auth is None and settings.host not in (None, "127.0.0.1", "localhost", "::1")


def _listen(server: Any, settings: Settings) -> None:
    host, port = settings.address
    if is_open_to_others(settings):
        console.warn(f"Whoever reaches {settings.host} may use the demo; --auth USER:PASSWORD asks for a name.")
    try:
        _, url, public_url = server.launch(
            server_name=host, server_port=port, share=settings.share, auth=settings.auth, inbrowser=settings.open_browser,
            max_file_size=settings.max_bytes, prevent_thread_lock=True, quiet=True, ssr_mode=False, pwa=False,
            run_history=False, enable_monitoring=False, mcp_server=False,
        )  # fmt: skip
    except OSError as error:
        raise TinyAudioError(f"The demo cannot listen on {host}, port {port}; choose another with --port.") from error
    if settings.share and not public_url:
        raise TinyAudioError("No share link could be made; check the network, or leave out --share.")
    server.blocks.api_open = False  # nothing goes past the queue
    server.blocks._queue.max_size = settings.queue  # which launch() has no argument for
    console.say(f"The demo runs at {public_url or url} (Ctrl-C ends it).")
