"""Endless batches of decoded clips from a stream of rows, packed by seconds, for the workers of a torch DataLoader."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import count, islice

from torch.utils.data import IterableDataset, get_worker_info

from tiny_audio.errors import TinyAudioError

from .batching import SecondsBatchSampler
from .collator import Dropped, load_or_drop
from .config import DataConfig
from .corpus import Example, Row, load_row, row_duration
from .filtering import EMPTY_TEXT, UNREADABLE, default_clean, unusable_length
from .streaming import RowStream, mixed_seed

PACK_ROWS = 512  # rows that are sorted by length together

Batch = list[Example | Dropped]


@dataclass(frozen=True)
class Limits:
    """What can be used, as in `usable_rows`: a window in samples at 16 kHz, lengths in seconds."""

    max_samples_window: int | None = None
    min_seconds: float = 0.0
    max_seconds: float | None = None


class StreamDataset(IterableDataset):
    """Batches (lists of clips) for a DataLoader with `batch_size=None` and a `SpeechCollator`.

    Every `PACK_ROWS` usable rows of the shuffled stream are sorted by length and packed by seconds; worker w of n takes
    every n-th row. Batch g of the run is made by worker g % n. So a run that starts again with `start` = the number of
    batches already used, the same seed and the same number of workers goes on with exactly the batches that an
    uninterrupted one would have had; the rows before are read again, but not decoded.

    Args:
        config, split, max_samples: what is read, as in `stream_corpus`.
        batch_seconds, max_batch_size: as in SecondsBatchSampler.
        start: batches of the run that are used already.
        limits, clean: what is usable, as in `usable_rows`.
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
        self.config, self.split, self.max_samples = config, split, max_samples
        self.batch_seconds, self.max_batch_size, self.start = batch_seconds, max_batch_size, start
        self.limits = limits or Limits()
        self.clean = clean or default_clean()

    def __iter__(self) -> Iterator[Batch]:
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        share = (worker + self.start) % workers  # the loader asks worker 0 first, also after a resume
        used = len(range(share, self.start, workers))
        return self._share_of_run(share, workers, used)

    def _share_of_run(self, share: int, workers: int, used: int) -> Iterator[Batch]:
        stream = RowStream(self.config, self.split, self.max_samples)
        for epoch in count():
            readable = False
            for batches, rejected in self._epoch(stream, epoch, share, workers):
                readable |= used > 0
                for batch in self._decoded(batches, rejected, min(used, len(batches))):
                    readable = True
                    yield batch
                used = max(0, used - len(batches))
            if not readable:
                raise TinyAudioError(
                    f"The stream of {self.config.path} has no usable clip in its split `{self.split}` for worker "
                    f"{share + 1} of {workers}; use fewer workers or check the dataset."
                )

    def _epoch(
        self, stream: RowStream, epoch: int, share: int, workers: int
    ) -> Iterator[tuple[list[list[Row]], list[Dropped]]]:
        """Packed batches of rows, a chunk at a time, with the rows rejected since the chunk before."""
        for number, (chunk, rejected) in enumerate(self._usable_chunks(stream.rows(epoch, share, workers))):
            yield self._packed(chunk, mixed_seed(self.config.seed, epoch, number)), rejected

    def _usable_chunks(self, rows: Iterator[Row]) -> Iterator[tuple[list[Row], list[Dropped]]]:
        """Groups of usable rows with known durations, and the rows rejected since the group before."""
        chunk: list[Row] = []
        rejected: list[Dropped] = []
        for row in rows:
            checked = self._checked(row)
            if isinstance(checked, Dropped):
                rejected.append(checked)
                continue
            chunk.append(checked)
            if len(chunk) == PACK_ROWS:
                yield chunk, rejected
                chunk, rejected = [], []
        if chunk:
            yield chunk, rejected

    def _checked(self, row: Row) -> Row | Dropped:
        if not self.clean(row.text):
            return Dropped(row.id, EMPTY_TEXT, row.text, row.duration)
        seconds = row_duration(row)
        if seconds is None:
            return Dropped(row.id, UNREADABLE, "its header cannot be read")
        reason = unusable_length(seconds, *self._limits)
        return Dropped(row.id, reason, "", round(seconds, 3)) if reason else replace(row, duration=seconds)

    @property
    def _limits(self) -> tuple[int | None, float, float | None]:
        return self.limits.max_samples_window, self.limits.min_seconds, self.limits.max_seconds

    def _packed(self, chunk: list[Row], seed: int) -> list[list[Row]]:
        durations = [row.duration or 0.0 for row in chunk]
        sampler = SecondsBatchSampler(durations, self.batch_seconds, seed, self.max_batch_size)
        return [[chunk[place] for place in batch] for batch in sampler.epoch(0)]

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
        return load_or_drop(lambda: load_row(row), row.id, *self._limits)
