"""The demo's server: a page of our own on Gradio's queue, uploads and logins; it ends with nothing left behind."""

import os
import signal
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tiny_audio import console
from tiny_audio.assets import embedded
from tiny_audio.demo.calls import Demo
from tiny_audio.demo.settings import Settings
from tiny_audio.errors import TinyAudioError, require_extra
from tiny_audio.model_source import ModelSource
from tiny_audio.transcription import quiet_decoding

PAGE = Path(__file__).parent / "page"
POLICY = "default-src 'self'; media-src 'self' blob:; img-src 'self' data:; object-src 'none'; base-uri 'none'"


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
            quiet_decoding()
            _listen(server, settings)
            threading.Thread(target=demo.load, daemon=True).start()
            threading.Event().wait()
        except KeyboardInterrupt:
            console.say("The demo has ended.")
        finally:
            demo.close()
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
