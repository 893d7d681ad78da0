"""The word error rate over the checkpoints of a training run, dataset by dataset."""

import re
from collections.abc import Sequence

from tiny_audio.analysis.output import CLIPS, INTERVAL, WER, Column, Report, Table, percent
from tiny_audio.analysis.runs import kind, named_evaluations, newest
from tiny_audio.console import printable
from tiny_audio.evaluation.results import Metrics

STEP = re.compile(r"(?:checkpoint|step)[-_]?(\d+)")
COLUMNS = (
    Column("step", "step", "{:,}".format),
    Column("model", "model", printable),
    WER,
    INTERVAL,
    CLIPS,
    Column("failed", "failed"),
    Column("date", "date", printable),
    Column("folder", show=None),
)


def history(names: Sequence[str], dataset: str | None = None) -> Report:
    """WER of each checkpoint, by step; those without a step, such as `best`, come last.

    Args:
        names: runs, as of every analysis, and folders: of a training run (the evaluations of its checkpoints) or with
            results folders inside.

    Raises:
        TinyAudioError: a name means no evaluation.
    """
    found = [metrics for name in names for metrics in named_evaluations(name, dataset)]
    groups: dict[str, list[Metrics]] = {}
    for metrics in sorted(newest(found), key=_order):
        groups.setdefault(kind(metrics), []).append(metrics)
    tables = [Table(name, name, COLUMNS, [_row(m) for m in group], whole=True) for name, group in groups.items()]
    return Report("history", {"names": list(names)}, tables, [_finding(*group) for group in groups.items()])


def _step(metrics: Metrics) -> int | None:
    found = STEP.findall(metrics.model)
    return int(found[-1]) if found else None


def _order(metrics: Metrics) -> tuple:
    step = _step(metrics)
    return step is None, step or 0, metrics.date


def _row(metrics: Metrics) -> tuple:
    scored = metrics.num_samples - metrics.num_failed
    figures = (metrics.wer, metrics.wer_interval, scored, metrics.num_failed, metrics.date)
    return _step(metrics), metrics.model, *figures, str(metrics.folder)


def _finding(dataset: str, group: Sequence[Metrics]) -> str:
    best = min(group, key=lambda metrics: metrics.wer)
    steps = [metrics for metrics in group if _step(metrics) is not None]
    last = f"; after the last step it is {percent(steps[-1].wer)}" if steps else ""
    return f"{dataset}: the lowest WER is {percent(best.wer)}, of {best.model}{last}."
