"""Log-mels of a small corpus, made once and kept in memory."""

from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from tiny_audio.model.processor import ASRProcessor


class RememberingProcessor(ASRProcessor):
    """An ASRProcessor that computes the features of a waveform once, as long as there is room.

    Args:
        processor: whose config, tokenizer and feature extractor are shared.
        max_bytes: of features that are kept; each worker of a loader keeps its own.
    """

    def __init__(self, processor: ASRProcessor, max_bytes: int) -> None:
        super().__init__(processor.config, processor.tokenizer, processor.feature_extractor)
        self.room = self.max_bytes = max_bytes
        self._kept: dict[bytes, dict[str, torch.Tensor]] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        plain = ASRProcessor(self.config, self.tokenizer, self.feature_extractor)
        return type(self), (plain, self.max_bytes)  # each worker of a loader fills its own

    def features(self, waveforms: Sequence[np.ndarray]) -> dict[str, torch.Tensor]:
        """As the processor's own: each clip's features and mask, padded together with zeros."""
        clips = [self._remembered(waveform) for waveform in waveforms]
        sizes = {name: max(clip[name].shape[-1] for clip in clips) for name in clips[0]}
        return {
            name: torch.cat([F.pad(clip[name], (0, size - clip[name].shape[-1])) for clip in clips])
            for name, size in sizes.items()
        }

    def _remembered(self, waveform: np.ndarray) -> dict[str, torch.Tensor]:
        key = blake2b(np.ascontiguousarray(waveform).data, digest_size=16).digest()
        if key not in self._kept:
            clip = super().features([waveform])
            size = sum(tensor.nbytes for tensor in clip.values())
            if size > self.room:
                return clip
            self.room -= size
            self._kept[key] = clip
        return self._kept[key]
