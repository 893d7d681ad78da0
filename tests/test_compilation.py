"""Compiled layers: the same losses, gradients and checkpoints; one line where there is no compiler."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
import torch
from training_helpers import BASE, log_of, weights_of

from tiny_audio.errors import TinyAudioError
from tiny_audio.training import compilation, train
from tiny_audio.training.build import build_model
from tiny_audio.training.compilation import check_compiler, compile_layers, repeated_layers

pytestmark = pytest.mark.usefixtures("one_thread")
COMPILER = bool(shutil.which(os.environ.get("CXX", "g++"))) and Path(sysconfig.get_path("include"), "Python.h").exists()


def test_a_compiler_works_or_is_asked_for():
    if COMPILER:
        check_compiler()
    else:
        with pytest.raises(TinyAudioError, match="training.compile=true needs a C"):
            check_compiler()


def test_without_a_compiler_it_is_one_line(parts, tmp_path):
    command = [sys.executable, "-m", "tiny_audio.cli.main", "train", *parts, *BASE, "training.compile=true"]
    environment = {**os.environ, "CXX": "no-such-compiler", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    done = subprocess.run(
        [*command, "--output-dir", tmp_path], env=environment, check=False, capture_output=True, text=True
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()[-1:]
    assert line.startswith("Error: training.compile=true needs a C++ compiler") and "no-such-compiler" in line


def test_the_layers_of_every_part(settings_of, tmp_path):
    model = build_model(settings_of(tmp_path).model)
    names = [type(layer).__name__ for layer in repeated_layers(model)]
    assert names == ["GlmAsrEncoderLayer"] * 2 + ["Qwen3DecoderLayer"] * 2
    before = [*model.state_dict()]
    assert compile_layers(model) == 4 and [*model.state_dict()] == before


def test_the_same_losses_and_checkpoints(settings_of, tmp_path, monkeypatch):
    """As torch traces and differentiates the layers; what makes kernels of them, which takes minutes, is left out."""
    monkeypatch.setattr(compilation, "BACKEND", "aot_eager")
    counts, eager, compiled = torch._dynamo.utils.counters, tmp_path / "eager", tmp_path / "compiled"
    counts.clear()
    train(settings_of(eager, "training.max_steps=2"))
    assert not counts["stats"]
    train(settings_of(compiled, "training.max_steps=2", "training.compile=true"))
    assert counts["stats"]["unique_graphs"] >= 2 and not counts["graph_break"]
    for key in ("loss", "grad_norm", "eval_loss"):
        assert log_of(compiled, key) == pytest.approx(log_of(eager, key), abs=1e-4)
    ours, theirs = weights_of(compiled), weights_of(eager)
    assert ours.keys() == theirs.keys() and all(torch.allclose(ours[name], theirs[name], atol=1e-4) for name in ours)
