"""SIGTERM, by which machines are taken back: the step is finished, a checkpoint written, and the run ends."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self

from transformers import TrainerCallback


class StopOnTerminate(TrainerCallback):
    """Listens inside its `with` block, and stops the Trainer whose callback it is; a second SIGTERM kills."""

    def __init__(self) -> None:
        self.asked = False
        self._before: Any = None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # others may not listen
            self._before = signal.signal(signal.SIGTERM, self._ask)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def on_step_end(self, args: Any, state: Any, control: Any, **others: Any) -> Any:
        """Tells the Trainer to save and to end."""
        if self.asked:
            control.should_save = control.should_training_stop = True
        return control


def outlive_terminate(worker: int) -> None:
    """For a loader's workers: where all processes are told to end, as by systemd and Slurm, they are needed until the
    checkpoint is written. A second SIGTERM kills, as from a loader that closes."""
    signal.signal(signal.SIGTERM, lambda *_: signal.signal(signal.SIGTERM, signal.SIG_DFL))
