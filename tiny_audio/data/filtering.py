"""Which clips can be used, and a list of those that cannot, each with the reason."""

import json
import math
import os
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from .corpus import Corpus
from .durations import SAMPLING_RATE

UNREADABLE = "unreadable"
TOO_LONG_FOR_WINDOW = "longer than the encoder's window"
TOO_LONG = "longer than data.max_seconds"
TOO_SHORT = "shorter than data.min_seconds"
EMPTY_TEXT = "empty text"


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
    corpus: Corpus,
    *,
    max_samples_window: int | None,
    min_seconds: float,
    max_seconds: float | None = None,
    clean: Callable[[str], str] | None = None,
) -> tuple[np.ndarray, Skipped]:
    """Looks at every clip's duration and text, without decoding what the dataset describes.

    Args:
        max_samples_window: the encoder's window in samples at 16 kHz; None where the encoder has none.
        min_seconds, max_seconds: limits of the configuration.
        clean: makes the label of a text; `tiny_audio.text.labels.clean_label` by default. A text of which nothing is
            left is skipped.

    Returns:
        int64 (usable,) positions in the corpus, and the clips left out.
    """
    clean = clean or default_clean()
    skipped = Skipped(total=len(corpus))
    durations = corpus.durations
    usable = []
    for index, (id, text) in enumerate(zip(corpus.ids, corpus.texts, strict=True)):
        seconds, error = _readable(corpus, index, float(durations[index]))
        durations[index] = seconds
        reason = UNREADABLE if error else unusable_length(seconds, max_samples_window, min_seconds, max_seconds)
        if reason is None and not clean(text):
            reason, error = EMPTY_TEXT, text
        if reason is None:
            usable.append(index)
        else:
            skipped.add(id, reason, error, None if math.isnan(seconds) else round(seconds, 3))
    return np.array(usable, dtype=np.int64), skipped


def unusable_length(
    seconds: float, max_samples_window: int | None, min_seconds: float = 0.0, max_seconds: float | None = None
) -> str | None:
    """The reason why a clip of this length cannot be used, or None. Half a sample of rounding is forgiven."""
    if max_samples_window is not None and seconds * SAMPLING_RATE > max_samples_window + 0.5:
        return TOO_LONG_FOR_WINDOW
    if max_seconds is not None and seconds > max_seconds:
        return TOO_LONG
    return TOO_SHORT if seconds < min_seconds else None


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
