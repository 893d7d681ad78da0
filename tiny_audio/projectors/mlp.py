"""The projector of the default model: frame stacking and two linear layers."""

from torch import nn
from torch.nn import functional as F

from tiny_audio.model.projectors import PROJECTOR_CLASSES, Projector, RMSNorm


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


PROJECTOR_CLASSES["mlp"] = MLPProjector
