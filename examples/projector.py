"""A projector of one's own: frames side by side, and a gate that lets each value through or holds it back."""

from torch import nn
from torch.nn import functional as F

from tiny_audio.model.projectors import PROJECTOR_CLASSES, Projector, RMSNorm


class GatedProjector(Projector):
    """One linear layer makes values and gates (GLU, arXiv 1612.08083); an RMSNorm sets the scale of the tokens."""

    def __init__(self, config):
        super().__init__(config)
        self.linear = nn.Linear(self.stacked_dim, 2 * config.llm_dim)
        self.norm = RMSNorm(config.llm_dim)

    def project(self, x, lengths):
        """(batch, groups, stride · encoder_dim), and each clip's frames (batch,) → (batch, tokens, llm_dim)."""
        return self.norm(F.glu(self.linear(x)))


PROJECTOR_CLASSES["gated"] = GatedProjector
