"""Encoders of 30 s of log-mel: GLM-ASR, Whisper and Voxtral."""

import torch
from torch.nn import functional as F

from tiny_audio.model.encoders import ENCODER_ADAPTERS, EncoderAdapter, length_mask


class GlmAsrAdapter(EncoderAdapter):
    """GLM-ASR's encoder (a Whisper encoder with rotary positions): any length up to 30 s."""

    model_types = ("glmasr", "glmasr_encoder")
    convolutions = ((3, 1, 1), (3, 2, 1))
    full_windows = ("window",)

    def states(self, features, lengths):
        return self._run(features) if self.window else self._masked(features, lengths)

    def _masked(self, features, lengths):
        encoder, mask = self.encoder, length_mask(lengths, features.shape[-1])[:, None]
        hidden = F.gelu(encoder.conv1(features * mask))
        # the first convolution's bias would leak into the last frame of a clip of odd length
        hidden = F.gelu(encoder.conv2(hidden * mask)).transpose(1, 2)
        keep = length_mask(self.output_length(lengths), hidden.shape[1])
        positions = torch.arange(hidden.shape[1], device=hidden.device)[None]
        rotary = encoder.rotary_emb(hidden, position_ids=positions)
        attention, states = None if keep.all() else self._attention_mask(keep, hidden.dtype), []
        for layer in encoder.layers:
            states.append(hidden)
            hidden = layer(hidden, position_embeddings=rotary, attention_mask=attention)
        return [*states, encoder.norm(hidden)]

    def _attention_mask(self, keep, dtype):
        if self.encoder.config._attn_implementation == "flash_attention_2":
            return keep  # flash takes the 2-D mask and unpads by it
        mask = torch.zeros(keep.shape, dtype=dtype, device=keep.device)
        return mask.masked_fill(~keep, torch.finfo(dtype).min)[:, None, None, :]


class WhisperAdapter(EncoderAdapter):
    """Encoders of Whisper and Voxtral: always 3,000 mel frames, since they take no mask; cut to the true length after."""

    model_types = ("whisper", "voxtral", "voxtral_encoder")
    convolutions = ((3, 1, 1), (3, 2, 1))
    full_windows = ("masked", "window")

    def states(self, features, lengths):
        return self._run(features)


for adapter in (GlmAsrAdapter, WhisperAdapter):
    ENCODER_ADAPTERS.update(dict.fromkeys(adapter.model_types, adapter))
