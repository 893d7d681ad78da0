"""The clips of an evaluation in batches, longest first, decoded by threads a little ahead of the recogniser."""

import hashlib
import math
import os
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any, TypeVar

import numpy as np

from tiny_audio.data.config import DataConfig
from tiny_audio.data.corpus import Corpus, Example, Row, load_row
from tiny_audio.data.sources import open_corpus
from tiny_audio.data.streaming import stream_corpus
from tiny_audio.evaluation.benchmarks import is_scored
from tiny_audio.evaluation.noise import estimate_snr
from tiny_audio.evaluation.settings import EvalSettings

STREAM_BATCHES = 16  # a stream is sorted by length within so many batches
BATCHES_AHEAD = 2

T = TypeVar("T")


@dataclass(frozen=True)
class Clip:
    """A clip that is still to be decoded; `load` returns it with its samples, or raises."""

    id: str
    reference: str
    load: Callable[[], Example]
    audio: str | None = None  # its file (absolute), where it has one of its own
    stamp: str | None = None  # of that file


@dataclass(frozen=True)
class LoadedClip:
    """A clip with its samples, or with why there are none."""

    clip: Clip
    waveform: np.ndarray | None  # float32 (samples,) at 16 kHz
    error: str | None = None
    snr: float | None = None  # dB
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class EvalSet:
    """The clips of one evaluation: how many (None while streaming), what they are, and their batches."""

    num_clips: int | None
    fingerprint: str | None  # of ids and references
    batches: Callable[[], Iterator[list[Clip]]]
    left_out: int = 0  # clips that the leaderboard does not score
    stamps: dict[str, str] = field(default_factory=dict)  # by id, of clips that are files: what changes with the file


def open_eval_set(settings: EvalSettings) -> EvalSet:
    """Open the dataset and draw the sample.

    Raises:
        TinyAudioError: unknown dataset, split or column, or no clip at all.
    """
    config = DataConfig(
        path=settings.dataset,
        config=settings.config,
        revision=settings.revision,
        audio_column=settings.audio_column or DataConfig.audio_column,
        text_column=settings.text_column or DataConfig.text_column,
        streaming=settings.streaming,
        seed=settings.seed,
    )
    if settings.streaming:
        return _streamed(config, settings)
    return _mapped(config, settings)


def _mapped(config: DataConfig, settings: EvalSettings) -> EvalSet:
    corpus = open_corpus(config, settings.split or config.test_split)
    whole = len(corpus)
    if settings.benchmark is not None:
        corpus = corpus.select([i for i, text in enumerate(corpus.texts) if is_scored(text)])
    left_out = whole - len(corpus)
    if settings.max_samples is not None:
        corpus = corpus.sample(settings.max_samples, settings.seed)
    ids, texts = corpus.ids, corpus.texts
    files = [_file_of(corpus, i) for i in range(len(corpus))]
    stamps = {name: stamp for name, file in zip(ids, files, strict=True) if (stamp := _stamp(file))}

    def batches() -> Iterator[list[Clip]]:
        order = np.argsort(-np.nan_to_num(corpus.durations, nan=-1.0), kind="stable")
        clips = (Clip(ids[i], texts[i], partial(corpus.load, i), files[i], stamps.get(ids[i])) for i in order.tolist())
        return _batched(clips, settings.batch_size)

    digest = hashlib.sha256("\0".join([*ids, *texts]).encode("utf-8", "backslashreplace"))
    return EvalSet(len(corpus), digest.hexdigest()[:10], batches, left_out, stamps)


def _stamp(file: str | None) -> str | None:
    try:
        status = os.stat(file) if file else None
    except OSError:  # missing: the clip will fail, and say so
        return None
    return f"{status.st_size}-{status.st_mtime_ns}" if status else None


def _file_of(corpus: Corpus, index: int) -> str | None:
    path = corpus.audio_path(index)
    return None if path is None or corpus.reader.columns.offset is not None else os.path.abspath(path)


def _streamed(config: DataConfig, settings: EvalSettings) -> EvalSet:
    def batches() -> Iterator[list[Clip]]:
        rows = stream_corpus(config, settings.split or config.test_split, max_samples=settings.max_samples)
        if settings.benchmark is not None:
            rows = (row for row in rows if is_scored(row.text))
        names = _unique_names()
        for buffer in _batched(rows, STREAM_BATCHES * settings.batch_size):
            longest_first = sorted(buffer, key=_length, reverse=True)
            clips = [Clip(names(row.id), row.text, partial(load_row, row)) for row in longest_first]
            yield from _batched(clips, settings.batch_size)

    return EvalSet(None, None, batches)


def _unique_names() -> Callable[[str], str]:
    """Results are keyed by id: the second clip called `a` becomes `a#2`, in a resumed run as well."""
    seen: Counter[str] = Counter()

    def name(given: str) -> str:
        seen[given] += 1
        return given if seen[given] == 1 else f"{given}#{seen[given]}"

    return name


def _batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    items = iter(items)
    while batch := list(islice(items, size)):
        yield batch


def _length(row: Row) -> float:
    """Seconds where the row states them, else the size of the encoded audio: close enough to sort by."""
    if row.duration is not None and math.isfinite(row.duration):
        return row.duration
    audio = row.audio.get("bytes") if isinstance(row.audio, dict) else row.audio
    return len(audio) if isinstance(audio, bytes) else 0.0


def load_ahead(batches: Iterable[list[Clip]]) -> Generator[list[LoadedClip], None, None]:
    """Decode batches in threads, at most `BATCHES_AHEAD` beyond the one that is yielded."""
    pool = ThreadPoolExecutor(min(4, os.cpu_count() or 1), thread_name_prefix="decode")
    queue: deque[list[Future[LoadedClip]]] = deque()
    batches = iter(batches)
    try:
        for batch in islice(batches, BATCHES_AHEAD):
            queue.append([pool.submit(_load, clip) for clip in batch])
        while queue:
            for batch in islice(batches, 1):
                queue.append([pool.submit(_load, clip) for clip in batch])
            yield [future.result() for future in queue.popleft()]
    finally:
        pool.shutdown(cancel_futures=True)


def _load(clip: Clip) -> LoadedClip:
    try:
        example = clip.load()
        return LoadedClip(clip, example.waveform, snr=estimate_snr(example.waveform), metadata=example.metadata)
    except Exception as error:  # noqa: BLE001 - one bad clip is counted and listed, whatever its decoder raises
        return LoadedClip(clip, None, f"{type(error).__name__}: {' '.join(str(error).split())}")
