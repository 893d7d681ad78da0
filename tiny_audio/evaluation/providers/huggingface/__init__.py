"""Any speech recogniser of transformers, each family as its own model and processor want it; one file a family."""

from collections.abc import Iterator
from itertools import islice
from typing import Any, Protocol

import numpy as np

from tiny_audio.audio.reading import SAMPLING_RATE
from tiny_audio.audio.segment import Window, split_windows
from tiny_audio.errors import TinyAudioError
from tiny_audio.evaluation.hardware import pick_device
from tiny_audio.evaluation.providers.base import Hypothesis, TimedWord
from tiny_audio.evaluation.providers.huggingface.audio_llm import AudioLLM, is_audio_llm
from tiny_audio.evaluation.providers.huggingface.ctc import CTCRecogniser, is_ctc
from tiny_audio.evaluation.providers.huggingface.loading import Loader
from tiny_audio.evaluation.providers.huggingface.pipelined import PipelinedRecogniser
from tiny_audio.evaluation.settings import EvalSettings
from tiny_audio.model_source import ModelSource

SHORTEST_SAMPLES = SAMPLING_RATE // 10  # wav2vec2's convolutions need 25 ms; shorter clips get silence


class Recogniser(Protocol):
    """A family's way from waveforms to text."""

    longest: int  # samples it takes at once; longer clips come in windows, cut where it is quiet
    batch_size: int  # 1 where padding would change a text
    decoding: dict[str, Any]

    def transcribe(self, waveforms: list[np.ndarray]) -> list[Hypothesis]:
        """One hypothesis for each waveform, of at most `batch_size` that are decoded together."""
        ...


class HuggingFaceProvider:
    """A checkpoint of transformers, of the family that its config tells."""

    def __init__(self, settings: EvalSettings, source: ModelSource) -> None:
        if settings.first_token:
            raise TinyAudioError("The provider huggingface gives no stream of text; leave out --first-token.")
        self.device = pick_device(settings.device)
        self.recogniser = _recogniser(settings, Loader(settings, source, self.device))
        self.decoding = {**self.recogniser.decoding, "model_batch_size": self.recogniser.batch_size}

    def transcribe(self, batch: list[np.ndarray]) -> list[Hypothesis]:
        split = [list(split_windows([_at_least(clip, SHORTEST_SAMPLES)], self.recogniser.longest)) for clip in batch]
        heard = self._decode([window.waveform for windows in split for window in windows])
        return [_joined(windows, list(islice(heard, len(windows)))) for windows in split]

    def _decode(self, waveforms: list[np.ndarray]) -> Iterator[Hypothesis]:
        for batch in _alike(waveforms, self.recogniser.batch_size):
            yield from self.recogniser.transcribe(batch)


def _recogniser(settings: EvalSettings, loader: Loader) -> Recogniser:
    """The family by the config's class and the processor's face, never by the checkpoint's name."""
    config = loader.config()
    if is_ctc(config):
        return CTCRecogniser(settings, loader)
    with loader.explained():  # to look at a processor may take a library that is not here
        heard_by_a_language_model = is_audio_llm(config)
    return AudioLLM(settings, loader) if heard_by_a_language_model else PipelinedRecogniser(settings, loader)


def _alike(waveforms: list[np.ndarray], size: int) -> Iterator[list[np.ndarray]]:
    """At most `size` neighbours, none twice as long as another: padding is work as well."""
    batch: list[np.ndarray] = []
    for waveform in waveforms:
        lengths = [len(waveform), *map(len, batch)]
        if len(batch) == size or max(lengths) > 2 * min(lengths):
            yield batch
            batch = []
        batch.append(waveform)
    if batch:
        yield batch


def _joined(windows: list[Window], heard: list[Hypothesis]) -> Hypothesis:
    """The hypothesis of a clip from those of its windows."""
    words = None if heard[0].words is None else list(_shifted(windows, heard))
    return Hypothesis(" ".join(filter(None, (hypothesis.text for hypothesis in heard))), words)


def _shifted(windows: list[Window], heard: list[Hypothesis]) -> Iterator[TimedWord]:
    for window, hypothesis in zip(windows, heard, strict=True):
        start = window.start / SAMPLING_RATE
        for word in hypothesis.words or []:
            yield TimedWord(word.text, start + word.start, start + word.end)


def _at_least(clip: np.ndarray, samples: int) -> np.ndarray:
    return np.pad(clip, (0, max(0, samples - len(clip))))
