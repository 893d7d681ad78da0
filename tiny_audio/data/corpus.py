"""A map-style dataset of speech: rows, durations, seeded samples, and decoded examples."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from .columns import Columns
from .durations import SAMPLING_RATE, probe_duration, probe_durations
from .layout import AUDIO_SUFFIXES
from .records import Records, audio_path

METADATA_TYPES: dict[str, Any] = {"words": list, "turns": list}  # times of words, turns of speakers; others are scalars


@dataclass
class Row:
    """One clip as it is stored.

    `audio` is a path, encoded bytes, or a dict with `bytes` and `path` or with `array` and `sampling_rate`;
    `duration` is seconds as the dataset states them, None where it does not; `text` is as written, not cleaned.
    """

    id: str
    audio: Any
    text: str
    duration: float | None = None  # seconds
    offset: float | None = None  # seconds into the recording, for several clips that share one file
    metadata: dict[str, Any] = field(default_factory=dict)
    part: str = ""  # of a mixture


@dataclass
class Example:
    """One clip, decoded: `waveform` is float32 (samples,) mono at 16 kHz, `duration` its length in seconds."""

    id: str
    waveform: np.ndarray
    text: str
    duration: float
    metadata: dict[str, Any] = field(default_factory=dict)
    part: str = ""  # of a mixture


def load_row(row: Row) -> Example:
    """Decodes the audio of a row.

    Raises:
        ValueError: not audio, empty, NaN. OSError: missing or unreadable. Both say which clip and why.
    """
    from tiny_audio.audio.reading import load_audio

    audio = fetched(row.audio)
    waveform = load_audio(audio) if row.offset is None else _part(audio, row.offset, row.duration)
    if not len(waveform):
        raise ValueError(f"Clip {row.id} holds no audio samples; expected speech.")
    return Example(row.id, waveform, row.text, len(waveform) / SAMPLING_RATE, row.metadata, row.part)


def _part(audio: Any, offset: float, duration: float | None) -> np.ndarray:
    """A clip out of a longer recording, which is decoded up to the clip's end and never held as a whole."""
    from tiny_audio.audio.reading import stream_audio

    start = round(offset * SAMPLING_RATE)
    end = start + round(duration * SAMPLING_RATE) if duration is not None else None
    blocks, position = [], 0
    for block in stream_audio(audio):
        blocks.append(block[max(0, start - position) : None if end is None else max(0, end - position)])
        position += len(block)
        if end is not None and position >= end:
            break
    return np.concatenate(blocks)


def fetched(audio: Any) -> Any:
    """Bytes of what only fsspec can open (`hf://…`, `zip://a.wav::…`), as streamed datasets name their files."""
    path = audio.get("path") if isinstance(audio, dict) and not (audio.get("bytes") or audio.get("array")) else audio
    if not isinstance(path, str) or "://" not in path or path.startswith(("http://", "https://")):
        return audio
    import fsspec

    with fsspec.open(path, "rb") as file:
        return file.read()


def row_duration(row: Row) -> float | None:
    """Seconds of a clip as its row states them, else from the header of its audio; None where that is unreadable."""
    if row.duration is not None:
        return row.duration
    try:
        seconds = probe_duration(fetched(row.audio))
    except (ValueError, OSError):
        return None
    return None if np.isnan(seconds) else seconds


@dataclass(frozen=True)
class RowReader:
    """Turns a stored record into a Row: picks the columns and resolves relative paths."""

    columns: Columns
    base: Path | None  # folder that relative audio paths start from
    prefix: str  # of the ids of rows that carry none
    part: str = ""  # of a mixture; begins the ids, since other parts have the same ones

    def __call__(self, record: dict[str, Any], index: int) -> Row:
        names = self.columns
        return Row(
            id=self.row_id(record.get(names.id) if names.id else None, audio_path(record.get(names.audio)), index),
            audio=self._audio(record.get(names.audio)),
            text=_text(record.get(names.text)),
            duration=_seconds(record.get(names.duration), names.durations_per_second) if names.duration else None,
            offset=_seconds(record.get(names.offset)) if names.offset else None,
            metadata={name: value for name, value in record.items() if self._is_metadata(name, value)},
            part=self.part,
        )

    def row_id(self, given: Any, audio: str | None, index: int) -> str:
        """The dataset's own id; else the audio's file name without suffix; else split and row number."""
        own = self._own_id(given, audio, index)
        return f"{self.part}/{own}" if self.part else own

    def _own_id(self, given: Any, audio: str | None, index: int) -> str:
        if given not in (None, ""):
            return str(given)
        if audio and self.columns.offset is None:
            path = Path(audio)
            return (path.with_suffix("") if path.suffix.lower() in AUDIO_SUFFIXES else path).as_posix()
        return f"{self.prefix}-{index:06d}"

    def _audio(self, cell: Any) -> Any:
        if isinstance(cell, dict) and not cell.get("bytes") and isinstance(cell.get("path"), str):
            return {**cell, "path": self.resolved(cell["path"])} if cell.get("array") is None else cell
        return self.resolved(cell) if isinstance(cell, str) else cell

    def resolved(self, path: str) -> str:
        """An audio path as it can be opened: relative ones start at the manifest's folder; URLs stay."""
        return path if self.base is None or "://" in path or not path else str(self.base / Path(path).expanduser())

    def _is_metadata(self, name: str, value: Any) -> bool:
        used = (self.columns.audio, self.columns.text, self.columns.id, self.columns.duration, self.columns.offset)
        return name not in used and isinstance(value, METADATA_TYPES.get(name, str | int | float | bool))


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _seconds(value: Any, per_second: int = 1) -> float | None:
    try:
        seconds = float(value) / per_second
    except (TypeError, ValueError):
        return None
    return seconds if np.isfinite(seconds) and seconds >= 0 else None


