"""CTC recognisers (wav2vec2, HuBERT, WavLM, Parakeet, …): the best token of each frame, repeats and blanks taken out."""

from typing import Any

import numpy as np
import torch
from transformers import AutoFeatureExtractor, AutoModelForCTC, AutoTokenizer, PretrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CTC_MAPPING

from tiny_audio.audio.reading import SAMPLING_RATE
from tiny_audio.evaluation.providers.base import Hypothesis, TimedWord
from tiny_audio.evaluation.providers.huggingface.loading import Loader
from tiny_audio.evaluation.settings import EvalSettings

WINDOW_SECONDS = 30
# Their masks keep padding out of every frame (tried on each: logits within 1e-6); the others are decoded one by one.
MASKED = ("wav2vec2", "hubert", "wavlm", "unispeech", "unispeech-sat", "wav2vec2-bert", "parakeet_ctc", "lasr_ctc")


def is_ctc(config: PretrainedConfig) -> bool:
    return type(config) in MODEL_FOR_CTC_MAPPING


class CTCRecogniser:
    """A CTC model with its feature extractor and tokenizer; greedy, without a language model."""

    longest = WINDOW_SECONDS * SAMPLING_RATE

    def __init__(self, settings: EvalSettings, loader: Loader) -> None:
        self.decoding: dict[str, Any] = {}
        self.extractor = loader.part(AutoFeatureExtractor)
        loader.require_rate(self.extractor)
        self.tokenizer = loader.part(AutoTokenizer)
        self.word_times = settings.word_times
        if self.word_times and not hasattr(self.tokenizer, "word_delimiter_token"):
            raise loader.no_word_times()
        self.model = loader.model(AutoModelForCTC)
        self.batch_size = settings.batch_size if _ignores_padding(self.model.config) else 1

    def transcribe(self, waveforms: list[np.ndarray]) -> list[Hypothesis]:
        return [self._hypothesis(*pair) for pair in zip(self._tokens(waveforms), waveforms, strict=True)]

    @torch.inference_mode()
    def _tokens(self, waveforms: list[np.ndarray]) -> list[list[int]]:
        """The best token of each frame, of as many frames as each clip has."""
        inputs = self.extractor(
            waveforms, sampling_rate=SAMPLING_RATE, padding=True, return_attention_mask=True, return_tensors="pt"
        ).to(self.model.device, self.model.dtype)
        mask = inputs["attention_mask"]
        logits = self.model(inputs[self.model.main_input_name], attention_mask=mask).logits
        tokens = logits.argmax(dim=-1).tolist()
        return [row[:count] for row, count in zip(tokens, self._frames(mask), strict=True)]

    def _frames(self, mask: torch.Tensor) -> list[int]:
        """How many frames of output each clip has, from the mask of the input."""
        lengths = mask.sum(dim=-1)
        if hasattr(self.model, "_get_feat_extract_output_lengths"):
            return self.model._get_feat_extract_output_lengths(lengths).tolist()
        return self.model._get_subsampling_output_length(lengths).tolist()

    def _hypothesis(self, tokens: list[int], waveform: np.ndarray) -> Hypothesis:
        if not self.word_times:
            return Hypothesis(self.tokenizer.decode(tokens).strip())
        decoded = self.tokenizer.decode(tokens, output_word_offsets=True)
        frame = len(waveform) / SAMPLING_RATE / max(1, len(tokens))  # seconds
        words = [
            TimedWord(word["word"], word["start_offset"] * frame, word["end_offset"] * frame)
            for word in decoded.word_offsets
        ]
        return Hypothesis(decoded.text.strip(), words)


def _ignores_padding(config: PretrainedConfig) -> bool:
    """Group norm takes its statistics over the padding, and an adapter's convolutions reach into it."""
    group_norm = getattr(config, "feat_extract_norm", "layer") == "group"
    return config.model_type in MASKED and not group_norm and not getattr(config, "add_adapter", False)
