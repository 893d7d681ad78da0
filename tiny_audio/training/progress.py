"""What a run shows while it lasts: a live bar with the figures below it, and a line at each validation."""

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from rich import progress as rich_progress
from rich.console import RenderableType
from rich.text import Text
from transformers import TrainerCallback

from tiny_audio.console import progress, rich_console, say

from .trainer import per_cent

PROFILE_SECONDS = 60.0  # at least, between two lines on where the time goes


class Bar(Protocol):
    """What counts steps and shows a note."""

    def advance(self, amount: float = 1, note: str = "") -> None: ...


class TrainingBar(rich_progress.Progress):
    """A bar as wide as the terminal with the figures on a line of their own: side by side they would not fit."""

    figures = ""

    def get_renderables(self) -> Iterable[RenderableType]:
        yield from super().get_renderables()
        yield Text(self.figures, no_wrap=True, overflow="ellipsis")

    def advance(self, amount: float = 1, note: str = "") -> None:  # type: ignore[override]
        self.figures = note
        super().advance(self.task_ids[0], amount)


@contextmanager
def training_bar(steps: int) -> Iterator[Bar]:
    """A live bar on a terminal, a line now and then elsewhere."""
    if not sys.stderr.isatty():
        with progress("Training", steps) as plain:
            yield plain
        return
    columns = (
        rich_progress.TextColumn("Training"),
        rich_progress.BarColumn(bar_width=None),
        rich_progress.MofNCompleteColumn(),
        rich_progress.TimeElapsedColumn(),
        rich_progress.TextColumn("ETA"),
        rich_progress.TimeRemainingColumn(),
    )
    with TrainingBar(*columns, console=rich_console(), transient=True, expand=True) as bar:
        bar.add_task("Training", total=steps)
        yield bar


class ShowProgress(TrainerCallback):
    """Feeds the console's progress bar with loss, learning rate, gradient norm, speed, time left and the last WER."""

    def __init__(self, bar: Bar, steps: int) -> None:
        self.bar, self.steps = bar, steps
        self.note, self.wer = "", ""
        self.began, self.first_step = time.monotonic(), 0
        self.profiled = self.began

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.began, self.first_step = time.monotonic(), state.global_step
        if state.global_step:
            say(f"Going on after step {state.global_step}.")
            self.bar.advance(state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.bar.advance(1, " · ".join(filter(None, (self.note, self.wer, self._time_left(state.global_step)))))

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        if logs and "loss" in logs:
            gradient = f"grad {logs['grad_norm']:.2f} · " if "grad_norm" in logs else ""
            self.note = (
                f"loss {logs['loss']:.3f} · lr {logs['learning_rate']:.1e} · {gradient}"
                f"{logs['audio_seconds_per_s']:.0f} audio-s/s"
            )
            self._profile(state.global_step, logs)

    def _profile(self, step: int, logs: dict[str, float]) -> None:
        """A line a minute on where the time goes."""
        if time.monotonic() - self.profiled < PROFILE_SECONDS:
            return
        self.profiled = time.monotonic()
        names = ("data_wait", "encoder", "language_model", "padding")
        shares = ", ".join(f"{name.replace('_', ' ')} {per_cent(logs[f'{name}_ratio'])}" for name in names)
        speed = f"MFU {per_cent(logs['mfu'])}" if "mfu" in logs else f"{logs['gflop_per_s']:.0f} GFLOP/s"
        say(f"Step {step}: {shares}, {speed}")

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: dict[str, float], **kwargs: Any) -> None:
        self.wer = f"WER {per_cent(metrics['eval_wer'])}"
        prefix = "eval_wer_"
        parts = ", ".join(f"{key[len(prefix) :]} {per_cent(metrics[key])}" for key in metrics if key.startswith(prefix))
        say(
            f"Step {state.global_step}: validation loss {metrics['eval_loss']:.3f}, {self.wer} "
            f"on {metrics['eval_clips']} clips{f' ({parts})' if parts else ''}"
        )

    def _time_left(self, step: int) -> str:
        """For plain lines; the bar on a terminal has its own."""
        if sys.stderr.isatty():
            return ""
        each = (time.monotonic() - self.began) / max(1, step - self.first_step)
        minutes, seconds = divmod(round(each * (self.steps - step)), 60)
        return f"ETA {minutes}:{seconds:02d}"
