"""What is examined: a checkpoint, or the best one of a run, and batches of speech as training would make them."""

from collections.abc import Iterator
from typing import Any

import torch

from tiny_audio.model.modeling import ASRModel
from tiny_audio.model_source import checkpoint_of
from tiny_audio.training import compose
from tiny_audio.training.feed import ClipFeed, Feed, StreamFeed
from tiny_audio.training.run import training_corpora
from tiny_audio.transcription import load_model


def examined(checkpoint: str, device: str, dtype: str) -> ASRModel:
    """The model, loaded for inference; what its config freezes is frozen.

    Raises:
        TinyAudioError: no such model, device or dtype. OSError, ValueError: not a checkpoint of ours.
    """
    return load_model(checkpoint_of(checkpoint), device, dtype)


def training_batches(model: ASRModel, data: str, count: int) -> Iterator[dict[str, Any]]:
    """The first batches of a training on `data`, on the model's device: what `model.forward` takes.

    Raises:
        TinyAudioError: the data cannot be read, or hold no usable clip.
    """
    settings = compose(overrides=[f"training.max_steps={count}"], data=data)
    window = model.processor.max_samples
    feed: Feed
    if settings.data.streaming:
        feed = StreamFeed(settings, window)
    else:
        feed = ClipFeed(training_corpora(settings), settings, window)
    for _, batch in zip(range(count), feed.loader(0, model.processor), strict=False):
        tensors = {name: value for name, value in batch.items() if name not in ("skipped", "audio_seconds", "parts")}
        yield {name: value.to(model.device) for name, value in tensors.items()}


@torch.no_grad()
def projected_audio(model: ASRModel, batch: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """Audio tokens of a batch (batch, tokens, llm_dim), and how many of them are each clip's own (batch,)."""
    return model.encode_audio(batch[model.encoder.input_name], batch["audio_attention_mask"])
