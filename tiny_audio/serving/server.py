"""The server's process: socket, model by its name, and an end without broken answers."""

import signal
import socket
import sys
from types import FrameType

import uvicorn

from tiny_audio import console
from tiny_audio.errors import TinyAudioError
from tiny_audio.export.handler import EndpointHandler
from tiny_audio.model_source import ModelSource
from tiny_audio.serving.app import SpeechApp
from tiny_audio.transcription import load_model, quiet_decoding

GRACE_SECONDS = 30  # for the requests that are under way at SIGTERM


def serve(
    model: str = "nano",
    host: str = "127.0.0.1",
    port: int = 8000,
    *,
    device: str = "auto",
    dtype: str = "auto",
    max_upload_mb: float = 100,
    max_minutes: float = 60,
    queue: int = 16,
) -> None:
    """Serves a model until SIGTERM or Ctrl-C; what is under way is answered first.

    Args:
        model: nano, a checkpoint's folder or a Hub id; device and dtype as `load_model`.
        port: 0 for a free one.
        max_upload_mb, max_minutes: of a request's audio.
        queue: requests taken at a time.

    Raises:
        TinyAudioError: the address is not free, or the model cannot be loaded.
    """
    ModelSource.of(model)  # a misspelt name fails here and now

    def load() -> EndpointHandler:
        from tiny_audio.model.pipeline import ASRPipeline

        recogniser = ASRPipeline(model=load_model(model, device, dtype))
        return EndpointHandler(recogniser=recogniser, max_upload_mb=max_upload_mb, max_minutes=max_minutes)

    def ended() -> None:
        if app.failure is None:
            console.say(f"The model {model} is ready.")
        else:
            server.should_exit = True

    app = SpeechApp(model, load, max_upload_mb, queue, ended)
    config = uvicorn.Config(
        app.asgi, log_level="warning", access_log=False, timeout_graceful_shutdown=GRACE_SECONDS, ws="none"
    )
    server = uvicorn.Server(config)
    listening = listen(host, port)
    quiet_decoding()
    console.say(f"Listening on {address(listening)}; the model {model} is loading.")
    signal.signal(signal.SIGTERM, leave)  # uvicorn has its own while it runs, and then repeats the signal
    server.run([listening])
    if app.failure is not None:
        raise app.failure


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. TinyAudioError: the address is not to be had."""
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except (OSError, OverflowError) as error:
        reason = str(getattr(error, "strerror", None) or error).partition(" (while")[0]  # which repeats the address
        raise TinyAudioError(
            f"{host}:{port} cannot be listened on ({reason}); choose another --host or --port."
        ) from error


def address(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def leave(_: int, __: FrameType | None) -> None:
    sys.exit(0)
