"""What a dataset holds, without training on it: hours, lengths, speaking rates, missing labels, rates, speakers."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice, pairwise
from typing import Any, TypeVar

import numpy as np

from tiny_audio.text.labels import clean_label

from .config import DataConfig, evaluated
from .corpus import Row, fetched
from .durations import probe_header
from .filtering import EMPTY_TEXT, PLACEHOLDER, UNREADABLE, Limits
from .streaming import stream_corpus

SPEAKER_NAMES = ("speaker", "speaker_id", "spk_id", "client_id")
EDGES = (0, 1, 2, 3, 5, 7, 10, 15, 20, 30, 60, math.inf)  # seconds, of the histogram
BAR_WIDTH = 40  # characters
PERCENTILES = (1, 25, 50, 75, 99)
FENCE = 3.0  # interquartile ranges beyond a quartile: Tukey's "far out"
LISTED = 10  # ids of a kind
BLOCK_ROWS = 256  # rows whose headers are read together

T = TypeVar("T")


@dataclass(frozen=True)
class Rate:
    """How fast the label of a clip is spoken."""

    chars_per_second: float
    id: str
    seconds: float
    text: str


@dataclass
class Inspection:
    """What was found; `seconds` is NaN for a clip whose header cannot be read."""

    dataset: str
    split: str
    limits: Limits
    seconds: list[float] = field(default_factory=list)
    sampling_rates: Counter[int] = field(default_factory=Counter)  # Hz
    speakers: Counter[str] = field(default_factory=Counter)
    rates: list[Rate] = field(default_factory=list)
    unusable: dict[str, list[str]] = field(default_factory=dict)  # ids by reason, as training would skip them

    def add(self, row: Row, header: tuple[float, int | None]) -> None:
        """Counts a row whose header was read."""
        found, sampling_rate = header
        seconds = found if row.duration is None or math.isnan(found) else row.duration
        label = clean_label(row.text)
        self.seconds.append(seconds)
        self.sampling_rates.update([sampling_rate] if sampling_rate else [])
        self.speakers.update(str(row.metadata[name]) for name in SPEAKER_NAMES if row.metadata.get(name))
        reason = UNREADABLE if math.isnan(seconds) else self.limits.unusable_length(seconds)
        reason = reason or self.limits.unusable_text(row.text, label, seconds)[0]
        if reason:
            self.unusable.setdefault(reason, []).append(row.id)
        if label and seconds > 0 and reason != PLACEHOLDER:
            self.rates.append(Rate(len(label) / seconds, row.id, seconds, row.text))

    @property
    def hours(self) -> float:
        return float(np.nansum(self.seconds)) / 3600

    def histogram(self) -> list[tuple[float, float, int]]:
        """(from, to, clips) of each range of seconds."""
        counts = np.histogram([length for length in self.seconds if not math.isnan(length)], bins=EDGES)[0]
        return [(low, high, int(count)) for (low, high), count in zip(pairwise(EDGES), counts, strict=True)]

    def outliers(self) -> list[Rate]:
        """Clips whose characters a second lie far outside the quartiles, slowest first."""
        if not self.rates:
            return []
        values = [rate.chars_per_second for rate in self.rates]
        low, high = np.percentile(values, (25, 75))
        margin = FENCE * (high - low)
        outside = [rate for rate in self.rates if not low - margin <= rate.chars_per_second <= high + margin]
        return sorted(outside, key=lambda rate: rate.chars_per_second)

    def percentiles(self) -> dict[int, float]:
        """Characters a second by percentile."""
        values = [rate.chars_per_second for rate in self.rates]
        return {rank: round(float(np.percentile(values, rank)), 1) for rank in PERCENTILES} if values else {}

    def as_json(self) -> dict[str, Any]:
        """All of it, as plain values; lengths in seconds."""
        return {
            "dataset": self.dataset,
            "split": self.split,
            "clips": len(self.seconds),
            "hours": round(self.hours, 4),
            "histogram": [
                {"from": low, "to": None if math.isinf(high) else high, "clips": count}
                for low, high, count in self.histogram()
            ],
            "chars_per_second": {f"p{rank}": value for rank, value in self.percentiles().items()},
            "outliers": [vars(rate) for rate in self.outliers()],
            "unusable": {reason: {"clips": len(ids), "ids": ids} for reason, ids in self.unusable.items()},
            "sampling_rates": {str(rate): count for rate, count in self.sampling_rates.most_common()},
            "speakers": len(self.speakers) or None,
        }

    def report(self) -> str:
        """The same for people."""
        lines = [f"{self.dataset}, split {self.split}: {len(self.seconds):,} clips, {self.hours:.2f} h", ""]
        lines += ["seconds", *_bars(self.histogram()), ""]
        if self.rates:
            spread = " · ".join(f"{rank} % {value}" for rank, value in self.percentiles().items())
            lines += [f"Characters a second: {spread}", *_listed(self.outliers()), ""]
        lines += [f"{reason}: {len(ids):,} ({_some(ids)})" for reason, ids in self._reasons().items()]
        rates = ", ".join(f"{rate:,} Hz {count:,}" for rate, count in self.sampling_rates.most_common())
        lines += [f"Sampling rates: {rates or 'unknown'}"]
        if self.speakers:
            name, most = self.speakers.most_common(1)[0]
            lines += [f"Speakers: {len(self.speakers):,}, at most {most:,} clips of one ({name})"]
        return "\n".join(lines)

    def _reasons(self) -> dict[str, list[str]]:
        """The labels that are missing are said also where there are none."""
        return {EMPTY_TEXT: [], PLACEHOLDER: [], **self.unusable}


def inspect_dataset(config: DataConfig, split: str | None = None) -> Inspection:
    """Reads the headers and texts of a split, in bounded memory; by default of the training split or its sample.

    Raises:
        TinyAudioError: as `stream_corpus`.
    """
    split = split or config.train_split
    samples = config.max_train_samples if split == config.train_split else None
    stream = stream_corpus(evaluated(config) if split == config.eval_split else config, split, max_samples=samples)
    inspection = Inspection(config.path, split, Limits.of(config, None))
    with ThreadPoolExecutor() as pool:
        for rows in blocks(stream, BLOCK_ROWS):
            for row, header in zip(rows, pool.map(_header, rows), strict=True):
                inspection.add(row, header)
    return inspection


def blocks(rows: Iterator[T], size: int) -> Iterator[list[T]]:
    """The rows in lists of at most `size`."""
    while block := list(islice(rows, size)):
        yield block


def _header(row: Row) -> tuple[float, int | None]:
    try:
        return probe_header(fetched(row.audio))
    except (ValueError, OSError):
        return math.nan, None


def _bars(histogram: Sequence[tuple[float, float, int]]) -> Iterator[str]:
    most = max((count for *_, count in histogram), default=0)
    for low, high, count in histogram:
        name = f"{low:g}+" if math.isinf(high) else f"{low:g}-{high:g}"
        yield f"{name:>7} {count:>9,} {'█' * math.ceil(BAR_WIDTH * count / max(most, 1))}".rstrip()


def _listed(outliers: Sequence[Rate]) -> Iterator[str]:
    for rate in outliers if len(outliers) <= LISTED else [*outliers[: LISTED // 2], *outliers[-LISTED // 2 :]]:
        yield f"  {rate.chars_per_second:6.1f}  {rate.seconds:6.2f} s  {rate.id}: {rate.text[:60]}"
    if len(outliers) > LISTED:
        yield f"  {len(outliers):,} outliers in all; --json lists them"


def _some(ids: Sequence[str]) -> str:
    return (", ".join(ids[:3]) + (", …" if len(ids) > 3 else "")) or "none"
