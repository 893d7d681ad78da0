"""From model settings to an ASRModel with fresh or loaded weights, and to the table of its parameters."""

from dataclasses import dataclass, fields

import torch
from torch import nn
from transformers import AutoConfig

from tiny_audio.assets import embedded
from tiny_audio.model.config import ASRConfig
from tiny_audio.model.encoders import adapter_for
from tiny_audio.model.modeling import ASRModel

from .ctc import add_ctc_head
from .schema import ModelSettings

PARTS = ("encoder", "projector", "language_model", "ctc_head")
SHIPPED_MODEL = "nano"
OF_THE_LOADING = ("pretrained", "attn_implementation", "ctc_head")  # settings that no checkpoint holds


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
    if settings.ctc_head:
        add_ctc_head(model, model._sources[0])
    for part in (model.projector, model.language_model, model.ctc_head):
        if part is not None and any(parameter.requires_grad for parameter in part.parameters()):
            part.float()
    return model


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
    return [_size(name, part) for name in PARTS if (part := getattr(model, name)) is not None]


def outline(settings: ModelSettings) -> ASRModel:
    """The model without any weights (on the meta device): only configs are read.

    Raises:
        ValueError, OSError: a config cannot be read.
    """
    if settings.pretrained is None:
        config = asr_config(settings)
        config.audio_config = AutoConfig.from_pretrained(config.audio_model_id)
        config.text_config = AutoConfig.from_pretrained(config.text_model_id)
    else:
        config = ASRConfig.from_pretrained(checkpoint_path(settings.pretrained))
        apply_freezing(config, settings)
    if config.audio_config is not None:
        config.audio_config = adapter_for(config.audio_config).encoder_config(config.audio_config)
    with torch.device("meta"):
        model = ASRModel(config)
    if settings.ctc_head:
        inside = settings.pretrained is not None and config.self_contained
        add_ctc_head(model, (None if inside else config.audio_model_id, ""))
    return model


def _size(name: str, part: nn.Module) -> PartSize:
    counts = [(parameter.numel(), parameter.requires_grad) for parameter in part.parameters()]
    return PartSize(name, sum(count for count, _ in counts), sum(count for count, trained in counts if trained))
