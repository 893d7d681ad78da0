"""One evaluation from settings to metrics: decode what is not yet in the results folder, score, sum up."""

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from tiny_audio.audio.reading import SAMPLING_RATE
from tiny_audio.console import Progress, progress, say
from tiny_audio.errors import TinyAudioError
from tiny_audio.evaluation.clips import LoadedClip, load_ahead, open_eval_set
from tiny_audio.evaluation.hardware import hardware, library_versions
from tiny_audio.evaluation.recognizers import Recognizer, choose_provider, open_recognizer
from tiny_audio.evaluation.recognizers.source import ModelSource, short_hash
from tiny_audio.evaluation.report import summary_text
from tiny_audio.evaluation.results import ClipResult, Metrics, ResultsFolder
from tiny_audio.evaluation.scoring import ClipScore, Scores, error_rate, score
from tiny_audio.evaluation.settings import EvalSettings
from tiny_audio.text.normalizers import Normalizer, get_normalizer

WARM_UP_SECONDS = 2  # of each clip of the first batch
GIVE_UP_AFTER = 20  # clips that the recogniser refused before it did a single one
RTFX_TIMED = "features, model and detokenising, after one warm-up batch; reading and decoding files not counted"
DATASET_KEYS = ("config", "split", "revision", "max_samples", "seed", "dataset_fingerprint")

Opener = Callable[[EvalSettings], Recognizer]


def evaluate(settings: EvalSettings, opener: Opener = open_recognizer) -> Metrics:
    """Measure a model on a dataset; the same settings again resume where a run ended.

    Args:
        opener: makes the recogniser, when there is anything left to decode.

    Returns:
        The metrics, as in metrics.json of `metrics.folder`.

    Raises:
        TinyAudioError: unknown model or dataset, no clip at all, or not one clip that could be decoded.
    """
    if settings.normalizer is None and settings.normalizer_name == "basic":
        say(f"Normalizer basic: {settings.dataset} is digits and commands, which whisper-en would join into numbers.")
    identity = _identity(settings, choose_provider(settings, ModelSource.of(settings.model)))
    eval_set = open_eval_set(settings)
    identity["dataset_fingerprint"] = eval_set.fingerprint
    with ResultsFolder(settings.output_dir or _default_folder(settings, identity), identity) as folder:
        pending = ([clip for clip in batch if clip.id not in folder.results] for batch in eval_set.batches())
        with closing(load_ahead(filter(None, pending))) as batches:
            first = next(batches, None)
            finished = folder.finished()
            if first is None and finished:
                return finished
            recognizer = opener(settings)
            if first is not None:
                _warm_up(recognizer, first)
                decoder = Decoder(recognizer, get_normalizer(settings.normalizer_name))
                with progress(f"{settings.model} on {settings.dataset}", eval_set.num_clips) as bar:
                    _decode_all(chain([first], batches), decoder, folder, bar)
        metrics = _summarise(settings, identity, recognizer, folder)
        return folder.finish(metrics, summary_text(metrics, list(folder.results.values())))


def _identity(settings: EvalSettings, provider: str) -> dict[str, Any]:
    """All that shapes the results: what makes two runs the same one."""
    return {
        "model": settings.model,
        "model_fingerprint": ModelSource.of(settings.model).fingerprint(),
        "provider": provider,
        "dataset": settings.dataset,
        "config": settings.config,
        "split": settings.split,
        "revision": settings.revision,
        "audio_column": settings.audio_column,
        "text_column": settings.text_column,
        "streaming": settings.streaming,
        "max_samples": settings.max_samples,
        "seed": settings.seed,
        "normalizer": settings.normalizer_name,
        "normalizer_version": get_normalizer(settings.normalizer_name).version,
        "batch_size": settings.batch_size,
        "device": settings.device,
        "dtype": settings.dtype,
        "num_beams": settings.num_beams,
        "max_new_tokens": settings.max_new_tokens,
    }


def _default_folder(settings: EvalSettings, identity: dict[str, Any]) -> Path:
    name = f"{slug(settings.model)}-{slug(settings.dataset)}-{settings.split}-{short_hash(identity)}"
    return Path("outputs") / "eval" / name


def slug(name: str) -> str:
    """The last two parts of a path or Hub id as one plain file name."""
    parts = [part for part in Path(name).parts if part not in ("/", ".", "..", "~")][-2:]
    return "".join(c if c.isalnum() else "-" for c in "-".join(parts).lower()).strip("-")


def _warm_up(recognizer: Recognizer, batch: list[LoadedClip]) -> None:
    """One untimed batch of short clips: first calls load kernels and code that no later one waits for."""
    samples = WARM_UP_SECONDS * SAMPLING_RATE
    # An error here comes again, and is dealt with, when the whole clips are decoded.
    with suppress(Exception):
        recognizer.transcribe([clip.waveform[:samples] for clip in batch if clip.waveform is not None])


def _decode_all(batches: Iterable[list[LoadedClip]], decoder: "Decoder", folder: ResultsFolder, bar: Progress) -> None:
    bar.advance(len(folder.results), "already there" if folder.results else "")
    errors = words = 0
    for batch in batches:
        results = decoder.decode(batch)
        folder.append(results)
        errors += sum(result.word_errors for result in results)
        words += sum(result.reference_words or 0 for result in results)
        bar.advance(len(results), f"WER {error_rate(errors, words):.2%}")


