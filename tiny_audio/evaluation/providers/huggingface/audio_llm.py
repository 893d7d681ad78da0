"""Audio language models (GLM-ASR, Voxtral, Qwen3-ASR, Granite Speech, …): a request to transcribe in, the new tokens out."""

import inspect
import math
from typing import Any

import numpy as np
import torch
from transformers import (
    AutoModelForMultimodalLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSpeechSeq2Seq,
    AutoProcessor,
    BatchFeature,
    PretrainedConfig,
)
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING

from tiny_audio.audio.reading import SAMPLING_RATE
from tiny_audio.errors import TinyAudioError
from tiny_audio.evaluation.providers.base import Hypothesis
from tiny_audio.evaluation.providers.huggingface.loading import Loader
from tiny_audio.evaluation.settings import EvalSettings

WINDOW_SECONDS = 30
TOKENS = 448  # for each 30 s, unless the checkpoint or the user says otherwise; as many as Whisper's decoder takes
# What to ask where the processor words no request of its own, as the model cards have it.
GRANITE = "can you transcribe the speech into a written format?"
INSTRUCTIONS = {"granite_speech": GRANITE, "granite_speech_plus": GRANITE}
# What these take whole, in seconds; the others say it as `max_audio_len` or get windows of 30 s.
LONGEST = {"voxtral": 30 * 60, "qwen3_asr": 20 * 60}
# Padding changes no text of theirs (tried on each); the others are decoded one by one.
MASKED = ("glmasr", "audioflamingo3", "voxtral", "qwen3_asr")
FRAMED = ("audioflamingo3", "musicflamingo")  # answer "The spoken content of the audio is '…'."


def is_audio_llm(config: PretrainedConfig) -> bool:
    asks_itself = hasattr(PROCESSOR_MAPPING.get(type(config), None), "apply_transcription_request")
    return asks_itself or config.model_type in INSTRUCTIONS


class AudioLLM:
    """A language model that hears, with its processor; greedy unless beams are asked for."""

    def __init__(self, settings: EvalSettings, loader: Loader) -> None:
        if settings.word_times:
            raise loader.no_word_times()
        config = loader.config()
        self.kind = config.model_type
        self.name = loader.source.name
        self.processor = loader.part(AutoProcessor)
        loader.require_rate(getattr(self.processor, "feature_extractor", None))
        self.processor.tokenizer.padding_side = "left"  # or the answer would follow the padding
        self.model = loader.model(_auto_class(config))
        self.batch_size = settings.batch_size if self.kind in MASKED else 1
        takes = getattr(self.processor, "max_audio_len", WINDOW_SECONDS)  # seconds
        self.longest = LONGEST.get(self.kind, takes) * SAMPLING_RATE
        self.max_new_tokens = int(settings.max_new_tokens or self.model.generation_config.max_new_tokens or TOKENS)
        self.decoding: dict[str, Any] = {"num_beams": settings.num_beams or 1, "max_new_tokens": self.max_new_tokens}

    @torch.inference_mode()
    def transcribe(self, waveforms: list[np.ndarray]) -> list[Hypothesis]:
        inputs = self._request(waveforms).to(self.model.device, self.model.dtype)
        limits = [self.max_new_tokens * math.ceil(len(w) / SAMPLING_RATE / WINDOW_SECONDS) for w in waveforms]
        options = {**self.decoding, "max_new_tokens": max(limits), "do_sample": False}
        tokens = self.model.generate(**inputs, **options)
        prompt = inputs["decoder_input_ids" if self.model.config.is_encoder_decoder else "input_ids"]
        # Each clip's own limit: a longer one beside it gives it no more.
        answers = [row[:limit] for row, limit in zip(tokens[:, prompt.shape[1] :].tolist(), limits, strict=True)]
        texts = self.processor.decode(answers, skip_special_tokens=True, **self._parsing())
        return [Hypothesis(text.strip()) for text in texts]

    def _request(self, waveforms: list[np.ndarray]) -> BatchFeature:
        """The model's inputs, prompt and audio.

        Raises:
            TinyAudioError: the processor needs a library that is not installed.
        """
        try:
            if self.kind not in INSTRUCTIONS:
                return self.processor.apply_transcription_request(waveforms, **self._request_options(waveforms))
            question = f"{self.processor.audio_token}{INSTRUCTIONS[self.kind]}"
            prompt = self.processor.tokenizer.apply_chat_template(
                [{"role": "user", "content": question}], tokenize=False, add_generation_prompt=True
            )
            return self.processor(text=[prompt] * len(waveforms), audio=waveforms, return_tensors="pt")
        except ImportError as error:
            raise TinyAudioError(f"The model {self.name} cannot be asked: {' '.join(str(error).split())}") from error

    def _request_options(self, waveforms: list[np.ndarray]) -> dict[str, Any]:
        if self.kind == "voxtral":
            return {"model_id": self.name, "sampling_rate": SAMPLING_RATE, "format": "wav"}
        if self.kind == "qwen3_asr":
            # Silence up to a whole second and one more: the encoder's blocks of 1 s, and the frame count of the
            # extractor, then do not depend on the longest clip of the batch.
            seconds = max(map(len, waveforms)) // SAMPLING_RATE + 2
            return {"audio_kwargs": {"padding": "max_length", "max_length": seconds * SAMPLING_RATE}}
        return {}

    def _parsing(self) -> dict[str, Any]:
        """How the processor takes the text out of what the model says around it."""
        if "return_format" in inspect.signature(self.processor.decode).parameters:
            return {"return_format": "transcription_only"}
        return {"strip_prefix": True} if self.kind in FRAMED else {}


def _auto_class(config: PretrainedConfig) -> Any:
    for auto in (AutoModelForMultimodalLM, AutoModelForSpeechSeq2Seq):
        if type(config) in auto._model_mapping:
            return auto
    return AutoModelForSeq2SeqLM
