"""The word error rate over the checkpoints of a training run, dataset by dataset."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from tiny_audio.analysis.output import CLIPS, INTERVAL, WER, Column, Report, Table, percent
from tiny_audio.analysis.runs import evaluations, find_evaluations, is_on
from tiny_audio.console import printable
from tiny_audio.errors import TinyAudioError
from tiny_audio.evaluation.results import EVALUATIONS, METRICS, Metrics

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
    found = [metrics for name in names for metrics in _evaluations_of(name, dataset)]
    groups: dict[str, list[Metrics]] = {}
    for metrics in sorted(_newest(found), key=_order):
        groups.setdefault(_dataset(metrics), []).append(metrics)
    tables = [Table(name, name, COLUMNS, [_row(m) for m in group], whole=True) for name, group in groups.items()]
    return Report("history", {"names": list(names)}, tables, [_finding(*group) for group in groups.items()])


def _evaluations_of(name: str, dataset: str | None) -> list[Metrics]:
    folder = Path(name).expanduser()
    if not folder.is_dir() or (folder / METRICS).is_file():
        return find_evaluations(name, dataset, evaluations())
    inside = [m for m in evaluations() if Path(m.model).expanduser().resolve().is_relative_to(folder.resolve())]
    found = {m.folder.resolve(): m for m in [*evaluations(folder), *inside] if dataset is None or is_on(m, dataset)}
    if not found:
        raise TinyAudioError(
            f"No evaluation of a model in {folder} lies in {EVALUATIONS}; run `ta eval -m CHECKPOINT`."
        )
    return list(found.values())


def _newest(found: Iterable[Metrics]) -> list[Metrics]:
    """Of each model the newest evaluation of a kind."""
    by_kind: dict[tuple[str, str], Metrics] = {}
    for metrics in sorted(found, key=lambda m: m.date):
        by_kind[_dataset(metrics), metrics.model] = metrics
    return list(by_kind.values())


def _dataset(metrics: Metrics) -> str:
    """What two evaluations must share to stand in one table."""
    parts = [metrics.dataset.get(key) for key in ("path", "config", "split")]
    name = metrics.dataset.get("benchmark") or " ".join(str(part) for part in parts if part)
    sample = metrics.dataset.get("max_samples")
    clips = [f"{sample} clips"] if sample else []
    return ", ".join([name, metrics.normalizer["name"], *clips])


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
