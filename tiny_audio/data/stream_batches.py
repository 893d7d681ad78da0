"""Endless batches of decoded clips from streams of rows, packed by seconds, for ranks and the workers of a DataLoader."""

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count, islice

from torch import distributed
from torch.utils.data import IterableDataset, get_worker_info

from tiny_audio.errors import TinyAudioError

from .batching import SecondsBatchSampler
from .collator import Dropped, load_or_drop
from .config import DataConfig, Part, parts_of
from .corpus import Example, Row, load_row, row_duration
from .filtering import UNREADABLE, Limits, default_clean
from .mixture import interleaved, mixed_batches, stream_shares
from .streaming import SHUFFLE_ROWS, RowStream, mixed_seed

PACK_ROWS = 512  # rows that are sorted by length together
LEAST_SHUFFLED = 50  # rows of a part of a mixture that are held to be shuffled

Batch = list[Example | Dropped]


class StreamDataset(IterableDataset):
    """Batches (lists of clips) for a DataLoader with `batch_size=None` and a `SpeechCollator`.

    Every `PACK_ROWS` usable rows of the shuffled stream, or of a mixture's interleaved ones, are sorted by length and
    packed by seconds; worker w of n on rank r takes every row of a share of its own. Batch g of a rank is made by worker
    g % n. So a run that starts again with `start` = the number of batches that each rank has used, the same seed, ranks
    and number of workers goes on with exactly the batches that an uninterrupted one would have had; the rows before are
    read again, but not decoded.

    Args:
        config, split, max_samples: what is read, as in `stream_corpus`; a mixture's parts say the last two themselves.
        batch_seconds, max_batch_size: as in SecondsBatchSampler.
        start: batches of the run that are used already.
        limits: what is usable; of a mixture, its window only.
        clean: as in `usable_rows`.
    """

    def __init__(
        self,
        config: DataConfig,
        split: str,
        *,
        batch_seconds: float,
        max_batch_size: int | None = None,
        max_samples: int | None = None,
        start: int = 0,
        limits: Limits | None = None,
        clean: Callable[[str], str] | None = None,
    ) -> None:
        self.config, self.start = config, start
        self.batch_seconds, self.max_batch_size = batch_seconds, max_batch_size
        self.rank, self.ranks = place_among_ranks()
        limits, clean = limits or Limits(), clean or default_clean()
        if config.mixture is None:
            self.sources = [UsableRows(parts_of(config)[0], split, max_samples, limits, clean)]
        else:
            self.sources = _sources(parts_of(config), limits.max_samples_window, clean)
        self._limits = {source.part.name: source.limits for source in self.sources}

    def __iter__(self) -> Iterator[Batch]:
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        mine = (worker + self.start) % workers  # the loader asks worker 0 first, also after a resume
        used = len(range(mine, self.start, workers))
        share, shares = self.rank * workers + mine, self.ranks * workers
        batches = self._of_one if self.config.mixture is None else self._of_mixture
        return batches(share, shares, used)

    def _of_one(self, share: int, shares: int, used: int) -> Iterator[Batch]:
        """Epoch by epoch; the last rows of each are packed by themselves."""
        source = self.sources[0]
        for epoch in count():
            readable = False
            for number, (chunk, rejected) in enumerate(chunks(source.epoch(epoch, share, shares))):
                batches = self._packed(chunk, mixed_seed(self.config.seed, epoch, number))
                readable |= used > 0
                for batch in self._decoded(batches, rejected, min(used, len(batches))):
                    readable = True
                    yield batch
                used = max(0, used - len(batches))
            if not readable:
                raise source.nothing_usable(share, shares)

    def _of_mixture(self, share: int, shares: int, used: int) -> Iterator[Batch]:
        """Without end, each part in epochs of its own."""
        streams = [source.endless(share, shares) for source in self.sources]
        shares_of_parts = stream_shares([source.part for source in self.sources])
        rows = interleaved(streams, shares_of_parts, lambda row: isinstance(row, Row))
        for number, (chunk, rejected) in enumerate(chunks(rows)):
            batches = self._packed(chunk, mixed_seed(self.config.seed, number))
            readable = used > 0
            for batch in self._decoded(batches, rejected, min(used, len(batches))):
                readable = True
                yield batch
            if not readable:
                raise TinyAudioError(f"None of {len(chunk)} clips of the mixture can be decoded; check its parts.")
            used = max(0, used - len(batches))

    def _packed(self, chunk: list[Row], seed: int) -> list[list[Row]]:
        durations = [row.duration or 0.0 for row in chunk]
        if self.config.mixture is None:
            batches = SecondsBatchSampler(durations, self.batch_seconds, seed, self.max_batch_size).epoch(0)
        else:
            batches = mixed_batches(durations, self.batch_seconds, seed, self.max_batch_size)
        return [[chunk[place] for place in batch] for batch in batches]

    def _decoded(self, batches: list[list[Row]], rejected: list[Dropped], first: int) -> Iterator[Batch]:
        for number in range(first, len(batches)):
            clips: Batch = [self._load(row) for row in batches[number]]
            if not any(isinstance(clip, Example) for clip in clips):
                clips += self._replacement(batches, number)
            if any(isinstance(clip, Example) for clip in clips):
                yield [*rejected, *clips]
                rejected = []
            else:
                rejected = [*rejected, *(clip for clip in clips if isinstance(clip, Dropped))]

    def _replacement(self, batches: list[list[Row]], number: int) -> Batch:
        """The first readable clip of the batches that follow, in a circle: the same in every run."""
        following = (row for batch in [*batches[number + 1 :], *batches[:number]] for row in batch)
        clips = (self._load(row) for row in following)
        return list(islice((clip for clip in clips if isinstance(clip, Example)), 1))

    def _load(self, row: Row) -> Example | Dropped:
        return load_or_drop(lambda: load_row(row), row.id, self._limits[row.part])


