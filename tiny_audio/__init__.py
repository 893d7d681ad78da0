"""Public names of tiny-audio, each loaded on first use, so that `import tiny_audio` costs milliseconds."""

from __future__ import annotations

import importlib
import os
import sys

TYPE_CHECKING = False  # importing typing for it would double the time of the import
if TYPE_CHECKING:
    from typing import Any

    from .assets import embedded
    from .audio.reading import load_audio
    from .model.config import ASRConfig
    from .model.modeling import ASRModel
    from .model.pipeline import ASRPipeline
    from .model.processor import ASRProcessor
    from .projectors import PROJECTOR_CLASSES
    from .transcription import transcribe

__version__ = "0.1.0"

if sys.platform == "darwin":  # what Apple's GPUs cannot compute, the CPU does; torch asks for this when it is imported
    os.environ.setdefault("PYTORCH_ENABLE_MPS_FALLBACK", "1")

_HOME = {
    "ASRModel": "model.modeling",
    "ASRConfig": "model.config",
    "ASRProcessor": "model.processor",
    "ASRPipeline": "model.pipeline",
    "PROJECTOR_CLASSES": "projectors",
    "load_audio": "audio.reading",
    "transcribe": "transcription",
    "embedded": "assets",
}

__all__ = [
    "PROJECTOR_CLASSES",
    "ASRConfig",
    "ASRModel",
    "ASRPipeline",
    "ASRProcessor",
    "embedded",
    "load_audio",
    "transcribe",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
