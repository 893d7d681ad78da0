"""What a figure was measured with: device, processor, and library versions."""

import importlib.metadata
import os
import platform
import sys
from collections.abc import Sequence

from tiny_audio.errors import TinyAudioError

LIBRARIES = ("tiny-audio", "torch", "transformers", "jiwer", "whisper-normalizer", "datasets", "av", "numpy")


def pick_device(name: str) -> str:
    """`auto` is the GPU where there is one.

    Raises:
        TinyAudioError: the named device is not on this machine.
    """
    import torch

    if name == "auto":
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    kind = name.split(":")[0]
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there.get(kind):
        found = ", ".join(kind for kind, available in there.items() if available)
        raise TinyAudioError(f"The device {name!r} is not on this machine; found {found}.")
    return name


def library_versions(more: Sequence[str] = ()) -> dict[str, str]:
    """Versions of Python, of the libraries that shape a result, and of others that are there."""
    versions = {"python": platform.python_version()}
    for name in (*LIBRARIES, *more):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # run from a checkout that is not installed
    return versions


def hardware(device: str) -> dict[str, str | int]:
    """The processor that decoded."""
    import torch

    found: dict[str, str | int] = {
        "device": device,
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu_cores": os.cpu_count() or 1,
        "torch_threads": torch.get_num_threads(),
    }
    if device.startswith("cuda"):
        found["gpu"] = torch.cuda.get_device_name(device)
    return found


def peak_memory_bytes(device: str) -> int | None:
    """The most memory held so far: allocated on a CUDA device, else resident in this process; None on Windows."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
