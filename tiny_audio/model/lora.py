"""LoRA (arXiv 2106.09685) on the language model and on the encoder: PEFT's layers, and files that PEFT itself loads."""

from pathlib import Path

import torch
from torch import nn
from transformers.utils import cached_file

from .config import ASRConfig

ADAPTER, ENCODER_ADAPTER = "adapter", "encoder_adapter"  # folders in a checkpoint
CONFIG_FILE, TENSORS_FILE = "adapter_config.json", "adapter_model.safetensors"


def import_peft():
    """PEFT, which only models with LoRA need. ValueError: it is not installed."""
    try:
        import peft
    except ImportError as error:
        raise ValueError("The model has LoRA adapters, which need PEFT here: pip install peft.") from error
    return peft


def saved_adapters(config: ASRConfig, path: str, subfolder: str = "", **hub) -> dict:
    """The PEFT configs of a checkpoint, by folder."""
    folders = [ADAPTER] * config.use_lora + [ENCODER_ADAPTER] * bool(config.encoder_lora_rank)
    files = {folder: find_adapter_file(path, folder, CONFIG_FILE, subfolder, **hub) for folder in folders}
    return {folder: import_peft().PeftConfig.from_pretrained(Path(file).parent) for folder, file in files.items()}


def find_adapter_file(path: str, folder: str, file: str, subfolder: str = "", **hub) -> str:
    """An adapter's file: in its folder, or in the root, where published checkpoints have the language model's."""
    for place in (folder, "") if folder == ADAPTER else (folder,):
        where = "/".join(filter(None, (subfolder, place)))
        found = cached_file(path, file, subfolder=where, _raise_exceptions_for_missing_entries=False, **hub)
        if found:
            return found
    raise OSError(f"{path} has no {folder}/{file}, though its config.json says that it has LoRA.")


def add_adapters(model: nn.Module, adapters: dict) -> None:
    """Put LoRA layers into the parts that have none yet, as PEFT's configs by folder say."""
    for folder, part in adaptable_parts(model).items():
        if folder in adapters and not hasattr(part, "peft_config"):
            import_peft().inject_adapter_in_model(adapters[folder], part)


def adaptable_parts(model: nn.Module) -> dict[str, nn.Module]:
    """The parts that can have LoRA, by folder."""
    return {ADAPTER: model.language_model, ENCODER_ADAPTER: model.encoder.encoder}


def adapted_parts(model: nn.Module) -> dict[str, nn.Module]:
    """The parts that have LoRA, by folder."""
    return {folder: part for folder, part in adaptable_parts(model).items() if hasattr(part, "peft_config")}


def adapter_tensors(part: nn.Module) -> dict[str, torch.Tensor]:
    """The LoRA tensors themselves, under the names that PEFT gives them in a file."""
    tensors = import_peft().get_peft_model_state_dict(part, save_embedding_layers=False)
    return {f"base_model.model.{name}": tensor for name, tensor in tensors.items()}


def base_name(name: str) -> str | None:
    """What a parameter is called where there are no LoRA layers; None for a parameter of those."""
    return None if ".lora_" in name else name.replace(".base_layer.", ".")
