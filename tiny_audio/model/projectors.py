"""Projectors: the small trained network from encoder frames to the language model's embedding space."""

import torch
from torch import nn
from torch.nn import functional as F

from .plugins import find_class


class RMSNorm(nn.RMSNorm):
    """Root-mean-square norm (arXiv 1910.07467) over the last axis, in the precision of its weight at least."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.rms_norm(x.to(self.weight.dtype), self.normalized_shape, self.weight, 1e-6)


class Projector(nn.Module):
    """Groups of `stride` frames become `queries` tokens each, at least one group.

    Subclasses say how in `project(x, lengths)`: (batch, groups, stride · encoder_dim), zero in the padding, and clips'
    frames (batch,) → (batch, tokens, llm_dim). The module they make last gives the output, and is scaled at the start.
    """

    def __init__(self, config):
        super().__init__()
        self.stride, self.queries = config.projector_pool_stride, 1
        self.fill = False  # whether zeros complete the last group, or it is dropped where it is incomplete
        self.stacked_dim = config.encoder_dim * self.stride

    def groups(self, length):
        groups = (length + self.fill * (self.stride - 1)) // self.stride
        return groups.clamp(min=1) if isinstance(groups, torch.Tensor) else max(1, groups)

    def output_length(self, length):
        """Audio tokens that `length` encoder frames give; int or tensor."""
        return self.groups(length) * self.queries

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """(batch, frames, encoder_dim), (batch, frames) bool: True, then False → (batch, tokens, llm_dim)."""
        if mask is None:
            mask = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
        groups = self.groups(x.shape[1])
        x = F.pad(x.masked_fill(~mask[..., None], 0), (0, 0, 0, groups * self.stride - x.shape[1]))
        return self.project(x.reshape(len(x), groups, -1), mask.sum(-1))


PROJECTOR_CLASSES: dict[str, type[nn.Module]] = {}  # by projector_type


def build_projector(config) -> nn.Module:
    """The projector that `config.projector_type` names (ValueError: none), shipped or in `config.projector_file`."""
    kind, own = config.projector_type, config.projector_file
    return find_class(PROJECTOR_CLASSES, kind, "projectors", own, "Unknown projector_type")(config)