class UsableRows:
    """The rows of a streamed split with their durations, or why they cannot be used; opened when first read.

    Args:
        part, split, max_samples: what is read, as in `stream_corpus`.
        limits, clean: what is usable, as in `usable_rows`.
        shuffle_rows: rows that are held to be shuffled.
    """

    def __init__(
        self,
        part: Part,
        split: str,
        max_samples: int | None,
        limits: Limits,
        clean: Callable[[str], str],
        shuffle_rows: int = SHUFFLE_ROWS,
    ) -> None:
        self.part, self.split, self.max_samples, self.shuffle_rows = part, split, max_samples, shuffle_rows
        self.limits, self.clean = limits, clean
        self._stream: RowStream | None = None

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_stream": None}

    def epoch(self, epoch: int | None, share: int = 0, shares: int = 1) -> Iterator[Row | Dropped]:
        """One of `shares` disjoint shares of the rows, shuffled by the epoch; None keeps the stored order."""
        if self._stream is None:
            self._stream = RowStream(self.part, self.split, self.max_samples, self.shuffle_rows)
        return map(self.checked, self._stream.rows(epoch, share, shares))

    def endless(self, share: int, shares: int) -> Iterator[Row | Dropped]:
        """Epoch after epoch of a share."""
        for epoch in count():
            usable = False
            for row in self.epoch(epoch, share, shares):
                usable |= isinstance(row, Row)
                yield row
            if not usable:
                raise self.nothing_usable(share, shares)

    def checked(self, row: Row) -> Row | Dropped:
        """The row with its duration, or why it cannot be used."""
        seconds = row_duration(row)
        if seconds is None:
            return Dropped(row.id, UNREADABLE, "its header cannot be read")
        reason, detail = self.limits.unusable_length(seconds), ""
        if reason is None:
            reason, detail = self.limits.unusable_text(row.text, self.clean(row.text), seconds)
        return replace(row, duration=seconds) if reason is None else Dropped(row.id, reason, detail, round(seconds, 3))

    def nothing_usable(self, share: int, shares: int) -> TinyAudioError:
        """The error for a share without a usable clip."""
        return TinyAudioError(
            f"The stream of {self.part.path} has no usable clip in its split `{self.split}` for worker "
            f"{share + 1} of {shares}; use fewer workers or check the dataset."
        )


def _sources(parts: list[Part], window: int | None, clean: Callable[[str], str]) -> list[UsableRows]:
    """Those of a mixture, which together hold as many rows as one dataset."""
    return [
        UsableRows(
            part, part.train_split, part.max_train_samples, Limits.of(part, window), clean,
            shuffle_rows=max(LEAST_SHUFFLED, round(share * SHUFFLE_ROWS)),
        )
        for part, share in zip(parts, stream_shares(parts), strict=True)
    ]  # fmt: skip


def chunks(rows: Iterator[Row | Dropped]) -> Iterator[tuple[list[Row], list[Dropped]]]:
    """Groups of `PACK_ROWS` usable rows, and the rows rejected since the group before."""
    chunk: list[Row] = []
    rejected: list[Dropped] = []
    for row in rows:
        if isinstance(row, Dropped):
            rejected.append(row)
            continue
        chunk.append(row)
        if len(chunk) == PACK_ROWS:
            yield chunk, rejected
            chunk, rejected = [], []
    if chunk:
        yield chunk, rejected


def place_among_ranks() -> tuple[int, int]:
    """This process's rank, and how many there are: torch.distributed's where it runs, else what a launcher has set."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
