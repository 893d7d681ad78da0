"""Which results folder a path, a run's name or a model's name means, and what is in it."""

import difflib
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tiny_audio.console import say
from tiny_audio.errors import TinyAudioError
from tiny_audio.evaluation.results import EVALUATIONS, METRICS, RESULTS, ClipResult, Metrics, read_results
from tiny_audio.evaluation.scoring import normalized_pair
from tiny_audio.text.normalizers import get_normalizer

NEAREST_NAMES = 3


@dataclass(frozen=True)
class Run:
    """One evaluation: its figures and its clips."""

    name: str  # as the user wrote it
    folder: Path
    metrics: Metrics
    results: list[ClipResult]

    @property
    def scored(self) -> list[ClipResult]:
        """The clips that did not fail."""
        return [result for result in self.results if not result.failed]

    @property
    def title(self) -> str:
        return f"{self.metrics.model} on {self.metrics.dataset_name}"


def open_run(name: str, dataset: str | None = None) -> Run:
    """Open the run that a name means, as `open_runs` does."""
    return open_runs([name], dataset)[0]


def open_runs(names: Sequence[str], dataset: str | None = None) -> list[Run]:
    """Open the run that each name means.

    A name is a results folder, the name of one in outputs/eval, or a model: its newest evaluation; for several names
    the newest on a dataset that all have been evaluated on, if there is one. What was chosen is said on stderr.

    Args:
        dataset: picks among the evaluations of a model.

    Raises:
        TinyAudioError: no finished evaluation is called so; names the nearest.
    """
    stored = [] if all(map(_is_results_folder, names)) else evaluations()
    matches = [find_evaluations(name, dataset, stored) for name in names]
    chosen = _on_one_dataset(matches)
    for name, found, metrics in zip(names, matches, chosen, strict=True):
        if len(found) > 1:
            what = f"{metrics.model} on {metrics.dataset_name}, {metrics.date}"
            say(f"{name}: {metrics.folder} ({what}), of {len(found)} evaluations.")
    return [Run(name, metrics.folder, metrics, _read(metrics)) for name, metrics in zip(names, chosen, strict=True)]


def labels(runs: Sequence[Run]) -> list[str]:
    """What to call each run where several stand side by side: by model, else by folder, else by number."""
    for names in ([run.metrics.model for run in runs], [run.folder.name for run in runs]):
        if len(set(names)) == len(names):
            return names
    return [f"{run.metrics.model} ({number})" for number, run in enumerate(runs, start=1)]


def evaluations(folder: Path = EVALUATIONS) -> list[Metrics]:
    """The finished evaluations under a folder, the newest first; what cannot be read is none."""
    found = []
    for file in folder.glob(f"**/{METRICS}"):
        try:
            found.append(read_metrics(file.parent))
        except TinyAudioError as error:
            say(f"Left out: {error}")
    return sorted(found, key=lambda metrics: (metrics.date, str(metrics.folder)), reverse=True)


def named_evaluations(name: str, dataset: str | None = None) -> list[Metrics]:
    """All evaluations that a name means; a folder: of a training run (those of its checkpoints) or with results inside.

    Raises:
        TinyAudioError: there is none.
    """
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


def newest(found: Iterable[Metrics]) -> list[Metrics]:
    """Of each model the newest evaluation of a kind."""
    by_kind = {(kind(metrics), metrics.model): metrics for metrics in sorted(found, key=lambda m: m.date)}
    return list(by_kind.values())


def kind(metrics: Metrics) -> str:
    """What two evaluations must share to stand in one table: dataset, normaliser, and how many clips are drawn."""
    parts = [metrics.dataset.get(key) for key in ("path", "config", "split")]
    name = metrics.dataset.get("benchmark") or " ".join(str(part) for part in parts if part)
    sample = metrics.dataset.get("max_samples")
    clips = [f"{sample} clips"] if sample else []
    return ", ".join([name, metrics.normalizer["name"], *clips])


def read_metrics(folder: Path) -> Metrics:
    """A results folder's figures.

    Raises:
        TinyAudioError: they are not there, or are none.
    """
    file = folder / METRICS
    if not file.is_file():
        why = "its evaluation did not finish; give the same `ta eval` again" if (folder / RESULTS).is_file() else ""
        raise TinyAudioError(f"{folder} holds no {METRICS}: {why or 'expected the folder of a finished `ta eval`'}.")
    try:
        return Metrics.read(folder)
    except (ValueError, TypeError, AttributeError) as error:
        raise TinyAudioError(f"{file} holds no figures of an evaluation ({error}).") from error


