"""Audio encoders: one adapter a family, all with one face: features and their lengths in, frames and their lengths out."""

from contextlib import contextmanager

import torch
from torch import nn
from torch.nn import functional as F
from transformers import AutoConfig, AutoModel, PretrainedConfig
from transformers.utils import logging

WINDOW_SAMPLES = 480_000  # 30 s at 16 kHz: what Whisper's and GLM-ASR's encoders were trained on


def length_mask(lengths: torch.Tensor, size: int) -> torch.Tensor:
    """(batch,) lengths → (batch, size) bool, True where there is content."""
    return torch.arange(size, device=lengths.device)[None, :] < lengths[:, None]


class EncoderAdapter(nn.Module):
    """A pretrained encoder behind the one face that the rest of the model knows.

    Subclasses say in `encode(features, lengths)` how features become frames (batch, frames, dim). `padding` is "masked" (padding never changes a result) or "window"
    (every clip stands in 30 s of mel, unmasked, as published checkpoints were trained).
    """

    input_name = "input_features"
    model_types: tuple[str, ...] = ()
    prefix = ""  # regular expression of the encoder's place in a checkpoint that holds more than it
    convolutions: tuple[tuple[int, int, int], ...] = ()  # (kernel, stride, padding) of those that shorten the input
    max_samples: int | None = WINDOW_SAMPLES

    def __init__(self, encoder: nn.Module, padding: str = "masked"):
        super().__init__()
        self.encoder = encoder
        self.window = self.needs_window(padding)

    @classmethod
    def encoder_config(cls, config: PretrainedConfig) -> PretrainedConfig:
        """The encoder's own config inside that of a larger checkpoint."""
        return config

    @classmethod
    def needs_window(cls, padding: str) -> bool:
        """Whether features are padded to the full 30 s."""
        return padding == "window"

    @classmethod
    def output_length(cls, length):
        """Frames that `length` mel frames (or samples) give; int or tensor."""
        for kernel, stride, padding in cls.convolutions:
            length = (length + 2 * padding - kernel) // stride + 1
        return length

    def forward(self, features: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Encode a batch.

        Args:
            features: (batch, mels, frames) log-mel, or (batch, samples).
            lengths: (batch,) true lengths in frames (or samples).

        Returns:
            (batch, encoder frames, dim), zero beyond each clip's end, and the true lengths (batch,).
        """
        frame_lengths = self.output_length(lengths)
        frames = self.encode(features.to(self.encoder.dtype), lengths)[:, : int(frame_lengths.max())]
        return frames * length_mask(frame_lengths, frames.shape[1])[..., None], frame_lengths


class GlmAsrAdapter(EncoderAdapter):
    """GLM-ASR's encoder (a Whisper encoder with rotary positions): any length up to 30 s."""

    model_types = ("glmasr", "glmasr_encoder")
    prefix = r"^(model\.)?audio_tower\."
    convolutions = ((3, 1, 1), (3, 2, 1))

    @classmethod
    def encoder_config(cls, config):
        return config.audio_config if config.model_type == "glmasr" else config

    def encode(self, features, lengths):
        if self.window:
            return self.encoder(features).last_hidden_state
        return self._masked(features, lengths)

    def _masked(self, features, lengths):
        encoder, mask = self.encoder, length_mask(lengths, features.shape[-1])[:, None]
        hidden = F.gelu(encoder.conv1(features * mask))
        # the first convolution's bias would leak into the last frame of a clip of odd length
        hidden = F.gelu(encoder.conv2(hidden * mask)).transpose(1, 2)
        keep = length_mask(self.output_length(lengths), hidden.shape[1])
        positions = torch.arange(hidden.shape[1], device=hidden.device)[None]
        rotary = encoder.rotary_emb(hidden, position_ids=positions)
        attention = None if keep.all() else self._attention_mask(keep, hidden.dtype)
        for layer in encoder.layers:
            hidden = layer(hidden, position_embeddings=rotary, attention_mask=attention)
        return encoder.norm(hidden)

    def _attention_mask(self, keep, dtype):
        if self.encoder.config._attn_implementation == "flash_attention_2":
            return keep  # flash takes the 2-D mask and unpads by it
        mask = torch.zeros(keep.shape, dtype=dtype, device=keep.device)
        return mask.masked_fill(~keep, torch.finfo(dtype).min)[:, None, None, :]


class WhisperAdapter(EncoderAdapter):
    """Whisper's encoder: always its 3,000 mel frames, since it takes no mask; the output is cut to the true length."""

    model_types = ("whisper",)
    prefix = r"^(model\.)?encoder\."
    convolutions = ((3, 1, 1), (3, 2, 1))

    @classmethod
    def needs_window(cls, padding):
        return True

    def encode(self, features, lengths):
        return self.encoder(features).last_hidden_state


ENCODER_ADAPTERS: dict[str, type[EncoderAdapter]] = {
    model_type: adapter for adapter in (GlmAsrAdapter, WhisperAdapter) for model_type in adapter.model_types
}


def adapter_for(config: PretrainedConfig) -> type[EncoderAdapter]:
    """The adapter class of an encoder, by its config's `model_type`, never by the repository's name."""
    if config.model_type not in ENCODER_ADAPTERS:
        known = ", ".join(sorted(ENCODER_ADAPTERS))
        raise ValueError(f"No encoder adapter for model_type {config.model_type!r}; known: {known}.")
    return ENCODER_ADAPTERS[config.model_type]


def build_encoder(config: PretrainedConfig, padding: str) -> EncoderAdapter:
    """An encoder of random weights from its config."""
    adapter = adapter_for(config)
    return adapter(_model_class(config)._from_config(adapter.encoder_config(config)), padding)


def load_encoder(path: str, padding: str, **load_kwargs) -> EncoderAdapter:
    """A pretrained encoder; of a larger checkpoint only the encoder's tensors are read.

    Raises:
        ValueError: the checkpoint lacks some of the encoder's tensors (they are named).
    """
    config = AutoConfig.from_pretrained(
        path, **{key: value for key, value in load_kwargs.items() if key not in ("dtype", "attn_implementation")}
    )
    adapter = adapter_for(config)
    with quiet_transformers():  # it lists the larger checkpoint's other tensors; what matters is checked below
        load_kwargs |= {"config": adapter.encoder_config(config), "key_mapping": {adapter.prefix: ""}}
        encoder, info = _model_class(config).from_pretrained(path, output_loading_info=True, **load_kwargs)
    encoder._weight_conversions = []  # saved under the encoder's own names, not the larger checkpoint's
    if missing := sorted(info["missing_keys"]):
        names = ", ".join(missing[:3])
        raise ValueError(f"{path} lacks {len(missing)} encoder tensors ({names}…); it is not this encoder.")
    return adapter(encoder, padding)


@contextmanager
def quiet_transformers():
    """No warnings and progress bars of transformers meanwhile."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _model_class(config: PretrainedConfig):
    if config.model_type == "whisper":
        from transformers.models.whisper.modeling_whisper import WhisperEncoder

        return WhisperEncoder
    return AutoModel._model_mapping[type(adapter_for(config).encoder_config(config))]
