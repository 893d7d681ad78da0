"""A mixture of experts of which each token uses a few, with the loss that keeps them in use."""

import torch
import torch.nn.functional as F
from torch import nn

from tiny_audio.model.encoders import length_mask
from tiny_audio.model.projectors import PROJECTOR_CLASSES, Experts, Projector, RMSNorm


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


PROJECTOR_CLASSES["moe"] = MoEProjector
