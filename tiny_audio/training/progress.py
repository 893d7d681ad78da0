"""What a run shows while it lasts: one live line, and a line at each validation."""

import sys
import time
from typing import Any

from transformers import TrainerCallback

from tiny_audio.console import Progress, say

from .trainer import per_cent


class ShowProgress(TrainerCallback):
    """Feeds the console's progress bar with loss, learning rate, gradient norm, speed, time left and the last WER."""

    def __init__(self, bar: Progress, steps: int) -> None:
        self.bar, self.steps = bar, steps
        self.note, self.wer = "", ""
        self.began, self.first_step = time.monotonic(), 0

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

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: dict[str, float], **kwargs: Any) -> None:
        self.wer = f"WER {per_cent(metrics['eval_wer'])}"
        say(
            f"Step {state.global_step}: validation loss {metrics['eval_loss']:.3f}, {self.wer} "
            f"on {metrics['eval_clips']} clips"
        )

    def _time_left(self, step: int) -> str:
        """For plain lines; the bar on a terminal has its own."""
        if sys.stderr.isatty():
            return ""
        each = (time.monotonic() - self.began) / max(1, step - self.first_step)
        minutes, seconds = divmod(round(each * (self.steps - step)), 60)
        return f"ETA {minutes}:{seconds:02d}"
