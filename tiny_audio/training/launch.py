"""Several processes of one training, on this machine or on several, started and watched by torchrun's engine."""

import logging
import os
import signal
import sys
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException, Std
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from tiny_audio.console import say
from tiny_audio.errors import TinyAudioError

from .processes import PEER_LOST

GRACE_SECONDS = 600  # after SIGTERM or Ctrl-C, to finish a step and to write a checkpoint
MEETING_SECONDS = 900  # in which all machines have to come


@dataclass(frozen=True)
class Launch:
    """How many processes on each machine, how many machines, which of them is this, and where they meet.

    Raises:
        TinyAudioError: these do not fit together, or not to this machine.
    """

    processes: int
    nodes: int = 1
    node_rank: int = 0
    rendezvous: str | None = None  # HOST:PORT, of machine 0

    def __post_init__(self) -> None:
        gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if gpus and self.processes > gpus:
            raise TinyAudioError(f"--num-processes is {self.processes}; expected at most {gpus}, a GPU for each.")
        if not 0 <= self.node_rank < self.nodes:
            raise TinyAudioError(f"--node-rank is {self.node_rank}; expected 0 to {self.nodes - 1}, one a machine.")
        if self.nodes > 1 and self.rendezvous is None:
            raise TinyAudioError(
                f"--num-nodes is {self.nodes} and --rendezvous is not set; expected HOST:PORT of machine 0, the same on all."
            )
        if self.rendezvous is not None and not self.rendezvous.rpartition(":")[2].isdecimal():
            raise TinyAudioError(f"--rendezvous is {self.rendezvous}; expected HOST:PORT, such as 10.0.0.1:29500.")

    def config(self, logs: Path) -> LaunchConfig:
        """Of torchrun; what the first process of a machine prints is seen, that of the others goes to files."""
        alone = self.nodes == 1
        return LaunchConfig(
            min_nodes=self.nodes,
            max_nodes=self.nodes,
            nproc_per_node=self.processes,
            run_id=str(uuid.uuid4()) if alone else "tiny-audio",
            rdzv_backend="c10d" if alone else "static",
            rdzv_endpoint="localhost:0" if alone else str(self.rendezvous),
            rdzv_configs={"timeout": MEETING_SECONDS} | ({} if alone else {"rank": self.node_rank}),
            local_addr="localhost" if alone else None,
            max_restarts=0,
            logs_specs=DefaultLogsSpecs(str(logs), redirects=dict.fromkeys(range(1, self.processes), Std.ALL)),
            shutdown_timeout=GRACE_SECONDS,
        )


def launch(arguments: Sequence[str], wanted: Launch, resume: str) -> int:
    """Runs `python -m tiny_audio.training ARGUMENTS` in several processes and waits; returns the exit code.

    Args:
        resume: how `ta train` would go on with the run.

    Raises:
        TinyAudioError: a process ended badly and has not said so itself.
    """
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, torch.get_num_threads() // wanted.processes)))
    with tempfile.TemporaryDirectory(prefix="ta-train-") as logs, _quiet_engine():
        try:
            elastic_launch(wanted.config(Path(logs)), sys.executable)("-m", "tiny_audio.training", *arguments)
        except ChildFailedError as error:
            return _ended(error.failures, Path(logs), wanted, resume)
        except SignalException as error:  # the first process has said what became of the run
            raise SystemExit(130 if error.sigval == signal.SIGINT else 1) from error
    return 0


@contextmanager
def _quiet_engine() -> Iterator[None]:
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(before)


def _ended(failures: dict[int, ProcessFailure], logs: Path, wanted: Launch, resume: str) -> int:
    """The exit code where the first process has said what went wrong; else it is said here."""
    own = {rank: failed for rank, failed in failures.items() if failed.exitcode not in (PEER_LOST, -signal.SIGTERM)}
    for failed in own.values():
        if failed.local_rank == 0 and failed.exitcode > 0:
            return failed.exitcode
    how = "The processes have lost each other"
    if own:
        # gloo's own threads abort where a peer has gone, and may be seen in the same second as what they follow
        rank = min(own, key=lambda rank: (own[rank].exitcode == -signal.SIGABRT, own[rank].timestamp))
        how = f"Process {rank} of {wanted.nodes * wanted.processes} {_how(own[rank], logs)}"
    again = f"--num-processes {wanted.processes}{' …' if wanted.nodes > 1 else ''}"
    raise TinyAudioError(f"{how}, so all have ended; go on with: ta train {resume} {again}")


def _how(failed: ProcessFailure, logs: Path) -> str:
    if failed.exitcode < 0:
        return f"was killed by {failed.signal_name()}"
    said = "".join(file.read_text() for file in logs.glob(f"*/attempt_0/{failed.local_rank}/stderr.log"))
    for line in reversed(said.splitlines()):
        if line.startswith("Error: "):
            return f"failed ({line.removeprefix('Error: ').rstrip('.')})"
    say(said)
    return f"failed with exit code {failed.exitcode} (its last words are above)"
