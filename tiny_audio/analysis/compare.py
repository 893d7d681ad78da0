"""Runs beside each other on the same clips: which is better, whether that is shown, and on which clips."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from tiny_audio.analysis.alignment import Alignment, align
from tiny_audio.analysis.output import (
    CLIPS,
    ERRORS,
    ID,
    INTERVAL,
    REFERENCE,
    SMALLEST_P,
    WER,
    WORDS,
    Column,
    Report,
    Table,
    counted,
    p_value,
    percent,
    point_interval,
    points,
    signed,
)
from tiny_audio.analysis.runs import Run, labels, same_path
from tiny_audio.analysis.significance import (
    LEVEL,
    MANY_SEGMENTS,
    MatchedPairs,
    bootstrap_rates,
    holm,
    matched_pairs,
    two_sided_p,
)
from tiny_audio.console import printable
from tiny_audio.errors import TinyAudioError
from tiny_audio.evaluation.results import ClipResult

TAILS = (2.5, 97.5)  # per cent: the bounds of a 95 % interval

RUN_COLUMNS = (Column("run", "run", printable), CLIPS, WORDS, ERRORS, WER, INTERVAL, Column("folder", show=None))
PAIR_COLUMNS = (
    Column("a", "A", printable),
    Column("b", "B", printable),
    Column("difference", "WER of B - A", points),
    Column("difference_interval", "95 %", point_interval),
    Column("bootstrap_p", "p, bootstrap", p_value),
    Column("segments", "segments"),
    Column("mean", show=None),
    Column("z", "Z", "{:+.2f}".format),
    Column("p", "p, MAPSSWE", p_value),
)
CHANGE_COLUMNS = (
    ID,
    Column("change", "change", signed),
    Column("errors_a", "errors of A"),
    Column("errors_b", "of B"),
    REFERENCE,
    Column("prediction_a", "prediction of A", printable),
    Column("prediction_b", "prediction of B", printable),
)
HOLM = Column("p_holm", "p, Holm", p_value)


@dataclass(frozen=True)
class Pair:
    """Run B against run A on the same clips; differences are B's rate less A's, as fractions."""

    a: int  # index of the run
    b: int
    difference: float
    difference_interval: tuple[float, float]  # 95 %, paired bootstrap over clips
    bootstrap_p: float
    test: MatchedPairs


def compare(runs: Sequence[Run]) -> Report:
    """Compare runs over the clips that all of them scored; every pair, those with the first run before the others.

    Raises:
        TinyAudioError: they differ in dataset, reference texts or normaliser, or no clip was scored by all.
    """
    _require_comparable(runs)
    clips = _common_clips(runs)
    names = labels(runs)
    alignments = [align(results) for results in clips]
    rates, table = _rates(runs, names, clips)
    pairs = [_pair(a, b, rates, alignments) for a, b in combinations(range(len(runs)), 2)]
    corrected = holm([pair.test.p for pair in pairs])
    left_out = _left_out(runs, len(clips[0]))
    tables = [table, _pair_table(pairs, corrected, names), *_changes(names, clips, alignments)]
    findings = [*_verdicts(pairs, corrected, names), *left_out]
    return Report("compare", {"clips": len(clips[0]), "left_out": left_out}, tables, findings)


# ---- what may be compared


def _require_comparable(runs: Sequence[Run]) -> None:
    first = runs[0]
    for other in runs[1:]:
        if not _same_dataset(first, other):
            what = " and ".join(_dataset_name(run) for run in (first, other))
            raise TinyAudioError(f"{first.folder} and {other.folder} measured different datasets: {what}.")
        if first.metrics.normalizer != other.metrics.normalizer:
            what = " and ".join(" ".join(run.metrics.normalizer.values()) for run in (first, other))
            raise TinyAudioError(f"{first.folder} and {other.folder} were scored with different normalisers: {what}.")


def _same_dataset(a: Run, b: Run) -> bool:
    one, other = a.metrics.dataset, b.metrics.dataset
    fingerprint = one.get("dataset_fingerprint")
    if fingerprint is not None and fingerprint == other.get("dataset_fingerprint"):
        return True
    return same_path(one["path"], other["path"]) and all(one.get(key) == other.get(key) for key in ("config", "split"))


def _dataset_name(run: Run) -> str:
    return " ".join(
        str(run.metrics.dataset.get(key)) for key in ("path", "config", "split") if run.metrics.dataset.get(key)
    )


def _common_clips(runs: Sequence[Run]) -> list[list[ClipResult]]:
    """Of each run the clips that all scored, in one order."""
    by_id = [{result.id: result for result in run.scored} for run in runs]
    common = sorted(set.intersection(*(set(results) for results in by_id)))
    if not common:
        raise TinyAudioError(f"No clip was scored by each of {', '.join(str(run.folder) for run in runs)}.")
    for clip in common:
        texts = {results[clip].reference for results in by_id}
        if len(texts) > 1:
            raise TinyAudioError(
                f"The runs have different references of clip {clip}: {' and '.join(map(repr, sorted(texts)))}."
            )
    return [[results[clip] for clip in common] for results in by_id]


def _left_out(runs: Sequence[Run], common: int) -> list[str]:
    """Why clips of each run are not compared."""
    sentences = []
    for run, name in zip(runs, labels(runs), strict=True):
        failed, alone = len(run.results) - len(run.scored), len(run.scored) - common
        parts = [f"{counted(failed, 'clip')} that failed"] * (failed > 0)
        parts += [f"{counted(alone, 'clip')} that not every run scored"] * (alone > 0)
        if parts:
            sentences.append(f"Left out of {name}: {' and '.join(parts)}.")
    return sentences


# ---- rates and tests


def _rates(
    runs: Sequence[Run], names: Sequence[str], clips: Sequence[Sequence[ClipResult]]
) -> tuple[np.ndarray, Table]:
    """WER of each run, the measured one in row 0 and those of the resamples below, and the table of it."""
    words = np.array([result.reference_words or 0 for result in clips[0]])
    errors = np.array([[result.word_errors for result in results] for results in clips])
    measured = errors.sum(axis=1) / max(int(words.sum()), 1)
    resampled = bootstrap_rates(errors, words)
    bounds = [_interval(resampled[:, index]) for index in range(len(runs))]
    figures = zip(names, errors.sum(axis=1).tolist(), measured.tolist(), bounds, runs, strict=True)
    rows = [(name, len(words), int(words.sum()), *figure, str(run.folder)) for name, *figure, run in figures]
    return np.vstack([measured, resampled]), Table("runs", "Runs", RUN_COLUMNS, rows, whole=True)


def _interval(values: np.ndarray) -> tuple[float, float]:
    low, high = np.percentile(values, TAILS)
    return float(low), float(high)


def _pair(a: int, b: int, rates: np.ndarray, alignments: Sequence[Sequence[Alignment]]) -> Pair:
    measured, *resampled = rates[:, b] - rates[:, a]
    differences = np.array(resampled)
    test = matched_pairs(alignments[a], alignments[b])
    return Pair(a, b, float(measured), _interval(differences), two_sided_p(differences), test)


def _pair_table(pairs: Sequence[Pair], corrected: Sequence[float], names: Sequence[str]) -> Table:
    rows = [(names[p.a], names[p.b], *_figures(p), p_holm) for p, p_holm in zip(pairs, corrected, strict=True)]
    holm_column = HOLM if len(pairs) > 1 else Column(HOLM.key, show=None)
    return Table("pairs", "Differences, in percentage points", (*PAIR_COLUMNS, holm_column), rows, whole=True)


def _figures(pair: Pair) -> tuple:
    test = pair.test
    return (pair.difference, pair.difference_interval, pair.bootstrap_p, test.segments, test.mean, test.z, test.p)


def _verdicts(pairs: Sequence[Pair], corrected: Sequence[float], names: Sequence[str]) -> list[str]:
    sentences = [_verdict(pair, p, names) for pair, p in zip(pairs, corrected, strict=True)]
    fewest = min(pair.test.segments for pair in pairs)
    if fewest < MANY_SEGMENTS:
        sentences.append(
            f"Few errors to go by: {counted(fewest, 'segment')}; the test is meant for {MANY_SEGMENTS} and more."
        )
    return sentences


def _verdict(pair: Pair, p: float, names: Sequence[str]) -> str:
    a, b = names[pair.a], names[pair.b]
    if p >= LEVEL:
        return f"No difference between {a} and {b} can be shown (MAPSSWE, p {_said(p)})."
    better, worse = (b, a) if pair.test.mean < 0 else (a, b)
    return f"{better} is better than {worse}, by {percent(abs(pair.difference))} of the words (MAPSSWE, p {_said(p)})."


def _said(p: float) -> str:
    return p_value(p) if p < SMALLEST_P else f"= {p_value(p)}"


# ---- clips


def _changes(
    names: Sequence[str], clips: Sequence[Sequence[ClipResult]], alignments: Sequence[Sequence[Alignment]]
) -> list[Table]:
    """The clips on which later runs do better and worse than the first, the biggest change first."""
    rows = [
        (names[b], old.id, new.word_errors - old.word_errors, old.word_errors, new.word_errors, *_texts(before, after))
        for b in range(1, len(names))
        for old, new, before, after in zip(clips[0], clips[b], alignments[0], alignments[b], strict=True)
        if new.word_errors != old.word_errors
    ]
    rows.sort(key=lambda row: (-abs(row[2]), row[1], row[0]))
    run = Column("run", "run B", printable if len(names) > 2 else None)
    better, worse = [row for row in rows if row[2] < 0], [row for row in rows if row[2] > 0]
    return [
        Table("better", f"Fewer errors than A, {names[0]}", (run, *CHANGE_COLUMNS), better),
        Table("worse", f"More errors than A, {names[0]}", (run, *CHANGE_COLUMNS), worse),
    ]


def _texts(before: Alignment, after: Alignment) -> tuple[str, str, str]:
    return " ".join(before.reference), before.marked()[1], after.marked()[1]
