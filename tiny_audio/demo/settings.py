"""What the demo may be told: by whoever starts it, its address and limits; by a visitor, how to decode."""

import math
import os
from dataclasses import dataclass
from typing import Any

from tiny_audio.errors import TinyAudioError

PORT = 7860


@dataclass(frozen=True)
class Settings:
    """Where the demo listens, who may use it, and how much of it."""

    host: str | None = None  # None: GRADIO_SERVER_NAME, which Spaces set, else 127.0.0.1
    port: int | None = None  # None: GRADIO_SERVER_PORT, else 7860
    share: bool = False  # a public address by Gradio's tunnel
    auth: tuple[str, str] | None = None  # name and password of whoever may use it; None: anybody
    urls: bool = False  # a field for the address of a recording, which this machine then asks for
    max_minutes: float = 10.0  # of a recording or file
    max_upload_mb: float = 50.0
    queue: int = 16  # recordings that may wait for the model, and microphones with live text
    device: str = "auto"
    dtype: str = "auto"  # what the checkpoint says
    open_browser: bool = False

    def __post_init__(self) -> None:
        for name in ("max_minutes", "max_upload_mb", "queue"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise TinyAudioError(f"{name} of the demo is {value}; expected a number above 0.")
        if self.auth is not None and not all(self.auth):
            raise TinyAudioError("The demo's auth lacks a name or a password; expected both, as in USER:PASSWORD.")

    @property
    def address(self) -> tuple[str, int]:
        """Host and port that it listens on."""
        host = self.host or os.environ.get("GRADIO_SERVER_NAME") or "127.0.0.1"
        port = os.environ.get("GRADIO_SERVER_PORT", PORT) if self.port is None else self.port
        return host, int(port)

    @property
    def max_bytes(self) -> int:
        """Of one upload."""
        return int(self.max_upload_mb * 10**6)


@dataclass(frozen=True)
class Knob:
    """A parameter of `generate` that visitors may turn, within bounds that keep one of them from taking the machine."""

    name: str
    label: str
    low: float
    high: float
    step: float
    help: str


KNOBS = (
    Knob("num_beams", "Beams", 1, 8, 1, "More beams look further and take longer; 1 is greedy."),
    Knob("max_new_tokens", "Longest text, tokens", 1, 512, 1, "For each window of at most 30 s."),
    Knob("repetition_penalty", "Repetition penalty", 1, 2, 0.05, "Above 1, what was said is less likely to come again."),
    Knob("no_repeat_ngram_size", "No repeated n-grams of", 0, 10, 1, "0 lets anything come again, as speech does."),
    Knob("length_penalty", "Length penalty", -2, 2, 0.1, "Of beams: above 0 favours long texts."),
)  # fmt: skip


def generation_of(given: dict[str, Any]) -> dict[str, float]:
    """A visitor's settings as arguments of `generate`; what is left out is the checkpoint's.

    Raises:
        TinyAudioError: an unknown name, no number, or one out of bounds.
    """
    knobs = {knob.name: knob for knob in KNOBS}
    values: dict[str, float] = {}
    for name, value in given.items():
        knob = knobs.get(name)
        if knob is None:
            raise TinyAudioError(f"There is no setting {name!r}; expected one of: {', '.join(knobs)}.")
        whole = float(knob.step).is_integer()
        number = not isinstance(value, bool) and isinstance(value, int if whole else int | float)
        if not number or not knob.low <= value <= knob.high:
            kind = "a whole number" if whole else "a number"
            raise TinyAudioError(f"{knob.label} is {value!r}; expected {kind} from {knob.low:g} to {knob.high:g}.")
        values[name] = value if whole else float(value)  # transformers takes no 2 for 2.0
    return values
