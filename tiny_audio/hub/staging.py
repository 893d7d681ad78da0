"""The folder that is published: a checkpoint's own files, today's code, what that code needs, and the endpoint's handler."""

from collections.abc import Iterator
from pathlib import Path

import torch

from tiny_audio import export
from tiny_audio.errors import TinyAudioError
from tiny_audio.model.config import ASRConfig
from tiny_audio.model.encoders import adapter_for
from tiny_audio.model.loading import DECODER_FOLDER, ENCODER_FOLDER, WEIGHTS_FILE, explained, export_code
from tiny_audio.model.lora import ADAPTER, CONFIG_FILE, ENCODER_ADAPTER, TENSORS_FILE, find_adapter_file
from tiny_audio.model.modeling import ASRModel
from tiny_audio.model.processor import ASRProcessor
from tiny_audio.model.projectors import build_projector
from tiny_audio.model_source import ModelSource, folder_of, hide_paths, is_path

from .requirements import requirements_of

REQUIREMENTS, HANDLER = "requirements.txt", "handler.py"
PARTS = {"audio_model_id": "encoder", "text_model_id": "language model"}
READ_OF_PARTS = (  # patterns of what transformers reads; all else in their folders is nobody's business
    "*.json", "*.safetensors", "*.jinja", "additional_chat_templates/*.jinja", "*.model", "vocab.txt", "merges.txt"
)  # fmt: skip


def stage(source: ModelSource, folder: Path, *, self_contained: bool) -> None:
    """Fills `folder` with all of a checkpoint that is published, except its card. The checkpoint itself stays as it is.

    Large files are links to the checkpoint's own; the code is that of this version of tiny-audio, whichever wrote it.

    Args:
        folder: new, or empty.
        self_contained: with encoder and language model, whether or not the checkpoint has them inside.

    Raises:
        TinyAudioError: no checkpoint of tiny-audio, or one whose parts others could not find. ValueError, OSError: it
            cannot be loaded.
    """
    source.require_ours()
    checkpoint = folder_of(source)
    config = ASRConfig.from_pretrained(checkpoint)
    folder.mkdir(parents=True, exist_ok=True)
    if self_contained and not config.self_contained:
        ASRModel.from_pretrained(checkpoint).save_pretrained(folder, self_contained=True)
    else:
        require_findable_parts(source, config)
        write_as_it_is(checkpoint, config, folder)
    hide_paths(folder)
    (folder / HANDLER).write_bytes((Path(export.__file__).parent / HANDLER).read_bytes())
    has_lora = config.use_lora or config.encoder_lora_rank
    without = frozenset() if has_lora else frozenset({"peft"})
    (folder / REQUIREMENTS).write_text(requirements_of(folder, without), encoding="utf-8")


def require_findable_parts(source: ModelSource, config: ASRConfig) -> None:
    """TinyAudioError: encoder or language model is a folder of this machine, which nobody else has."""
    for key, part in PARTS.items():
        location = str(getattr(config, key))
        if is_path(location) and not config.self_contained:
            raise TinyAudioError(
                f"The {part} of {source.name} is {location}, a folder of this machine; push it along with --self-contained."
            )


def write_as_it_is(checkpoint: Path, config: ASRConfig, folder: Path) -> None:
    """Tensors, parts and adapters as links, the processor's files, and config and code of this version."""
    for name, file in sorted(tensor_files(checkpoint, config)):
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(file.resolve(strict=True))
    with explained(str(checkpoint), "a model's tokenizer and feature extractor"):
        processor = ASRProcessor.from_pretrained(checkpoint, config)
    processor.save_pretrained(folder)
    with torch.device("meta"):  # only their classes are asked for
        projector = build_projector(config)
        encoder = adapter_for(config.audio_config, config.encoder_file)(config.audio_config)
    export_code(config, encoder, projector, folder)
    config.save_pretrained(folder)


def tensor_files(checkpoint: Path, config: ASRConfig) -> Iterator[tuple[str, Path]]:
    """(name in the repository, file) of the trained tensors, the parts inside, and LoRA."""
    yield WEIGHTS_FILE, checkpoint / WEIGHTS_FILE
    for part in (ENCODER_FOLDER, DECODER_FOLDER) if config.self_contained else ():
        for file in files_of_part(checkpoint / part):
            yield file.relative_to(checkpoint).as_posix(), file
    # an old checkpoint has the decoder's in its root, where transformers would inject it by itself
    for adapter in [ADAPTER] * config.use_lora + [ENCODER_ADAPTER] * bool(config.encoder_lora_rank):
        for name in (CONFIG_FILE, TENSORS_FILE):
            yield f"{adapter}/{name}", Path(find_adapter_file(str(checkpoint), adapter, name))


def files_of_part(folder: Path) -> list[Path]:
    """Of an encoder or language model inside a checkpoint, what is needed to load it."""
    found = [file for pattern in READ_OF_PARTS for file in folder.glob(pattern)]
    return sorted(file for file in found if file.is_file() and not file.name.startswith("."))