class Corpus:
    """One split of a dataset, by position: `rows[i]` as stored, `load(i)` decoded.

    A corpus is a view of its records: `select` and `sample` share them. It can be pickled, for the workers of a loader.
    """

    def __init__(self, name: str, split: str, records: Records, reader: RowReader, positions: np.ndarray) -> None:
        self.name = name
        self.split = split
        self.records = records
        self.reader = reader
        self.positions = positions  # of this corpus's rows in the records

    def __len__(self) -> int:
        return len(self.positions)

    def __repr__(self) -> str:
        return f"Corpus({self.name!r}, split={self.split!r}, clips={len(self)})"

    @property
    def rows(self) -> Sequence[Row]:
        """The rows, each read from the records when it is asked for."""
        return _Rows(self)

    def row(self, index: int) -> Row:
        """The row at a position of this corpus, not decoded."""
        position = int(self.positions[index])
        row = self.reader(self.records[position], position)
        return replace(row, id=self._ids[position])

    def id(self, index: int) -> str:
        """The clip's id, unique within the split."""
        return self._ids[self.positions[index]]

    def load(self, index: int) -> Example:
        """Decodes a clip; raises as `load_row` does."""
        return load_row(self.row(index))

    def select(self, indices: Sequence[int] | np.ndarray) -> "Corpus":
        """The clips at these positions of this corpus, in this order."""
        chosen = Corpus(self.name, self.split, self.records, self.reader, self.positions[np.asarray(indices, int)])
        chosen.__dict__.update(
            {
                key: self.__dict__[key]
                for key in ("_ids", "_paths", "_is_files", "_known_seconds")
                if key in self.__dict__
            }
        )
        return chosen

    def sample(self, n: int, seed: int) -> "Corpus":
        """At most `n` clips drawn at random, in stored order; a smaller sample of the same seed is part of a larger."""
        order = np.random.default_rng(seed).permutation(len(self))
        return self.select(np.sort(order[:n]))

    @cached_property
    def texts(self) -> list[str]:
        """The transcripts as written, one a clip, without touching the audio."""
        column = self.records.column(self.reader.columns.text)
        return [_text(column[position]) for position in self.positions]

    @property
    def ids(self) -> list[str]:
        """Ids of the clips, unique within the split."""
        return [self.id(index) for index in range(len(self))]

    @cached_property
    def durations(self) -> np.ndarray:
        """float32 (clips,) seconds: stated by the dataset, else from the files' headers; NaN where unreadable."""
        seconds = self._known_seconds[self.positions]
        unknown = np.flatnonzero(np.isnan(seconds))
        seconds[unknown] = probe_durations(_Probe(self, int(index)) for index in unknown)
        self._known_seconds[self.positions] = seconds  # for the corpora selected from this one
        return seconds

    def audio_path(self, index: int) -> str | None:
        """The local file of a clip, or None where its audio stands in the dataset itself or on a server."""
        name = self._paths[self.positions[index]] if self._is_files else None
        path = self.reader.resolved(name) if name else None
        return None if path is None or "://" in path else path

    @cached_property
    def _ids(self) -> list[str]:
        names = self.reader.columns
        given = self.records.column(names.id) if names.id else [None] * len(self.records)
        return _unique([self.reader.row_id(*pair, i) for i, pair in enumerate(zip(given, self._paths, strict=True))])

    @cached_property
    def _paths(self) -> list[str | None]:
        return self.records.audio_paths(self.reader.columns.audio)

    @cached_property
    def _is_files(self) -> bool:
        """Whether the audio stands in files beside the dataset, not in it."""
        return isinstance(self.records[0].get(self.reader.columns.audio), str)

    @cached_property
    def _known_seconds(self) -> np.ndarray:
        names = self.reader.columns
        stated = self.records.column(names.duration) if names.duration else [None] * len(self.records)
        seconds = (_seconds(value, names.durations_per_second) for value in stated)
        return np.array([np.nan if value is None else value for value in seconds], dtype=np.float32)


@dataclass(frozen=True)
class _Probe:
    """Reads one clip's audio cell when a probing thread asks for it."""

    corpus: Corpus
    index: int

    def __call__(self) -> Any:
        return fetched(self.corpus.row(self.index).audio)


class _Rows(Sequence[Row]):
    def __init__(self, corpus: Corpus) -> None:
        self.corpus = corpus

    def __len__(self) -> int:
        return len(self.corpus)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return [self.corpus.row(i) for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        return self.corpus.row(index)

    def __iter__(self) -> Iterator[Row]:
        return (self.corpus.row(index) for index in range(len(self)))


def _unique(ids: list[str]) -> list[str]:
    """Repeated ids get the row number appended: results are keyed by id."""
    seen: set[str] = set()
    for index, name in enumerate(ids):
        if name in seen:
            ids[index] = f"{name}#{index}"
        seen.add(ids[index])
    return ids
