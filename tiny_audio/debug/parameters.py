"""How large the model of each experiment is, built without weights from the shipped sizes of the named models."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from tiny_audio.model.loading import trained_parameters
from tiny_audio.model.lora import base_name
from tiny_audio.training import compose
from tiny_audio.training.build import outline, part_sizes
from tiny_audio.training.config import EXPERIMENTS, config_folders, members
from tiny_audio.training.schema import ModelSettings

NUMBERS = ("LoRA", "trained", "checkpoint")
COLUMNS = ("experiment", "encoder", "projector", "language model", *NUMBERS)
WITHOUT_CHECKPOINT = ("model.pretrained=null",)  # a later stage has the parts of the one before, which it names as well


@dataclass(frozen=True)
class ModelSize:
    """Parameters of the model of an experiment; those of LoRA are not counted in the part they belong to."""

    experiment: str
    names: tuple[str, str, str]  # encoder, projector type, language model
    parts: tuple[int, int, int]
    lora: int
    trained: int
    checkpoint_bytes: int  # of the tensors that training writes, in float32; without encoder and language model

    def cells(self) -> tuple[str, ...]:
        """A row of the table."""
        parts = (f"{name}, {millions(size)}" for name, size in zip(self.names, self.parts, strict=True))
        megabytes = f"{self.checkpoint_bytes / 1e6:,.1f} MB"
        return (self.experiment, *parts, millions(self.lora), millions(self.trained), megabytes)


def model_sizes(experiments: Sequence[str] = (), config_dir: str | Path | None = None) -> list[ModelSize]:
    """The sizes of the models of some experiments; of all, if none is named.

    Raises:
        TinyAudioError: no such experiment. ValueError, OSError: the size of a part is neither shipped nor readable.
    """
    names = experiments or members(EXPERIMENTS, config_folders(config_dir))
    return [model_size(name, compose(name, WITHOUT_CHECKPOINT, config_dir=config_dir).model) for name in names]


def model_size(experiment: str, settings: ModelSettings) -> ModelSize:
    """The size of the model that the settings describe."""
    model = outline(settings)
    sizes = part_sizes(model)
    lora = {name: parameter for name, parameter in model.named_parameters() if base_name(name) is None}
    of_lora = [sum(x.numel() for name, x in lora.items() if name.startswith(size.name)) for size in sizes]
    encoder, projector, language_model, *_ = (size.total - count for size, count in zip(sizes, of_lora, strict=True))
    saved = [*trained_parameters(model).values(), *lora.values()]
    return ModelSize(
        experiment,
        names=(short_name(settings.audio_model_id), model.config.projector_type, short_name(settings.text_model_id)),
        parts=(encoder, projector, language_model),
        lora=sum(of_lora),
        trained=sum(size.trainable for size in sizes),
        checkpoint_bytes=sum(x.numel() * torch.float32.itemsize for x in saved),
    )


def short_name(model_id: str | None) -> str:
    """`Qwen/Qwen3-0.6B` → `Qwen3-0.6B`, `…/assets/nano/encoder` → `nano`."""
    path = Path(model_id or "")
    return path.parent.name if path.is_absolute() else path.name


def millions(count: int) -> str:
    """12_601_344 → `12.6 M`; none → `–`."""
    if not count:
        return "–"
    return f"{count / 1e6:,.{1 if count >= 10_000_000 else 2}f} M"
