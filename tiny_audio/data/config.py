"""Which dataset, which split, which columns, how much of it: the `data` group of the configuration."""

from dataclasses import dataclass, field
from typing import Any

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
    test_split: str = _option("test", "Split that is measured by `ta eval`.")
    audio_column: str = _option("audio", "Column with the audio: a path, bytes, or an array with its sampling rate.")
    text_column: str = _option("text", "Column with the transcript.")
    streaming: bool = _option(False, "Read rows as they come instead of fetching the whole dataset first.")
    max_train_samples: int | None = _option(None, "Train on a seeded random sample of at most this many clips.")
    max_eval_samples: int | None = _option(None, "Measure on a seeded random sample of at most this many clips.")
    min_seconds: float = _option(0.1, "Clips shorter than this are skipped, counted and listed.")
    max_seconds: float | None = _option(None, "Clips longer than this are skipped; null means the encoder's window.")
    seed: int = _option(0, "Seed of the samples, of the hold-out and of the order of the batches.")

    def __post_init__(self) -> None:
        for name in ("max_train_samples", "max_eval_samples"):
            value = getattr(self, name)
            if isinstance(value, int) and value < 1:
                raise TinyAudioError(f"data.{name} is {value}; give a number of clips of at least 1, or null for all.")
        if isinstance(self.max_seconds, int | float) and self.max_seconds <= self.min_seconds:
            raise TinyAudioError(
                f"data.max_seconds ({self.max_seconds}) must be larger than data.min_seconds ({self.min_seconds})."
            )
