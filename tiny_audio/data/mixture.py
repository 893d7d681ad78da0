"""Several corpora in one training: how often each comes, spread evenly over an epoch, whether mapped or streamed."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import numpy as np

from .batching import SecondsBatchSampler
from .collator import ClipDataset, Dropped
from .config import Part
from .corpus import Example
from .streaming import mixed_seed

STRETCH_CLIPS = 1024  # clips that are sorted by length together; each such stretch holds the parts in their shares
GOLDEN = (5**0.5 - 1) / 2  # its multiples, modulo 1, fill the unit interval evenly at every moment

T = TypeVar("T")


def clips_per_epoch(parts: Sequence[Part], sizes: Sequence[int]) -> list[int]:
    """Clips of each part in an epoch: as many as set, or all; by weights, shares of as many clips as there are."""
    weights = [part.weight for part in parts]
    if None in weights:
        return [part.clips or size for part, size in zip(parts, sizes, strict=True)]
    return [max(1, round(sum(sizes) * share)) for share in normalized([weight or 0.0 for weight in weights])]


def stream_shares(parts: Sequence[Part]) -> list[float]:
    """Shares of the parts of a streamed mixture, each of which says its weight or its clips."""
    return normalized([part.weight or part.clips or 1.0 for part in parts])


def normalized(numbers: Sequence[float]) -> list[float]:
    """The numbers as shares of their sum."""
    total = sum(numbers)
    return [number / total for number in numbers]


def even_quotas(total: int | None, sizes: Sequence[int]) -> list[int]:
    """How many of each part's items make a sample of about `total`: equally many, at least one, at most all."""
    if total is None:
        return list(sizes)
    quotas = [0] * len(sizes)
    smallest_first = sorted(range(len(sizes)), key=lambda index: sizes[index])
    for place, index in enumerate(smallest_first):
        quotas[index] = min(sizes[index], max(1, (total - sum(quotas)) // (len(sizes) - place)))
    return quotas


class MixtureSampler(SecondsBatchSampler):
    """Batches of several corpora that stand one after the other; deterministic and addressed as SecondsBatchSampler's.

    A corpus's clips come in random order, all once before any comes again, whatever an epoch's number of them.

    Args:
        durations: seconds (clips,) of each corpus.
        counts: clips of each in an epoch.
        batch_seconds, seed, max_batch_size, per_step: as in SecondsBatchSampler.
    """

    def __init__(
        self,
        durations: Sequence[np.ndarray],
        counts: Sequence[int],
        batch_seconds: float,
        seed: int = 0,
        max_batch_size: int | None = None,
        per_step: int = 1,
    ) -> None:
        super().__init__(np.concatenate(durations), batch_seconds, seed, max_batch_size, per_step)
        self.sizes, self.counts = [len(own) for own in durations], list(counts)

    def epoch(self, epoch: int) -> list[list[int]]:
        """Every corpus's number of clips, in batches that are shuffled within stretches; the first as in the base class."""
        clips = self._drawn(epoch)
        batches: list[list[int]] = []
        for number, stretch in enumerate(np.array_split(clips, math.ceil(len(clips) / STRETCH_CLIPS))):
            seed = mixed_seed(self.seed, epoch, number)
            packed = mixed_batches(self.durations[stretch], self.batch_seconds, seed, self.max_batch_size)
            batches += [stretch[batch].tolist() for batch in packed]
        return self._counted(batches, epoch)

    @property
    def epoch_seconds(self) -> float:
        """Seconds of audio in an epoch, on average."""
        return sum(self.part_seconds)

    @property
    def part_seconds(self) -> list[float]:
        """Seconds of each corpus in an epoch, on average."""
        borders = np.cumsum(self.sizes)[:-1]
        means = [own.mean() for own in np.split(self.durations, borders)]
        return [float(mean * count) for mean, count in zip(means, self.counts, strict=True)]

    def _drawn(self, epoch: int) -> np.ndarray:
        """The epoch's clips, those of each corpus at even distances."""
        clips, start = [], 0
        for corpus, (size, count) in enumerate(zip(self.sizes, self.counts, strict=True)):
            clips.append(start + self._turns(corpus, epoch * count, count, size))
            start += size
        return spread(clips, np.random.default_rng((self.seed, epoch)))

    def _turns(self, corpus: int, first: int, count: int, size: int) -> np.ndarray:
        """`count` members from number `first` on of an endless sequence of shuffles of a corpus."""
        rounds = range(first // size, (first + count - 1) // size + 1)
        shuffles = [np.random.default_rng(mixed_seed(self.seed, corpus, turn)).permutation(size) for turn in rounds]
        return np.concatenate(shuffles)[first % size :][:count]


def mixed_batches(
    durations: Sequence[float] | np.ndarray, batch_seconds: float, seed: int, max_batch_size: int | None = None
) -> list[list[int]]:
    """The batches of a SecondsBatchSampler's epoch, so ordered that any few of them hold all lengths.

    The clips of a part are often alike in length: with a free order, a part of few batches would come in bursts.
    """
    batches = SecondsBatchSampler(durations, batch_seconds, seed, max_batch_size).epoch(0)
    seconds = np.asarray(durations)
    by_length = np.argsort([seconds[batch].max() for batch in batches], kind="stable")
    places = (np.arange(len(batches)) * GOLDEN + np.random.default_rng(seed).uniform()) % 1
    return [batches[number] for number in by_length[np.argsort(places)]]


def spread(groups: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """The groups' members in one order, those of each group at even distances."""
    places = [(np.arange(len(group)) + rng.uniform()) / len(group) for group in groups]
    return np.concatenate(groups)[np.argsort(np.concatenate(places), kind="stable")]


class JoinedClips:
    """The ClipDatasets of the parts as one, positions counted through."""

    def __init__(self, parts: Sequence[ClipDataset]) -> None:
        self.parts = list(parts)
        self.starts = np.cumsum([0, *map(len, self.parts)])

    def __len__(self) -> int:
        return int(self.starts[-1])

    def __getitem__(self, position: int) -> Example | Dropped:
        part, own = self._located(position)
        return part[own]

    def __getitems__(self, positions: Sequence[int]) -> list[Example | Dropped]:
        clips = [self[position] for position in positions]
        if not any(isinstance(clip, Example) for clip in clips):
            part, own = self._located(max(positions))
            clips += part.replacement(own)
        return clips

    def text(self, position: int) -> str:
        """The transcript as written, without touching the audio."""
        part, own = self._located(position)
        return part.text(own)

    def _located(self, position: int) -> tuple[ClipDataset, int]:
        index = int(np.searchsorted(self.starts, position, side="right")) - 1
        return self.parts[index], position - int(self.starts[index])


def interleaved(streams: Sequence[Iterator[T]], weights: Sequence[float], counts: Callable[[T], bool]) -> Iterator[T]:
    """Items of endless streams, at even distances and as often as their weights say.

    Args:
        counts: whether an item takes its stream's turn; one that does not is followed by the stream's next.
    """
    taken = [0.5] * len(streams)
    while True:
        index = min(range(len(streams)), key=lambda i: taken[i] / weights[i])
        for item in streams[index]:
            yield item
            if counts(item):
                break
        taken[index] += 1
