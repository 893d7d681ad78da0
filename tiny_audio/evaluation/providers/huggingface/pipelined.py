"""Whisper, transducers, other encoder-decoder models and a checkpoint's own code, through the pipeline of transformers."""

import sys
from typing import Any

import numpy as np
from transformers import pipeline

from tiny_audio.audio.reading import SAMPLING_RATE
from tiny_audio.evaluation.providers.base import Hypothesis, TimedWord
from tiny_audio.evaluation.providers.huggingface.loading import Loader
from tiny_audio.evaluation.settings import EvalSettings

WINDOW_SECONDS = 30


class PipelinedRecogniser:
    """A pipeline. Whisper's windows are always 30 s, so they go in batches; its longer clips in its own long form."""

    def __init__(self, settings: EvalSettings, loader: Loader) -> None:
        with loader.explained():
            self.pipeline = pipeline(
                "automatic-speech-recognition",
                model=loader.source.location,
                device=loader.device,
                dtype=loader.dtype,
                **loader.options,
            )
        loader.require_rate(self.pipeline.feature_extractor)
        self.whisper = self.pipeline.type == "seq2seq_whisper"
        if settings.word_times and not self.whisper:
            raise loader.no_word_times()
        self.word_times = settings.word_times
        takes_all = self.whisper or self.pipeline.type == "tdt"
        self.longest = sys.maxsize if takes_all else WINDOW_SECONDS * SAMPLING_RATE
        self.batch_size = settings.batch_size if self.whisper else 1
        self.decoding: dict[str, Any] = self._generation(settings)

    def _generation(self, settings: EvalSettings) -> dict[str, Any]:
        if not self.pipeline.model.can_generate():
            return {}
        given = {"num_beams": settings.num_beams or 1, "max_new_tokens": settings.max_new_tokens}
        return {name: value for name, value in given.items() if value is not None}

    def transcribe(self, waveforms: list[np.ndarray]) -> list[Hypothesis]:
        window = WINDOW_SECONDS * SAMPLING_RATE
        long = [self._run([waveform], True)[0] for waveform in waveforms if len(waveform) > window]
        short = self._run([waveform for waveform in waveforms if len(waveform) <= window], False)
        return [(long if len(waveform) > window else short).pop(0) for waveform in waveforms]

    def _run(self, waveforms: list[np.ndarray], long_form: bool) -> list[Hypothesis]:
        if not waveforms:
            return []
        options: dict[str, Any] = {"batch_size": len(waveforms)}
        if self.decoding:
            options["generate_kwargs"] = dict(self.decoding)
        if self.whisper and (self.word_times or long_form):
            options["return_timestamps"] = "word" if self.word_times else True
        outputs = self.pipeline([{"raw": w, "sampling_rate": SAMPLING_RATE} for w in waveforms], **options)
        return [Hypothesis(output["text"].strip(), self._words(output)) for output in outputs]

    def _words(self, output: dict[str, Any]) -> list[TimedWord] | None:
        if not self.word_times:
            return None
        chunks = output["chunks"]
        # Whisper leaves the end open where the audio ends within a word.
        return [TimedWord(c["text"].strip(), c["timestamp"][0], c["timestamp"][1] or c["timestamp"][0]) for c in chunks]
