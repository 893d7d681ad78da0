"""Checkpoints: finding and loading a model's parts, strictly checked, and writing them so that a folder works alone."""

import os
import shutil
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModelForCausalLM, GenerationConfig
from transformers.utils import cached_file

from .config import ASRConfig
from .encoders import load_encoder, quiet_transformers
from .lora import TENSORS_FILE, adapted_parts, adapter_tensors, base_name, find_adapter_file
from .plugins import CODE, export_file, export_plugin

WEIGHTS_FILE = "model.safetensors"
ENCODER_FOLDER, DECODER_FOLDER = "encoder", "decoder"  # of a self-contained checkpoint
HUB_OPTIONS = ("revision", "token", "cache_dir", "local_files_only", "force_download")
PART_OPTIONS = ("dtype", "attn_implementation", "device_map", "quantization_config")
# what AutoModel and pipeline() pass along that has no meaning here
_IGNORED_OPTIONS = {
    "trust_remote_code", "code_revision", "_from_auto", "_from_pipeline", "_commit_hash", "adapter_kwargs",
}  # fmt: skip
AUTO_MAP = {
    "AutoConfig": "config.ASRConfig",
    "AutoModel": "modeling.ASRModel",
    "AutoModelForSpeechSeq2Seq": "modeling.ASRModel",
    "AutoProcessor": "processor.ASRProcessor",
}
CUSTOM_PIPELINES = {
    "automatic-speech-recognition": {"impl": "pipeline.ASRPipeline", "pt": ["AutoModelForSpeechSeq2Seq"]},
}


def load_options(given: dict) -> dict:
    """A call's options that are set; TypeError: one of them is unknown."""
    unknown = given.keys() - {*HUB_OPTIONS, *PART_OPTIONS, *_IGNORED_OPTIONS}
    if unknown:
        raise TypeError(f"from_pretrained() got unknown arguments: {', '.join(sorted(unknown))}.")
    return {key: value for key, value in given.items() if value is not None and key not in _IGNORED_OPTIONS}


def hub_options(options: dict) -> dict:
    """Those options that say which repository is read and how."""
    return {key: options[key] for key in HUB_OPTIONS if options.get(key) is not None}


def load_parts(config: ASRConfig, options: dict, checkpoint: str | None, subfolder: str):
    """Load both pretrained parts, from inside a self-contained checkpoint or from their own ids; their configs too.

    EncoderAdapter, language model, and where each was found: (path or Hub id, subfolder). ValueError: one lacks tensors.
    """
    dtype = config.model_dtype if options.get("dtype") in (None, "auto") else options["dtype"]
    options = {**options, "dtype": getattr(torch, dtype) if isinstance(dtype, str) else dtype}
    if not config.self_contained:  # a revision names a commit of the checkpoint's repository, not of its parts' own
        options.pop("revision", None)
    encoder_at = _part_location(config, checkpoint, subfolder, ENCODER_FOLDER)
    decoder_at = _part_location(config, checkpoint, subfolder, DECODER_FOLDER)
    language_model = _load_language_model(decoder_at, options)
    kept = {key: options[key] for key in ("dtype", "attn_implementation") if key in options}
    with explained(encoder_at[0], "an audio encoder"):
        kept |= hub_options(options) | {"subfolder": encoder_at[1]}
        encoder = load_encoder(encoder_at[0], config.encoder_padding, config.encoder_layer, config.encoder_file, **kept)
    config.audio_config, config.text_config = encoder.encoder.config, language_model.config
    return encoder, language_model, encoder_at, decoder_at


def _part_location(config: ASRConfig, checkpoint: str | None, subfolder: str, part: str) -> tuple[str, str]:
    if config.self_contained and checkpoint is not None:
        return str(checkpoint), "/".join(filter(None, (subfolder, part)))
    key = "audio_model_id" if part == ENCODER_FOLDER else "text_model_id"
    if not getattr(config, key):
        raise ValueError(f"The config names no {key}; expected a Hub id or a folder.")
    return str(getattr(config, key)), ""


def _load_language_model(location: tuple[str, str], options: dict) -> nn.Module:
    with explained(location[0], "a language model"), quiet_transformers():
        model, info = AutoModelForCausalLM.from_pretrained(
            location[0], subfolder=location[1], output_loading_info=True, **options
        )
    if missing := sorted(info["missing_keys"]):
        raise ValueError(
            f"{location[0]} lacks {len(missing)} tensors of its language model ({', '.join(missing[:3])}…)."
        )
    own = model.generation_config  # its sampling defaults are for chatting
    model.generation_config = GenerationConfig(bos_token_id=own.bos_token_id, eos_token_id=own.eos_token_id)
    return model


