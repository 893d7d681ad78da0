"""The word error rate by duration, speech rate, noise, speaker or any column of the dataset."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tiny_audio.analysis.output import CLIPS, INTERVAL, WER, WORDS, Column, Report, Table, counted, interval, percent
from tiny_audio.analysis.runs import Run
from tiny_audio.analysis.significance import rate_interval
from tiny_audio.console import printable
from tiny_audio.errors import TinyAudioError
from tiny_audio.evaluation.results import ClipResult
from tiny_audio.evaluation.scoring import error_rate

BINS = 5  # of numbers, with as many clips each
FEWEST_IN_BIN = 5  # clips
MOST_GROUPS = 12  # of values that are no numbers; numbers of at most so many values are values too
MISSING = "(none)"


@dataclass(frozen=True)
class Slice:
    """Some of a run's clips, and how well they were recognised."""

    kind: str  # duration, rate, snr, speaker, or a column of the dataset
    label: str
    clips: int
    words: int  # of the references
    errors: int
    wer: float
    wer_interval: tuple[float, float] | None  # 95 %, bootstrap over clips; None for a single clip


def _rate(result: ClipResult) -> float | None:
    return (result.reference_words or 0) / result.duration if result.duration else None


# What can be had of every run whose data say it: the head of a table, and the value of a clip.
MEASURES: dict[str, tuple[str, Callable[[ClipResult], Any]]] = {
    "duration": ("duration (s)", lambda result: result.duration),
    "rate": ("speech rate (words/s)", _rate),
    "snr": ("SNR (dB)", lambda result: result.snr),
    "speaker": ("speaker", lambda result: result.speaker),
}


def slices_of(run: Run, by: Sequence[str] = ()) -> list[Slice]:
    """WER by each of `by`; by all of duration, rate, snr and speaker that the data have, if none is named.

    Raises:
        TinyAudioError: no clip has such a column; names those that there are.
    """
    return [piece for kind in dict.fromkeys(by) or _usual(run.scored) for piece in _slices_by(kind, run.scored)]


def slices(run: Run, by: Sequence[str] = ()) -> Report:
    """The same as tables, one a kind."""
    found = slices_of(run, by)
    columns = (CLIPS, WORDS, WER, INTERVAL)
    tables = []
    for kind in dict.fromkeys(piece.kind for piece in found):
        head = MEASURES[kind][0] if kind in MEASURES else kind
        heads = (Column("label", head, printable), *columns)
        rows = [(s.label, s.clips, s.words, s.wer, s.wer_interval) for s in found if s.kind == kind]
        tables.append(Table(kind, f"{run.title}, by {kind}", heads, rows, whole=True))
    facts = {"run": str(run.folder), "wer": run.metrics.wer, "wer_interval": run.metrics.wer_interval}
    return Report("slices", facts, tables, _findings(run, found))


def _findings(run: Run, found: Sequence[Slice]) -> list[str]:
    """Each slice of several that is surely worse than the whole run."""
    if not found:
        return ["There is nothing to slice: no clip was scored."]
    worse = [s for s in found if s.wer_interval and s.wer_interval[0] > run.metrics.wer]
    whole = percent(run.metrics.wer)
    if not worse:
        return [f"No slice is surely worse than the run's {whole}: each 95 % interval reaches down to it."]
    return [
        f"Worse than the run's {whole}: {s.kind} {printable(s.label)}, {percent(s.wer)} "
        f"({interval(s.wer_interval or (0, 0))}) on {counted(s.clips, 'clip')}."
        for s in sorted(worse, key=lambda s: -s.wer)
    ]


def _usual(results: Sequence[ClipResult]) -> list[str]:
    return [kind for kind, (_, value) in MEASURES.items() if any(value(result) is not None for result in results)]


def _slices_by(kind: str, results: Sequence[ClipResult]) -> list[Slice]:
    value = MEASURES[kind][1] if kind in MEASURES else lambda result: result.metadata.get(kind)
    values = [value(result) for result in results]
    if all(v is None for v in values):
        known = dict.fromkeys([*_usual(results), *(name for result in results for name in result.metadata)])
        raise TinyAudioError(f"No clip has a {kind}; the results can be sliced by {', '.join(known)}.")
    groups = _binned(values) if _are_measured(values) else _by_value(values)
    return [_slice(kind, label, [results[i] for i in members]) for label, members in groups.items()]


def _are_measured(values: Sequence[Any]) -> bool:
    """Whether these are numbers of a scale, and not a few numbers used as names."""
    known = {v for v in values if v is not None} if all(isinstance(v, int | float | None) for v in values) else set()
    return len(known) > MOST_GROUPS or any(isinstance(v, float) for v in known)


def _binned(values: Sequence[float | None]) -> dict[str, list[int]]:
    """Clips by quantiles of their numbers, from low to high; those without one last."""
    known = np.array([v for v in values if v is not None], np.float64)
    count = max(1, min(BINS, len(known) // FEWEST_IN_BIN))
    edges = np.unique(np.quantile(known, np.linspace(0, 1, count + 1)))
    inner = edges[1:-1]
    labels = _range_labels([edges[0], *inner], [*inner, edges[-1]])
    bins: dict[str, list[int]] = {label: [] for label in [*labels, MISSING]}
    for index, value in enumerate(values):
        bins[MISSING if value is None else labels[np.searchsorted(inner, value)]].append(index)
    return {label: members for label, members in bins.items() if members}


def _range_labels(lows: Sequence[float], highs: Sequence[float]) -> list[str]:
    """`low–high` of each bin, with as many digits as tell them apart."""
    for digits in (4, 8, 17):
        labels = [f"{low:.{digits}g}–{high:.{digits}g}" for low, high in zip(lows, highs, strict=True)]
        if len(set(labels)) == len(labels):
            break
    return labels


def _by_value(values: Sequence[Any]) -> dict[str, list[int]]:
    """Clips by their value, the largest groups first; the smallest are one, `other (how many)`."""
    groups: dict[str, list[int]] = {}
    for index, value in enumerate(values):
        groups.setdefault(MISSING if value is None else str(value), []).append(index)
    ranked = sorted(groups.items(), key=lambda group: (-len(group[1]), group[0]))
    if len(ranked) <= MOST_GROUPS:
        return dict(ranked)
    kept, folded = ranked[: MOST_GROUPS - 1], ranked[MOST_GROUPS - 1 :]
    return {**dict(kept), f"other ({len(folded)})": [index for _, members in folded for index in members]}


def _slice(kind: str, label: str, results: Sequence[ClipResult]) -> Slice:
    errors = [result.word_errors for result in results]
    words = [result.reference_words or 0 for result in results]
    bounds = rate_interval(errors, words) if len(results) > 1 else None
    return Slice(kind, label, len(results), sum(words), sum(errors), error_rate(sum(errors), sum(words)), bounds)
