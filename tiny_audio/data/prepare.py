"""A filtered copy of a dataset as sharded Parquet, each shard written whole, so that a broken-off copy goes on."""

import hashlib
import io
import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from tiny_audio.errors import TinyAudioError

from .collator import Dropped, load_or_drop
from .config import DataConfig, Part, evaluated, parts_of
from .corpus import Row, fetched, load_row
from .durations import SAMPLING_RATE
from .filtering import Limits, default_clean
from .inspect import blocks
from .layout import WHOLE
from .sources import NoSuchSplit, dataset_name, is_local, local_splits
from .stream_batches import UsableRows

NOTES = b"tiny_audio"  # key of the Parquet metadata that says which rows a shard was made of
CARD, SKIPPED_FILE, DATA = "README.md", "skipped.jsonl", "data"
ROW_GROUP = 100  # clips that a reader of the copy holds at once
BLOCK_ROWS = 64  # rows that are decoded together
ROLES = ("train", "validation", "test")

Progress = Callable[[int], None]  # told how many clips are done


@dataclass(frozen=True)
class Form:
    """How a copy is written.

    Args:
        shard_mb, shard_seconds: a shard ends with the clip that reaches either, in megabytes of audio or in seconds.
        as_is: keep the audio's own bytes instead of 16 kHz FLAC.
        workers: threads that decode and encode.
    """

    shard_mb: float = 400.0
    shard_seconds: float | None = None
    as_is: bool = False
    workers: int = 2


@dataclass
class PreparedSplit:
    """What one split of the copy holds; `skipped` are entries as of skipped.jsonl."""

    role: str
    clips: int = 0
    seconds: float = 0.0
    shards: int = 0
    skipped: list[dict[str, Any]] = field(default_factory=list)

    def __str__(self) -> str:
        reasons = Counter(entry["reason"] for entry in self.skipped)
        skipped = f"; skipped: {', '.join(f'{count} {reason}' for reason, count in reasons.most_common())}"
        hours = f"{self.seconds / 3600:.2f} h in {self.shards} shards"
        return f"{self.role}: {self.clips:,} clips, {hours}{skipped if reasons else ''}"


def prepare(
    config: DataConfig,
    folder: Path,
    roles: Sequence[str] = (),
    form: Form | None = None,
    progress: Progress = lambda clips: None,
) -> list[PreparedSplit]:
    """Copies the usable clips of a dataset, or goes on with a copy that was broken off.

    Args:
        folder: gets data/ROLE-NUMBER.parquet, README.md and skipped.jsonl; `ta train -d FOLDER` reads it.
        roles: of train, validation, test: which to copy, as the configuration names their splits; by default all that
            the dataset has, of one without splits the first two.

    Raises:
        TinyAudioError: a mixture, an unknown split, no usable clip, or a folder that holds another copy.
    """
    if config.mixture is not None:
        raise TinyAudioError("A mixture is prepared part by part; give the name or path of one of its datasets.")
    if is_local(config) and folder.resolve() == Path(config.path).expanduser().resolve():
        raise TinyAudioError(f"{folder} is the dataset itself; expected another folder for its copy.")
    part, form = parts_of(config)[0], form or Form()
    copies = []
    for role in roles or _roles(part):
        try:
            copies.append(_SplitCopy(part, role, folder, form).run(progress))
        except NoSuchSplit:
            if roles:
                raise
    if not any(copy.clips for copy in copies):
        raise TinyAudioError(f"Nothing to copy: {config.path} has no usable clip; see {folder / SKIPPED_FILE}.")
    _write_whole(folder / CARD, card(config, form, copies))
    _write_whole(folder / SKIPPED_FILE, "".join(json.dumps(row) + "\n" for copy in copies for row in copy.skipped))
    return copies


def _roles(part: Part) -> Sequence[str]:
    """A dataset without splits serves as its own test, which a copy beside its training clips must not."""
    return ROLES[:2] if is_local(part) and list(local_splits(part)) == [WHOLE] else ROLES


