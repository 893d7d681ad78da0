"""SIGTERM, by which machines are taken back: the step is finished, a checkpoint written, and the run ends."""

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self

from transformers import TrainerCallback

from tiny_audio.data.stream_batches import place_among_ranks


class StopOnTerminate(TrainerCallback):
    """Listens inside its `with` block, and stops the Trainer whose callback it is; a second SIGTERM kills.

    Of several processes all stop after the same step, and none is killed by a second SIGTERM: the launcher's comes too.
    """

    def __init__(self) -> None:
        self.agreed = False  # all processes know that one was asked
        self._asked = False
        self._before: Any = None
        self._several, self._launcher = place_among_ranks()[1] > 1, os.getppid()

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
        self._asked = True
        if not self._several:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)

    @property
    def asked(self) -> bool:
        """Whether this process is to end: it got SIGTERM, or the launcher that would pass it on has gone."""
        return self._asked or (self._several and os.getppid() != self._launcher)

    def on_step_end(self, args: Any, state: Any, control: Any, **others: Any) -> Any:
        """Tells the Trainer to save and to end."""
        if self.agreed or (self.asked and not self._several):
            control.should_save = control.should_training_stop = True
        return control


def outlive_terminate(worker: int) -> None:
    """For a loader's workers: where all processes are told to end, as by systemd and Slurm, they are needed until the
    checkpoint is written. A second SIGTERM kills, as from a loader that closes."""
    signal.signal(signal.SIGTERM, lambda *_: signal.signal(signal.SIGTERM, signal.SIG_DFL))
