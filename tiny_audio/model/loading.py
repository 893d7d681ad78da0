"""Checkpoints: finding and loading a model's parts, strictly checked, and writing them so that a folder works alone."""

import os
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModelForCausalLM, GenerationConfig
from transformers.utils import cached_file

from .config import ASRConfig
from .encoders import EncoderAdapter, load_encoder, quiet_transformers

WEIGHTS_FILE = "model.safetensors"
ENCODER_FOLDER, DECODER_FOLDER = "encoder", "decoder"  # of a self-contained checkpoint
HUB_KEYS = ("token", "cache_dir", "local_files_only", "force_download")
AUTO_MAP = {
    "AutoConfig": "config.ASRConfig",
    "AutoModel": "modeling.ASRModel",
    "AutoModelForSpeechSeq2Seq": "modeling.ASRModel",
    "AutoProcessor": "processor.ASRProcessor",
}
CUSTOM_PIPELINES = {
    "automatic-speech-recognition": {"impl": "pipeline.ASRPipeline", "pt": ["AutoModelForSpeechSeq2Seq"]},
}


def part_location(config: ASRConfig, checkpoint: str | None, subfolder: str, part: str) -> tuple[str, str]:
    """Where a part lies, as (path or Hub id, subfolder): inside a self-contained checkpoint, else at its own id."""
    if config.self_contained and checkpoint is not None:
        return str(checkpoint), "/".join(filter(None, (subfolder, part)))
    model_id = config.audio_model_id if part == ENCODER_FOLDER else config.text_model_id
    if not model_id:
        key = "audio_model_id" if part == ENCODER_FOLDER else "text_model_id"
        raise ValueError(f"The config names no {key}; expected a Hub id or a folder.")
    return str(model_id), ""


def load_encoder_part(config: ASRConfig, location: tuple[str, str], **load_kwargs) -> EncoderAdapter:
    """The frozen encoder; `load_kwargs` as transformers' from_pretrained."""
    with explained(location[0], "an audio encoder"):
        return load_encoder(location[0], config.encoder_padding, subfolder=location[1], **load_kwargs)


def load_decoder_part(location: tuple[str, str], **load_kwargs) -> nn.Module:
    """The causal language model; quantization is its alone.

    Raises:
        ValueError: the checkpoint lacks tensors of the model (they are named).
    """
    with explained(location[0], "a language model"), quiet_transformers():
        model, info = AutoModelForCausalLM.from_pretrained(
            location[0], subfolder=location[1], output_loading_info=True, **load_kwargs
        )
    if info["missing_keys"]:
        missing = sorted(info["missing_keys"])
        raise ValueError(
            f"{location[0]} lacks {len(missing)} tensors of its language model ({', '.join(missing[:3])}…)."
        )
    own = model.generation_config  # its sampling defaults are for chatting
    model.generation_config = GenerationConfig(bos_token_id=own.bos_token_id, eos_token_id=own.eos_token_id)
    return model


class explained:
    """Turns transformers' paragraph about a missing repository or network into one sentence."""

    def __init__(self, path: str, what: str):
        self.path, self.what = path, what

    def __enter__(self):
        return self

    def __exit__(self, kind, error, traceback):
        if isinstance(error, OSError) and not os.path.isdir(self.path):
            reason = (
                "" if "offline" not in str(error).lower() and "connect" not in str(error).lower() else " (no network)"
            )
            raise OSError(
                f"{self.path} could not be loaded as {self.what}: it is no folder here and was not found on the Hub{reason}. "
                "Check the name, your network, or HF_TOKEN for a private one."
            ) from error


def load_trained_tensors(model: nn.Module, path: str, subfolder: str = "", **hub_kwargs) -> None:
    """Load `model.safetensors` into the trained parts of a model.

    Raises:
        ValueError: tensors are missing, unexpected, or of another shape (they are named). OSError: no such file.
    """
    with explained(path, "a checkpoint"):
        file = cached_file(path, WEIGHTS_FILE, subfolder=subfolder, **hub_kwargs)
    tensors, expected = load_file(file), trained_parameters(model)
    problems = [
        *(f"missing {name}" for name in sorted(expected.keys() - tensors.keys())),
        *(f"unexpected {name}" for name in sorted(tensors.keys() - expected.keys())),
        *(
            f"{name} is {tuple(tensors[name].shape)}, expected {tuple(expected[name].shape)}"
            for name in sorted(expected.keys() & tensors.keys())
            if tensors[name].shape != expected[name].shape
        ),
    ]
    if problems:
        raise ValueError(f"{file} does not fit its config.json: {'; '.join(problems[:5])} ({len(problems)} in all).")
    with torch.no_grad():
        for name, parameter in expected.items():
            parameter.copy_(tensors[name])


def trained_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """The tensors a checkpoint holds: the projector, and the language model where it is fine-tuned (tied ones once)."""
    prefixes = ("projector.",) if model.config.freeze_language_model else ("projector.", "language_model.")
    return {name: parameter for name, parameter in model.named_parameters() if name.startswith(prefixes)}


def save_trained_tensors(model: nn.Module, folder: Path) -> None:
    """Write `model.safetensors` under a temporary name, then rename: a full disk leaves the old file whole."""
    tensors = {name: parameter.detach().cpu().contiguous() for name, parameter in trained_parameters(model).items()}
    temporary = folder / f".{WEIGHTS_FILE}.tmp"
    try:
        save_file(tensors, temporary, metadata={"format": "pt"})
        os.replace(temporary, folder / WEIGHTS_FILE)
    finally:
        temporary.unlink(missing_ok=True)


def save_part(part: nn.Module, companion, source: tuple[str, str] | None, folder: Path) -> None:
    """Write a frozen part with its tokenizer or feature extractor; copied as it lies where it came from a local folder."""
    origin = Path(*source) if source is not None else None
    if origin is not None and origin.is_dir():
        if origin.resolve() != folder.resolve():
            shutil.copytree(origin, folder, dirs_exist_ok=True)
        return
    with quiet_transformers():
        part.save_pretrained(folder)
    companion.save_pretrained(folder)


def export_code(folder: Path) -> None:
    """Copy the files of this package beside the weights, so that transformers alone can run them (trust_remote_code)."""
    for file in Path(__file__).parent.glob("*.py"):
        if file.name != "__init__.py" and file.parent.resolve() != folder.resolve():
            shutil.copyfile(file, folder / file.name)
