"""What a dataset's `path` is, decided in one place, and how one of its splits is opened."""

import logging
import re
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path

import numpy as np

from tiny_audio.errors import TinyAudioError

from .columns import resolve_columns
from .config import DataConfig, Part
from .corpus import Corpus, RowReader
from .hub import hub_splits, load_hub
from .layout import WHOLE, find_splits, same_split
from .records import MANIFEST_SUFFIXES, HubRecords, Records, open_records

SHIPPED = ("quickstart",)
FILE_SUFFIXES = (*MANIFEST_SUFFIXES, ".parquet")
HOLD_OUT_FRACTION = 0.05
HOLD_OUT_CLIPS = 200  # at most

logger = logging.getLogger("tiny_audio")


class NoSuchSplit(TinyAudioError):
    """The dataset has no such split."""


def open_corpus(config: DataConfig, split: str, *, max_samples: int | None = None) -> Corpus:
    """Opens one split of a dataset.

    A dataset without a validation split serves it with a seeded hold-out (5 %, at most 200 clips) that its train split
    then lacks. A dataset without splits serves the test split as a whole.

    Args:
        config: the dataset; `config.path` is the name of a shipped corpus, a local path, or a Hub id, in this order.
        split: one of the dataset's splits.
        max_samples: a random sample of at most this many clips, seeded by `config.seed`.

    Raises:
        TinyAudioError: unknown dataset, configuration, split or column (names the known ones), or an unreadable file.
    """
    corpus = _open_local(config, split) if is_local(config) else _open_hub(config, split)
    return corpus if max_samples is None else corpus.sample(max_samples, config.seed)


def is_local(config: DataConfig) -> bool:
    """Whether the dataset is shipped or on this machine.

    Raises:
        TinyAudioError: the path is written like a local one and does not exist.
    """
    if config.path in SHIPPED or Path(config.path).expanduser().exists():
        return True
    if re.fullmatch(r"\w[\w.-]*(/[\w.-]+)?", config.path) and Path(config.path).suffix not in FILE_SUFFIXES:
        return False
    raise TinyAudioError(
        f"The dataset {config.path} does not exist; expected a folder, a Parquet file, a manifest, a Hub id "
        f"(`name` or `owner/name`) or a shipped corpus ({', '.join(SHIPPED)})."
    )


def local_splits(config: DataConfig) -> dict[str, list[Path]]:
    """Files of each split of a local dataset."""
    path = _local_path(config)
    if config.revision:
        raise TinyAudioError(f"{config.path} is local and has no revisions; leave data.revision={config.revision} out.")
    if config.config:
        path = _subfolder(path, config.config)
    return find_splits(path)


def _local_path(config: DataConfig) -> Path:
    if config.path not in SHIPPED:
        return Path(config.path).expanduser()
    from tiny_audio.assets import embedded

    return embedded(config.path)


def _subfolder(path: Path, name: str) -> Path:
    if (path / name).is_dir():
        return path / name
    known = sorted(child.name for child in path.iterdir() if child.is_dir()) if path.is_dir() else []
    raise TinyAudioError(
        f"{path} has no subfolder `{name}`, which data.config names; found: {', '.join(known) or 'none'}."
    )


def choose_split(config: DataConfig, split: str, found: list[str]) -> tuple[str, str]:
    """Which stored split serves the one that is asked for, and which part of it: "all", "train" or "held out".

    Raises:
        TinyAudioError: there is no such split; names the found ones and the nearest.
    """
    train = WHOLE if found == [WHOLE] else same_split(config.train_split, found)
    if train is not None and _needs_hold_out(config, found):
        if split == config.train_split:
            return train, "train"
        if split == config.eval_split:
            return train, "held out"
    if found == [WHOLE] and split in (config.test_split, "all"):
        return WHOLE, "all"
    chosen = same_split(split, found)
    if chosen is None:
        raise _unknown_split(config, split, found)
    return chosen, "all"


def _needs_hold_out(config: DataConfig, found: list[str]) -> bool:
    """No split serves the evaluation during training, and none was asked for by a name of the user's own."""
    if config.eval_split == config.train_split or config.eval_config is not None:
        return False
    return found == [WHOLE] or (config.eval_split == DataConfig.eval_split and not same_split(config.eval_split, found))


def no_hold_out(config: DataConfig, split: str) -> TinyAudioError:
    """The error for a stream from the Hub, whose rows are not known beforehand, without the asked split."""
    return NoSuchSplit(
        f"{config.path} has no split `{split}`, and none can be held out of a stream; "
        "set data.eval_split to a split it has, or data.streaming=false."
    )


def _unknown_split(config: DataConfig, split: str, found: list[str]) -> TinyAudioError:
    if found == [WHOLE]:
        known = (config.train_split, config.eval_split, config.test_split)
        return NoSuchSplit(f"{config.path} has no splits, so there is no `{split}`; ask for {', '.join(known)} or all.")
    nearest = get_close_matches(split, found, n=1)
    hint = f"; did you mean {nearest[0]}?" if nearest else "."
    return NoSuchSplit(f"{config.path} has no split `{split}`; its splits are {', '.join(found)}{hint}")


def _open_local(config: DataConfig, split: str) -> Corpus:
    splits = local_splits(config)
    stored, part = choose_split(config, split, list(splits))
    if stored == WHOLE and split == config.test_split:
        logger.warning(
            "%s has no splits, so all of it is the test: also the clips that `ta train` would train on; the `%s` split is "
            "what it holds out.",
            *(config.path, config.eval_split),
        )
    files = splits[stored]
    return _corpus(config, split, part, lambda: open_records(files), files[0].parent)


def _open_hub(config: DataConfig, split: str) -> Corpus:
    stored, part = choose_split(config, split, hub_splits(config))
    if config.streaming and part == "held out":
        raise no_hold_out(config, split)
    return _corpus(config, split, part, lambda: HubRecords(load_hub(config, stored)), None)


def _corpus(config: DataConfig, split: str, part: str, open: Callable[[], Records], base: Path | None) -> Corpus:
    records = open()
    if not len(records):
        raise TinyAudioError(f"The split `{split}` of {config.path} has no rows; expected at least one clip.")
    columns = resolve_columns(records.column_names, config, config.path)
    positions = part_positions(len(records), part, config, split)
    return Corpus(dataset_name(config), split, records, RowReader(columns, base, split, part_name(config)), positions)


def dataset_name(config: DataConfig) -> str:
    """How results call the dataset: the Hub id, or the last part of a local path."""
    local = Path(config.path).expanduser()
    return local.resolve().name if config.path not in SHIPPED and local.exists() else config.path


def part_name(config: DataConfig) -> str:
    """Which part of a mixture the dataset is; "" where it is none."""
    return config.name if isinstance(config, Part) else ""


def part_positions(rows: int, part: str, config: DataConfig, split: str) -> np.ndarray:
    """Row numbers of a part of a split, int64: "all", "held out" for evaluation, or the rest, "train"."""
    if part == "all":
        return np.arange(rows)
    order = np.random.default_rng(config.seed).permutation(rows)
    held_out = min(HOLD_OUT_CLIPS, max(1, round(rows * HOLD_OUT_FRACTION))) if rows > 1 else 0
    if part == "train":
        return np.sort(order[held_out:])
    logger.warning(
        "%s has no split `%s`: %d of its %d clips, drawn with seed %d, are held out from training for it.",
        *(config.path, split, held_out, rows, config.seed),
    )
    return np.sort(order[:held_out])
