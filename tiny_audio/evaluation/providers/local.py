"""Our own checkpoints: audio of any length, in batches that never change a text."""

from typing import Any

import numpy as np
import torch

from tiny_audio.evaluation.hardware import pick_device
from tiny_audio.evaluation.providers.base import Hypothesis
from tiny_audio.evaluation.providers.source import ModelSource
from tiny_audio.evaluation.settings import EvalSettings
from tiny_audio.model.modeling import ASRModel


class LocalProvider:
    """An ASRModel."""

    def __init__(self, settings: EvalSettings, source: ModelSource) -> None:
        self.device = pick_device(settings.device)
        self.batch_size = settings.batch_size
        try:
            model = ASRModel.from_pretrained(source.location, revision=source.revision, dtype=settings.dtype)
        except (OSError, ValueError) as error:
            raise source.unreadable(error) from error
        self.model = model.to(torch.device(self.device)).eval()
        given = {"num_beams": settings.num_beams, "max_new_tokens": settings.max_new_tokens}
        self.generation = {key: value for key, value in given.items() if value is not None}
        self.decoding: dict[str, Any] = {**model.config.generation_defaults(), **self.generation}

    def transcribe(self, batch: list[np.ndarray]) -> list[Hypothesis]:
        return [
            Hypothesis(text) for text in self.model.transcribe(batch, batch_size=self.batch_size, **self.generation)
        ]
