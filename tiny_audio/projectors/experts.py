"""Mixtures of experts: `mosa`, whose tokens use all of them, and `moe`, whose tokens use a few."""

import torch
import torch.nn.functional as F
from torch import nn

from tiny_audio.model.encoders import length_mask
from tiny_audio.model.projectors import PROJECTOR_CLASSES, Projector, RMSNorm


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


class MOSAProjector(Projector):
    """Mixture of simple adapters (arXiv 2508.18998): two convolutions, n frames → ceil(n / 4); a softmax over adapters."""

    def __init__(self, config):
        super().__init__(config)
        self.stride, self.fill = 4, True  # the stride of both convolutions
        self.conv_1 = nn.Conv1d(config.encoder_dim, config.llm_dim, 3, stride=2, padding=1)
        self.conv_2 = nn.Conv1d(config.llm_dim, config.llm_dim, 3, stride=2, padding=1)
        self.router = nn.Linear(config.llm_dim, config.num_experts)
        self.experts = Experts(config.num_experts, config.llm_dim, config.projector_hidden_dim, config.llm_dim)

    def project(self, x, lengths):
        x = x.reshape(len(x), -1, self.conv_1.in_channels).transpose(1, 2)
        for convolution in (self.conv_1, self.conv_2):
            x, lengths = F.gelu(convolution(x)), (lengths + 1) // 2
            x = x * length_mask(lengths, x.shape[-1])[:, None]  # its bias would leak from the padding into the next
        x = x.transpose(1, 2)
        return self.experts(x, self.router(x).softmax(-1))


class MoEProjector(Projector):
    """Frame stacking, RMSNorm, a shared expert and the best `num_experts_per_tok` of `num_experts`, RMSNorm.

    In training `auxiliary_loss` keeps the router's load balanced (arXiv 2101.03961) and its logits small (2202.08906).
    """

    def __init__(self, config):
        super().__init__(config)
        self.chosen = config.num_experts_per_tok
        self.norm = RMSNorm(self.stacked_dim)
        self.router = nn.Linear(self.stacked_dim, config.num_experts, bias=False)
        self.experts = Experts(1 + config.num_experts, self.stacked_dim, config.projector_hidden_dim, config.llm_dim)
        self.norm_2 = RMSNorm(config.llm_dim)

    def project(self, x, lengths):
        x = self.norm(x)
        logits = self.router(x).float()
        best, experts = logits.topk(self.chosen)
        gates = torch.zeros_like(logits).scatter(-1, experts, best.softmax(-1))
        if self.training:
            self.auxiliary_loss = router_loss(logits, gates, length_mask(self.groups(lengths), x.shape[1]))
        return self.norm_2(self.experts(x, F.pad(gates, (1, 0), value=1.0).to(x.dtype)))  # the first is the shared one


def router_loss(logits: torch.Tensor, gates: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
    """Load balancing (1 if all experts are used alike) and z-loss of (batch, tokens, experts) where `own` is True."""
    weights = (own / own.sum())[..., None]  # no indexing by the mask: it would wait for the GPU
    used, probability = ((values * weights).sum((0, 1)) for values in ((gates > 0).float(), logits.softmax(-1)))
    balance = logits.shape[-1] * (used / used.sum() * probability).sum()
    return balance + 0.1 * (logits.logsumexp(-1, keepdim=True).pow(2) * weights).sum()  # ST-MoE's 1e-2 and 1e-3


PROJECTOR_CLASSES.update(mosa=MOSAProjector, moe=MoEProjector)
