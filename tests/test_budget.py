"""The seconds of a batch: found by trying, within the memory; and one line where the memory runs out."""

import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from training_helpers import BASE, log_of

from tiny_audio.errors import TinyAudioError
from tiny_audio.training import compose, train
from tiny_audio.training.budget import (
    Trial,
    budgets_of,
    choose,
    longest_clips,
    search,
    with_budget,
    with_seconds,
)
from tiny_audio.training.build import build_model
from tiny_audio.training.feed import feed_of, pins
from tiny_audio.training.out_of_memory import is_out_of_memory
from tiny_audio.training.plan import show_plan
from tiny_audio.training.run import settings_to_resume, training_corpora

pytestmark = pytest.mark.usefixtures("one_thread")

# ---- when memory runs out

GREEDY = """
import torch
from tiny_audio.model.projectors import PROJECTOR_CLASSES, Projector
class Greedy(Projector):
    def __init__(self, config):
        super().__init__(config)
        self.linear, self.calls = torch.nn.Linear(self.stacked_dim, config.llm_dim), 0
    def project(self, x, lengths):
        self.calls += torch.is_grad_enabled()
        if self.calls == 2:
            torch.empty(1 << 50)
        return self.linear(x)
PROJECTOR_CLASSES["greedy"] = Greedy
"""


@pytest.fixture
def greedy(tmp_path):
    """Overrides of a run whose second step wants 4 PB."""
    (tmp_path / "greedy.py").write_text(GREEDY)
    return [f"model.projector_file={tmp_path / 'greedy.py'}", "model.projector_type=greedy"]


def test_memory_that_runs_out_is_one_line(settings_of, greedy, tmp_path):
    with pytest.raises(TinyAudioError) as caught:
        train(settings_of(tmp_path / "run", *greedy, "training.save_steps=1"))
    line = str(caught.value)
    size = r"Out of memory in step 2, in a batch of (\d+) clips, (\d+) s with padding; the peak was .* GB\. "
    cure = r"Begin anew with training.batch_seconds=([\d.]+) training.gradient_accumulation_steps=2, or "
    clips, seconds, half = map(float, re.match(size + cure, line).groups())
    assert clips > 1 and 4 < seconds <= 8 and half == pytest.approx(seconds / 2, abs=0.3)
    assert f"ta train --resume {tmp_path / 'run'} training.gradient_checkpointing=true." in line


def test_a_single_clip_that_does_not_fit_is_to_be_left_out(settings_of, greedy, tmp_path):
    with pytest.raises(TinyAudioError, match=r"a batch of 1 clips.*Begin anew with data.max_seconds=\d\.") as caught:
        train(settings_of(tmp_path, *greedy, "training.batch_size=1", "training.gradient_checkpointing=true"))
    assert "--resume" not in str(caught.value)


