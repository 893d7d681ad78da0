"""The gated projector of the full-size course model."""

import torch.nn.functional as F
from torch import nn

from tiny_audio.model.projectors import PROJECTOR_CLASSES, Projector, RMSNorm


class SwiGLUProjector(Projector):
    """Frame stacking, RMSNorm, a gated layer (SwiGLU, arXiv 2002.05202), RMSNorm; without biases."""

    def __init__(self, config):
        super().__init__(config)
        self.norm = RMSNorm(self.stacked_dim)
        self.gate = nn.Linear(self.stacked_dim, config.projector_hidden_dim, bias=False)
        self.up = nn.Linear(self.stacked_dim, config.projector_hidden_dim, bias=False)
        self.down = nn.Linear(config.projector_hidden_dim, config.llm_dim, bias=False)
        self.norm_2 = RMSNorm(config.llm_dim)

    def project(self, x, lengths):
        x = self.norm(x)
        return self.norm_2(self.down(F.silu(self.gate(x)) * self.up(x)))


PROJECTOR_CLASSES["swiglu"] = SwiGLUProjector
