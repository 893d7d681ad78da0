"""Our own checkpoints: audio of any length, in batches that never change a text."""

import time
from typing import Any

import numpy as np
import torch

from tiny_audio.errors import TinyAudioError
from tiny_audio.evaluation.hardware import pick_device
from tiny_audio.evaluation.providers.base import Hypothesis, TimedWord
from tiny_audio.evaluation.settings import EvalSettings
from tiny_audio.model.modeling import ASRModel
from tiny_audio.model_source import ModelSource


class LocalProvider:
    """An ASRModel."""

    def __init__(self, settings: EvalSettings, source: ModelSource) -> None:
        self.device = pick_device(settings.device)
        self.batch_size = settings.batch_size
        self.word_times, self.first_token = settings.word_times, settings.first_token
        try:
            model = ASRModel.from_pretrained(source.location, revision=source.revision, dtype=settings.dtype)
        except (OSError, ValueError) as error:
            raise source.unreadable(error) from error
        self.model = model.to(torch.device(self.device)).eval()
        self.parameters = self.model.num_parameters()
        given = {"num_beams": settings.num_beams, "max_new_tokens": settings.max_new_tokens}
        self.generation = {key: value for key, value in given.items() if value is not None}
        self.decoding: dict[str, Any] = {**model.config.generation_defaults(), **self.generation}
        if self.word_times and self.model.ctc_head is None:
            raise TinyAudioError(f"The model {source.name} has no CTC head, which word times need: docs/word-times.md.")
        if self.first_token and (self.decoding.get("num_beams") or 1) > 1:
            raise TinyAudioError("A search with beams ends before it has a text to stream: add --num-beams 1.")

    def transcribe(self, batch: list[np.ndarray]) -> list[Hypothesis]:
        if self.first_token:
            return [self._streamed(clip) for clip in batch]
        decoded = self.model.transcribe_each(batch, self.batch_size, word_times=self.word_times, **self.generation)
        return [
            Hypothesis(text, [TimedWord(w.text, w.start, w.end) for w in words] if self.word_times else None)
            for text, words in decoded
        ]

    def _streamed(self, clip: np.ndarray) -> Hypothesis:
        """One clip as pieces of text, and the seconds until the first of them."""
        started = time.perf_counter()
        text, first = "", None
        for piece in self.model.stream_transcribe(clip, **self.generation):
            text += piece
            if text and first is None:
                first = time.perf_counter() - started
        return Hypothesis(text.strip(), latency=time.perf_counter() - started, first_token=first)
