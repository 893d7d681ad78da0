"""Recognisers behind one face: our checkpoints and any Hugging Face speech recogniser; one file a kind."""

import importlib
from typing import Any, Protocol

import numpy as np

from tiny_audio.errors import TinyAudioError
from tiny_audio.evaluation.recognizers.source import ModelSource, offline_if_unreachable
from tiny_audio.evaluation.settings import EvalSettings

# name → module and class, imported when chosen
PROVIDERS = {
    "local": ("tiny_audio.evaluation.recognizers.local", "LocalRecognizer"),
    "huggingface": ("tiny_audio.evaluation.recognizers.huggingface", "HuggingFaceRecognizer"),
}


class Recognizer(Protocol):
    """Turns audio into text; built from the settings and from where the model is."""

    device: str  # "cpu", "cuda", … or the service's name
    decoding: dict[str, Any]  # the settings that shape the texts, for metrics.json

    def __init__(self, settings: EvalSettings, source: ModelSource) -> None: ...

    def transcribe(self, batch: list[np.ndarray]) -> list[str]:
        """One text for each clip: float32 (samples,) at 16 kHz, of any length. Returns when the texts are there."""
        ...


def choose_provider(settings: EvalSettings, source: ModelSource) -> str:
    """The provider that is asked for, or else the one that reads this kind of checkpoint.

    Raises:
        TinyAudioError: unknown provider, or no readable config.json.
    """
    if settings.provider is None:
        return "local" if source.model_type() == "asr_model" else "huggingface"
    if settings.provider not in PROVIDERS:
        raise TinyAudioError(f"Unknown provider {settings.provider!r}: expected one of {', '.join(PROVIDERS)}.")
    return settings.provider


def open_recognizer(settings: EvalSettings) -> Recognizer:
    """Load the model.

    Raises:
        TinyAudioError: no such model, no network for a Hub id, or a model that is no speech recogniser.
    """
    source = ModelSource.of(settings.model)
    module, name = PROVIDERS[choose_provider(settings, source)]
    with offline_if_unreachable(source):
        return getattr(importlib.import_module(module), name)(settings, source)
