"""LoRA worked into the weights: a checkpoint that needs no PEFT."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from tiny_audio.errors import TinyAudioError
from tiny_audio.model.lora import adapted_parts
from tiny_audio.model.modeling import ASRModel
from tiny_audio.model_source import ModelSource, offline_if_unreachable
from tiny_audio.training.build import is_tied
from tiny_audio.training.checkpoints import write_whole


@dataclass(frozen=True)
class Merged:
    """What a merge wrote: the folder, and the layers that had LoRA."""

    folder: Path
    layers: int


def merge_checkpoint(checkpoint: str, folder: Path) -> Merged:
    """Writes a self-contained checkpoint whose encoder and language model hold what LoRA adds.

    The sum is made in float32 and rounded once, to the checkpoint's own precision.

    Args:
        checkpoint: folder or Hub id.
        folder: new; nothing is overwritten.

    Raises:
        TinyAudioError: the checkpoint has no LoRA, or one that cannot be merged; the folder is not new, or cannot be
            written. ValueError, OSError: the checkpoint cannot be loaded.
    """
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise TinyAudioError(f"{folder} is there already; name a new folder for the merged checkpoint.")
    source = ModelSource.of(checkpoint)
    with offline_if_unreachable(source):
        model = ASRModel.from_pretrained(source.location, revision=source.revision, dtype="float32")
    if not adapted_parts(model):
        raise TinyAudioError(f"{checkpoint} has no LoRA adapters, so there is nothing to merge.")
    layers = sum(merge_part(part) for part in adapted_parts(model).values())
    model.config.update(
        {"use_lora": False, "encoder_lora_rank": 0, "language_model_tuned": False, "freeze_language_model": True}
    )
    for part in (model.encoder.encoder, model.language_model):  # projector and CTC head stay as exact as they are
        part.to(getattr(torch, model.config.model_dtype))
    model.sources = ()  # the parts are written as they are now
    write_whole(folder, lambda draft: model.save_pretrained(draft, self_contained=True))
    return Merged(folder, layers)


def merge_part(part: nn.Module) -> int:
    """Puts plain layers in the place of those with LoRA; their number. TinyAudioError: one is tied to the embedding."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = [(name, layer) for name, layer in part.named_modules() if isinstance(layer, BaseTunerLayer)]
    tied = [name for name, layer in layers if is_tied(layer.get_base_layer(), part)]
    if tied:
        raise TinyAudioError(
            f"The LoRA on {', '.join(tied)} cannot be merged: the layer's weight is also the token embedding's; keep the "
            "checkpoint as it is."
        )
    for name, layer in layers:
        layer.merge()
        part.set_submodule(name, layer.get_base_layer())
    del part.peft_config
    return len(layers)
