"""LoRA (arXiv 2106.09685) on the language model and on the encoder: PEFT's layers, and files that PEFT itself loads."""

from pathlib import Path

import torch
from torch import nn
from transformers.utils import cached_file

from .config import ASRConfig

ADAPTER, ENCODER_ADAPTER = "adapter", "encoder_adapter"  # folders in a checkpoint
TARGETS = ["q_proj", "v_proj"]
CONFIG_FILE, TENSORS_FILE = "adapter_config.json", "adapter_model.safetensors"


def _peft():
    try:
        import peft
    except ImportError as error:
        raise ValueError("The model has LoRA adapters, which need PEFT here: pip install peft.") from error
    return peft


def new_adapters(config: ASRConfig) -> dict:
    """The PEFT configs that the model's config asks for, by folder."""
    wanted = {
        ADAPTER: (config.use_lora and config.lora_rank, config.lora_alpha, config.lora_target_modules),
        ENCODER_ADAPTER: (config.encoder_lora_rank, config.encoder_lora_alpha, config.encoder_lora_target_modules),
    }
    return {
        folder: _peft().LoraConfig(
            r=rank, lora_alpha=alpha, target_modules=targets or TARGETS, lora_dropout=config.lora_dropout,
            task_type="CAUSAL_LM" if folder == ADAPTER else None,
            base_model_name_or_path=config.text_model_id if folder == ADAPTER else config.audio_model_id,
        )
        for folder, (rank, alpha, targets) in wanted.items() if rank
    }  # fmt: skip


def saved_adapters(config: ASRConfig, path: str, subfolder: str = "", **hub) -> dict:
    """The PEFT configs of a checkpoint, by folder."""
    files = {folder: find_adapter_file(path, folder, CONFIG_FILE, subfolder, **hub) for folder in new_adapters(config)}
    return {folder: _peft().PeftConfig.from_pretrained(Path(file).parent) for folder, file in files.items()}


def find_adapter_file(path: str, folder: str, file: str, subfolder: str = "", **hub) -> str:
    """An adapter's file: in its folder, or in the root, where published checkpoints have the language model's."""
    for place in (folder, "") if folder == ADAPTER else (folder,):
        where = "/".join(filter(None, (subfolder, place)))
        found = cached_file(path, file, subfolder=where, _raise_exceptions_for_missing_entries=False, **hub)
        if found:
            return found
    raise OSError(f"{path} has no {folder}/{file}, though its config.json says that it has LoRA.")


def add_adapters(model: nn.Module, adapters: dict) -> None:
    """Put LoRA layers into the parts that have none yet. ValueError: a part has no layer of the names asked for."""
    for folder, adapter in ((folder, adapters[folder]) for folder in adapters.keys() - adapted_parts(model).keys()):
        part = model.language_model if folder == ADAPTER else model.encoder.encoder
        names = {name.rpartition(".")[2] for name, module in part.named_modules() if isinstance(module, nn.Linear)}
        wanted = adapter.target_modules if isinstance(adapter.target_modules, set) else ()  # or a regular expression
        if unknown := sorted(name for name in wanted if name.rpartition(".")[2] not in names):
            found = f"{', '.join(unknown)}; its linear layers are {', '.join(sorted(names))}"
            raise ValueError(f"{type(part).__name__} has no layer for LoRA of the name {found}.")
        _peft().inject_adapter_in_model(adapter, part)


def adapted_parts(model: nn.Module) -> dict[str, nn.Module]:
    """The parts that have LoRA layers, by folder."""
    parts = {ADAPTER: model.language_model, ENCODER_ADAPTER: model.encoder.encoder}
    return {folder: part for folder, part in parts.items() if hasattr(part, "peft_config")}


def adapter_tensors(part: nn.Module) -> dict[str, torch.Tensor]:
    """The LoRA tensors themselves, under the names that PEFT gives them in a file."""
    tensors = _peft().get_peft_model_state_dict(part, save_embedding_layers=False)
    return {f"base_model.model.{name}": tensor for name, tensor in tensors.items()}


def base_name(name: str) -> str | None:
    """What a parameter is called where there are no LoRA layers; None for a parameter of those."""
    return None if ".lora_" in name else name.replace(".base_layer.", ".")
