"""Which clips can be used, and a list of those that cannot, each with the reason."""

import json
import math
import os
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tiny_audio.text.labels import is_placeholder

from .config import DataConfig
from .corpus import Corpus
from .durations import SAMPLING_RATE

UNREADABLE = "unreadable"
TOO_LONG_FOR_WINDOW = "longer than the encoder's window"
TOO_LONG = "longer than data.max_seconds"
TOO_SHORT = "shorter than data.min_seconds"
EMPTY_TEXT = "empty text"
PLACEHOLDER = "placeholder for a text"
TOO_FEW_CHARS = "fewer characters a second than data.min_chars_per_second"
TOO_MANY_CHARS = "more characters a second than data.max_chars_per_second"


@dataclass(frozen=True)
class Limits:
    """What can be used: a window in samples at 16 kHz, lengths in seconds, characters of the label a second."""

    max_samples_window: int | None = None
    min_seconds: float = 0.0
    max_seconds: float | None = None
    min_chars_per_second: float | None = None
    max_chars_per_second: float | None = None

    @classmethod
    def of(cls, config: DataConfig, max_samples_window: int | None) -> "Limits":
        """Those of a dataset's configuration and of the encoder's window."""
        names = ("min_seconds", "max_seconds", "min_chars_per_second", "max_chars_per_second")
        return cls(max_samples_window, **{name: getattr(config, name) for name in names})

    def unusable_length(self, seconds: float) -> str | None:
        """The reason why a clip of this length cannot be used, or None. Half a sample of rounding is forgiven."""
        if self.max_samples_window is not None and seconds * SAMPLING_RATE > self.max_samples_window + 0.5:
            return TOO_LONG_FOR_WINDOW
        if self.max_seconds is not None and seconds > self.max_seconds:
            return TOO_LONG
        return TOO_SHORT if seconds < self.min_seconds else None

    def unusable_text(self, text: str, label: str, seconds: float) -> tuple[str | None, str]:
        """The reason why a clip with this text, which became this label, cannot be used, or None; and what was found."""
        if is_placeholder(text):
            return PLACEHOLDER, text
        if not label:
            return EMPTY_TEXT, text
        rate = len(label) / max(seconds, 1 / SAMPLING_RATE)
        if self.min_chars_per_second is not None and rate < self.min_chars_per_second:
            return TOO_FEW_CHARS, f"{rate:.1f}: {text}"
        if self.max_chars_per_second is not None and rate > self.max_chars_per_second:
            return TOO_MANY_CHARS, f"{rate:.1f}: {text}"
        return None, ""


class Skipped:
    """Clips left out, each counted once and listed with its reason."""

    def __init__(self, total: int = 0) -> None:
        self.total = total  # clips looked at
        self._entries: dict[str, dict[str, Any]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def entries(self) -> list[dict[str, Any]]:
        """Dicts with `id`, `reason`, `detail`, `duration` (seconds or None)."""
        return list(self._entries.values())

    @property
    def counts(self) -> dict[str, int]:
        """Clips by reason, most frequent first."""
        return dict(Counter(entry["reason"] for entry in self._entries.values()).most_common())

    def add(self, id: str, reason: str, detail: str = "", duration: float | None = None) -> None:
        """Lists a clip; one that is met again, in a later epoch, is not counted twice."""
        self._entries.setdefault(id, {"id": id, "reason": reason, "detail": detail, "duration": duration})

    def update(self, entries: Iterable[dict[str, Any]]) -> None:
        """Adds entries, as a batch's `skipped` list brings them from the loader's workers."""
        for entry in entries:
            self._entries.setdefault(entry["id"], entry)

    def merge(self, others: "Skipped") -> None:
        """Takes in what was left out elsewhere, of other clips."""
        self.total += others.total
        self.update(others.entries)

    def summary(self, examples: int = 3) -> str:
        """One line: counts, reasons and a few ids."""
        of_total = f" of {self.total:,}" if self.total else ""
        if not self._entries:
            return f"no clip{of_total} skipped"
        reasons = (f"{count} {reason} ({self._some_ids(reason, examples)})" for reason, count in self.counts.items())
        return f"{len(self)}{of_total} clips skipped: {'; '.join(reasons)}"

    def write(self, path: str | Path) -> None:
        """Writes one JSON object a clip; the file appears whole or not at all."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        lines = (json.dumps(entry, ensure_ascii=False) + "\n" for entry in self._entries.values())
        temporary.write_text("".join(lines), encoding="utf-8")
        temporary.replace(path)

    def _some_ids(self, reason: str, count: int) -> str:
        ids = [entry["id"] for entry in self._entries.values() if entry["reason"] == reason]
        return ", ".join(ids[:count]) + (", …" if len(ids) > count else "")


def usable_rows(
    corpus: Corpus, *, clean: Callable[[str], str] | None = None, **limits: Any
) -> tuple[np.ndarray, Skipped]:
    """Looks at every clip's duration and text, without decoding what the dataset describes.

    Args:
        clean: makes the label of a text; `tiny_audio.text.labels.clean_label` by default. A text of which nothing is
            left is skipped.
        limits: those of `Limits`.

    Returns:
        int64 (usable,) positions in the corpus, and the clips left out.
    """
    clean, allowed = clean or default_clean(), Limits(**limits)
    skipped = Skipped(total=len(corpus))
    durations = corpus.durations
    usable = []
    for index, (id, text) in enumerate(zip(corpus.ids, corpus.texts, strict=True)):
        seconds, detail = _readable(corpus, index, float(durations[index]))
        durations[index] = seconds
        reason = UNREADABLE if detail else allowed.unusable_length(seconds)
        if reason is None:
            reason, detail = allowed.unusable_text(text, clean(text), seconds)
        if reason is None:
            usable.append(index)
        else:
            skipped.add(id, reason, detail, None if math.isnan(seconds) else round(seconds, 3))
    return np.array(usable, dtype=np.int64), skipped


def _readable(corpus: Corpus, index: int, seconds: float) -> tuple[float, str]:
    """Seconds and "", or NaN and why: a missing file, or what decoding says where the header could not be read."""
    if math.isnan(seconds):
        try:
            return corpus.load(index).duration, ""
        except (ValueError, OSError) as error:
            return math.nan, str(error)
    path = corpus.audio_path(index)
    if path is not None and not os.path.isfile(path):
        return math.nan, f"{path} does not exist; expected an audio file."
    return seconds, ""


def default_clean() -> Callable[[str], str]:
    """What makes labels of texts, imported when it is needed."""
    from tiny_audio.text.labels import clean_label

    return clean_label
