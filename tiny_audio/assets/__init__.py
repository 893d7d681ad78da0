"""What ships inside the package: the model `nano`, the corpus `quickstart`, a few clips, and sizes of named models."""

import json
from pathlib import Path
from typing import Any

from tiny_audio.errors import TinyAudioError

NAMES = ("nano", "quickstart", "clips")


def embedded(name: str) -> Path:
    """The folder of a shipped model or corpus.

    Args:
        name: "nano" (a self-contained checkpoint), "quickstart" (`train`, `validation` and `test.parquet`) or "clips".

    Raises:
        TinyAudioError: nothing of that name is shipped.
    """
    if name not in NAMES:
        raise TinyAudioError(f"Nothing named {name!r} ships with tiny-audio; expected one of: {', '.join(NAMES)}.")
    return Path(__file__).parent / name


def dimensions(model_id: str) -> dict[str, Any] | None:
    """What defines the size of a named full-size model: the values of its config.json, for AutoConfig; None: not shipped.

    Enough to count parameters on the meta device. The weights, and all else of the config, are on the Hub only.
    """
    file = Path(__file__).parent / "dimensions" / f"{model_id.replace('/', '--')}.json"
    if not file.is_file():
        return None
    values = json.loads(file.read_text(encoding="utf-8"))
    return {key: value for key, value in values.items() if key != "source"}
