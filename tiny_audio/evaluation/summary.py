"""From a folder's results to its metrics: pooled rates, intervals, speed, memory, and what it was all measured with."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np

from tiny_audio.errors import TinyAudioError
from tiny_audio.evaluation.benchmarks import comparability
from tiny_audio.evaluation.diarization import diarization_error
from tiny_audio.evaluation.hardware import hardware, library_versions, peak_memory_bytes
from tiny_audio.evaluation.prices import cost_usd
from tiny_audio.evaluation.providers import PROVIDERS
from tiny_audio.evaluation.providers.base import Provider
from tiny_audio.evaluation.results import ClipResult, Metrics
from tiny_audio.evaluation.scoring import ClipScore, Scores, counts_of, score
from tiny_audio.evaluation.settings import EvalSettings
from tiny_audio.evaluation.word_times import word_time_error
from tiny_audio.text.normalizers import get_normalizer

RTFX_TIMED = "features, model and detokenising, after one warm-up batch; reading and decoding files not counted"
RTFX_TIMED_SERVICE = "requests to the service, several at a time, with uploads, waits and retries"
DATASET_KEYS = ("benchmark", "config", "split", "revision", "max_samples", "seed", "dataset_fingerprint")
FEWEST_SPEAKERS = 5  # fewer say little of how speakers differ
PERCENTILES = (50, 90, 95, 99)


def summarise(
    settings: EvalSettings,
    identity: dict[str, Any],
    provider: Provider,
    results: Sequence[ClipResult],
    seconds: dict[str, float],
) -> Metrics:
    """The metrics of a set of results.

    Args:
        identity: what makes two runs the same one, as in settings.json.
        seconds: how long the loop that made the results took, and its parts.

    Raises:
        TinyAudioError: not one clip was scored.
    """
    results = sorted(results, key=lambda result: result.id)  # one order, so one bootstrap interval
    scored = [result for result in results if not result.failed]
    if not scored:
        reason = f"; the first error is {results[0].error}" if results else ""
        raise TinyAudioError(
            f"No clip of {settings.dataset_name} could be measured: {len(results)} found, {len(results)} failed{reason}"
        )
    audio_seconds = sum(result.duration or 0 for result in scored)
    decode_seconds = sum(result.seconds or 0 for result in scored)
    return Metrics(
        **_rates([counts_of(result) for result in scored], scored),
        num_samples=len(results),
        num_failed=len(results) - len(scored),
        audio_seconds=round(audio_seconds, 3),
        decode_seconds=round(decode_seconds, 3),
        rtfx=round(audio_seconds / max(decode_seconds, 1e-9), 2),
        rtfx_timed=RTFX_TIMED_SERVICE if PROVIDERS[identity["provider"]].service else RTFX_TIMED,
        batch_size=settings.batch_size,
        normalizer={"name": identity["normalizer"], "version": identity["normalizer_version"]},
        other_normalizer=_under_other_normalizer(settings, scored),
        dataset={"path": settings.dataset, **{key: identity[key] for key in DATASET_KEYS}},
        model=identity["model"],
        provider=identity["provider"],
        decoding={**provider.decoding, "dtype": settings.dtype},
        versions=library_versions(),
        hardware=hardware(provider.device),
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        empty_references=_on_empty_references(scored),
        latency=_percentiles([result.latency for result in scored]),
        first_token=_percentiles([result.first_token for result in scored]),
        seconds={name: round(value, 3) for name, value in seconds.items()},
        parameters=getattr(provider, "parameters", None),
        peak_memory_bytes=peak_memory_bytes(provider.device),
        word_time_error=word_time_error(scored),
        diarization=diarization_error(scored),
        cost_usd=cost_usd(settings, audio_seconds),
        comparable=comparability(settings, len(results) - len(scored)),
    )


def _speakers(scored: Sequence[ClipResult]) -> list[str] | None:
    """Who speaks in each clip, where every clip says so and there are enough of them to draw from."""
    speakers = [result.speaker for result in scored if result.speaker is not None]
    return speakers if len(speakers) == len(scored) and len(set(speakers)) >= FEWEST_SPEAKERS else None


def _rates(clips: Sequence[ClipScore], scored: Sequence[ClipResult]) -> dict[str, Any]:
    scores, speakers = Scores(tuple(clips)), _speakers(scored)
    return {
        "wer": scores.wer,
        "wer_interval": scores.wer_interval(),
        "wer_interval_by_speaker": scores.wer_interval(speakers) if speakers else None,
        "cer": scores.cer,
        "sentence_error_rate": scores.sentence_error_rate,
        "mer": scores.mer,
        "wil": scores.wil,
        "substitutions": scores.substitutions,
        "deletions": scores.deletions,
        "insertions": scores.insertions,
        "reference_words": scores.words,
    }


def _under_other_normalizer(settings: EvalSettings, scored: Sequence[ClipResult]) -> dict[str, Any]:
    """The same texts as others would score them: `whisper-en`, or `basic` where that is the run's own."""
    other = get_normalizer("basic" if settings.normalizer_name == "whisper-en" else "whisper-en")
    scores = score([result.reference for result in scored], [result.prediction or "" for result in scored], other)
    return {"name": other.name, "version": other.version, **_rates(scores.clips, scored)}


def _on_empty_references(scored: Sequence[ClipResult]) -> dict[str, int]:
    empty = [result for result in scored if not result.reference_words]
    return {"clips": len(empty), "insertions": sum(result.insertions or 0 for result in empty)}


def _percentiles(values: Sequence[float | None]) -> dict[str, float]:
    known = [value for value in values if value is not None]
    if not known:
        return {}
    return {f"p{share}": round(float(np.percentile(known, share)), 4) for share in PERCENTILES}
