"""The demo: a page in the browser that hears the microphone and files; the same app here and in a Space."""

from typing import Any


def launch(model: str = "nano", second: str | None = None, **settings: Any) -> None:
    """Serves the demo until it is interrupted; what `ta demo` and a Space's app.py call.

    Args:
        model: nano, a checkpoint's or run's folder, or a Hub id.
        second: another one, whose text stands beside the first one's.
        settings: the fields of `Settings` (tiny_audio/demo/settings.py) by name.

    Raises:
        TinyAudioError: Gradio is not installed, no such model, a setting out of range, the port is taken.
    """
    from tiny_audio.demo.server import serve
    from tiny_audio.demo.settings import Settings

    serve([model] if second is None else [model, second], Settings(**settings))
