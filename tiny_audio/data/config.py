"""Which dataset, which split, which columns, how much of it: the `data` group of the configuration."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import PurePath
from typing import Any, TypeVar

from tiny_audio.errors import TinyAudioError

# Names used by older configurations, and the fields they mean now.
ALIASES = {
    "dataset_name": "path",
    "dataset_path": "path",
    "dataset_config": "config",
    "dataset_split": "train_split",
    "dataset_revision": "revision",
}


def _option(default: Any, help: str) -> Any:
    return field(default=default, metadata={"help": help})


@dataclass
class DataConfig:
    """A dataset and how it is read; every field is an option of the `data` group."""

    path: str = _option(
        "quickstart",
        "Hub id, folder (audiofolder or Parquet), Parquet file, .jsonl/.json/.csv/.tsv manifest, or `quickstart`.",
    )
    config: str | None = _option(None, "Configuration of a Hub dataset; of a local folder, the subfolder to read.")
    revision: str | None = _option(None, "Branch, tag or commit of a Hub dataset.")
    train_split: str = _option("train", "Split that is trained on.")
    eval_split: str = _option("validation", "Split that is measured during training.")
    eval_config: str | None = _option(None, "Configuration with the eval_split, where it is not `config`.")
    test_split: str = _option("test", "Split that is measured by `ta eval`.")
    audio_column: str = _option("audio", "Column with the audio: a path, bytes, or an array with its sampling rate.")
    text_column: str = _option("text", "Column with the transcript.")
    streaming: bool = _option(False, "Read rows as they come instead of fetching the whole dataset first.")
    max_train_samples: int | None = _option(
        None, "Train on a seeded random sample of at most this many clips; of a mixture, of each part."
    )
    max_eval_samples: int | None = _option(
        None, "Measure on a seeded random sample of at most this many clips; a mixture's parts have equal shares in it."
    )
    min_seconds: float = _option(0.1, "Clips shorter than this are skipped, counted and listed.")
    max_seconds: float | None = _option(None, "Clips longer than this are skipped; null means the encoder's window.")
    min_chars_per_second: float | None = _option(
        None, "Clips whose label has fewer characters a second are skipped, as of text cut short; null for no limit."
    )
    max_chars_per_second: float | None = _option(
        None, "Clips whose label has more characters a second are skipped, as of text not spoken; null for no limit."
    )
    language: str | None = _option(None, "Language of the speech, as ISO 639-1 (`en`); for the model's card.")
    seed: int = _option(0, "Seed of the samples, of the hold-out and of the order of the batches.")
    mixture: Any = _option(
        None, "Several datasets in shares: name → `path`, columns, filters … of its own and `weight` or `clips`."
    )

    def __post_init__(self) -> None:
        for name in ("max_train_samples", "max_eval_samples"):
            value = getattr(self, name)
            if isinstance(value, int) and value < 1:
                raise TinyAudioError(f"data.{name} is {value}; give a number of clips of at least 1, or null for all.")
        _check_order("seconds", self.min_seconds, self.max_seconds)
        _check_order("chars_per_second", self.min_chars_per_second, self.max_chars_per_second)
        if self.mixture is not None:
            self.mixture = named(self.mixture)
            _check_own_options(self)
            _check_weights(parts_of(self))


@dataclass
class Part(DataConfig):
    """A dataset of a mixture, with all options of a dataset; what it does not set of `INHERITED`, the mixture does."""

    name: str = _option("", "Name of the part, in logs and in the ids of its clips.")
    weight: float | None = _option(None, "Share of the clips, relative to the other parts' weights.")
    clips: int | None = _option(None, "Clips of the part in an epoch: fewer or more than it has; null for all, once.")

    def __post_init__(self) -> None:
        super().__post_init__()
        for key in ("weight", "clips"):
            value = getattr(self, key)
            if value is not None and not value > 0:
                raise TinyAudioError(f"data.mixture.{self.name}.{key} is {value}; expected more than 0.")


Dataset = TypeVar("Dataset", bound=DataConfig)

INHERITED = (
    "max_train_samples", "min_seconds", "max_seconds", "min_chars_per_second", "max_chars_per_second", "language",
)  # fmt: skip
OF_A_PART = (
    "path", "config", "revision", "train_split", "eval_split", "eval_config", "test_split", "audio_column", "text_column",
)  # fmt: skip
OF_THE_WHOLE = ("streaming", "seed", "max_eval_samples")  # one for all parts, whatever a part's own file says


def named(mixture: Any) -> dict[str, dict[str, Any]]:
    """The parts' own options by name, of a mapping or of a list whose members may have a `name`.

    Raises:
        TinyAudioError: neither, or a part without a path, of an unusable name or of one that another part has.
    """
    if not isinstance(mixture, Mapping | list) or not mixture:
        raise TinyAudioError(f"data.mixture is {mixture!r}; expected parts: a name and its path, columns … each.")
    pairs = mixture.items() if isinstance(mixture, Mapping) else [(None, part) for part in mixture]
    parts: dict[str, dict[str, Any]] = {}
    for key, given in pairs:
        if not isinstance(given, Mapping) or not given.get(_alias("path", given)):
            raise TinyAudioError(f"data.mixture.{key or len(parts)} is {given!r}; expected a part with a path.")
        options = {ALIASES.get(str(option), str(option)): value for option, value in given.items()}
        if "mixture" in options:
            raise TinyAudioError(f"data.mixture.{key or len(parts)} is a mixture itself; name its parts one by one.")
        name = str(options.pop("name", None) or key or _default_name(options))
        if name in parts or "/" in name:
            raise TinyAudioError(f"data.mixture has a part named {name!r} that is taken or no name; set its `name`.")
        parts[name] = options
    return parts


def parts_of(config: DataConfig) -> list[Part]:
    """The parts of a mixture in their order; a dataset that is none is one part without a name."""
    if config.mixture is None:
        return [Part(**{item.name: getattr(config, item.name) for item in fields(DataConfig)})]
    whole = {key: getattr(config, key) for key in OF_THE_WHOLE}
    inherited = {key: getattr(config, key) for key in INHERITED}
    return [Part(**{**inherited, **options, **whole, "name": name}) for name, options in config.mixture.items()]


def evaluated(config: Dataset) -> Dataset:
    """The dataset as its eval_split is read: that of gigaspeech, for one, stands in another configuration."""
    return config if config.eval_config is None else replace(config, config=config.eval_config, eval_config=None)


def _alias(field_name: str, given: Mapping[str, Any]) -> str:
    return next((old for old, new in ALIASES.items() if new == field_name and old in given), field_name)


def _default_name(options: Mapping[str, Any]) -> str:
    return "-".join(str(part) for part in (PurePath(options["path"]).name, options.get("config")) if part)


def _check_own_options(config: DataConfig) -> None:
    defaults = {item.name: item.default for item in fields(DataConfig)}
    for key in OF_A_PART:
        if getattr(config, key) != defaults[key]:
            raise TinyAudioError(
                f"data.{key} is {getattr(config, key)!r} beside data.mixture, whose parts have their own; set "
                f"data.mixture.NAME.{key}."
            )


def _check_weights(parts: list[Part]) -> None:
    weighted = [part.name for part in parts if part.weight is not None]
    if weighted and (len(weighted) < len(parts) or any(part.clips is not None for part in parts)):
        raise TinyAudioError(
            f"data.mixture has weights for {', '.join(weighted)} only, or clips beside them; set the weight of every "
            "part, or of none."
        )
    if parts[0].streaming and not weighted and any(part.clips is None for part in parts):
        raise TinyAudioError(
            "With data.streaming=true the parts' sizes are not known; set the weight or the clips of every part."
        )


def _check_order(what: str, least: Any, most: Any) -> None:
    if isinstance(least, int | float) and isinstance(most, int | float) and most <= least:
        raise TinyAudioError(f"data.max_{what} ({most}) must be larger than data.min_{what} ({least}).")
