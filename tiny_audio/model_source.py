"""Where a model is: shipped, a folder, or the Hub; what kind it is, and a fingerprint that changes with its files."""

import hashlib
import json
import os
import re
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tiny_audio.assets import embedded
from tiny_audio.errors import TinyAudioError
from tiny_audio.hub_access import hub_errors

SHIPPED = ("nano",)
OURS = "asr_model"  # the model_type of a checkpoint that `ta train` wrote
NAMES_OF_MODELS = (  # keys of configs
    "audio_model_id", "text_model_id", "_name_or_path", "name_or_path", "base_model_name_or_path"
)  # fmt: skip
BEST = "best"  # of a run: its best checkpoint
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?(@[\w./-]+)?")


@dataclass(frozen=True)
class ModelSource:
    """A model's folder or Hub id (`location`), and the revision for a Hub id."""

    name: str  # as the user wrote it
    location: str
    revision: str | None = None
    local: bool = False

    @classmethod
    def of(cls, name: str) -> "ModelSource":
        """What `-m NAME` means.

        Raises:
            TinyAudioError: neither shipped, nor a checkpoint's or a run's folder, nor written like a Hub id.
        """
        if name in SHIPPED:
            return cls(name, str(embedded(name)), local=True)
        folder = Path(checkpoint_of(name)).expanduser()
        if folder.exists():
            _require_checkpoint(folder)
            return cls(name, str(folder), local=True)
        if not _HUB_ID.fullmatch(name) or name.startswith("."):
            raise TinyAudioError(f"The model {name} does not exist; expected a checkpoint folder, a Hub id, or nano.")
        location, _, revision = name.partition("@")
        return cls(name, location, revision or None)

    def model_type(self) -> str | None:
        """`model_type` of config.json: "asr_model" is ours.

        Raises:
            TinyAudioError: it cannot be read; for a Hub id also when there is no network.
        """
        from transformers import PretrainedConfig

        try:
            with offline_if_unreachable(self):
                config, _ = PretrainedConfig.get_config_dict(self.location, revision=self.revision)
        except OSError as error:
            raise self.unreadable(error) from error
        if not isinstance(config, dict):
            raise TinyAudioError(f"The config.json of {self.name} holds no object; expected the settings of a model.")
        return config.get("model_type")

    def require_ours(self) -> None:
        """TinyAudioError: it is no checkpoint of tiny-audio, or it cannot be read."""
        if (kind := self.model_type()) != OURS:
            raise TinyAudioError(
                f"{self.name} is a model of type {kind!r}; expected a checkpoint that `ta train` wrote."
            )

    def unreadable(self, error: Exception) -> TinyAudioError:
        """What to tell the user when the model's files cannot be had."""
        lines = str(error).strip().splitlines() or [type(error).__name__]
        if self.local:
            return TinyAudioError(f"The model {self.name} cannot be loaded: {lines[0]}")
        return TinyAudioError(
            f"The model {self.name} is neither a folder here nor readable on the Hugging Face Hub ({lines[0].rstrip('.')}); "
            "check the name, the network and, for a private model, HF_TOKEN."
        )

    def fingerprint(self) -> str | None:
        """Changes when a local checkpoint is trained anew; None for a Hub id, whose revision says it."""
        if not self.local:
            return None
        folder = Path(self.location)
        weights = sorted(p for p in folder.rglob("*") if p.suffix in (".safetensors", ".bin", ".json"))
        stats = [(str(p.relative_to(folder)), p.stat().st_size, p.stat().st_mtime_ns) for p in weights]
        return short_hash(stats)


def folder_of(source: ModelSource) -> Path:
    """The checkpoint's folder; of a Hub id that in the cache, downloaded where it is not there."""
    from huggingface_hub import snapshot_download

    if source.local:
        return Path(source.location)
    with hub_errors(f"{source.name} was not downloaded"):
        folder = Path(snapshot_download(source.location, revision=source.revision))
    _refuse_own_code(source, folder / "config.json")
    return folder


def _refuse_own_code(source: ModelSource, config: Path) -> None:
    """TinyAudioError: as a folder here, a model of the Hub would run the projector or encoder that came with it."""
    from tiny_audio.model.config import OWN_FILES

    values = json.loads(config.read_text("utf-8")) if config.is_file() else {}
    for key in OWN_FILES:
        if values.get(key):
            raise TinyAudioError(
                f"{source.name} comes with code of its own ({values[key]}), which would run here; read it, download the "
                f"model (hf download {source.location} --local-dir FOLDER) and name that folder."
            )


def short_hash(value: Any) -> str:
    """Ten hexadecimal digits of a JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:10]


def offline_if_unreachable(source: ModelSource) -> AbstractContextManager:
    """For a Hub id without network: what is in the cache at once, instead of five retries of each request."""
    from tiny_audio.data.hub import offline_if_unreachable

    return nullcontext() if source.local else offline_if_unreachable()


def checkpoint_of(name: str) -> str:
    """The folder of a run means its best checkpoint; every other name means itself."""
    run = Path(name).expanduser()
    is_run = (run / BEST / "config.json").is_file() and not (run / "config.json").is_file()
    return str(run / BEST) if is_run else name


def is_hub_id(name: str | None) -> bool:
    """Whether a model's or dataset's name is OWNER/NAME of the Hub, and no path here."""
    return bool(name and re.fullmatch(r"\w[\w.-]*/[\w.-]+(@.+)?", name)) and not Path(name or "").exists()


def public_name(name: str) -> str:
    """How others are told of a model or dataset: by its Hub id, or the last part of a path, whose rest is nobody's business.

    A run's name means its best checkpoint.
    """
    if is_hub_id(name):
        return name
    path = Path(name).parent if Path(name).name == BEST else Path(name)
    shipped = [model for model in SHIPPED if path.parts[-3:-1] == ("assets", model)]
    return f"{path.name} of {shipped[0]}" if shipped else path.name


def is_path(location: str) -> bool:
    """Whether a model's name means a folder of this machine, and not a Hub id."""
    return os.path.exists(location) or os.path.isabs(location) or location.startswith((".", "~"))


def hide_paths(folder: Path) -> None:
    """Of the folders of this machine that configs name, only the last part is published.

    Raises:
        TinyAudioError: one is no JSON.
    """
    for file in sorted(folder.rglob("*config.json")):
        try:
            values = json.loads(file.read_text("utf-8"))
        except ValueError as error:
            raise TinyAudioError(f"{file.resolve()} is no JSON ({error}); copy the checkpoint anew.") from error
        public = without_paths(values)
        if public != values:
            file.unlink()  # it may be a link to the checkpoint's own
            file.write_text(json.dumps(public, indent=2) + "\n", encoding="utf-8")


def without_paths(value: Any, key: str = "") -> Any:
    """A JSON value whose names of models are no paths."""
    if isinstance(value, dict):
        return {name: without_paths(inner, name) for name, inner in value.items()}
    if isinstance(value, list):
        return [without_paths(inner) for inner in value]
    return public_name(value) if key in NAMES_OF_MODELS and isinstance(value, str) and is_path(value) else value


def _require_checkpoint(folder: Path) -> None:
    if (folder / "config.json").is_file():
        return
    inside = [file.parent for file in sorted(folder.glob("*/config.json")) if _kind(file) == OURS]
    hint = f"; did you mean {inside[0]}?" if inside else "; expected a checkpoint folder."
    raise TinyAudioError(f"{folder} holds no config.json{hint}")


def _kind(config: Path) -> str | None:
    try:
        return json.loads(config.read_text("utf-8")).get("model_type")
    except (OSError, ValueError, AttributeError):  # damaged: then of no kind
        return None
