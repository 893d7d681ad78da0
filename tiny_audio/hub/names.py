"""How what is published calls a model, a dataset or a file: by its Hub id, or without the path to it here."""

import re
from pathlib import Path

from tiny_audio.model_source import BEST, SHIPPED


def is_hub_id(name: str | None) -> bool:
    """Whether a model's or dataset's name is OWNER/NAME of the Hub, and no path here."""
    return bool(name and re.fullmatch(r"\w[\w.-]*/[\w.-]+(@.+)?", name)) and not Path(name or "").exists()


def public_name(name: str) -> str:
    """The Hub id, or the last part of a path, whose rest is nobody's business; a run's name means its best checkpoint."""
    if is_hub_id(name):
        return name
    path = Path(name).parent if Path(name).name == BEST else Path(name)
    shipped = [model for model in SHIPPED if path.parts[-3:-1] == ("assets", model)]
    return f"{path.name} of {shipped[0]}" if shipped else path.name
