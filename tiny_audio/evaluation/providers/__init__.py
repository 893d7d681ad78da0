"""Providers of transcripts behind one face: our checkpoints, any Hugging Face speech recogniser, services; one file a kind."""

import importlib
from dataclasses import dataclass
from functools import cache

from tiny_audio.errors import TinyAudioError
from tiny_audio.evaluation.providers.base import Provider
from tiny_audio.evaluation.settings import EvalSettings
from tiny_audio.model_source import ModelSource, offline_if_unreachable


@dataclass(frozen=True)
class ProviderEntry:
    """Where a provider's class is, imported when it is chosen, and the model that it takes when none is named."""

    file: str
    class_name: str
    default_model: str | None = None
    service: bool = False  # the audio goes to a server, so that the model is a name there and nothing here


PROVIDERS = {
    "local": ProviderEntry("local", "LocalProvider", "nano"),
    "huggingface": ProviderEntry("huggingface", "HuggingFaceProvider"),
    "openai": ProviderEntry("openai", "OpenAIProvider", "gpt-transcribe", service=True),
    "endpoint": ProviderEntry("endpoint", "EndpointProvider", "inference-endpoint", service=True),
    "assemblyai": ProviderEntry("assemblyai", "AssemblyAIProvider", "universal-3-5-pro", service=True),
    "deepgram": ProviderEntry("deepgram", "DeepgramProvider", "nova-3", service=True),
    "elevenlabs": ProviderEntry("elevenlabs", "ElevenLabsProvider", "scribe_v2", service=True),
}
ALIASES = {"tiny-audio": "local"}


def choose_provider(settings: EvalSettings) -> str:
    """The provider that is asked for, or else the one that reads this kind of checkpoint.

    Raises:
        TinyAudioError: unknown provider, or no readable config.json.
    """
    if settings.provider is None:
        return "local" if _model_type(ModelSource.of(settings.model or "nano")) == "asr_model" else "huggingface"
    name = ALIASES.get(settings.provider, settings.provider)
    if name not in PROVIDERS:
        raise TinyAudioError(f"Unknown provider {name!r}: expected one of {', '.join(PROVIDERS)}.")
    return name


@cache
def _model_type(source: ModelSource) -> str | None:
    """Asked for often; on the Hub each time would be a request."""
    return source.model_type()


def model_of(settings: EvalSettings) -> str:
    """The model that is named, or else the provider's own default.

    Raises:
        TinyAudioError: neither.
    """
    name = choose_provider(settings)
    model = settings.model or PROVIDERS[name].default_model
    if model is None:
        raise TinyAudioError(f"The provider {name} needs the name of a model: give one with -m.")
    return model


def source_of(settings: EvalSettings) -> ModelSource | None:
    """Where the model's files are; None for a service."""
    return None if PROVIDERS[choose_provider(settings)].service else ModelSource.of(model_of(settings))


def open_provider(settings: EvalSettings) -> Provider:
    """Load the model, or prepare to ask the service.

    Raises:
        TinyAudioError: no such model, no network for a Hub id, a model that is no speech recogniser, or no API key.
    """
    entry = PROVIDERS[choose_provider(settings)]
    source = source_of(settings)
    provider = getattr(importlib.import_module(f"{__name__}.{entry.file}"), entry.class_name)
    if source is None:
        return provider(settings)
    with offline_if_unreachable(source):
        return provider(settings, source)
