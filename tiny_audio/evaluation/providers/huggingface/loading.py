"""Loads the parts of a checkpoint with the settings of the run; what goes wrong is one line."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import AutoConfig, PretrainedConfig
from transformers.utils import logging

from tiny_audio.audio.reading import SAMPLING_RATE
from tiny_audio.errors import TinyAudioError
from tiny_audio.evaluation.settings import EvalSettings
from tiny_audio.model_source import ModelSource


class Loader:
    """Opens what one checkpoint holds, on the device and in the dtype that were asked for."""

    def __init__(self, settings: EvalSettings, source: ModelSource, device: str) -> None:
        self.source = source
        self.device = torch.device(device)
        self.dtype = settings.dtype
        self.options: dict[str, Any] = {
            "revision": source.revision,
            "trust_remote_code": settings.trust_remote_code,
        }
        logging.disable_progress_bar()
        logging.set_verbosity_error()

    def config(self) -> PretrainedConfig:
        return self.part(AutoConfig)

    def part(self, auto: Any, **options: Any) -> Any:
        """What the Auto class makes of the checkpoint.

        Raises:
            TinyAudioError: it cannot be read, needs a library that is missing, or comes with code of its own.
        """
        with self.explained():
            return auto.from_pretrained(self.source.location, **self.options, **options)

    def model(self, auto: Any) -> Any:
        """The model, ready to decode.

        Raises:
            TinyAudioError: as `part`; or the checkpoint lacks the head that says the words.
        """
        model, info = self.part(auto, dtype=self.dtype, output_loading_info=True)
        missing = sorted(key for key in info["missing_keys"] if "head" in key)
        if missing:
            raise TinyAudioError(
                f"The model {self.source.name} holds no {missing[0]}: it was not trained to recognise speech."
            )
        return model.to(self.device).eval()

    def require_rate(self, extractor: Any) -> None:
        rate = getattr(extractor, "sampling_rate", SAMPLING_RATE)
        if rate != SAMPLING_RATE:
            raise TinyAudioError(f"The model {self.source.name} works at {rate} Hz; expected one for 16000 Hz.")

    def no_word_times(self) -> TinyAudioError:
        return TinyAudioError(
            f"The model {self.source.name} gives no times of words; Whisper and CTC models with letters as tokens "
            "(wav2vec2, HuBERT, WavLM) do, and some services: leave out --word-times."
        )

    @contextmanager
    def explained(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError, KeyError, ImportError) as error:
            raise self._explanation(error) from error

    def _explanation(self, error: Exception) -> TinyAudioError:
        name = self.source.name
        if "trust_remote_code" in str(error):
            return TinyAudioError(
                f"The model {name} comes with code of its own; read it, then pass --trust-remote-code to run it."
            )
        if isinstance(error, OSError):
            return self.source.unreadable(error)
        reason = str(error).strip() or type(error).__name__
        # A missing library is told over several lines, the rest by the first of them.
        reason = " ".join(reason.split()) if isinstance(error, ImportError) else reason.splitlines()[0]
        return TinyAudioError(f"The model {name} cannot be loaded as a speech recogniser of transformers: {reason}")
