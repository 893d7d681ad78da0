"""A mixture of simple adapters, all used, behind two convolutions."""

import torch.nn.functional as F
from torch import nn

from tiny_audio.model.encoders import length_mask
from tiny_audio.model.projectors import PROJECTOR_CLASSES, Experts, Projector


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


PROJECTOR_CLASSES["mosa"] = MOSAProjector
