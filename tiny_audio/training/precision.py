"""Whether the device at hand computes in the precision that a run asks for."""

import torch

from tiny_audio.console import warn
from tiny_audio.errors import TinyAudioError


def check_precision(dtype: str) -> None:
    """Fails, or warns, before anything is loaded.

    Args:
        dtype: fp32, bf16 or fp16, as training.dtype.

    Raises:
        TinyAudioError: the device cannot compute in it.
    """
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if dtype == "fp16" and not cuda:
        raise TinyAudioError("training.dtype=fp16 needs a CUDA GPU and there is none here; use bf16 or fp32.")
    if dtype == "bf16" and mps and not torch.backends.mps.is_macos_or_newer(14, 0):
        raise TinyAudioError("training.dtype=bf16 needs macOS 14 or newer on an Apple GPU; use fp32.")
    if dtype == "bf16" and not (mps or _has_bf16(cuda)):
        device, better = ("GPU", "fp16 or fp32") if cuda else ("CPU", "fp32")
        warn(
            f"This {device} has no bf16 of its own and imitates it, which is slow; training.dtype={better} is faster here."
        )


def _has_bf16(cuda: bool) -> bool:
    if cuda:
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))
