"""Which results folder a model id, a run's name or a path means, and what is in it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tiny_audio.errors import TinyAudioError
from tiny_audio.evaluation.results import METRICS, ClipResult, Metrics, read_results


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


def open_runs(names: Sequence[str]) -> list[Run]:
    """Open the run that each name means.

    Raises:
        TinyAudioError: no finished evaluation is called so.
    """
    return [_open(name) for name in names]


def _open(name: str) -> Run:
    folder = Path(name).expanduser()
    if not (folder / METRICS).is_file():
        raise TinyAudioError(f"{name} holds no {METRICS}; expected the results folder of a finished `ta eval`.")
    return Run(name, folder, Metrics.read(folder), read_results(folder))