@contextmanager
def explained(path: str, what: str):
    """Turns others' paragraphs about a damaged folder, or a missing repository or network, into one sentence."""
    try:
        yield
    except (OSError, ValueError, AttributeError, SafetensorError) as error:
        found = "it is no folder here and was not found on the Hub. Check the name, your network, or HF_TOKEN"
        found = str(error).strip().splitlines()[0].rstrip(".") if os.path.isdir(path) else found
        kind = ValueError if isinstance(error, ValueError) else OSError
        raise kind(f"{path} could not be loaded as {what}: {found}.") from error


def load_trained_tensors(model: nn.Module, path: str, subfolder: str = "", **hub_kwargs) -> None:
    """Load `model.safetensors` and LoRA into the trained parts. ValueError: tensors missing, unexpected, or misshapen."""
    with explained(path, "a checkpoint"):
        wanted = {str(cached_file(path, WEIGHTS_FILE, subfolder=subfolder, **hub_kwargs)): trained_parameters(model)}
        for folder, part in adapted_parts(model).items():
            file = find_adapter_file(path, folder, TENSORS_FILE, subfolder, **hub_kwargs)
            wanted[file] = adapter_tensors(part)
        loaded = {file: load_file(file) for file in wanted}
    for file, expected in wanted.items():
        _fill(expected, loaded[file], file)


def _fill(expected: dict[str, torch.Tensor], tensors: dict[str, torch.Tensor], file: str) -> None:
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


def trained_parameters(model: nn.Module) -> dict[str, torch.Tensor]:
    """The tensors of `model.safetensors`: projector, CTC head, layer weights, a fine-tuned language model (tied ones once)."""
    trained = ["projector.", "ctc_head.", "encoder.layer_weights"]
    trained += ["language_model."] * model.config.language_model_tuned
    named = ((base_name(name), parameter) for name, parameter in model.named_parameters())
    return {name: parameter for name, parameter in named if name and name.startswith(tuple(trained))}


def save_trained_tensors(model: nn.Module, folder: Path) -> None:
    """Write `model.safetensors`, and LoRA into folders of its own."""
    _write(trained_parameters(model), folder / WEIGHTS_FILE)
    for name, part in adapted_parts(model).items():
        part.peft_config["default"].save_pretrained(folder / name)
        _write(adapter_tensors(part), folder / name / TENSORS_FILE)


def _write(tensors: dict[str, torch.Tensor], file: Path) -> None:
    """Under a temporary name, then renamed: a full disk leaves the old file whole."""
    temporary = file.with_name(f".{file.name}.tmp")
    try:
        plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        save_file(plain, temporary, metadata={"format": "pt"})
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)


def save_checkpoint(model: nn.Module, folder: Path, sources: tuple[tuple[str, str], ...] = ()) -> None:
    """Write trained tensors, config, processor and code; encoder and language model too where it is self-contained."""
    folder.mkdir(parents=True, exist_ok=True)
    if model.config.self_contained:
        encoder_at, decoder_at = sources or (None, None)
        _save_part(model.encoder.encoder, model.processor.feature_extractor, encoder_at, folder / ENCODER_FOLDER)
        _save_part(model.language_model, model.processor.tokenizer, decoder_at, folder / DECODER_FOLDER)
    model.processor.save_pretrained(folder)
    export_code(model.config, model.encoder, model.projector, folder)
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(folder)
    save_trained_tensors(model, folder)


def _save_part(part: nn.Module, companion, source: tuple[str, str] | None, folder: Path) -> None:
    """A frozen part with its tokenizer or feature extractor; copied as it lies where it came from a local folder."""
    origin = Path(*source) if source is not None else None
    if origin is not None and origin.is_dir():
        if origin.resolve() != folder.resolve():
            shutil.copytree(origin, folder, dirs_exist_ok=True)
        return
    with quiet_transformers():
        tensors = {base_name(name): tensor for name, tensor in part.state_dict().items() if base_name(name)}
        part.save_pretrained(folder, state_dict=tensors)
    companion.save_pretrained(folder)


def export_code(config: ASRConfig, encoder: nn.Module, projector: nn.Module, folder: Path) -> None:
    """The code beside the weights, so that transformers alone can run it (trust_remote_code); the config names it."""
    for file in (file for home in CODE for file in home.glob("*.py")):
        if file.name != "__init__.py" and file.parent.resolve() != folder.resolve():
            export_file(file, folder)
    encoder_file = export_plugin(encoder, "encoders.py", folder)
    projector_file = export_plugin(projector, "projectors.py", folder)
    config.encoder_file = config.encoder_file and encoder_file  # shipped ones go by their type
    config.projector_file = config.projector_file and projector_file
    config.auto_map, config.custom_pipelines = AUTO_MAP, CUSTOM_PIPELINES
