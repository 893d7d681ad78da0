"""A Q-Former over windows of frames, as in Granite-speech."""

import torch
from torch import nn
from transformers import AutoConfig, AutoModel

from tiny_audio.model.projectors import PROJECTOR_CLASSES, Projector


class QFormerProjector(Projector):
    """BLIP-2's Q-Former over windows of frames, as in Granite-speech (arXiv 2505.08699), whose tensor names it has.

    n frames → ceil(n / window) · (window // downsample_rate) tokens: zeros fill the last window, and are seen, as there.
    """

    def __init__(self, config):
        super().__init__(config)
        dim = config.qformer_hidden_size or config.encoder_dim
        if dim % config.qformer_num_heads:
            raise ValueError(
                f"qformer_num_heads is {config.qformer_num_heads}; expected a divisor of its width, {dim}."
            )
        self.stride, self.fill = config.qformer_window_size, True
        self.queries = self.stride // config.downsample_rate
        self.query = nn.Parameter(torch.randn(1, self.queries, dim))
        qformer_config = AutoConfig.for_model(
            "blip_2_qformer", hidden_size=dim, encoder_hidden_size=config.encoder_dim, cross_attention_frequency=1,
            num_hidden_layers=config.qformer_num_layers, num_attention_heads=config.qformer_num_heads,
            intermediate_size=config.qformer_intermediate_size or 4 * dim,
            hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
        )  # fmt: skip
        self.qformer = AutoModel.from_config(qformer_config)
        self.linear = nn.Linear(dim, config.llm_dim)

    def project(self, x, lengths):
        windows = x.reshape(x.shape[0] * x.shape[1], self.stride, -1)
        found = self.qformer(query_embeds=self.query, encoder_hidden_states=windows).last_hidden_state
        return self.linear(found.reshape(len(x), -1, found.shape[-1]))


PROJECTOR_CLASSES["qformer"] = QFormerProjector
