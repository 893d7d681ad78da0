"""From model settings to an ASRModel with fresh or loaded weights, and to the table of its parameters."""

from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, BitsAndBytesConfig, PretrainedConfig

from tiny_audio.assets import dimensions, embedded
from tiny_audio.console import warn
from tiny_audio.errors import TinyAudioError, require_extra
from tiny_audio.model.config import ASRConfig
from tiny_audio.model.encoders import adapter_for
from tiny_audio.model.loading import load_trained_tensors
from tiny_audio.model.lora import (
    ADAPTER,
    ENCODER_ADAPTER,
    adaptable_parts,
    adapted_parts,
    add_adapters,
    base_name,
    import_peft,
)
from tiny_audio.model.modeling import ASRModel
from tiny_audio.model_source import ModelSource, checkpoint_of, offline_if_unreachable

from .ctc import add_ctc_head
from .schema import ModelSettings

PARTS = ("encoder", "projector", "language_model", "ctc_head")
SHIPPED_MODEL = "nano"
LORA_TARGETS = ["q_proj", "v_proj"]
LORA_OPTIONS = {
    "use_lora": ("lora_rank", "lora_alpha", "lora_target_modules", "lora_dropout"),
    "encoder_lora_rank": ("encoder_lora_alpha", "encoder_lora_target_modules"),
}
OF_THE_LOADING = ("pretrained", "attn_implementation", "quantization", "ctc_head")  # settings that no checkpoint holds


@dataclass(frozen=True)
class PartSize:
    """Parameters of a part of the model."""

    name: str
    total: int
    trainable: int


def build_model(settings: ModelSettings) -> ASRModel:
    """The model to train: pretrained parts joined by a new projector, or a checkpoint to go on from.

    What is trained, now or before, is held in float32, whatever precision the frozen parts have.

    Raises:
        TinyAudioError: bitsandbytes is not installed. ValueError, OSError: a part or the checkpoint cannot be loaded
            (no network, not found, tensors missing).
    """
    options: dict[str, Any] = {
        "attn_implementation": settings.attn_implementation,
        "quantization_config": quantization_config(settings),
    }
    if settings.pretrained is None:
        model = ASRModel.from_parts(asr_config(settings), **options)
    else:
        path = checkpoint_path(settings.pretrained)
        check_quantizable(read_config(path), settings)
        model = ASRModel.from_pretrained(path, dtype=settings.model_dtype, **options)
        if settings.model_dtype != "float32":  # the precision of the frozen parts has rounded what was trained before
            hold_trained_in_float32(model)
            load_trained_tensors(model, path)
        apply_stage(model.config, settings)
    add_lora(model)
    model.freeze()
    if settings.ctc_head:
        add_ctc_head(model, model.sources[0])
    hold_trained_in_float32(model)
    return model


def hold_trained_in_float32(model: ASRModel) -> None:
    """Small updates of bfloat16 or float16 weights would be rounded away, and so would what an earlier stage made."""
    pretrained = {*model.encoder.encoder.parameters()}
    if not model.config.language_model_tuned:
        pretrained |= {*model.language_model.parameters()}
    lora = {parameter for name, parameter in model.named_parameters() if base_name(name) is None}
    for parameter in model.parameters():
        if parameter.requires_grad or parameter not in pretrained - lora:
            parameter.data = parameter.data.float()


def add_lora(model: ASRModel) -> None:
    """Puts the LoRA that the model's config asks for into the parts that have none yet.

    Raises:
        TinyAudioError: a part has no linear layer of a name that is asked for.
    """
    adapters = new_adapters(model.config)
    for folder in sorted(adapters.keys() - adapted_parts(model).keys()):
        part, wanted = adaptable_parts(model)[folder], adapters[folder].target_modules
        names = {name.rpartition(".")[2] for name, module in part.named_modules() if isinstance(module, nn.Linear)}
        if unknown := sorted(wanted - names):
            raise TinyAudioError(
                f"{type(part).__name__} has no layer for LoRA of the name {', '.join(unknown)}; its linear layers are "
                f"{', '.join(sorted(names))}."
            )
        for name, module in part.named_modules():
            if name.rpartition(".")[2] in wanted and is_tied(module, part):
                raise TinyAudioError(
                    f"{name} shares its weight with the token embedding, so it cannot have LoRA; leave it out."
                )
    add_adapters(model, adapters)


def is_tied(layer: nn.Module, part: nn.Module) -> bool:
    """Whether another layer has the same weight, as the output layer of a small language model has the embedding's."""
    weight = layer._parameters.get("weight")
    return weight is not None and sum(module._parameters.get("weight") is weight for module in part.modules()) > 1