@dataclass
class Decoder:
    """Turns batches of clips into scored results; a clip that a batch fails on is found and kept apart."""

    recognizer: Recognizer
    normalizer: Normalizer
    decoded: int = 0  # clips
    refused: int = 0  # clips

    def decode(self, batch: list[LoadedClip]) -> list[ClipResult]:
        """One result for each clip, in the order of the batch."""
        readable = [clip for clip in batch if clip.waveform is not None]
        texts = self._transcribe([clip.waveform for clip in readable if clip.waveform is not None])
        scored = (self._result(clip, *text) for clip, text in zip(readable, texts, strict=True))
        return [
            next(scored)
            if loaded.waveform is not None
            else ClipResult(loaded.clip.id, None, loaded.clip.reference, error=loaded.error)
            for loaded in batch
        ]

    def _transcribe(self, waveforms: list[np.ndarray]) -> list[tuple[str | Exception, float]]:
        """For each waveform its text, or what went wrong with it, and its share of the seconds that it took."""
        if not waveforms:
            return []
        started = time.perf_counter()
        try:
            # The texts are strings on return, so a GPU has finished: no synchronisation needed.
            texts = self.recognizer.transcribe(waveforms)
        except Exception as error:  # noqa: BLE001 - whatever the model raises, the other clips count
            if len(waveforms) > 1:
                return [result for waveform in waveforms for result in self._transcribe([waveform])]
            self._count_refused(error)
            return [(error, 0.0)]
        seconds = time.perf_counter() - started
        self.decoded += len(texts)
        samples = sum(map(len, waveforms))
        return [(text, seconds * len(w) / samples) for text, w in zip(texts, waveforms, strict=True)]

    def _count_refused(self, error: Exception) -> None:
        self.refused += 1
        if self.refused >= GIVE_UP_AFTER and not self.decoded:
            raise TinyAudioError(
                f"The model failed on each of the first {self.refused} clips; the last time with {_one_line(error)}"
            ) from error

    def _result(self, loaded: LoadedClip, text: str | Exception, seconds: float) -> ClipResult:
        duration = len(loaded.waveform) / SAMPLING_RATE if loaded.waveform is not None else 0.0
        result = ClipResult(loaded.clip.id, round(duration, 4), loaded.clip.reference)
        if isinstance(text, Exception):
            result.error = _one_line(text)
            return result
        counts = score([result.reference], [text], self.normalizer).clips[0]
        return replace(
            result,
            prediction=text,
            wer=counts.wer,
            substitutions=counts.substitutions,
            deletions=counts.deletions,
            insertions=counts.insertions,
            seconds=round(seconds, 6),
            reference_words=counts.words,
            reference_characters=counts.characters,
            character_errors=counts.character_errors,
        )


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _summarise(
    settings: EvalSettings, identity: dict[str, Any], recognizer: Recognizer, folder: ResultsFolder
) -> Metrics:
    results = sorted(folder.results.values(), key=lambda result: result.id)  # one order, so one bootstrap interval
    scored = [result for result in results if not result.failed]
    if not scored:
        reason = f"; the first error is {results[0].error}" if results else ""
        raise TinyAudioError(
            f"No clip of {settings.dataset} could be measured: {len(results)} found, {len(results)} failed{reason}"
        )
    audio_seconds = sum(result.duration or 0 for result in scored)
    decode_seconds = sum(result.seconds or 0 for result in scored)
    return Metrics(
        **_rates([_counts(result) for result in scored]),
        num_samples=len(results),
        num_failed=len(results) - len(scored),
        audio_seconds=round(audio_seconds, 3),
        decode_seconds=round(decode_seconds, 3),
        rtfx=round(audio_seconds / max(decode_seconds, 1e-9), 2),
        rtfx_timed=RTFX_TIMED,
        batch_size=settings.batch_size,
        normalizer={"name": identity["normalizer"], "version": identity["normalizer_version"]},
        other_normalizer=_under_other_normalizer(settings, scored),
        dataset={"path": settings.dataset, **{key: identity[key] for key in DATASET_KEYS}},
        model=settings.model,
        provider=identity["provider"],
        decoding={**recognizer.decoding, "dtype": settings.dtype},
        versions=library_versions(),
        hardware=hardware(recognizer.device),
        date=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _counts(result: ClipResult) -> ClipScore:
    """What was counted when the clip was decoded: no text is normalised twice."""
    return ClipScore(
        substitutions=result.substitutions or 0,
        deletions=result.deletions or 0,
        insertions=result.insertions or 0,
        words=result.reference_words or 0,
        character_errors=result.character_errors or 0,
        characters=result.reference_characters or 0,
    )


def _rates(clips: Sequence[ClipScore]) -> dict[str, Any]:
    scores = Scores(tuple(clips))
    return {
        "wer": scores.wer,
        "wer_interval": scores.wer_interval(),
        "cer": scores.cer,
        "substitutions": scores.substitutions,
        "deletions": scores.deletions,
        "insertions": scores.insertions,
        "reference_words": scores.words,
    }


def _under_other_normalizer(settings: EvalSettings, scored: Sequence[ClipResult]) -> dict[str, Any]:
    """The same texts as others would score them: `whisper-en`, or `basic` where that is the run's own."""
    other = get_normalizer("basic" if settings.normalizer_name == "whisper-en" else "whisper-en")
    scores = score([result.reference for result in scored], [result.prediction or "" for result in scored], other)
    return {"name": other.name, "version": other.version, **_rates(scores.clips)}
