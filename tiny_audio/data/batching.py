"""Batches made by a budget of seconds from length-sorted clips, addressed by their number over the whole training."""

from collections.abc import Iterator, Sequence
from itertools import count

import numpy as np

from .steps import alike_steps

JITTER = 0.04  # of a clip's length, so that epochs group clips differently


class SecondsBatchSampler:
    """Packs clips of like length into batches of at most `batch_seconds` of padded audio (longest × clips).

    Deterministic: the batches of an epoch follow from (durations, seed, epoch) alone. A clip longer than the budget
    makes a batch of its own. Iterating gives the batches of the first epoch, which begins with the largest of them.

    Args:
        durations: seconds (clips,), finite; the batches hold positions in it.
        batch_seconds: budget of padded audio in a batch.
        seed: of the grouping and of the order.
        max_batch_size: most clips in a batch.
        per_step: batches that make a step, of all processes; where they are several, `batches` puts like ones together.

    Raises:
        ValueError: no clips, a duration that is not finite, or a budget that is not positive.
    """

    def __init__(
        self,
        durations: Sequence[float] | np.ndarray,
        batch_seconds: float,
        seed: int = 0,
        max_batch_size: int | None = None,
        per_step: int = 1,
    ) -> None:
        self.durations = np.asarray(durations, dtype=np.float64)
        self.batch_seconds = float(batch_seconds)
        self.seed, self.per_step = seed, per_step
        self.max_batch_size = max_batch_size or len(self.durations)
        self._counts: dict[int, int] = {}
        self._check()

    def _check(self) -> None:
        if not len(self.durations):
            raise ValueError("There are no clips to make batches of; expected at least one.")
        if not np.isfinite(self.durations).all():
            raise ValueError("A clip's duration is not known; make batches of usable clips only (usable_rows).")
        if self.batch_seconds <= 0 or self.max_batch_size < 1:
            raise ValueError("A batch needs a positive number of seconds and of clips.")

    def epoch(self, epoch: int) -> list[list[int]]:
        """Every clip once, in shuffled batches; in the first epoch the largest comes first."""
        rng = np.random.default_rng((self.seed, epoch))
        jittered = self.durations * rng.uniform(1 - JITTER, 1 + JITTER, len(self.durations))
        batches = self._packed(np.argsort(jittered, kind="stable"), first_fill=rng.uniform(0.2, 1.0))
        rng.shuffle(batches)
        return self._counted(batches, epoch)

    def _counted(self, batches: list[list[int]], epoch: int) -> list[list[int]]:
        self._counts[epoch] = len(batches)
        return batches if epoch else largest_first(batches, self.durations)

    @property
    def epoch_seconds(self) -> float:
        """Seconds of audio in an epoch."""
        return float(self.durations.sum())

    def _packed(self, order: np.ndarray, first_fill: float) -> list[list[int]]:
        """Greedy; a first batch of random size moves all the borders between batches from epoch to epoch."""
        batches: list[list[int]] = []
        batch: list[int] = []
        longest, budget = 0.0, self.batch_seconds * first_fill
        for index, seconds in zip(order.tolist(), self.durations[order].tolist(), strict=True):
            longest = max(longest, seconds)
            if batch and (longest * (len(batch) + 1) > budget or len(batch) >= self.max_batch_size):
                batches.append(batch)
                batch, longest, budget = [], seconds, self.batch_seconds
            batch.append(index)
        return [*batches, batch]

    def batches(self, start: int = 0, stop: int | None = None) -> Iterator[list[int]]:
        """The batches number `start` to `stop` of the endless sequence epoch 0, epoch 1, …; a resumed run continues
        with the batch after the last one it used, whatever the epoch."""
        epoch, first = self.locate(start)
        number = start
        for current in count(epoch):
            for batch in self._in_steps(current)[first if current == epoch else 0 :]:
                if stop is not None and number >= stop:
                    return
                yield batch
                number += 1

    def _in_steps(self, epoch: int) -> list[list[int]]:
        batches = self.epoch(epoch)
        if self.per_step == 1:
            return batches
        before = sum(self._counts[earlier] for earlier in range(epoch))
        return alike_steps(batches, self.durations, self.per_step, before, self.seed + epoch)

    def locate(self, number: int) -> tuple[int, int]:
        """Epoch of a batch, and its place in the epoch."""
        for epoch in count():
            if epoch not in self._counts:
                self.epoch(epoch)
            if number < self._counts[epoch]:
                return epoch, number
            number -= self._counts[epoch]
        raise AssertionError("unreachable")

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.epoch(0))

    def __len__(self) -> int:
        """Batches in the first epoch; others differ by a few."""
        if 0 not in self._counts:
            self.epoch(0)
        return self._counts[0]

    @property
    def padding_ratio(self) -> float:
        """Padded seconds / all seconds in the first epoch."""
        return padding_ratio(self.durations, self.epoch(0))


def largest_first(batches: Sequence[list[int]], durations: np.ndarray) -> list[list[int]]:
    """The batches with that of the most padded seconds at their head: what the memory cannot hold shows at once."""

    def size(number: int) -> tuple[float, float]:
        longest = float(durations[batches[number]].max())
        return longest * len(batches[number]), longest

    first = max(range(len(batches)), key=size)
    return [batches[first], *batches[:first], *batches[first + 1 :]]


def padding_ratio(durations: Sequence[float] | np.ndarray, batches: Sequence[Sequence[int]]) -> float:
    """Padded seconds / all seconds, when each batch is padded to its longest clip."""
    seconds = np.asarray(durations, dtype=np.float64)
    clips = [seconds[np.asarray(batch)] for batch in batches]
    padded = sum(float(batch.max()) * len(batch) for batch in clips)
    audio = sum(float(batch.sum()) for batch in clips)
    return 1.0 - audio / padded if padded else 0.0