def new_adapters(config: ASRConfig) -> dict:
    """The LoRA that a config asks for, as PEFT's configs by folder of the checkpoint."""
    wanted = {
        ADAPTER: (config.use_lora and config.lora_rank, config.lora_alpha, config.lora_target_modules),
        ENCODER_ADAPTER: (config.encoder_lora_rank, config.encoder_lora_alpha, config.encoder_lora_target_modules),
    }
    return {
        folder: import_peft().LoraConfig(
            r=rank,
            lora_alpha=alpha,
            target_modules=targets or LORA_TARGETS,
            lora_dropout=config.lora_dropout,
            task_type="CAUSAL_LM" if folder == ADAPTER else None,
            base_model_name_or_path=config.text_model_id if folder == ADAPTER else config.audio_model_id,
        )
        for folder, (rank, alpha, targets) in wanted.items()
        if rank
    }


def quantization_config(settings: ModelSettings) -> BitsAndBytesConfig | None:
    """How bitsandbytes holds the language model; the 4 bits are QLoRA's (arXiv 2305.14314)."""
    if settings.quantization is None:
        return None
    require_extra("bitsandbytes", "quantize")
    if settings.quantization == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=getattr(torch, settings.model_dtype),
    )


def asr_config(settings: ModelSettings) -> ASRConfig:
    """The model's own config, for parts that are joined anew."""
    values = {item.name: getattr(settings, item.name) for item in fields(settings)}
    return ASRConfig(**{name: value for name, value in values.items() if name not in OF_THE_LOADING})


def apply_stage(config: ASRConfig, settings: ModelSettings) -> None:
    """Of a loaded checkpoint, the settings decide what is trained from now on; LoRA that it has stays as it was made."""
    config.freeze_projector, config.freeze_language_model = settings.freeze_projector, settings.freeze_language_model
    config.freeze_lora, config.freeze_encoder_lora = not settings.use_lora, not settings.encoder_lora_rank
    for asked, options in LORA_OPTIONS.items():
        names = (asked, *options)
        if not getattr(config, asked):
            for name in names:
                setattr(config, name, getattr(settings, name))
        elif getattr(settings, asked):
            kept = [
                f"{name} {getattr(config, name)}" for name in names if getattr(config, name) != getattr(settings, name)
            ]
            if kept:
                warn(f"The checkpoint's LoRA stays as it was made: {', '.join(kept)}.")


def check_quantizable(config: ASRConfig, settings: ModelSettings) -> None:
    """A trained language model is float tensors of the checkpoint; there is no 4-bit file of it to load."""
    if settings.quantization and (config.language_model_tuned or not config.freeze_language_model):
        raise TinyAudioError(
            f"{settings.pretrained} holds a language model of its own, trained in full, which model.quantization cannot "
            "hold; leave model.quantization out."
        )


def checkpoint_path(name: str) -> str:
    """Where a checkpoint lies: `nano` is the shipped one, and the folder of a run means its best."""
    return str(embedded(SHIPPED_MODEL)) if name == SHIPPED_MODEL else checkpoint_of(name)


def read_config(checkpoint: str) -> ASRConfig:
    """A checkpoint's config.

    Raises:
        TinyAudioError: it is not there, or cannot be read.
    """
    source = ModelSource.of(checkpoint)
    try:
        with offline_if_unreachable(source):
            return ASRConfig.from_pretrained(checkpoint)
    except OSError as error:
        raise source.unreadable(error) from error


def part_sizes(model: ASRModel) -> list[PartSize]:
    """Total and trainable parameters of each part."""
    return [_size(name, part) for name in PARTS if (part := getattr(model, name)) is not None]


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
        config = read_config(checkpoint_path(settings.pretrained))
        check_quantizable(config, settings)
        apply_stage(config, settings)
    model = outline_of(config)
    if settings.ctc_head:
        inside = settings.pretrained is not None and config.self_contained
        add_ctc_head(model, (None if inside else config.audio_model_id, ""))
    return model


def outline_of(config: ASRConfig) -> ASRModel:
    """The model of a config with its LoRA, on the meta device, with the parts to train unfrozen."""
    if config.audio_config is not None:
        config.audio_config = adapter_for(config.audio_config, config.encoder_file).encoder_config(config.audio_config)
    with torch.device("meta"):
        model = ASRModel(config)
        add_lora(model)
    model.freeze()
    return model


def _part_config(model_id: str | None) -> PretrainedConfig:
    shipped = dimensions(model_id) if model_id else None
    return AutoConfig.for_model(**shipped) if shipped is not None else AutoConfig.from_pretrained(model_id)


def _size(name: str, part: nn.Module) -> PartSize:
    counts = [(parameter.numel(), parameter.requires_grad) for parameter in part.parameters()]
    return PartSize(name, sum(count for count, _ in counts), sum(count for count, trained in counts if trained))