def same_path(one: str, other: str) -> bool:
    """Whether two names of models or datasets are one: Hub ids as they are, folders however they are written."""
    return os.path.abspath(os.path.expanduser(one)) == os.path.abspath(os.path.expanduser(other))


def find_evaluations(name: str, dataset: str | None, stored: Sequence[Metrics]) -> list[Metrics]:
    """The evaluations that a name means, the newest first: by the first reading that gives any; never by a part.

    Args:
        stored: the evaluations to look among, the newest first; a folder's path means that folder wherever it is.

    Raises:
        TinyAudioError: none is called so, or none of these is on the dataset.
    """
    if _is_results_folder(name):
        found = [read_metrics(Path(name).expanduser())]
    else:
        found = next(filter(None, ([m for m in stored if means(name, m)] for means in READINGS)), [])
    if not found:
        raise TinyAudioError(_unknown(name, stored))
    on_dataset = [m for m in found if dataset is None or is_on(m, dataset)]
    if not on_dataset:
        others = ", ".join(sorted({m.dataset_name for m in found}))
        raise TinyAudioError(f"{name} was not evaluated on {dataset}, but on {others}; name one of them.")
    return on_dataset


def _is_results_folder(name: str) -> bool:
    folder = Path(name).expanduser()
    return (folder / METRICS).is_file() or (folder / RESULTS).is_file()


def is_on(metrics: Metrics, dataset: str) -> bool:
    """Whether an evaluation is on the dataset that is named: as a benchmark, by its path or Hub id, or the last part."""
    path = metrics.dataset["path"]
    return dataset in (metrics.dataset_name, Path(path).name) or same_path(dataset, path)


# What a name may mean, the most exact first.
READINGS: tuple[Callable[[str, Metrics], bool], ...] = (
    lambda name, metrics: name in (metrics.folder.name, _within(metrics.folder)),
    lambda name, metrics: same_path(name, metrics.model),
    lambda name, metrics: same_path(name, _without_revision(metrics.model)),
    lambda name, metrics: name == Path(metrics.model).name,
    lambda name, metrics: name == Path(_without_revision(metrics.model)).name,
)


def _within(folder: Path) -> str:
    return folder.relative_to(EVALUATIONS).as_posix() if folder.is_relative_to(EVALUATIONS) else folder.as_posix()


def _without_revision(model: str) -> str:
    return model.partition("@")[0]


def _unknown(name: str, stored: Sequence[Metrics]) -> str:
    if not stored:
        return f"No evaluation is called {name}: {EVALUATIONS} holds none; run `ta eval` first, or give its folder."
    known = {called for m in stored for called in (m.model, Path(m.model).name, m.folder.name)}
    nearest = difflib.get_close_matches(name, sorted(known), NEAREST_NAMES, cutoff=0.0)
    return f"No evaluation in {EVALUATIONS} is called {name}; the nearest names are {', '.join(nearest)}."


def _on_one_dataset(matches: Sequence[list[Metrics]]) -> list[Metrics]:
    """Of each name's evaluations the newest on what all have in common; simply the newest where that is nothing."""
    for likeness in (_same_clips, _same_split):
        shared = set.intersection(*({likeness(m) for m in found} for found in matches))
        if shared:
            wanted = next(likeness(m) for m in matches[0] if likeness(m) in shared)
            return [next(m for m in found if likeness(m) == wanted) for found in matches]
    return [found[0] for found in matches]


def _same_clips(metrics: Metrics) -> tuple:
    return _values(metrics.dataset.items()) + _values(metrics.normalizer.items())


def _same_split(metrics: Metrics) -> tuple:
    return tuple(metrics.dataset.get(key) for key in ("path", "config", "split")) + (metrics.normalizer["name"],)


def _values(items: Iterable[tuple[str, Any]]) -> tuple:
    return tuple(sorted((key, str(value)) for key, value in items))


def _read(metrics: Metrics) -> list[ClipResult]:
    """The clips, with what older versions did not write: the texts as they were scored."""
    results = read_results(metrics.folder)
    for result in results:
        if not result.failed and (result.normalized_reference is None or result.normalized_prediction is None):
            normalizer = get_normalizer(metrics.normalizer["name"])
            pair = normalized_pair(result.reference, result.prediction or "", normalizer)
            result.normalized_reference, result.normalized_prediction = pair
            result.reference_words = len(pair[0].split())
    return results
