"""Any speech recogniser of transformers through its own pipeline: Whisper, wav2vec2 and other CTC models, transducers."""

from typing import Any

import numpy as np
import torch
from transformers import Pipeline, pipeline

from tiny_audio.audio.reading import SAMPLING_RATE
from tiny_audio.errors import TinyAudioError
from tiny_audio.evaluation.hardware import pick_device
from tiny_audio.evaluation.providers.base import Hypothesis
from tiny_audio.evaluation.providers.source import ModelSource
from tiny_audio.evaluation.settings import EvalSettings

WINDOW_SECONDS = 30
SHORTEST_SAMPLES = SAMPLING_RATE // 10  # wav2vec2's convolutions need 25 ms; shorter clips get silence


class HuggingFaceProvider:
    """A transformers pipeline. Clips over 30 s go through the pipeline's own long-form decoding or chunking."""

    def __init__(self, settings: EvalSettings, source: ModelSource) -> None:
        self.device = pick_device(settings.device)
        self.pipeline = _load(settings, source, self.device)
        self.batch_size = settings.batch_size if _pads_safely(self.pipeline) else 1
        self.generation: dict[str, Any] = {}
        if self.pipeline.model.can_generate():
            self.generation = {"num_beams": settings.num_beams or 1}
            if settings.max_new_tokens:
                self.generation["max_new_tokens"] = settings.max_new_tokens
        self.decoding = {**self.generation, "model_batch_size": self.batch_size}

    def transcribe(self, batch: list[np.ndarray]) -> list[Hypothesis]:
        texts: dict[int, str] = {}
        window = WINDOW_SECONDS * SAMPLING_RATE
        for chosen, options in (
            ([i for i, clip in enumerate(batch) if len(clip) <= window], {"batch_size": self.batch_size}),
            ([i for i, clip in enumerate(batch) if len(clip) > window], _long_form(self.pipeline)),
        ):
            outputs = self._run([batch[i] for i in chosen], options)
            texts.update(zip(chosen, outputs, strict=True))
        return [Hypothesis(texts[i]) for i in range(len(batch))]

    def _run(self, clips: list[np.ndarray], options: dict[str, Any]) -> list[str]:
        if not clips:
            return []
        if self.generation:
            options = {**options, "generate_kwargs": dict(self.generation)}
        inputs = [{"raw": _at_least(clip, SHORTEST_SAMPLES), "sampling_rate": SAMPLING_RATE} for clip in clips]
        return [output["text"].strip() for output in self.pipeline(inputs, **options)]


def _load(settings: EvalSettings, source: ModelSource, device: str) -> Pipeline:
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        loaded = pipeline(
            "automatic-speech-recognition",
            model=source.location,
            revision=source.revision,
            device=torch.device(device),
            dtype=settings.dtype,
            trust_remote_code=settings.trust_remote_code,
        )
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise _explained(error, source) from error
    rate = getattr(loaded.feature_extractor, "sampling_rate", SAMPLING_RATE)
    if rate != SAMPLING_RATE:
        raise TinyAudioError(f"The model {source.name} works at {rate} Hz; expected one for 16000 Hz.")
    return loaded


def _explained(error: Exception, source: ModelSource) -> TinyAudioError:
    if "trust_remote_code" in str(error):
        return TinyAudioError(
            f"The model {source.name} comes with code of its own; read it, then pass --trust-remote-code to run it."
        )
    if isinstance(error, OSError):
        return source.unreadable(error)
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return TinyAudioError(
        f"The model {source.name} cannot be loaded as a speech recogniser of transformers: {lines[0]}"
    )


def _long_form(pipe: Pipeline) -> dict[str, Any]:
    """Pipeline options for clips over 30 s: none of them may be cut or lost."""
    if pipe.type == "seq2seq_whisper":
        return {"return_timestamps": True, "batch_size": 1}  # Whisper's own sequential decoding
    return {"batch_size": 1} if pipe.type == "tdt" else {"chunk_length_s": WINDOW_SECONDS, "batch_size": 1}


def _pads_safely(pipe: Pipeline) -> bool:
    """Whether padding leaves the texts alone. A CTC head also writes letters on padding, which the pipeline keeps."""
    return pipe.type in ("seq2seq_whisper", "seq2seq") and pipe.tokenizer.pad_token_id is not None


def _at_least(clip: np.ndarray, samples: int) -> np.ndarray:
    return np.pad(clip, (0, max(0, samples - len(clip))))
