"""From loaded clips to scored results: one batch at a time through the provider, a bad clip kept apart from the others."""

import math
import time
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from tiny_audio.audio.reading import SAMPLING_RATE
from tiny_audio.errors import TinyAudioError
from tiny_audio.evaluation.clips import LoadedClip
from tiny_audio.evaluation.providers.base import Hypothesis, Provider
from tiny_audio.evaluation.results import ClipResult
from tiny_audio.evaluation.scoring import normalized_pair, score_pair
from tiny_audio.text.normalizers import Normalizer

GIVE_UP_AFTER = 20  # clips that the provider refused before it did a single one
LIST_COLUMNS = ("words", "turns")


@dataclass
class Decoder:
    """Turns batches of clips into scored results; a clip that a batch fails on is found and kept apart."""

    provider: Provider
    normalizer: Normalizer
    decoded: int = 0  # clips
    refused: int = 0  # clips
    model_seconds: float = 0.0  # spent in the provider

    def decode(self, batch: list[LoadedClip]) -> list[ClipResult]:
        """One result for each clip, in the order of the batch.

        Raises:
            TinyAudioError: the provider refused each of the first clips, or says that no clip can be done.
        """
        readable = [clip for clip in batch if clip.waveform is not None]
        heard = iter(self._transcribe([clip.waveform for clip in readable if clip.waveform is not None]))
        return [_unreadable(clip) if clip.waveform is None else self._result(clip, *next(heard)) for clip in batch]

    def _transcribe(self, waveforms: list[np.ndarray]) -> list[tuple[Hypothesis, float]]:
        """For each waveform what was heard, and its share, by duration, of the seconds that the batch took."""
        if not waveforms:
            return []
        started = time.perf_counter()
        try:
            # The texts are strings on return, so a GPU has finished: no synchronisation needed.
            hypotheses = self.provider.transcribe(waveforms)
        except TinyAudioError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever the model raises, the other clips count
            if len(waveforms) > 1:
                return [heard for waveform in waveforms for heard in self._transcribe([waveform])]
            hypotheses = [Hypothesis(error=f"{type(error).__name__}: {' '.join(str(error).split())}")]
        seconds = time.perf_counter() - started
        self._count(hypotheses, seconds)
        samples = sum(map(len, waveforms))
        timed = [h if h.latency is not None else replace(h, latency=seconds) for h in hypotheses]
        return [(h, seconds * len(w) / samples) for h, w in zip(timed, waveforms, strict=True)]

    def _count(self, hypotheses: list[Hypothesis], seconds: float) -> None:
        self.model_seconds += seconds
        errors = [hypothesis.error for hypothesis in hypotheses if hypothesis.error]
        self.refused += len(errors)
        self.decoded += len(hypotheses) - len(errors)
        if self.refused >= GIVE_UP_AFTER and not self.decoded:
            raise TinyAudioError(
                f"The model failed on each of the first {self.refused} clips; the last time with {errors[-1]}"
            )

    def _result(self, loaded: LoadedClip, heard: Hypothesis, seconds: float) -> ClipResult:
        assert loaded.waveform is not None
        result = replace(_described(loaded), duration=round(len(loaded.waveform) / SAMPLING_RATE, 4))
        if heard.error is not None:
            return replace(result, error=heard.error)
        return replace(
            result,
            prediction=heard.text,
            **_scored(result.reference, heard.text, self.normalizer),
            seconds=round(seconds, 6),
            latency=round(heard.latency or 0.0, 6),
            first_token=None if heard.first_token is None else round(heard.first_token, 6),
            words=None if heard.words is None else [asdict(word) for word in heard.words],
        )


def _described(loaded: LoadedClip) -> ClipResult:
    """What the dataset says of a clip."""
    clip, columns = loaded.clip, loaded.metadata
    return ClipResult(
        clip.id,
        None,
        clip.reference,
        snr=loaded.snr,
        audio=clip.audio,
        audio_stamp=clip.stamp,
        metadata={name: _storable(value) for name, value in columns.items() if name not in LIST_COLUMNS},
        reference_times=_timed(columns.get("words")),
        reference_turns=_timed(columns.get("turns")),
    )


def _storable(value: Any) -> Any:
    """JSON has no NaN and no infinity."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _timed(entries: Any) -> list[dict[str, Any]] | None:
    """A list of words or turns, if each of them has a start and an end in seconds."""
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        return None
    times = [entry.get(edge) for entry in entries for edge in ("start", "end")]
    return entries if all(isinstance(time, int | float) and math.isfinite(time) for time in times) else None


def _unreadable(loaded: LoadedClip) -> ClipResult:
    return replace(_described(loaded), error=loaded.error)


def _scored(reference: str, prediction: str, normalizer: Normalizer) -> dict[str, Any]:
    """The fields of a result that scoring fills."""
    pair = normalized_pair(reference, prediction, normalizer)
    counts = score_pair(*pair)
    return {
        "wer": counts.wer,
        "substitutions": counts.substitutions,
        "deletions": counts.deletions,
        "insertions": counts.insertions,
        "reference_words": counts.words,
        "reference_characters": counts.characters,
        "character_errors": counts.character_errors,
        "normalized_reference": pair[0],
        "normalized_prediction": pair[1],
    }
