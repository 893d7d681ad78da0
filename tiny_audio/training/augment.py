"""What makes training harder on purpose: SpecAugment, audio tokens left out, other instructions. Never in validation."""

import random

import torch
from torch import nn
from torch.utils.data import get_worker_info

from tiny_audio.data.stream_batches import place_among_ranks
from tiny_audio.model.processor import INSTRUCTION

from .schema import TrainingSettings


def spec_augment(features: torch.Tensor, mask: torch.Tensor, settings: TrainingSettings) -> torch.Tensor:
    """SpecAugment (arXiv 1904.08779) without time warping: stripes of frames and of bands take the clip's mean.

    Args:
        features: (batch, mels, frames) log-mel.
        mask: (batch, frames), 1 on the clip; stripes of frames lie inside it, none wider than a fifth of it.
    """
    own = mask.sum(-1)
    means = (features * mask[:, None]).sum((1, 2)) / (own * features.shape[1])
    widest = (own // 5).clamp(max=settings.time_mask_frames)
    frames = _stripes(settings.time_masks, widest, own, features.shape[2])
    bands = torch.full_like(own, features.shape[1])
    widest = bands.clamp(max=settings.frequency_mask_bands)
    hidden = frames[:, None] | _stripes(settings.frequency_masks, widest, bands, features.shape[1])[..., None]
    return torch.where(hidden & mask[:, None].bool(), means[:, None, None].to(features.dtype), features)


def _stripes(count: int, widest: torch.Tensor, length: torch.Tensor, size: int) -> torch.Tensor:
    """(batch, size) bool: `count` stripes a row, up to `widest` (batch,) wide, inside its `length` (batch,)."""
    if count == 0:
        return torch.zeros(len(length), size, dtype=torch.bool, device=length.device)
    width = torch.rand(len(length), count, device=length.device) * (widest[:, None] + 1)
    width = width.long().minimum(widest[:, None])
    start = (torch.rand(len(length), count, device=length.device) * (length[:, None] - width + 1)).long()
    places = torch.arange(size, device=length.device)
    return ((places >= start[..., None]) & (places < (start + width)[..., None])).any(1)


def drop_audio_tokens(projector: nn.Module, share: float) -> None:
    """From now on, in training, each audio token becomes zeros with this probability."""

    def leave_out(module: nn.Module, inputs: tuple, tokens: torch.Tensor) -> torch.Tensor:
        if not module.training:
            return tokens
        return tokens * (torch.rand(tokens.shape[:2], device=tokens.device) >= share)[..., None]

    projector.register_forward_hook(leave_out)


class BatchNumbers:
    """The number in the run of each batch that is made here, asked for once a batch.

    Args:
        start: number of the first batch of all loaders; that of process r of m has the batches r, r + m, r + 2m, … from
            there on, and its worker w of n makes w, w + n, w + 2n, … of these.
    """

    def __init__(self, start: int) -> None:
        self.start = start
        self.rank, self.ranks = place_among_ranks()
        self.made = 0  # batches of this worker

    def __call__(self) -> int:
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        number = self.start + (worker + self.made * workers) * self.ranks + self.rank
        self.made += 1
        return number


class InstructionDraw:
    """Instructions for a loader's clips, drawn by the number of the batch, so that a resumed run draws the same.

    Args:
        others: instructions beside the published one, all as likely.
        seed: of the draws.
        start: as of BatchNumbers.
    """

    def __init__(self, others: list[str], seed: int, start: int) -> None:
        self.instructions, self.seed, self.number = [INSTRUCTION, *others], seed, BatchNumbers(start)

    def __call__(self, clips: int) -> list[str]:
        return random.Random(f"{self.seed} {self.number()}").choices(self.instructions, k=clips)