@dataclass
class _Shard:
    """Clips that become one file."""

    records: list[dict[str, Any]] = field(default_factory=list)
    skipped: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0
    megabytes: float = 0.0

    def add(self, record: dict[str, Any]) -> None:
        self.records.append(record)
        self.seconds += record["duration"]
        self.megabytes += len(record["audio"]["bytes"]) / 1e6

    def is_full(self, form: Form) -> bool:
        return self.megabytes >= form.shard_mb or self.seconds >= (form.shard_seconds or math.inf)


class _SplitCopy:
    """One split on its way into shards."""

    def __init__(self, part: Part, role: str, folder: Path, form: Form) -> None:
        self.role, self.folder, self.form = role, folder / DATA, form
        split = {"train": part.train_split, "validation": part.eval_split, "test": part.test_split}.get(role)
        if split is None:
            raise TinyAudioError(f"{role} is no split of a copy; expected one of {', '.join(ROLES)}.")
        self.limits = Limits.of(part, None)
        samples = part.max_train_samples if role == "train" else None
        source = evaluated(part) if role == "validation" else part
        self.rows = UsableRows(source, split, samples, self.limits, default_clean())
        described = json.dumps([asdict(source), split, form.as_is], sort_keys=True)
        self.fingerprint = hashlib.sha256(described.encode()).hexdigest()
        self.done = PreparedSplit(role)
        self.columns: Any = None  # the Arrow schema of the first shard, which all have
        self.next_row = 0

    def run(self, progress: Progress) -> PreparedSplit:
        self._resume()
        progress(self.done.clips)
        rows = enumerate(islice(self.rows.epoch(None), self.next_row, None), self.next_row)
        shard, number = _Shard(), self.next_row
        for number, made in self._made(rows):
            if isinstance(made, Dropped):
                shard.skipped.append({"split": self.role, **asdict(made)})
                continue
            shard.add(made)
            progress(1)
            if shard.is_full(self.form):
                self._write(shard, number + 1)
                shard = _Shard()
        if shard.records:
            self._write(shard, number + 1)
        else:
            self.done.skipped += shard.skipped
        return self.done

    def _resume(self) -> None:
        """Takes over the shards that are there."""
        import pyarrow.parquet as pq

        for file in sorted(self.folder.glob(f"{self.role}-*.parquet")):
            schema = pq.read_schema(file)
            notes = json.loads((schema.metadata or {}).get(NOTES, b"{}"))
            if notes.get("fingerprint") != self.fingerprint:
                raise TinyAudioError(
                    f"{file} was made otherwise, of another dataset or with other filters; name another folder."
                )
            self.columns, self.next_row = schema, notes["next_row"]
            self._count(notes)

    def _count(self, notes: dict[str, Any]) -> None:
        self.done.shards += 1
        self.done.clips += notes["clips"]
        self.done.seconds += notes["seconds"]
        self.done.skipped += notes["skipped"]

    def _made(self, rows: Iterator[tuple[int, Row | Dropped]]) -> Iterator[tuple[int, dict[str, Any] | Dropped]]:
        with ThreadPoolExecutor(self.form.workers) as pool:
            for block in blocks(rows, BLOCK_ROWS):
                made = pool.map(partial(_record, limits=self.limits, as_is=self.form.as_is), (row for _, row in block))
                yield from zip((number for number, _ in block), made, strict=True)

    def _write(self, shard: _Shard, next_row: int) -> None:
        """Writes a shard, whole or not at all."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        notes = {
            "fingerprint": self.fingerprint, "next_row": next_row, "clips": len(shard.records),
            "seconds": shard.seconds, "skipped": shard.skipped,
        }  # fmt: skip
        try:
            table = pa.Table.from_pylist(shard.records, schema=self.columns and self.columns.remove_metadata())
        except pa.ArrowException as error:
            raise TinyAudioError(
                f"A column of row {next_row} or before changes its type ({error}); drop it."
            ) from error
        self.columns = self.columns or table.schema
        metadata = {**features(table.schema, self.form.as_is), NOTES: json.dumps(notes).encode()}
        file = self.folder / f"{self.role}-{self.done.shards:05d}.parquet"
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = file.with_name(f".{file.name}")
        pq.write_table(table.replace_schema_metadata(metadata), temporary, row_group_size=ROW_GROUP)
        temporary.replace(file)
        self._count(notes)


def features(schema: Any, as_is: bool) -> dict[bytes, bytes]:
    """The Parquet metadata by which `datasets` and the Hub know the audio."""
    from datasets import Audio, Features

    known = Features.from_arrow_schema(schema.remove_metadata())
    known["audio"] = Audio(sampling_rate=None if as_is else SAMPLING_RATE)
    return known.arrow_schema.metadata


def _record(row: Row | Dropped, limits: Limits, as_is: bool) -> dict[str, Any] | Dropped:
    """A row of the copy: text as written, audio in its new form, and the other columns."""
    if isinstance(row, Dropped):
        return row
    clip = load_or_drop(lambda: load_row(row), row.id, limits)
    if isinstance(clip, Dropped):
        return clip
    audio = (_own_bytes(row) if as_is else None) or {"bytes": flac(clip.waveform), "path": f"{row.id}.flac"}
    return {**row.metadata, "id": row.id, "audio": audio, "text": row.text, "duration": round(clip.duration, 3)}


def _own_bytes(row: Row) -> dict[str, Any] | None:
    """The audio as it is stored; None for an array, and for a part of a longer recording."""
    audio = fetched(row.audio)
    if row.offset is not None or isinstance(audio, dict) and audio.get("array") is not None:
        return None
    if isinstance(audio, dict):
        path = audio.get("path") or row.id
        return {"bytes": audio.get("bytes") or Path(path).read_bytes(), "path": Path(path).name}
    data = audio if isinstance(audio, bytes) else Path(audio).read_bytes()
    return {"bytes": data, "path": row.id if isinstance(audio, bytes) else Path(audio).name}


def flac(waveform: np.ndarray) -> bytes:
    """A float32 waveform (samples,) at 16 kHz as 16-bit FLAC."""
    import av

    file = io.BytesIO()
    samples = np.clip(np.round(waveform * 32768), -32768, 32767).astype(np.int16)
    with av.open(file, "w", format="flac") as container:
        stream = container.add_stream("flac", rate=SAMPLING_RATE, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
        frame.sample_rate = SAMPLING_RATE
        resampler = av.AudioResampler("s16", "mono", SAMPLING_RATE, frame_size=stream.frame_size)
        for piece in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(piece))
        container.mux(stream.encode(None))
    return file.getvalue()


def card(config: DataConfig, form: Form, copies: Sequence[PreparedSplit]) -> str:
    """README.md of the copy: where it comes from, what was left out, and the splits as the Hub reads them."""
    limits = ", ".join(f"{name} {value}" for name, value in asdict(Limits.of(config, None)).items() if value)
    source = " ".join(filter(None, (dataset_name(config), config.config, config.revision)))
    splits = "".join(
        f"      - split: {copy.role}\n        path: {DATA}/{copy.role}-*\n" for copy in copies if copy.clips
    )
    return (
        f"---\nconfigs:\n  - config_name: default\n    data_files:\n{splits}---\n\n"
        f"# A copy of {source}\n\nMade by `ta data prepare`: {'the audio as it was' if form.as_is else '16 kHz FLAC'}, "
        f"texts as written. Its licence is that of the source.\n\nFilters: {limits or 'none'}; clips left out are in "
        f"{SKIPPED_FILE} with their reasons.\n\n" + "".join(f"- {copy}\n" for copy in copies)
    )


def _write_whole(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(file)
