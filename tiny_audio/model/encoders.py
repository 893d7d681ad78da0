"""Audio encoders: one adapter a family, all with one face: features and their lengths in, frames and their lengths out."""

from contextlib import contextmanager
from math import prod

import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoConfig, AutoModel, PretrainedConfig
from transformers.utils import logging

from tiny_audio.audio.reading import SAMPLING_RATE

from .plugins import find_class

WINDOW_SAMPLES = 480_000  # 30 s at 16 kHz: what Whisper's and GLM-ASR's encoders were trained on


def length_mask(lengths: torch.Tensor, size: int) -> torch.Tensor:
    """(batch,) lengths → (batch, size) bool, True where there is content."""
    return torch.arange(size, device=lengths.device)[None, :] < lengths[:, None]


class EncoderAdapter(nn.Module):
    """A pretrained encoder behind the one face that the rest of the model knows.

    Subclasses say in `states(features, lengths)` how features, whose last axis is time, become all hidden states.

    Args:
        config: the encoder's own, or that of a larger checkpoint.
        encoder: None where only the arithmetic of lengths is asked for.
        padding: "masked" (padding never changes a result) or "window" (30 s of unmasked mel, as published checkpoints).
        layer: the hidden state taken, -1 for the last, or "weighted": a learned mean of all (SUPERB, arXiv 2105.01051).
    """

    input_name = "input_features"
    whisper_mel = True  # otherwise the checkpoint's own feature extractor is called
    model_types: tuple[str, ...] = ()
    prefix = r"^(model\.)?(encoder|audio_tower)\."  # the encoder's place in a checkpoint that holds more than it
    framing: tuple[tuple[int, int, int], ...] = ((160, 160, 0),)  # as convolutions, from samples to features
    convolutions: tuple[tuple[int, int, int], ...] = ()  # (kernel, stride, padding) of those that shorten the features
    max_samples: int | None = WINDOW_SAMPLES
    full_windows: tuple[str, ...] = ()  # the paddings under which features are those of the full 30 s
    one_by_one = False  # padding cannot be masked exactly: each clip of a batch runs alone

    def __init__(self, config: PretrainedConfig, encoder=None, padding: str = "masked", layer: int | str = -1):
        super().__init__()
        config = self.encoder_config(config)
        self.encoder, self.layer, self.window = encoder, layer, padding in self.full_windows
        layers, ends_in_adapter = config.num_hidden_layers, getattr(config, "add_adapter", False)
        self.dim = config.output_hidden_size if ends_in_adapter else config.hidden_size
        known = [-1] if ends_in_adapter else [*range(-layers - 1, layers + 1), "weighted"]
        if layer not in known:
            raise ValueError(f"encoder_layer is {layer!r}; this encoder has {', '.join(map(str, known))}.")
        self.layer_weights = nn.Parameter(torch.zeros(layers + 1)) if layer == "weighted" else None

    @classmethod
    def encoder_config(cls, config: PretrainedConfig) -> PretrainedConfig:
        """The encoder's own config inside that of a larger checkpoint."""
        return getattr(config, "audio_config", None) or getattr(config, "encoder_config", None) or config

    @property
    def min_samples(self) -> int:
        """The shortest clip that gives a frame; shorter ones are padded with silence."""
        length = 1
        for kernel, stride, padding in reversed(self.framing + self.convolutions):
            length = max(1, (length - 1) * stride + kernel - 2 * padding)
        return length

    @property
    def frame_seconds(self) -> float:
        """From one encoder frame to the next."""
        return prod(stride for _, stride, _ in self.framing + self.convolutions) / SAMPLING_RATE

    def feature_length(self, samples: int) -> int:
        """Mel frames (or samples, for encoders of raw audio) of a clip, at least those of `min_samples`."""
        return shortened(max(samples, self.min_samples), self.framing)

    def output_length(self, length):
        """Frames that `length` mel frames (or samples) give; int or tensor."""
        return shortened(length, self.convolutions)

    def forward(self, features: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(batch, mels, frames) or (batch, samples), and true lengths (batch,) → the same of encoder frames.

        Frames are (batch, encoder frames, dim), zero beyond each clip's end.
        """
        frame_lengths = self.output_length(lengths)
        frames = self.encode(features.to(self.encoder.dtype), lengths)[:, : int(frame_lengths.max())]
        return frames.masked_fill(~length_mask(frame_lengths, frames.shape[1])[..., None], 0.0), frame_lengths

    def encode(self, features: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """The frames alone, uncut; a graph is kept for a trained encoder and for the layer weights only."""
        trained = any(parameter.requires_grad for parameter in self.encoder.parameters())
        with torch.set_grad_enabled(trained and torch.is_grad_enabled()):
            states = self._each_alone(features, lengths) if self.one_by_one else self.states(features, lengths)
        if self.layer_weights is None:
            return states[self.layer]
        return sum(weight * state for weight, state in zip(self.layer_weights.softmax(0), states, strict=True))

    def _each_alone(self, features, lengths):
        clips = [self.states(row[None, ..., :size], size[None]) for row, size in zip(features, lengths, strict=True)]
        return [pad_sequence([state[0] for state in layer], batch_first=True) for layer in zip(*clips, strict=True)]

    def _run(self, features, **mask) -> list[torch.Tensor]:
        """The encoder's own forward: its last hidden state, after all others where those are asked for."""
        output = self.encoder(features, output_hidden_states=self.layer != -1, **mask)
        return [*(output.hidden_states or ())[:-1], output.last_hidden_state]


def shortened(length, convolutions):
    """The length (int or tensor) after convolutions of (kernel, stride, padding)."""
    for kernel, stride, padding in convolutions:
        length = (length + 2 * padding - kernel) // stride + 1
    return length


ENCODER_ADAPTERS: dict[str, type[EncoderAdapter]] = {}  # by model_type


def adapter_for(config: PretrainedConfig, own: str | None = None) -> type[EncoderAdapter]:
    """The adapter class of an encoder, by its config's `model_type`, never by the repository's name.

    It is shipped, or in `own`, a user's file (ValueError: neither has it).
    """
    return find_class(ENCODER_ADAPTERS, config.model_type, "encoders", own, "No encoder adapter for model_type")


def build_encoder(config) -> EncoderAdapter:
    """An encoder of random weights, as the model's config describes it."""
    adapter = adapter_for(config.audio_config, config.encoder_file)
    encoder = _model_class(config.audio_config)._from_config(adapter.encoder_config(config.audio_config))
    return adapter(config.audio_config, encoder, config.encoder_padding, config.encoder_layer)


def load_encoder(
    path: str, padding: str, layer: int | str = -1, own: str | None = None, **load_kwargs
) -> EncoderAdapter:
    """A pretrained encoder; of a larger checkpoint only the encoder's tensors are read. ValueError: some are missing."""
    where = {key: value for key, value in load_kwargs.items() if key not in ("dtype", "attn_implementation")}
    config = AutoConfig.from_pretrained(path, **where)
    adapter, model_class = adapter_for(config, own), _model_class(config)
    attention = {"sdpa": model_class._supports_sdpa, "flash_attention_2": model_class._supports_flash_attn}
    if not attention.get(load_kwargs.get("attn_implementation", ""), True):
        del load_kwargs["attn_implementation"]  # the language model's wish, which this encoder cannot follow
    with quiet_transformers():  # it lists the larger checkpoint's other tensors; what matters is checked below
        load_kwargs |= {"config": adapter.encoder_config(config), "key_mapping": {adapter.prefix: ""}}
        encoder, info = model_class.from_pretrained(path, output_loading_info=True, **load_kwargs)
    encoder._weight_conversions = []  # saved under the encoder's own names, not the larger checkpoint's
    if missing := sorted(info["missing_keys"] - {"masked_spec_embed"}):  # of pretraining; many checkpoints lack it
        raise ValueError(f"{path} lacks {len(missing)} encoder tensors ({', '.join(missing[:3])}…).")
    return adapter(config, encoder, padding, layer)


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
