"""Rows as they come, without fetching the whole dataset, in stored or seeded random order."""

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from .columns import resolve_columns
from .config import DataConfig
from .corpus import Row, RowReader
from .hub import hub_splits, load_hub
from .records import column_names, count_records, iterate_records, undecoded
from .sources import choose_split, is_local, local_splits, no_hold_out, part_name, part_positions

SHUFFLE_ROWS = 1_000

# (seed, share, shares) → numbered records of one of the shares of a split; without a seed in stored order
Records = Callable[[int | None, int, int], Iterator[tuple[int, dict[str, Any]]]]


def stream_corpus(
    config: DataConfig, split: str, *, max_samples: int | None = None, epoch: int | None = None
) -> Iterator[Row]:
    """Rows of a split one after the other, in bounded memory.

    Args:
        max_samples: a sample of at most this many rows, drawn by a shuffle buffer seeded with `config.seed`; the same
            rows whatever the epoch.
        epoch: shuffles the rows, differently in each epoch; None keeps the stored order.

    Raises:
        TinyAudioError: as `open_corpus`; also for a split that would have to be held out of a stream from the Hub.
    """
    return RowStream(config, split, max_samples).rows(epoch)


class RowStream:
    """One split, opened once, to be read as often as there are epochs; arguments as in `stream_corpus`.

    Args:
        shuffle_rows: rows that are held to be shuffled.
    """

    def __init__(
        self, config: DataConfig, split: str, max_samples: int | None = None, shuffle_rows: int = SHUFFLE_ROWS
    ) -> None:
        self.seed = config.seed
        self.max_samples, self.shuffle_rows = max_samples, shuffle_rows
        self._records, self._reader = _open_local(config, split) if is_local(config) else _open_hub(config, split)

    def rows(self, epoch: int | None, share: int = 0, shares: int = 1) -> Iterator[Row]:
        """The rows of an epoch, or one of `shares` disjoint shares of them; epoch None gives the stored order."""
        seed = None if epoch is None else mixed_seed(self.seed, epoch)
        if self.max_samples is None:
            return self._read(seed, share, shares)
        sample = islice(self._read(self.seed, 0, 1), self.max_samples)
        rows = sample if seed is None else shuffled(sample, self.shuffle_rows, seed)
        return islice(rows, share, None, shares)

    def _read(self, seed: int | None, share: int, shares: int) -> Iterator[Row]:
        rows = (self._reader(record, number) for number, record in self._records(seed, share, shares))
        return rows if seed is None else shuffled(rows, self.shuffle_rows, seed)


def shuffled(items: Iterator[Any], buffer_size: int, seed: int) -> Iterator[Any]:
    """Yields a random item of a buffer and refills its place with the next one; the rest follows in random order."""
    rng = np.random.default_rng(seed)
    buffer = list(islice(items, buffer_size))
    for item in items:
        place = int(rng.integers(len(buffer)))
        yield buffer[place]
        buffer[place] = item
    yield from (buffer[place] for place in rng.permutation(len(buffer)))


def mixed_seed(*numbers: int) -> int:
    """One seed made of several numbers, such as seed and epoch."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def _open_local(config: DataConfig, split: str) -> tuple[Records, RowReader]:
    splits = local_splits(config)
    stored, part = choose_split(config, split, list(splits))
    files = splits[stored]
    chosen = None if part == "all" else set(part_positions(count_records(files), part, config, split).tolist())

    def records(seed: int | None, share: int, shares: int) -> Iterator[tuple[int, dict[str, Any]]]:
        numbered = enumerate(iterate_records(files))
        return islice((pair for pair in numbered if chosen is None or pair[0] in chosen), share, None, shares)

    return records, _reader(column_names(files), config, split, files[0].parent)


def _open_hub(config: DataConfig, split: str) -> tuple[Records, RowReader]:
    stored, part = choose_split(config, split, hub_splits(config))
    if part == "held out":
        raise no_hold_out(config, split)
    return hub_records(load_hub(config, stored, streaming=True), config, split)


def hub_records(dataset: Any, config: DataConfig, split: str) -> tuple[Records, RowReader]:
    """Records of a streaming `datasets` dataset: given a seed, its shards come in random order; a share of them is made
    of whole shards where there are enough, so that a worker reads only its own."""
    dataset = undecoded(dataset)

    def records(seed: int | None, share: int, shares: int) -> Iterator[tuple[int, dict[str, Any]]]:
        ordered = dataset
        if seed is not None:  # one shard at a time: reading several at once, as is the default, ends with a 5 s pause
            ordered = dataset.shuffle(seed=seed, buffer_size=1, max_buffer_input_shards=1)
        if ordered.num_shards >= shares:
            mine = _records_of(ordered.shard(shares, share) if shares > 1 else ordered)
            return ((number * shares + share, record) for number, record in enumerate(mine))
        return islice(enumerate(_records_of(ordered)), share, None, shares)

    return records, _reader(dataset.column_names or list(next(iter(dataset))), config, split, None)


def _records_of(dataset: Any) -> Iterator[dict[str, Any]]:
    """`iter(dataset)` would divide the shards among the loader's workers a second time; batches are not divided."""
    for batch in dataset.iter(batch_size=16):
        names = list(batch)
        yield from (dict(zip(names, values, strict=True)) for values in zip(*batch.values(), strict=True))


def _reader(names: list[str], config: DataConfig, split: str, base: Path | None) -> RowReader:
    return RowReader(resolve_columns(names, config, config.path), base, split, part_name(config))
