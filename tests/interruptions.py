"""Real `ta train` processes that are stopped by signals at seeded moments, and what their folders then hold."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file
from training_helpers import log_of

from tiny_audio import ASRModel
from tiny_audio.training.checkpoints import checkpoints, step_of

LATEST = 300  # seconds that a process may take, on a machine that is busy
CURVE = ("loss", "grad_norm", "learning_rate", "eval_loss", "eval_wer", "audio_seconds", "epoch")


def length(steps: int) -> list[str]:
    """The overrides of a run of so many small steps."""
    shape = [
        "data.max_train_samples=100",
        "data.max_eval_samples=3",
        "training.batch_seconds=8",
        "training.warmup_steps=5",
    ]
    intervals = ["training.logging_steps=1", "training.eval_steps=10", "training.save_steps=4"]
    return [*shape, *intervals, f"training.max_steps={steps}", "training.report_to=none"]


@dataclass
class Script:
    """What a user's script does on a machine that may be taken back: go on if there is something, else begin.

    Args:
        folder: of the run.
        arguments: of `ta train`.
        ended: exit codes so far.
    """

    folder: Path
    arguments: list[str]
    ended: list[int] = field(default_factory=list)

    def start(self) -> subprocess.Popen:
        """One process of the run, in a group of its own."""
        chosen = ["--resume", "auto"] if checkpoints(self.folder) else self.arguments
        command = [sys.executable, "-m", "tiny_audio.cli.main", "train", *chosen, "--output-dir", str(self.folder)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True)

    def interrupted(self, moment: "Moment", kill: signal.Signals) -> bool:
        """Starts a process and stops it at the moment; whether the moment came before the run's end.

        SIGTERM goes to its workers too, as from systemd or Slurm.
        """
        process = self.start()
        moment.wait(self.folder, process)
        early = process.poll() is None
        if early and kill == signal.SIGTERM:
            os.killpg(process.pid, kill)
        elif early:
            process.send_signal(kill)
        _, said = process.communicate(timeout=LATEST)
        self.ended.append(process.returncode)
        assert process.returncode in (0, 1, -kill), said
        assert process.returncode != 1 or "Error: Ended by SIGTERM after step" in said, said
        return early

    def finish(self) -> str:
        """The last process, which nothing stops; what it says."""
        process = self.start()
        _, said = process.communicate(timeout=LATEST)
        assert process.returncode == 0, said
        return said


@dataclass(frozen=True)
class Moment:
    """When a signal comes: so long after a process has made its first steps and, if `writing`, begun a checkpoint."""

    steps: int  # 0: once it is started
    writing: bool
    milliseconds: float

    def wait(self, folder: Path, process: subprocess.Popen) -> None:
        """Until it comes, or the process has ended."""
        started, step = time.time(), last_checkpoint(folder) + self.steps
        while process.poll() is None and not self._reached(folder, step, started):
            time.sleep(0.0005 if self.writing else 0.005)
        time.sleep(self.milliseconds / 1000)

    def _reached(self, folder: Path, step: int, started: float) -> bool:
        log = folder / "log.jsonl"  # that of the process before, until this one cuts it
        if self.steps and (not log.exists() or log.stat().st_mtime < started or last_step(log) < step):
            return False
        return not self.writing or any(folder.glob(".*.unfinished"))


def moments(number: int, most: int, seed: int) -> Iterator[Moment]:
    """After at most so many steps each; every third while a checkpoint is written."""
    draw = random.Random(seed)
    for _ in range(number):
        writing = draw.random() < 1 / 3
        yield Moment(draw.randint(1, most), writing, draw.uniform(0, 30 if writing else 200))


def last_checkpoint(folder: Path) -> int:
    """The step of the newest one, or 0."""
    return max((step_of(path) for path in checkpoints(folder)), default=0)


def last_step(log: Path) -> int:
    """That of the last whole entry."""
    lines = log.read_bytes().rpartition(b"\n")[0].splitlines()
    return json.loads(lines[-1])["step"] if lines else 0


def check_whole(folder: Path) -> int:
    """Loads everything that is named as a checkpoint; returns how many there are."""
    found = [path for path in folder.glob("*") if path.name.startswith("checkpoint-") or path.name == "best"]
    for path in found:
        ASRModel.from_pretrained(path)
        if path.name != "best":
            json.loads((path / "trainer_state.json").read_text())
            for name in ("optimizer.pt", "scheduler.pt"):
                torch.load(path / name, weights_only=False)
    return len(found)


def difference(ours: Path, theirs: Path) -> float:
    """The largest of two runs' curves, best models, and last checkpoints with their optimizers."""
    assert checkpoints(ours)[-1].name == checkpoints(theirs)[-1].name
    largest = 0.0
    for key in CURVE:
        left, right = log_of(ours, key), log_of(theirs, key)
        assert len(left) == len(right), f"{key}: {len(left)} entries, {len(right)} in the other run"
        largest = max(largest, *(abs(a - b) for a, b in zip(left, right, strict=True)))
    for left, right in zip(_tensors(ours), _tensors(theirs), strict=True):
        largest = max(largest, float((left.double() - right.double()).abs().max()))
    return largest


def _tensors(run: Path) -> list[torch.Tensor]:
    last = checkpoints(run)[-1]
    weights = [load_file(folder / "model.safetensors") for folder in (run / "best", last)]
    moments = torch.load(last / "optimizer.pt", weights_only=True)["state"]
    return [
        *(tensor for tensors in weights for _, tensor in sorted(tensors.items())),
        *(moments[number][name] for number in sorted(moments) for name in ("exp_avg", "exp_avg_sq")),
    ]


def leftovers(folder: Path) -> list[str]:
    """What an interrupted process leaves behind and a whole run does not hold."""
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))
