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
from tiny_audio.training.checkpoints import checkpoints

STEPS = 60
LENGTH = (
    "data.max_train_samples=100", "data.max_eval_samples=3", "training.batch_seconds=8", f"training.max_steps={STEPS}",
    "training.warmup_steps=5", "training.logging_steps=1", "training.eval_steps=10", "training.save_steps=4",
    "training.report_to=none",
)  # fmt: skip
LATEST = 300  # seconds that a process may take, on a machine that is busy
CURVE = ("loss", "grad_norm", "learning_rate", "eval_loss", "eval_wer", "audio_seconds", "epoch")


@dataclass
class Script:
    """What a user's script does on a machine that may be taken back: go on if there is something, else begin.

    Args:
        folder: of the run.
        arguments: of `ta train`.
        kill: the signal; SIGTERM goes to the workers too, as from systemd or Slurm.
        ended: exit codes so far.
    """

    folder: Path
    arguments: list[str]
    kill: signal.Signals = signal.SIGKILL
    ended: list[int] = field(default_factory=list)

    def start(self) -> subprocess.Popen:
        """One process of the run, in a group of its own."""
        chosen = ["--resume", "auto"] if checkpoints(self.folder) else self.arguments
        command = [sys.executable, "-m", "tiny_audio.cli.main", "train", *chosen, "--output-dir", str(self.folder)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True)

    def interrupted(self, moment: "Moment") -> bool:
        """Starts a process and stops it at the moment; whether the moment came before the run's end."""
        process = self.start()
        moment.wait(self.folder, process)
        early = process.poll() is None
        if early and self.kill == signal.SIGTERM:
            os.killpg(process.pid, self.kill)
        elif early:
            process.send_signal(self.kill)
        _, said = process.communicate(timeout=LATEST)
        self.ended.append(process.returncode)
        assert process.returncode in (0, 1, -self.kill), said
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
    """When a signal comes: so many milliseconds after a step is logged, and, if `writing`, a checkpoint is begun."""

    step: int  # 0: after the process has started
    writing: bool
    milliseconds: float

    def wait(self, folder: Path, process: subprocess.Popen) -> None:
        """Until it comes, or the process has ended."""
        while process.poll() is None and not self._reached(folder):
            time.sleep(0.0005)
        time.sleep(self.milliseconds / 1000)

    def _reached(self, folder: Path) -> bool:
        if self.step and last_step(folder) < self.step:
            return False
        return not self.writing or any(folder.glob(".*.unfinished"))


def moments(number: int, seed: int) -> Iterator[Moment]:
    """Rising through the run: the first while it starts, every third while a checkpoint is written."""
    draw = random.Random(seed)
    yield Moment(0, False, draw.uniform(0, 8_000))
    for step in sorted(draw.sample(range(1, STEPS - 5), number - 1)):
        writing = draw.random() < 1 / 3
        yield Moment(step, writing, draw.uniform(0, 30 if writing else 200))


def last_step(folder: Path) -> int:
    """The last whole entry of the log."""
    try:
        lines = (folder / "log.jsonl").read_bytes().rpartition(b"\n")[0].splitlines()
    except FileNotFoundError:
        return 0
    return json.loads(lines[-1])["step"] if lines else 0


def check_whole(folder: Path) -> int:
    """Loads everything that is named as a checkpoint; returns how many there are."""
    found = [path for path in folder.glob("*") if path.name.startswith("checkpoint-") or path.name == "best"]
    for path in found:
        ASRModel.from_pretrained(path)
        if path.name != "best":
            json.loads((path / "trainer_state.json").read_text())
            for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
                torch.load(path / name, weights_only=False)
    return len(found)


def difference(ours: Path, theirs: Path) -> float:
    """The largest of two runs' curves, best models, and last checkpoints with their optimizers."""
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
    assert last.name == f"checkpoint-{STEPS}"
    weights = [load_file(folder / "model.safetensors") for folder in (run / "best", last)]
    moments = torch.load(last / "optimizer.pt", weights_only=True)["state"]
    return [
        *(tensor for tensors in weights for _, tensor in sorted(tensors.items())),
        *(moments[number][name] for number in sorted(moments) for name in ("exp_avg", "exp_avg_sq")),
    ]


def leftovers(folder: Path) -> list[str]:
    """What an interrupted process leaves behind and a whole run does not hold."""
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))
