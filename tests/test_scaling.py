"""Several processes: two train as one would on the same batches, survive each other's end, and share a large model."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from safetensors.torch import load_file
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure
from training_helpers import BASE, log_of, weights_of

from tiny_audio.cli.main import run
from tiny_audio.data.batching import SecondsBatchSampler
from tiny_audio.data.steps import alike_steps
from tiny_audio.errors import TinyAudioError
from tiny_audio.training import train
from tiny_audio.training.augment import BatchNumbers
from tiny_audio.training.checkpoints import checkpoints
from tiny_audio.training.feed import RunBatches
from tiny_audio.training.launch import Launch, _ended
from tiny_audio.training.record import Record
from tiny_audio.training.run import settings_to_resume

pytestmark = pytest.mark.usefixtures("one_thread")

# losses: cross-entropy, router, CTC; draws: SpecAugment, dropout, instructions, gain
STEPS = 30
OVER = (
    f"training.max_steps={STEPS}", "training.save_steps=5", "training.eval_steps=15", "training.save_total_limit=null",
    "training.lr_scheduler=constant", "data.max_eval_samples=5", "model.projector_type=moe", "model.ctc_head=true",
    "training.time_masks=1", "training.audio_token_dropout=0.1", "training.prompt_variety=[Write it down]",
    "training.augment.gain_probability=0.5", "training.batch_seconds=4",
)  # fmt: skip
ONE, TWO = ("training.gradient_accumulation_steps=2",), ("--num-processes", "2")
KEYS = (
    "loss",
    "grad_norm",
    "auxiliary_loss",
    "ctc_loss",
    "eval_loss",
    "eval_wer",
    "eval_clips",
    "audio_seconds",
    "epoch",
)


@pytest.fixture(scope="module")
def alone(settings_of, tmp_path_factory) -> Path:
    """A run of one process, with the batches of two in every step."""
    folder = tmp_path_factory.mktemp("scaling") / "alone"
    train(settings_of(folder, *OVER, *ONE))
    return folder


@pytest.fixture
def start(parts):
    """`start(folder, *arguments)` → a started `ta train` of two processes, its messages piped."""
    started = []

    def begin(folder: Path, *arguments: str, command=(sys.executable, "-m", "tiny_audio.cli.main", "train", *TWO)):
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        line = [*command, *parts, *BASE, *arguments, "--output-dir", str(folder)]
        started.append(subprocess.Popen(line, env=environment, stderr=subprocess.PIPE, text=True))
        return started[-1]

    yield begin
    for process in started:
        if process.poll() is None:
            process.kill()


def wait_for_checkpoints(folder: Path, number: int, process: subprocess.Popen) -> None:
    while len(checkpoints(folder)) < number and process.poll() is None:
        time.sleep(0.005)


def ranks(launcher: int) -> dict[str, psutil.Process]:
    return {child.environ()["RANK"]: child for child in psutil.Process(launcher).children()}


def assert_same_run(ours: Path, theirs: Path) -> None:
    for key in KEYS:
        assert log_of(ours, key) == pytest.approx(log_of(theirs, key), abs=1e-5, rel=1e-5), key
    ours, theirs = weights_of(ours), weights_of(theirs)
    assert ours.keys() == theirs.keys()
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-5) for name in theirs)


# ---- two processes are as one


def test_two_processes_are_as_one_whatever_ends_them(alone, start, tmp_path):
    """One is killed, two go on, the launcher gets SIGTERM, one process goes on: the curve is that of one run."""
    process = start(tmp_path, *OVER)
    wait_for_checkpoints(tmp_path, 1, process)
    children = ranks(process.pid)
    children["1"].kill()
    _, said = process.communicate(timeout=300)
    assert process.returncode == 1
    (error,) = [line for line in said.splitlines() if line.startswith("Error")]
    assert error.startswith(
        "Error: Process 1 of 2 was killed by SIGKILL, so all have ended; go on with: ta train --resume"
    )
    assert not psutil.pid_exists(children["0"].pid) and "Traceback" not in said
    done = len(checkpoints(tmp_path))

    process = start(tmp_path, *OVER, "--resume", "auto")
    wait_for_checkpoints(tmp_path, done + 1, process)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=300)
    last = checkpoints(tmp_path)[-1]
    step = int(last.name.split("-")[1])
    assert process.returncode == 1 and step < STEPS
    assert said.count("Error:") == 1 and f"Error: Ended by SIGTERM after step {step}. {last.name} is whole" in said
    assert f"ta train --resume {tmp_path} --num-processes 2" in said

    settings, checkpoint = settings_to_resume(str(tmp_path), ONE)
    train(settings, resume=str(checkpoint))
    assert_same_run(tmp_path, alone)
    assert not list(tmp_path.glob(".*"))
    sessions = Record.read(tmp_path).sessions
    assert [session.processes for session in sessions] == [2, 2, 1] and sessions[-1].steps == [step, STEPS]
    assert sessions[1].steps[0] == 5 * done
    assert sessions[0].steps[1] in (5 * done - 5, 5 * done)  # the kill may come between a checkpoint and its record


def test_an_abort_that_follows_a_kill_is_not_taken_for_the_cause(tmp_path):
    """gloo aborts a process whose peer has gone; both are then found dead in one look, in the order of their ranks."""
    failures = {
        rank: ProcessFailure(local_rank=rank, pid=rank, exitcode=-code, error_file="")
        for rank, code in enumerate((signal.SIGABRT, signal.SIGKILL))
    }
    with pytest.raises(TinyAudioError, match="^Process 1 of 2 was killed by SIGKILL"):
        _ended(failures, tmp_path, Launch(2), "runs/mine")
    with pytest.raises(TinyAudioError, match="^Process 0 of 2 was killed by SIGABRT"):
        _ended({0: failures[0]}, tmp_path, Launch(2), "runs/mine")


def test_accelerate_launches_the_same_and_one_that_is_told_to_end_ends_all(alone, start, tmp_path):
    command = ("-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "-m", "tiny_audio.training")
    process = start(tmp_path, *OVER, command=(sys.executable, *command))
    wait_for_checkpoints(tmp_path, 1, process)
    ranks(process.pid)["1"].terminate()
    _, said = process.communicate(timeout=300)
    step = len(log_of(tmp_path, "loss"))
    assert process.returncode == 1 and 5 <= step < STEPS
    assert said.count("Run folder:") == 1 and said.count(f"Error: Ended by SIGTERM after step {step}. ") == 1
    assert checkpoints(tmp_path)[-1].name == f"checkpoint-{step}"
    assert log_of(tmp_path, "loss") == pytest.approx(log_of(alone, "loss")[:step], abs=1e-5)


def test_a_sharded_model_learns_the_same_and_its_checkpoints_are_plain(settings_of, start, tmp_path):
    tuned = (
        "model.freeze_language_model=false",
        "training.max_steps=4",
        "training.save_steps=2",
        "training.eval_steps=2",
    )
    train(settings_of(tmp_path / "plain", *tuned, *ONE))
    process = start(tmp_path / "sharded", *tuned, "training.fsdp=true")
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    for key in ("loss", "grad_norm", "eval_loss", "eval_wer"):
        assert log_of(tmp_path / "sharded", key) == pytest.approx(log_of(tmp_path / "plain", key), abs=1e-4), key
    ours, theirs = (load_file(tmp_path / run / "checkpoint-4" / "model.safetensors") for run in ("sharded", "plain"))
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-5) for name in theirs | ours)
    over = ("training.fsdp=false", "training.max_steps=5", *ONE)
    settings, checkpoint = settings_to_resume(str(tmp_path / "sharded"), over)
    train(settings, resume=str(checkpoint))  # optimizer states and all
    train(settings_of(tmp_path / "plain", *tuned, *ONE, "training.max_steps=5"), resume="auto")
    assert log_of(tmp_path / "sharded", "loss")[-1] == pytest.approx(log_of(tmp_path / "plain", "loss")[-1], abs=1e-4)


# ---- what they share


DURATIONS = np.random.default_rng(0).uniform(1, 15, 200)


@pytest.mark.parametrize("start", [0, 8, 40])
def test_the_shares_of_the_processes_are_the_batches_of_one(start):
    sampler = SecondsBatchSampler(DURATIONS, 30, per_step=4)
    whole = list(RunBatches(sampler, start, 120))
    shares = [list(RunBatches(sampler, start, 120, (rank, 2))) for rank in range(2)]
    assert [batch for pair in zip(*shares, strict=True) for batch in pair] == whole
    assert len(RunBatches(sampler, start, 120, (0, 2))) == 60  # the Trainer's count holds those before too


def test_batches_of_a_step_are_alike_and_an_epoch_keeps_its_clips():
    plain, stepped = SecondsBatchSampler(DURATIONS, 60), SecondsBatchSampler(DURATIONS, 60, per_step=4)
    first, second = len(plain.epoch(0)), len(plain.epoch(1))
    batches = list(stepped.batches(0, first + second))
    assert sorted(map(tuple, batches[:first])) == sorted(map(tuple, plain.epoch(0)))
    assert sorted(map(tuple, batches[first:])) == sorted(map(tuple, plain.epoch(1)))
    assert list(stepped.batches(5, 40)) == batches[5:40]

    def waste(batches) -> float:
        padded = np.array([len(batch) * DURATIONS[batch].max() for batch in batches[: len(batches) // 4 * 4]])
        steps = padded.reshape(-1, 4)
        return 1 - steps.sum() / (4 * steps.max(1).sum())

    assert waste(batches) < waste(list(plain.batches(0, first + second))) / 2


def test_the_longest_batch_stays_first():
    batches = SecondsBatchSampler(DURATIONS, 60).epoch(0)
    batches.sort(key=lambda batch: -len(batch) * DURATIONS[batch].max())
    assert alike_steps(batches, DURATIONS, 4, 0, 0)[:4] == batches[:4]


def test_batches_have_their_number_in_the_run(monkeypatch):
    numbers = []
    for rank in range(2):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", "2")
        counted = BatchNumbers(6)
        numbers.append([counted() for _ in range(3)])
    assert numbers == [[6, 8, 10], [7, 9, 11]]


# ---- what cannot be


IMPOSSIBLE = {
    ("--num-nodes", "2"): "--num-nodes is 2 and --rendezvous is not set; expected HOST:PORT of machine 0",
    ("--num-nodes", "2", "--node-rank", "2"): "--node-rank is 2; expected 0 to 1",
    (*TWO, "--rendezvous", "somewhere"): "--rendezvous is somewhere; expected HOST:PORT",
    ("training.fsdp=true",): "training.fsdp is for a language model that is trained in full",
    ("training.fsdp=true", "model.freeze_language_model=false"): "training.fsdp needs several processes",
    (*TWO, "training.batch_second=1"): "Unknown key training.batch_second",
}


@pytest.mark.parametrize("arguments", IMPOSSIBLE, ids=" ".join)
def test_what_cannot_be_is_one_line(arguments, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(["train", *arguments]) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("Error")]
    assert IMPOSSIBLE[arguments] in line


def test_another_number_of_batches_a_step_does_not_go_on(alone, capsys):
    assert (
        run(["train", "--resume", str(alone), "training.max_steps=30", "training.gradient_accumulation_steps=1"]) == 1
    )
    error = "1 process × training.gradient_accumulation_steps=2 batches a step; expected as many again, not 1 × 1"
    assert error in capsys.readouterr().err


def test_a_launcher_in_a_launcher_is_an_error(monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert run(["train", *TWO]) == 1
    assert "A launcher has started 2 processes already" in capsys.readouterr().err


def test_a_dry_run_counts_the_batches_of_all_processes(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    steps = []
    for arguments in ([], TWO):
        assert run(["train", "--dry-run", "training.max_steps=null", "training.num_epochs=2", *arguments]) == 0
        steps.append(int(capsys.readouterr().out.partition(" steps of about")[0].rpartition(" ")[2].replace(",", "")))
    assert steps[1] == -(-steps[0] // 2)
