"""FLOPs that training needs, clip by clip and part by part: from the model's layers and the clips' true lengths."""

from dataclasses import dataclass
from math import prod

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from tiny_audio.model.encoders import WINDOW_SAMPLES, shortened
from tiny_audio.model.modeling import ASRModel
from tiny_audio.model.projectors import build_projector

from .ctc import trained, trains_head_alone

FRAMES = 240  # of the encoder, whole groups of every projector: its cost is measured on them


@dataclass(frozen=True)
class Lengths:
    """Of clips, (clips,) int64 each: mel frames (or samples), tokens with the audio's and the answer's, and label tokens.

    `encoded`: the features are frames that the encoder made before, and it does not run.
    """

    features: torch.Tensor
    tokens: torch.Tensor
    labels: torch.Tensor
    encoded: bool = False


@dataclass(frozen=True)
class Layers:
    """Linear layers and attention that all see the same positions."""

    weights: int  # of all linear layers
    trained: int  # of those that get gradients
    attention: int  # layers × heads × head size
    backward: bool  # whether gradients pass through, to what lies before

    def flops(self, positions: torch.Tensor) -> torch.Tensor:
        """(clips,) positions → (clips,). Attention sees all pairs, as is usual also where it is causal (arXiv 2204.02311)."""
        linear = 2 * positions * (self.weights * (1 + self.backward) + self.trained)
        return linear + 4 * positions.double() ** 2 * self.attention * (1 + 2 * self.backward)


class TrainingFlops:
    """What a training step needs for each of its clips: no padding, nothing computed twice, no gradient that is not used.

    A multiplication with its addition is two. Norms, activations and a CTC head are left out. Where the first trained
    weights lie within a part, as with LoRA, gradients are counted through the whole of it.

    Args:
        model: its layers, on the meta device too, and what of them is trained.
        teacher: whether the language model also reads the transcripts, without gradients, to teach.
    """

    def __init__(self, model: ASRModel, teacher: bool = False) -> None:
        self.encoder, self.projector, self.teacher = model.encoder, model.projector, teacher
        self.head_alone = trains_head_alone(model)
        in_encoder = trained(model.encoder) and not self.head_alone
        in_projector = in_encoder or trained(model.projector)
        in_decoder = in_projector or trained(model.language_model)
        self.convolutions, self.layers = _convolutions(model), _layers(model.encoder.encoder, in_encoder)
        self.per_token = (
            0.0 if self.head_alone else _projector_flops(model, in_encoder) / self.projector.output_length(FRAMES)
        )
        self.decoder, self.reading = (_layers(model.language_model.get_decoder(), way) for way in (in_decoder, False))
        self.output, self.read_output = (_output(model.language_model, way) for way in (in_decoder, False))

    def __call__(self, clips: Lengths) -> dict[str, float]:
        """FLOPs of the clips together, by part."""
        parts = {} if clips.encoded else {"encoder": self.encoding(clips.features)}
        if not self.head_alone:
            frames = clips.features if clips.encoded else self.encoder.output_length(clips.features)
            audio = self.projector.output_length(frames)
            parts |= {
                "projector": self.per_token * audio,
                "language_model": self.decoder.flops(clips.tokens),
                "logits": self.output.flops(clips.labels),
            }
        if self.teacher:
            read = clips.tokens - audio + clips.labels - 1  # the words, not their end
            parts["teacher"] = self.reading.flops(read) + self.read_output.flops(clips.labels)
        return {name: float(flops.double().sum()) for name, flops in parts.items()}

    def encoding(self, features: torch.Tensor) -> torch.Tensor:
        """(clips,) mel frames (or samples) → (clips,) of the encoder."""
        if self.encoder.window:
            features = torch.full_like(features, self.encoder.feature_length(WINDOW_SAMPLES))
        return self._convolved(features) + self.layers.flops(self.encoder.output_length(features))

    def _convolved(self, length: torch.Tensor) -> torch.Tensor:
        """(clips,) of the encoder's convolutions; those that the adapter names shorten what the next ones see."""
        total, ahead = torch.zeros(len(length), dtype=torch.float64), list(self.encoder.convolutions)
        for kernel, stride, weights in self.convolutions:
            if ahead and (kernel, stride) == ahead[0][:2]:
                length = shortened(length, [ahead.pop(0)])
            total += 2.0 * weights * length
        return total


def _convolutions(model: ASRModel) -> list[tuple[int, int, int]]:
    """(kernel, stride, weights) of each, in their order."""
    found = [module for module in model.encoder.encoder.modules() if isinstance(module, nn.Conv1d | nn.Conv2d)]
    return [
        (conv.kernel_size[0], conv.stride[0], conv.out_channels * conv.in_channels // conv.groups * prod(conv.kernel_size))
        for conv in found
    ]  # fmt: skip


def _layers(part: nn.Module, backward: bool) -> Layers:
    linear = [module for module in part.modules() if isinstance(module, nn.Linear)]
    weights = [(layer.in_features * layer.out_features, layer.weight.requires_grad) for layer in linear]
    config = part.config
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return Layers(
        weights=sum(count for count, _ in weights),
        trained=sum(count for count, own in weights if own and backward),
        attention=config.num_hidden_layers * config.num_attention_heads * head,
        backward=backward,
    )


def _output(language_model: nn.Module, backward: bool) -> Layers:
    """The layer from hidden states to logits, at the labels only."""
    weight = language_model.get_output_embeddings()
    count = weight.in_features * weight.out_features
    return Layers(count, count if weight.weight.requires_grad and backward else 0, attention=0, backward=backward)


def _projector_flops(model: ASRModel, backward: bool) -> float:
    """For FRAMES frames: measured, since a user's own may be anything."""
    with torch.device("meta"):
        projector = build_projector(model.config).requires_grad_(trained(model.projector))
        frames = torch.zeros(1, FRAMES, model.encoder.dim, requires_grad=backward)
        with FlopCounterMode(display=False) as counter:
            try:
                tokens = projector(frames, torch.ones(1, FRAMES, dtype=torch.bool))
            except RuntimeError:  # it looks at values, and there are none
                return 6.0 * sum(map(torch.numel, projector.parameters())) * projector.output_length(FRAMES)
            if tokens.requires_grad:
                tokens.sum().backward()
    return counter.get_total_flops()
