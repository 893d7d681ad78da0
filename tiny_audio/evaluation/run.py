"""One evaluation from settings to metrics: decode what is not yet in the results folder, then sum up."""

import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

from tiny_audio.audio.reading import SAMPLING_RATE
from tiny_audio.console import Progress, progress, say
from tiny_audio.evaluation.audio_files import keep
from tiny_audio.evaluation.benchmarks import resolved
from tiny_audio.evaluation.clips import LoadedClip, load_ahead, open_eval_set
from tiny_audio.evaluation.decoding import Decoder
from tiny_audio.evaluation.leaderboard import write_leaderboard_files
from tiny_audio.evaluation.prices import cost_usd, priced
from tiny_audio.evaluation.providers import (
    PROVIDERS,
    Provider,
    choose_provider,
    model_of,
    open_provider,
    own_code,
    source_of,
)
from tiny_audio.evaluation.report import summary_text
from tiny_audio.evaluation.results import EVALUATIONS, Metrics, ResultsFolder
from tiny_audio.evaluation.scoring import error_rate
from tiny_audio.evaluation.settings import EvalSettings
from tiny_audio.evaluation.summary import summarise
from tiny_audio.model_source import short_hash
from tiny_audio.text.normalizers import get_normalizer

WARM_UP_SECONDS = 2  # of each clip of the first batch

Opener = Callable[[EvalSettings], Provider]


def evaluate(settings: EvalSettings, opener: Opener = open_provider) -> Metrics:
    """Measure a model on a dataset; the same settings again resume where a run ended.

    Args:
        opener: makes the provider, when there is anything left to decode.

    Returns:
        The metrics, as in metrics.json of `metrics.folder`.

    Raises:
        TinyAudioError: unknown model or dataset, no clip at all, or not one clip that could be decoded.
    """
    settings = priced(resolved(settings))
    if settings.normalizer is None and settings.normalizer_name == "basic":
        say(f"Normalizer basic: {settings.dataset} is digits and commands, which whisper-en would join into numbers.")
    identity = _identity(settings)
    if PROVIDERS[identity["provider"]].service:  # or a batch would have too few clips for the workers
        settings = replace(settings, batch_size=max(settings.batch_size, settings.workers))
    eval_set = open_eval_set(settings)
    identity["dataset_fingerprint"] = eval_set.fingerprint
    home = settings.output_dir or _default_folder(settings, identity)
    with ResultsFolder(home, identity, eval_set.stamps) as folder:
        pending = ([clip for clip in batch if clip.id not in folder.results] for batch in eval_set.batches())
        with closing(load_ahead(filter(None, pending))) as batches:
            first = next(batches, None)
            finished = folder.finished()
            if first is None and finished:
                return _repriced(finished, settings, folder)
            provider = opener(settings)
            seconds: dict[str, float] = {}
            if first is not None:
                if not PROVIDERS[identity["provider"]].service:
                    _warm_up(provider, first)
                decoder = Decoder(provider, get_normalizer(settings.normalizer_name, settings.replacements))
                with progress(f"{identity['model']} on {settings.dataset_name}", eval_set.num_clips) as bar:
                    seconds = _decode_all(chain([first], batches), decoder, folder, bar, settings.keep_audio)
        results = list(folder.results.values())
        metrics = summarise(settings, identity, provider, results, seconds)
        metrics.left_out = eval_set.left_out
        metrics = folder.finish(metrics, summary_text(metrics, results))
        write_leaderboard_files(metrics, results)
        return metrics


def _repriced(metrics: Metrics, settings: EvalSettings, folder: ResultsFolder) -> Metrics:
    """A finished run's metrics; a price that was named since then makes their cost anew."""
    cost = cost_usd(settings, metrics.audio_seconds)
    if cost in (None, metrics.cost_usd):
        return metrics
    metrics.cost_usd = cost
    return folder.finish(metrics, summary_text(metrics, list(folder.results.values())))


def _identity(settings: EvalSettings) -> dict[str, Any]:
    """All that shapes the results: what makes two runs the same one."""
    source, code = source_of(settings), own_code(settings)
    return {
        **({} if code is None else {"provider_code": code}),
        "model": model_of(settings),
        "model_fingerprint": None if source is None else source.fingerprint(),
        "provider": choose_provider(settings),
        "base_url": settings.base_url,
        "benchmark": settings.benchmark,
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
        "normalizer_version": get_normalizer(settings.normalizer_name, settings.replacements).version,
        "batch_size": settings.batch_size,
        "device": settings.device,
        "dtype": settings.dtype,
        "num_beams": settings.num_beams,
        "max_new_tokens": settings.max_new_tokens,
        "word_times": settings.word_times,
        "first_token": settings.first_token,
        "keep_audio": settings.keep_audio,
    }


def _default_folder(settings: EvalSettings, identity: dict[str, Any]) -> Path:
    name = f"{slug(identity['model'])}-{slug(settings.dataset_name)}-{settings.split}-{short_hash(identity)}"
    return EVALUATIONS / name


def slug(name: str) -> str:
    """The last two parts of a path or Hub id as one plain file name."""
    parts = [part for part in Path(name).parts if part not in ("/", ".", "..", "~")][-2:]
    return "".join(c if c.isalnum() else "-" for c in "-".join(parts).lower()).strip("-")


def _warm_up(provider: Provider, batch: list[LoadedClip]) -> None:
    """One untimed batch of short clips: first calls load kernels and code that no later one waits for."""
    samples = WARM_UP_SECONDS * SAMPLING_RATE
    # An error here comes again, and is dealt with, when the whole clips are decoded.
    with suppress(Exception):
        provider.transcribe([clip.waveform[:samples] for clip in batch if clip.waveform is not None])


def _decode_all(
    batches: Iterator[list[LoadedClip]], decoder: Decoder, folder: ResultsFolder, bar: Progress, keep_audio: bool
) -> dict[str, float]:
    """Decode and store all batches; returns where the seconds of the loop went."""
    bar.advance(len(folder.results), "already there" if folder.results else "")
    started = asked = time.perf_counter()
    waited = 0.0
    errors = words = 0
    for batch in batches:
        waited += time.perf_counter() - asked
        results = decoder.decode([keep(clip, folder.path) for clip in batch] if keep_audio else batch)
        folder.append(results)
        errors += sum(result.word_errors for result in results)
        words += sum(result.reference_words or 0 for result in results)
        bar.advance(len(results), f"WER {error_rate(errors, words):.2%}" if words else "none recognised yet")
        asked = time.perf_counter()
    total = time.perf_counter() - started
    return {
        "total": total,
        "model": decoder.model_seconds,
        "audio": waited,
        "other": total - decoder.model_seconds - waited,
    }
