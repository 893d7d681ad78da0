"""What the device at hand cannot compute is said before anything is loaded; Macs are stood in for, none is at hand."""

import subprocess
import sys

import pytest
import torch

from tiny_audio.errors import TinyAudioError
from tiny_audio.training.precision import check_precision


@pytest.fixture
def machine(monkeypatch):
    """`machine(cuda, mps, …)`: the answers of torch about its devices."""

    def set_up(cuda: bool = False, mps: bool = False, macos: int = 0, bf16: bool = False) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
        monkeypatch.setattr(
            torch.cuda, "is_bf16_supported", lambda including_emulation=True: bf16 or including_emulation
        )
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
        monkeypatch.setattr(torch.backends.mps, "is_macos_or_newer", lambda major, minor: macos >= major)
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": bf16})

    return set_up


@pytest.mark.parametrize(
    ("found", "dtype", "message"),
    [
        ({}, "fp16", "needs a CUDA GPU"),
        ({"mps": True, "macos": 15}, "fp16", "needs a CUDA GPU"),
        ({"mps": True, "macos": 13}, "bf16", "needs macOS 14 or newer"),
    ],
)
def test_what_cannot_be_computed_is_an_error(machine, found, dtype, message):
    machine(**found)
    with pytest.raises(TinyAudioError, match=f"training.dtype={dtype} {message}.*; use"):
        check_precision(dtype)


@pytest.mark.parametrize(
    ("found", "dtype", "warning"),
    [
        ({}, "bf16", "This CPU has no bf16 of its own"),
        ({"cuda": True}, "bf16", "training.dtype=fp16 or fp32 is faster"),
        ({"bf16": True}, "bf16", ""),
        ({"cuda": True, "bf16": True}, "bf16", ""),
        ({"cuda": True}, "fp16", ""),
        ({"mps": True, "macos": 14}, "bf16", ""),
        ({"mps": True}, "fp32", ""),
        ({}, "fp32", ""),
    ],
)
def test_what_is_only_imitated_is_a_warning(machine, found, dtype, warning, capsys):
    machine(**found)
    check_precision(dtype)
    said = capsys.readouterr().err
    assert warning in said and bool(said) == bool(warning)


@pytest.mark.parametrize(("platform", "expected"), [("darwin", "1"), ("linux", "None")])
def test_what_apples_gpus_lack_the_cpu_computes(platform, expected):
    code = f"import os, sys; sys.platform = {platform!r}; import tiny_audio; print(os.environ.get('PYTORCH_ENABLE_MPS_FALLBACK'))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == expected
