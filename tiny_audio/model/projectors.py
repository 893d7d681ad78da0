"""Projectors: the small trained network from encoder frames to the language model's embedding space."""

import torch
from torch import nn
from torch.nn import functional as F


class RMSNorm(nn.Module):
    """Root-mean-square norm (arXiv 1910.07467) over the last axis, computed in float32."""

    def __init__(self, dim: int, eps: float = 1e-6):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scale = torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + self.eps)
        return self.weight * (x.float() * scale).to(x.dtype)


def stack_frames(x: torch.Tensor, stride: int) -> torch.Tensor:
    """(batch, frames, dim) → (batch, max(1, frames // stride), stride · dim); fewer than `stride` frames are padded."""
    x = F.pad(x, (0, 0, 0, max(0, stride - x.shape[1])))
    groups = x.shape[1] // stride
    return x[:, : groups * stride].reshape(x.shape[0], groups, -1)


class MLPProjector(nn.Module):
    """Frame stacking and two linear layers with RMSNorm after each and GELU between, without biases (the default).

    The published checkpoints' tensors: `linear_1`, `norm`, `linear_2`, `norm_2`.
    """

    def __init__(self, config):
        super().__init__()
        self.stride = config.projector_pool_stride
        self.linear_1 = nn.Linear(config.encoder_dim * self.stride, config.projector_hidden_dim, bias=False)
        self.norm = RMSNorm(config.projector_hidden_dim)
        self.linear_2 = nn.Linear(config.projector_hidden_dim, config.llm_dim, bias=False)
        self.norm_2 = RMSNorm(config.llm_dim)

    def output_length(self, length):
        """Audio tokens that `length` encoder frames give, at least 1; int or tensor."""
        tokens = (length - self.stride) // self.stride + 1
        return tokens.clamp(min=1) if isinstance(tokens, torch.Tensor) else max(1, tokens)

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """(batch, frames, encoder_dim), (batch, frames) bool → (batch, tokens, llm_dim)."""
        if mask is not None:
            x = x * mask[..., None]
        x = F.gelu(self.norm(self.linear_1(stack_frames(x, self.stride))))
        return self.norm_2(self.linear_2(x))


PROJECTOR_CLASSES: dict[str, type[nn.Module]] = {"mlp": MLPProjector}


def build_projector(config) -> nn.Module:
    """The projector that `config.projector_type` names.

    Raises:
        ValueError: no class is registered under that name.
    """
    if config.projector_type not in PROJECTOR_CLASSES:
        known = ", ".join(sorted(PROJECTOR_CLASSES))
        raise ValueError(f"Unknown projector_type {config.projector_type!r}; known: {known}.")
    return PROJECTOR_CLASSES[config.projector_type](config)
