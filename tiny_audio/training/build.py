"""From model settings to an ASRModel with fresh or loaded weights, and to the table of its parameters."""

from dataclasses import dataclass, fields

import torch
from torch import nn
from transformers import AutoConfig, PretrainedConfig

from tiny_audio.assets import dimensions, embedded
from tiny_audio.model.config import ASRConfig
from tiny_audio.model.encoders import adapter_for
from tiny_audio.model.modeling import ASRModel

from .schema import ModelSettings

PARTS = ("encoder", "projector", "language_model")
SHIPPED_MODEL = "nano"
OF_THE_LOADING = ("pretrained", "attn_implementation")  # settings that no checkpoint holds


@dataclass(frozen=True)
class PartSize:
    """Parameters of a part of the model."""

    name: str
    total: int
    trainable: int


def build_model(settings: ModelSettings) -> ASRModel:
    """The model to train: pretrained parts joined by a new projector, or a checkpoint to go on from.

    What is trained is held in float32, whatever precision the frozen parts have.

    Raises:
        ValueError, OSError: a part or the checkpoint cannot be loaded (no network, not found, tensors missing).
    """
    if settings.pretrained is None:
        model = ASRModel.from_parts(asr_config(settings), attn_implementation=settings.attn_implementation)
    else:
        model = ASRModel.from_pretrained(
            checkpoint_path(settings.pretrained),
            dtype=settings.model_dtype,
            attn_implementation=settings.attn_implementation,
        )
        apply_freezing(model.config, settings)
    model.freeze()
    hold_trained_in_float32(model)
    return model


def hold_trained_in_float32(model: ASRModel) -> None:
    """Small updates of bfloat16 or float16 weights would be rounded away."""
    for part in (model.projector, model.language_model):
        if any(parameter.requires_grad for parameter in part.parameters()):
            part.float()


def asr_config(settings: ModelSettings) -> ASRConfig:
    """The model's own config, for parts that are joined anew."""
    values = {item.name: getattr(settings, item.name) for item in fields(settings)}
    return ASRConfig(**{name: value for name, value in values.items() if name not in OF_THE_LOADING})


def apply_freezing(config: ASRConfig, settings: ModelSettings) -> None:
    """Of a loaded checkpoint, the settings decide what is trained from now on."""
    config.freeze_projector = settings.freeze_projector
    config.freeze_language_model = settings.freeze_language_model


def checkpoint_path(name: str) -> str:
    """Where a checkpoint lies: `nano` is the shipped one."""
    return str(embedded(SHIPPED_MODEL)) if name == SHIPPED_MODEL else name


def part_sizes(model: ASRModel) -> list[PartSize]:
    """Total and trainable parameters of each part."""
    return [_size(name, getattr(model, name)) for name in PARTS]


def outline(settings: ModelSettings) -> ASRModel:
    """The model without any weights (on the meta device): only configs are read, of named models the shipped sizes.

    Raises:
        ValueError, OSError: a config cannot be read.
    """
    if settings.pretrained is None:
        config = asr_config(settings)
        config.audio_config = _part_config(config.audio_model_id)
        config.text_config = _part_config(config.text_model_id)
    else:
        config = ASRConfig.from_pretrained(checkpoint_path(settings.pretrained))
        apply_freezing(config, settings)
    if config.audio_config is not None:
        config.audio_config = adapter_for(config.audio_config).encoder_config(config.audio_config)
    with torch.device("meta"):
        return ASRModel(config)


def _part_config(model_id: str | None) -> PretrainedConfig:
    shipped = dimensions(model_id) if model_id else None
    return AutoConfig.for_model(**shipped) if shipped is not None else AutoConfig.from_pretrained(model_id)


def _size(name: str, part: nn.Module) -> PartSize:
    counts = [(parameter.numel(), parameter.requires_grad) for parameter in part.parameters()]
    return PartSize(name, sum(count for count, _ in counts), sum(count for count, trained in counts if trained))
