"""Whether two recognisers differ on the same clips: the paired bootstrap and the matched-pairs test (MAPSSWE)."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from tiny_audio.analysis.alignment import Alignment

LEVEL = 0.05  # below it a difference counts as shown
RESAMPLES = 2000
BOUNDING_WORDS = 2  # that both got right, between two segments
MANY_SEGMENTS = 50  # from here on the mean of a segment's differences is near enough to normal


@dataclass(frozen=True)
class MatchedPairs:
    """The matched-pairs test of two recognisers, A and B."""

    segments: int
    mean: float  # word errors of B less those of A, in a segment
    z: float | None  # None: all segments differ by the same, so that there is no spread to measure it with
    p: float  # two-sided


def bootstrap_rates(errors: np.ndarray, words: np.ndarray, resamples: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """Pooled word error rates when clips are drawn anew with replacement, the same clips for all recognisers.

    Clips with the same counts are alike, so how often each kind is drawn comes from one multinomial.

    Args:
        errors: word errors, shape (recognisers, clips).
        words: reference words, shape (clips,).

    Returns:
        float64 (resamples, recognisers).
    """
    kinds, clips = np.unique(np.column_stack([words, errors.T]), axis=0, return_counts=True)
    rng = np.random.default_rng(seed)
    block = max(1, 4_000_000 // len(kinds))  # bounds the memory of the draws to about 64 MB
    totals = np.concatenate(
        [
            rng.multinomial(len(words), clips / len(words), min(block, resamples - start)) @ kinds.astype(np.float64)
            for start in range(0, resamples, block)
        ]
    )
    return totals[:, 1:] / totals[:, :1].clip(min=1)


def rate_interval(errors: Sequence[int], words: Sequence[int]) -> tuple[float, float]:
    """The 95 % bootstrap interval of one pooled word error rate over clips."""
    rates = bootstrap_rates(np.array([errors]), np.array(words), 1000)[:, 0]
    low, high = np.percentile(rates, [100 * LEVEL / 2, 100 * (1 - LEVEL / 2)])
    return float(low), float(high)


def two_sided_p(differences: np.ndarray) -> float:
    """How often resampled differences fall beyond 0, on the rarer side, twice; never 0, since more draws might find one."""
    beyond = min((differences <= 0).sum(), (differences >= 0).sum())
    return min(1.0, 2 * (int(beyond) + 1) / (len(differences) + 1))


def matched_pairs(a: Sequence[Alignment], b: Sequence[Alignment]) -> MatchedPairs:
    """The matched-pairs sentence-segment word error test (Gillick and Cox 1989), as NIST's sc_stats does it.

    Errors that lie close together are not independent, so they are counted by segments: stretches with errors, parted
    by two or more words that both recognisers got right. The mean difference over its standard error is Z.

    Args:
        a, b: the same clips in the same order.
    """
    errors = segment_errors(a, b)
    differences = errors[:, 1] - errors[:, 0]
    count = len(differences)
    mean = float(differences.mean()) if count else 0.0
    if not differences.any():
        return MatchedPairs(count, mean, 0.0, 1.0)
    spread = float(differences.std(ddof=1)) if count > 1 else 0.0
    if spread == 0:  # sc_stats sets Z to 0 here, though one may err in every segment and the other never: a sign test
        return MatchedPairs(count, mean, None, 2.0 ** (1 - count))
    z = mean / (spread / math.sqrt(count))
    return MatchedPairs(count, mean, z, math.erfc(abs(z) / math.sqrt(2)))


def segment_errors(a: Sequence[Alignment], b: Sequence[Alignment]) -> np.ndarray:
    """Word errors of both recognisers in each segment, int64 (segments, 2)."""
    found = [
        (clip, slot, errors * (1 - side), errors * side)  # side 0 is A, side 1 is B
        for clip, pair in enumerate(zip(a, b, strict=True))
        for side, alignment in enumerate(pair)
        for slot, errors in _slots(alignment)
    ]
    if not found:
        return np.zeros((0, 2), np.int64)
    clips, slots, *errors = np.array(sorted(found), np.int64).T
    words_between = slots[1:] // 2 - (slots[:-1] + 1) // 2
    starts = np.flatnonzero((clips[1:] != clips[:-1]) | (words_between >= BOUNDING_WORDS)) + 1
    return np.add.reduceat(np.stack(errors, axis=1), [0, *starts])


def _slots(alignment: Alignment) -> Iterator[tuple[int, int]]:
    """Where errors are and how many: slot 2i + 1 is word i of the reference, slot 2i the gap before it."""
    for chunk in alignment.chunks:
        if chunk.type == "insert":
            yield 2 * chunk.ref_start_idx, chunk.hyp_end_idx - chunk.hyp_start_idx
        elif chunk.type != "equal":
            yield from ((2 * word + 1, 1) for word in range(chunk.ref_start_idx, chunk.ref_end_idx))


def holm(p_values: Sequence[float]) -> list[float]:
    """p values corrected for being several (Holm 1979): the chance of any false claim stays below the level."""
    corrected = [0.0] * len(p_values)
    highest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = highest
    return corrected
