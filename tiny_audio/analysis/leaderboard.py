"""Your own evaluations ranked: a table for each dataset, split and normaliser, the lowest word error rate first."""

from collections.abc import Sequence

from tiny_audio.analysis.output import CLIPS, INTERVAL, WER, Column, Report, Table, interval, percent
from tiny_audio.analysis.runs import evaluations, is_on, kind, named_evaluations, newest
from tiny_audio.console import printable
from tiny_audio.errors import TinyAudioError
from tiny_audio.evaluation.results import EVALUATIONS, Metrics

COLUMNS = (
    Column("model", "model", printable),
    WER,
    INTERVAL,
    CLIPS,
    Column("failed", "failed"),
    Column("rtfx", "RTFx", "{:,.1f}".format),
    Column("hardware", "on", printable),
    Column("parameters", "parameters", "{:,}".format),
    Column("date", "date", printable),
    Column("folder", show=None),
)


def leaderboard(found: Sequence[Metrics]) -> Report:
    """The tables of these evaluations, as `ranked` gives them."""
    groups: dict[str, list[Metrics]] = {}
    for metrics in found:
        groups.setdefault(kind(metrics), []).append(metrics)
    tables = [Table(name, name, COLUMNS, [_row(m) for m in group], whole=True) for name, group in groups.items()]
    return Report("leaderboard", {}, tables, [_finding(name, group) for name, group in groups.items()])


def ranked(names: Sequence[str], dataset: str | None = None) -> list[Metrics]:
    """The newest evaluation of each model on each dataset, the lowest WER of a dataset first.

    Args:
        names: runs and folders, as of `ta analysis history`; none: all in outputs/eval.

    Raises:
        TinyAudioError: there is no evaluation, none that a name means, or none on the dataset.
    """
    found = [metrics for name in names for metrics in named_evaluations(name, dataset)]
    if not names:
        found = [metrics for metrics in evaluations() if dataset is None or is_on(metrics, dataset)]
    if not found:
        on = f" on {dataset}" if dataset else ""
        raise TinyAudioError(f"{EVALUATIONS} holds no finished evaluation{on}; run `ta eval` first, or name a folder.")
    return sorted(newest(found), key=lambda metrics: (kind(metrics), metrics.wer, metrics.model))


def device_of(metrics: Metrics) -> str:
    """The GPU by its name, else what it ran on."""
    hardware = metrics.hardware
    cores = f", {hardware['cpu_cores']} cores" if hardware.get("device") == "cpu" else ""
    return hardware.get("gpu") or f"{hardware.get('device', '')}{cores}"


def _row(metrics: Metrics) -> tuple:
    scored = metrics.num_samples - metrics.num_failed
    speed = (metrics.rtfx, device_of(metrics), metrics.parameters)
    figures = (metrics.wer, metrics.wer_interval, scored, metrics.num_failed)
    return metrics.model, *figures, *speed, metrics.date, str(metrics.folder)


def _finding(name: str, group: Sequence[Metrics]) -> str:
    best = group[0]
    text = f"{name}: {best.model} has the lowest WER, {percent(best.wer)} ({interval(best.wer_interval)})"
    within = [metrics.model for metrics in group[1:] if metrics.wer_interval[0] <= best.wer_interval[1]]
    overlap = f"; the intervals of {', '.join(within)} overlap with its, so ask `ta analysis compare`" if within else ""
    return f"{text}{overlap}."