LIMITED = """
import resource, sys, torch
from tiny_audio.training.trainer import SpeechTrainer
evaluate = SpeechTrainer.evaluate
def limited(self, *args, **kwargs):
    size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + (1 << 20), resource.RLIM_INFINITY))
    held = [torch.empty(1 << 26) for _ in range(1 << 20)]
SpeechTrainer.evaluate = limited
from tiny_audio.cli.main import run
sys.exit(run(sys.argv[1:]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_command_line_says_it_of_validation_too(parts, tmp_path):
    command = [sys.executable, "-c", LIMITED, "train", *parts, *BASE, "--output-dir", tmp_path]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("Error: Out of memory after step 3; the peak was ")
    assert "training.batch_seconds=4 " in done.stderr


def test_errors_that_mean_it():
    for allocate in (torch.empty, np.empty):
        with pytest.raises((RuntimeError, MemoryError)) as caught:
            allocate(1 << 50)
        assert is_out_of_memory(caught.value)
    with pytest.raises(RuntimeError) as caught:
        torch.ones(2) @ torch.ones(3)
    assert not is_out_of_memory(caught.value)


def test_batches_are_pinned_for_cuda_alone():
    assert pins("cuda") and not pins("cpu") and not pins("mps")


# ---- training.batch_seconds=auto

AUTO = ("training.batch_seconds=auto", "data.max_train_samples=null")


def found(capsys) -> tuple[list[str], str]:
    """The rows of the table, and what was said."""
    shown = capsys.readouterr()
    return [line for line in shown.out.splitlines() if line.strip().endswith("GB")], shown.err


def test_a_budget_is_found_and_changes_nothing_else(settings_of, tmp_path, capsys):
    """nano, in the run that follows: the same losses as with that number, and a resume that takes it."""
    nano = ("model=nano", "training.save_steps=2", "data.max_eval_samples=2")
    train(settings_of(tmp_path / "auto", *AUTO, *nano))
    rows, said = found(capsys)
    chosen = float(load_settings(tmp_path / "auto").training.batch_seconds)
    assert f"Found: training.batch_seconds={chosen:g}" in said and "gradient_checkpointing" not in said
    budgets = [float(row.split()[0]) for row in rows]
    assert budgets == [15.0 * 2**step for step in range(len(budgets))] and chosen in budgets
    assert budgets[-1] <= 2407 / 20  # seconds of an epoch of quickstart: at least 20 steps
    number = (f"training.batch_seconds={chosen}", "data.max_train_samples=null")
    train(settings_of(tmp_path / "number", *number, *nano))
    assert log_of(tmp_path / "auto", "loss") == pytest.approx(log_of(tmp_path / "number", "loss"), abs=1e-6)
    train(settings_of(tmp_path / "auto", *AUTO, *nano, "training.max_steps=4"), resume="auto")
    assert not found(capsys)[0] and len(log_of(tmp_path / "auto", "loss")) == 4


def load_settings(folder):
    return settings_to_resume(str(folder))[0]


@pytest.fixture(scope="module")
def job(settings_of, tmp_path_factory):
    """Settings of a run with `auto`, its model and its clips."""
    settings = settings_of(tmp_path_factory.mktemp("auto"), *AUTO, "training.gradient_accumulation_steps=2")
    return settings, build_model(settings.model), training_corpora(settings)


def test_the_search_leaves_no_trace(job):
    settings, model, corpora = job
    before, random = {name: tensor.clone() for name, tensor in model.state_dict().items()}, torch.get_rng_state()
    model.eval()
    decided = with_budget(settings, model, corpora).training
    assert decided.batch_seconds in (15.0, 30.0, 60.0)
    assert decided.gradient_checkpointing is settings.training.gradient_checkpointing is False
    assert settings.training.batch_seconds == "auto"
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not model.training and not model.projector._forward_hooks


def test_checkpointing_comes_only_where_nothing_fits_without(job, capsys):
    settings, model, corpora = job
    layer = model.language_model.get_decoder().layers[0]

    def greedy(module, inputs):
        torch.empty(16 if module.gradient_checkpointing else 1 << 50)

    with layer.register_forward_pre_hook(greedy):
        decided = with_budget(settings, model, corpora).training
    assert decided.gradient_checkpointing and decided.batch_seconds in (15, 30, 60)
    assert "nothing fits without training.gradient_checkpointing=true, so it is on" in found(capsys)[1]
    model.language_model.activation_checkpointing_disable()
    with pytest.raises(TinyAudioError, match="Not even batches of 15 s fit into 0.00 GB, with gradient checkpointing"):
        with_budget(settings, model, corpora, limit=1e6)
    model.language_model.activation_checkpointing_disable()


def test_the_search_ends_where_larger_batches_do_not_fit_or_bring_nothing():
    def trials(limit: float, needed: float) -> list[float]:
        speeds = {15.0: 50.0, 30.0: 90.0, 60.0: 100.0, 120.0: 101.0, 240.0: 99.0, 480.0: 103.0}
        tried = search([*speeds], lambda s: Trial(s, speeds[s], 10 + needed * s), held=10, limit=limit)
        return [trial.batch_seconds for trial in tried]

    assert trials(1e9, 1.0) == [15, 30, 60, 120, 240]  # larger ones bring nothing
    assert trials(100, 1.0) == [15, 30, 60]  # 120 s would not fit, and is not tried
    assert trials(20, 1.0) == [] and trials(20, 0.5) == [15]
    assert search([15.0, 30.0], lambda s: None, held=0, limit=9) == []
    speeds = [Trial(15, 50, 1), Trial(30, 96, 2), Trial(60, 100, 4), Trial(120, 100, 8)]
    assert choose(speeds).batch_seconds == 30


def test_budgets_keep_the_steps_of_an_epoch(job, settings_of, tmp_path):
    settings, model, corpora = job
    feed = feed_of(with_seconds(settings, 60), corpora, model.processor.max_samples)
    assert [*budgets_of(feed, settings)] == [15, 30, 60]  # 2407 s: 20 steps of two batches of 60 s
    small = settings_of(tmp_path, "data.max_train_samples=8")
    feed = feed_of(small, training_corpora(small), model.processor.max_samples)
    (only,) = budgets_of(feed, small)
    assert feed.durations.max() <= only < 15  # fewer seconds than 20 steps have, or would hold no clip
    assert len(longest_clips(feed, 2 * feed.durations.max())) == 2


def test_streams_are_tried_with_noise_until_it_does_not_fit(settings_of, tmp_path, capsys):
    stream = ("data.streaming=true", "training.augment.gain_probability=1", "training.audio_token_dropout=0.5")
    settings = settings_of(tmp_path, *AUTO, *stream)
    model = build_model(settings.model)

    def greedy(module, inputs):
        torch.empty(1 << 50 if len(inputs[0]) > 2 else 16)

    with model.language_model.get_decoder().layers[0].register_forward_pre_hook(greedy):
        decided = with_budget(settings, model, None)
    budgets = [float(row.split()[0]) for row in found(capsys)[0]]
    assert budgets == [30, 60] and decided.training.batch_seconds in budgets  # one clip of 30 s, and two
    assert decided.training.audio_token_dropout == 0.5


def test_a_dry_run_says_that_it_would_be_found(settings_of, tmp_path, capsys):
    show_plan(settings_of(tmp_path, *AUTO))
    shown = capsys.readouterr().out
    assert "batch_seconds: auto" in shown and "is found when the run begins; the plan takes 60 s." in shown
    assert "of about 5" in shown


@pytest.mark.parametrize("value", ["fast", "[1]", "null"])
def test_seconds_or_auto(value):
    with pytest.raises(TinyAudioError, match="training.batch_seconds is .*; expected seconds, or auto"):
        compose(overrides=[f"training.batch_seconds={value}"])
