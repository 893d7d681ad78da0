"""When memory runs out: one line that names the step, its batch, the peak, and what to do."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from shlex import quote

import torch

from tiny_audio.errors import TinyAudioError
from tiny_audio.evaluation.hardware import peak_memory_bytes

from .checkpoints import latest_checkpoint
from .schema import TrainingSettings

SIGNS = ("can't allocate memory", "not enough memory", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "std::bad_alloc")

PaddedSize = tuple[int, float]  # clips of a batch, and their seconds with padding


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means it: of CUDA, MPS, torch's CPU allocator or NumPy, also where a loader's worker met it."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in SIGNS)


@contextmanager
def explained(line: Callable[[], str]) -> Iterator[None]:
    """Meanwhile, memory that runs out is a TinyAudioError of this line."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise TinyAudioError(line()) from error


def out_of_memory(
    step: int, sizes: Sequence[PaddedSize], settings: TrainingSettings, folder: Path, device: torch.device
) -> str:
    """The line.

    Args:
        step: steps that are done.
        sizes: of the batches of the next step; none: it happened between steps, in validation for example.
        folder: of the run.
        device: of the model.
    """
    clips, seconds = max(sizes, key=lambda size: size[1], default=(0, settings.batch_seconds))
    where = f"in step {step + 1}, in a batch of {clips} clips, {seconds:.0f} s with padding"
    peak = peak_memory_bytes(str(device))
    held = "" if peak is None else f"; the peak was {peak / 1e9:.1f} GB"
    cures = f"Begin anew with {_smaller(clips, seconds, settings)}{_recomputing(settings, folder)}."
    return f"Out of memory {where if sizes else f'after step {step}'}{held}. {cures}"


def _smaller(clips: int, seconds: float, settings: TrainingSettings) -> str:
    if clips == 1:
        return f"data.max_seconds={seconds / 2:.0f}"
    half = min(seconds, settings.batch_seconds) / 2
    return f"training.batch_seconds={half:.3g} training.gradient_accumulation_steps={2 * settings.gradient_accumulation_steps}"


def _recomputing(settings: TrainingSettings, folder: Path) -> str:
    """Unlike the batches, this may change in a run that goes on."""
    if settings.gradient_checkpointing:
        return ""
    option = "training.gradient_checkpointing=true"
    if latest_checkpoint(folder) is None:
        return f", or with {option}"
    return f", or go on with: ta train --resume {quote(str(folder))} {option}"
