"""The processes that train together: who they are, what they tell each other, and the first one speaks for all."""

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import distributed

from tiny_audio.console import silence
from tiny_audio.data.stream_batches import place_among_ranks
from tiny_audio.errors import TinyAudioError

PATIENCE = timedelta(hours=1)  # with another process that lives, but does not come
PEER_LOST = 3  # exit code where another process has gone; whoever started the processes says which

T = TypeVar("T")


@contextmanager
def joined() -> Iterator[None]:
    """Meanwhile this process and the others that a launcher has started (RANK, WORLD_SIZE, …) know each other."""
    rank, processes = place_among_ranks()
    if processes == 1 or distributed.is_initialized():
        yield
        return
    on_cuda = torch.cuda.is_available()
    if on_cuda:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", rank)))
    if rank:
        silence()
    warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)  # the Trainer's name for it
    try:
        distributed.init_process_group("cpu:gloo,cuda:nccl" if on_cuda else "gloo", timeout=PATIENCE)
        yield
    except RuntimeError as error:
        if not _is_loss_of_a_peer(error):
            raise
        raise SystemExit(PEER_LOST) from error
    distributed.destroy_process_group()


def _is_loss_of_a_peer(error: RuntimeError) -> bool:
    return isinstance(error, distributed.DistError) or "gloo" in str(error)


def is_first() -> bool:
    """Whether this process is the one that writes and speaks."""
    return place_among_ranks()[0] == 0


def gathered(item: T) -> list[T]:
    """What each process gives here, by rank; all must come."""
    if not distributed.is_initialized():
        return [item]
    items: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(items, item)
    return items


def summed(numbers: Sequence[float]) -> list[float]:
    """The sums of each number over the processes."""
    return [sum(each) for each in zip(*gathered(list(numbers)), strict=True)]


@contextmanager
def together() -> Iterator[None]:
    """What goes wrong in here, in whichever process, ends all of them, and is said once."""
    error: Exception | None = None
    try:
        yield
    except Exception as raised:  # noqa: BLE001 (the others are to know)
        error = raised
    said = gathered(None if error is None else str(error))
    if error is not None and (is_first() or not isinstance(error, TinyAudioError | ValueError | OSError)):
        raise error
    for rank, text in enumerate(said):
        if text is not None:
            raise said_once(TinyAudioError(f"Process {rank} of {len(said)}: {text}"))


def said_once(error: Exception) -> BaseException:
    """An error that all processes have, as each is to raise it: the others end without a word."""
    return error if is_first() else SystemExit(0)
