"""Projectors: the small trained network from encoder frames to the language model's embedding space."""

from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from .plugins import run_plugin


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


class MLPProjector(Projector):
    """Frame stacking and two linear layers, in the variants of `projector_variant`.

    `norm` (the default, tensors as published): RMSNorm after each, GELU, no biases. `relu`: ReLU, biases. `glm`: GELU,
    biases, GLM-ASR's `multi_modal_projector`, whose hidden width is twice the language model's.
    """

    def __init__(self, config):
        super().__init__(config)
        variant, hidden = config.projector_variant, config.projector_hidden_dim
        if variant not in ("norm", "relu", "glm"):
            raise ValueError(f"projector_variant is {variant!r}; expected norm, relu or glm.")
        self.activation, normed = F.relu if variant == "relu" else F.gelu, variant == "norm"
        self.linear_1 = nn.Linear(self.stacked_dim, hidden, bias=not normed)
        self.norm = RMSNorm(hidden) if normed else nn.Identity()
        self.linear_2 = nn.Linear(hidden, config.llm_dim, bias=not normed)
        self.norm_2 = RMSNorm(config.llm_dim) if normed else nn.Identity()

    def project(self, x, lengths):
        return self.norm_2(self.linear_2(self.activation(self.norm(self.linear_1(x)))))


class Experts(nn.Module):
    """Two-layer ReLU networks side by side in two matrices; the sum of their outputs, each times its gate.

    All are computed, also where the gate is 0: no wait for a count of tokens, and zeros, never nothing, as gradients.
    """

    def __init__(self, count: int, dim: int, hidden: int, out_dim: int):
        super().__init__()
        self.linear_1 = nn.Linear(dim, count * hidden, bias=False)
        self.linear_2 = nn.Linear(count * hidden, out_dim, bias=False)

    def forward(self, x: torch.Tensor, gates: torch.Tensor) -> torch.Tensor:
        """(…, dim), (…, experts) → (…, out_dim)."""
        hidden = F.relu(self.linear_1(x)).unflatten(-1, (gates.shape[-1], -1)) * gates[..., None]
        return self.linear_2(hidden.flatten(-2))


PROJECTOR_CLASSES: dict[str, type[nn.Module]] = {"mlp": MLPProjector}
_SHIPPED = Path(__file__).parents[1] / "projectors"  # more of them, a file each; a checkpoint carries the one it needs


def build_projector(config) -> nn.Module:
    """The projector that `config.projector_type` names (ValueError: none), shipped or in `config.projector_file`."""
    kind = config.projector_type
    for file in (_SHIPPED / f"{kind}.py", Path(config.projector_file or "")):
        if kind not in PROJECTOR_CLASSES and file.is_file():
            run_plugin(file)
    if kind not in PROJECTOR_CLASSES:
        known = ", ".join(sorted({*PROJECTOR_CLASSES, *(file.stem for file in _SHIPPED.glob("[a-z]*.py"))}))
        raise ValueError(
            f"Unknown projector_type {kind!r}; known: {known}. Your own needs projector_file, a local file like "
            "my_projector.py (from the Hub: AutoModel and trust_remote_code=True)."
        )
    return PROJECTOR_CLASSES[kind](config)
