"""Providers of transcripts behind one face: our checkpoints, any Hugging Face speech recogniser, services; one file a kind."""

import importlib
import importlib.util
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tiny_audio.errors import TinyAudioError
from tiny_audio.evaluation.providers.base import Provider
from tiny_audio.evaluation.settings import EvalSettings
from tiny_audio.model_source import ModelSource, offline_if_unreachable, short_hash


@dataclass(frozen=True)
class ProviderEntry:
    """Where a provider's class is, imported when it is chosen, and the model that it takes when none is named."""

    module: str
    class_name: str
    default_model: str | None = None
    service: bool = False  # the audio goes to a server, so that the model is a name there and nothing here


PROVIDERS = {
    "local": ProviderEntry(f"{__name__}.local", "LocalProvider", "nano"),
    "huggingface": ProviderEntry(f"{__name__}.huggingface", "HuggingFaceProvider"),
    "openai": ProviderEntry(f"{__name__}.openai", "OpenAIProvider", "gpt-transcribe", service=True),
    "endpoint": ProviderEntry(f"{__name__}.endpoint", "EndpointProvider", "inference-endpoint", service=True),
    "assemblyai": ProviderEntry(f"{__name__}.assemblyai", "AssemblyAIProvider", "universal-3-5-pro", service=True),
    "deepgram": ProviderEntry(f"{__name__}.deepgram", "DeepgramProvider", "nova-3", service=True),
    "elevenlabs": ProviderEntry(f"{__name__}.elevenlabs", "ElevenLabsProvider", "scribe_v2", service=True),
}
ALIASES = {"tiny-audio": "local"}


def choose_provider(settings: EvalSettings) -> str:
    """The provider that is asked for, or else the one that reads this kind of checkpoint.

    Raises:
        TinyAudioError: unknown provider, no readable config.json, or a provider file that cannot be run.
    """
    if settings.provider_file is not None:
        _run(settings.provider_file)
        if settings.provider is None:
            raise TinyAudioError(
                f"{settings.provider_file} needs a name of a provider in it: give one with --provider."
            )
    if settings.provider is None:
        return "local" if _model_type(ModelSource.of(settings.model or "nano")) == "asr_model" else "huggingface"
    name = ALIASES.get(settings.provider, settings.provider)
    if name not in PROVIDERS:
        hint = "Your own needs --provider-file." if settings.provider_file is None else _WHAT_A_FILE_DOES
        raise TinyAudioError(f"Unknown provider {name!r}: expected one of {', '.join(PROVIDERS)}. {hint}")
    return name


_WHAT_A_FILE_DOES = 'A file of your own names one with PROVIDERS["NAME"] = ProviderEntry(__name__, "CLASS").'


@cache
def _run(file: Path) -> str:
    """Run a user's own file, which puts its class into PROVIDERS, as a module of this name.

    Raises:
        TinyAudioError: there is no such file, or what its code raised.
    """
    name = f"tiny_audio_provider_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None or not file.is_file():
        raise TinyAudioError(f"{file} is no Python file; expected one that puts a provider into PROVIDERS.")
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise TinyAudioError(
            f"{file} cannot be run ({type(error).__name__}: {error}); TA_DEBUG=1 shows where."
        ) from error
    return name


def own_code(settings: EvalSettings) -> str | None:
    """A hash of the user's own file where the chosen provider is in it: other code gives other results."""
    file = settings.provider_file
    if file is None or PROVIDERS[choose_provider(settings)].module != _run(file):
        return None
    return short_hash(file.read_text("utf-8"))


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
    provider = getattr(importlib.import_module(entry.module), entry.class_name)
    if source is None:
        return provider(settings)
    with offline_if_unreachable(source):
        return provider(settings, source)
