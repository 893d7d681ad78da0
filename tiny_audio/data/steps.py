"""The order of an epoch's batches in which those of one step are alike, so that no process waits long for another."""

from collections.abc import Sequence

import numpy as np

WINDOW_STEPS = 16  # neighbours within so many steps' batches are sorted; further than that no batch moves


def alike_steps(
    batches: Sequence[list[int]], durations: np.ndarray, per_step: int, begun: int, seed: int
) -> list[list[int]]:
    """The batches so ordered that each `per_step` in a row have about the same padded seconds; the steps are shuffled.

    The first step of a window with the longest batch comes first, where the longest was first before.

    Args:
        batches: of an epoch, shuffled.
        durations: seconds (clips,) of what the batches hold positions of.
        begun: batches of the step that the epoch before has begun.
        seed: of the order.
    """
    rng = np.random.default_rng(seed)
    first = -begun % per_step  # they complete that step
    last = first + (len(batches) - first) // per_step * per_step
    ordered = list(batches[:first])
    for start in range(first, last, WINDOW_STEPS * per_step):
        window = list(batches[start : min(start + WINDOW_STEPS * per_step, last)])
        longest_first = _padded(window[0], durations) == max(_padded(batch, durations) for batch in window)
        window.sort(key=lambda batch: _padded(batch, durations), reverse=True)
        steps = [window[place : place + per_step] for place in range(0, len(window), per_step)]
        order = rng.permutation(np.arange(longest_first, len(steps)))
        ordered += [batch for step in [0] * longest_first + order.tolist() for batch in steps[step]]
    return ordered + list(batches[max(first, last) :])


def _padded(batch: list[int], durations: np.ndarray) -> float:
    return len(batch) * float(durations[batch].max())
