"""The one owner of the results folder: results.jsonl (a line a clip), metrics.json, results.txt, settings.json.

results.jsonl is appended while clips finish, so that a killed run loses at most the batch in flight; the other files
are written whole, under a temporary name first. Rates are fractions; texts are raw.
"""

import json
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from tiny_audio.errors import TinyAudioError

SPEAKER_COLUMNS = ("speaker", "speaker_id", "client_id", "spk_id")
EVALUATIONS = Path("outputs") / "eval"  # where folders lie that nobody named
RESULTS, METRICS, SUMMARY, SETTINGS = "results.jsonl", "metrics.json", "results.txt", "settings.json"
SYNC_SECONDS = 1.0  # from one fsync of the results to the next: each can take longer than a small model for a clip


@dataclass
class ClipResult:
    """One line of results.jsonl. A clip that failed has an `error` and neither prediction nor counts."""

    id: str
    duration: float | None  # seconds; None where the audio could not be read
    reference: str
    prediction: str | None = None
    wer: float | None = None
    substitutions: int | None = None
    deletions: int | None = None
    insertions: int | None = None
    seconds: float | None = None  # of decoding: this clip's share, by duration, of its batch
    error: str | None = None
    reference_words: int | None = None
    reference_characters: int | None = None
    character_errors: int | None = None
    normalized_reference: str | None = None  # both sides as they were scored, so that no analysis normalises again
    normalized_prediction: str | None = None
    latency: float | None = None  # seconds from asking to the whole text
    first_token: float | None = None  # seconds from asking to the first piece of text
    snr: float | None = None  # dB, estimated from the samples
    audio: str | None = None  # the clip's file, where it has one of its own: absolute, or relative to the results
    audio_stamp: str | None = None  # size and time of change of that file
    metadata: dict[str, Any] = field(default_factory=dict)  # the dataset's other columns: speaker, accent …
    words: list[dict[str, Any]] | None = None  # of the prediction: text, start, end (seconds), speaker
    reference_times: list[dict[str, Any]] | None = None  # the same of the reference: the dataset's column `words`
    reference_turns: list[dict[str, Any]] | None = None  # speaker, start, end (seconds): the dataset's column `turns`

    @property
    def speaker(self) -> str | None:
        """Who speaks, by the first of the usual column names that the dataset has."""
        named = (self.metadata.get(name) for name in SPEAKER_COLUMNS)
        return next((str(speaker) for speaker in named if speaker is not None), None)

    @property
    def failed(self) -> bool:
        return self.error is not None

    @property
    def word_errors(self) -> int:
        """Substitutions, deletions and insertions of a clip that did not fail."""
        return (self.substitutions or 0) + (self.deletions or 0) + (self.insertions or 0)


@dataclass
class Metrics:
    """metrics.json: one evaluation in figures, with everything needed to compare it. Rates are fractions."""

    wer: float
    wer_interval: tuple[float, float]  # 95 %, bootstrap over clips
    cer: float
    substitutions: int
    deletions: int
    insertions: int
    reference_words: int
    num_samples: int  # clips of the set, failed ones included
    num_failed: int
    audio_seconds: float  # of the clips that were decoded
    decode_seconds: float
    rtfx: float  # audio_seconds / decode_seconds
    rtfx_timed: str  # what decode_seconds holds
    batch_size: int
    normalizer: dict[str, str]  # name and version
    other_normalizer: dict[str, Any]  # the same texts under another normaliser: name, version, wer, wer_interval, cer …
    dataset: dict[str, Any]  # path, config, split, revision, max_samples, seed
    model: str
    provider: str
    decoding: dict[str, Any]
    versions: dict[str, str]
    hardware: dict[str, Any]
    date: str
    sentence_error_rate: float | None = None  # share of clips with any error
    mer: float | None = None  # match error rate
    wil: float | None = None  # word information lost
    wer_interval_by_speaker: tuple[float, float] | None = None  # 95 %, bootstrap over speakers, where there are enough
    empty_references: dict[str, int] = field(default_factory=dict)  # clips, and the words invented on them (insertions)
    latency: dict[str, float] = field(default_factory=dict)  # seconds: p50, p90, p95, p99
    first_token: dict[str, float] = field(default_factory=dict)  # seconds: the same, where the text came in pieces
    seconds: dict[str, float] = field(default_factory=dict)  # of the last run: total, model, audio (waited for), other
    parameters: int | None = None  # of the model, where it is here
    peak_memory_bytes: int | None = None  # of the process on a CPU, of the GPU's allocations on CUDA
    cost_usd: float | None = None  # audio minutes x configured price
    word_time_error: dict[str, Any] = field(default_factory=dict)  # seconds between matched words' times
    diarization: dict[str, Any] = field(default_factory=dict)  # diarization error rate and its parts
    left_out: int = 0  # clips of a benchmark that the leaderboard does not score
    comparable: str = ""  # whether the figure compares with the leaderboard's, or why not
    folder: Path = field(default=Path(), compare=False)  # where it lies; not written

    @property
    def dataset_name(self) -> str:
        """The benchmark's name, a local dataset's last part, or a Hub id."""
        path = self.dataset.get("benchmark") or self.dataset["path"]
        return Path(path).resolve().name if Path(path).exists() else path

    @classmethod
    def read(cls, folder: Path) -> "Metrics":
        """Read a folder's metrics.json; keys of other versions are left out."""
        stored = json.loads((folder / METRICS).read_text(encoding="utf-8"))
        known = {item.name for item in fields(cls)}
        return cls(**{**{key: value for key, value in stored.items() if key in known}, "folder": folder})


class ResultsFolder:
    """One run's folder, opened for appending: `with ResultsFolder(path, settings) as folder: …`.

    Args:
        path: made if need be.
        settings: all that shapes the results; a folder made with others is refused, never mixed.
        stamps: of clips that are files, what changes with the file; results of a file that has changed are dropped.

    Raises:
        TinyAudioError: the folder holds results of other settings (names the keys), of nobody knows which, or another
            process is writing into it.
    """

    def __init__(self, path: Path, settings: dict[str, Any], stamps: Mapping[str, str] | None = None) -> None:
        self.path, self._stamps = path, stamps or {}
        path.mkdir(parents=True, exist_ok=True)
        self._claim(settings)
        self._lock = _locked(path)
        self.results = {result.id: result for result in self._repair()}
        self._file = open(path / RESULTS, "ab")  # noqa: SIM115 - closed by __exit__
        self._synced = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._sync()
        self._file.close()
        self._lock.close()

    def append(self, results: Iterable[ClipResult]) -> None:
        """Write finished clips: a killed process loses none of them, a machine without power those of the last second."""
        new = {result.id: result for result in results if result.id not in self.results}
        self._file.write(b"".join(_line(result) for result in new.values()))
        self._file.flush()
        self.results.update(new)
        if time.monotonic() - self._synced > SYNC_SECONDS:
            self._sync()

    def _sync(self) -> None:
        os.fsync(self._file.fileno())
        self._synced = time.monotonic()

    def finished(self) -> Metrics | None:
        """The metrics, if they cover exactly the results that are here."""
        try:
            metrics = Metrics.read(self.path)
        except (FileNotFoundError, ValueError, TypeError, AttributeError):  # none, or damaged: they are computed again
            return None
        return metrics if metrics.num_samples == len(self.results) else None

    def finish(self, metrics: Metrics, summary: str) -> Metrics:
        """Write metrics.json and results.txt."""
        self._sync()
        values = {key: value for key, value in asdict(metrics).items() if key != "folder"}
        write_atomically(self.path / SUMMARY, summary)
        write_atomically(self.path / METRICS, _json(values, indent=2) + "\n")
        metrics.folder = self.path
        return metrics

    def _claim(self, settings: dict[str, Any]) -> None:
        """Write the settings into a new folder; compare them in one that is there."""
        settings = json.loads(_json(settings))
        file = self.path / SETTINGS
        if not file.exists():
            if (self.path / RESULTS).exists():
                raise TinyAudioError(
                    f"{self.path} holds a {RESULTS} without {SETTINGS}, so nobody knows what it measured; "
                    "choose another --output-dir."
                )
            write_atomically(file, _json(settings, indent=2) + "\n")
            return
        try:
            before = dict(json.loads(file.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise TinyAudioError(f"{file} is damaged, so nobody knows what {self.path} measured; remove it.") from error
        keys = sorted(key for key in before.keys() | settings.keys() if before.get(key) != settings.get(key))
        if keys:
            differences = ", ".join(f"{key} ({before.get(key)} there, {settings.get(key)} now)" for key in keys)
            raise TinyAudioError(
                f"{self.path} holds results of other settings: {differences}; choose another --output-dir."
            )

    def _is_current(self, result: ClipResult) -> bool:
        stamp = self._stamps.get(result.id)
        return stamp is None or result.audio_stamp is None or stamp == result.audio_stamp

    def _repair(self) -> list[ClipResult]:
        """Read the results; drop a half-written end and failed clips, which are tried again."""
        file = self.path / RESULTS
        data = file.read_bytes() if file.exists() else b""
        results = [result for result in _parse(data, file) if not result.failed and self._is_current(result)]
        kept = b"".join(_line(result) for result in results)
        if kept != data:
            write_atomically(file, kept)
        return results


def read_results(folder: Path) -> list[ClipResult]:
    """The clips of a results folder, in the order they were finished; a half-written last line is left out."""
    return _parse((folder / RESULTS).read_bytes(), folder / RESULTS)


def write_atomically(file: Path, content: str | bytes) -> None:
    """Write a file whole or not at all: under a temporary name, synced, then renamed."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    data = content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content
    try:
        with open(temporary, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)


def _parse(data: bytes, file: Path) -> list[ClipResult]:
    lines = data.split(b"\n")
    lines.pop()  # what follows the last line break: nothing, or a line that was being written
    known = {item.name for item in fields(ClipResult)}
    results: dict[str, ClipResult] = {}
    for number, line in enumerate(lines, start=1):
        try:
            values = json.loads(line)
            result = ClipResult(**{key: value for key, value in values.items() if key in known})
        except (ValueError, TypeError, AttributeError) as error:
            if number == len(lines):
                break  # a machine that lost power may leave a broken last line
            raise TinyAudioError(f"Line {number} of {file} is no result of a clip; delete the line.") from error
        results.setdefault(result.id, result)
    return list(results.values())


def _line(result: ClipResult) -> bytes:
    return (_json(asdict(result)) + "\n").encode("utf-8", "backslashreplace")


def _json(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent, default=str)


def _locked(folder: Path) -> BinaryIO:
    """Hold the folder for this process: two runs in one folder would write clips twice."""
    handle = open(folder / SETTINGS, "rb")  # noqa: SIM115 - closed by __exit__
    try:
        import fcntl
    except ImportError:  # Windows
        return handle
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        handle.close()
        raise TinyAudioError(f"Another evaluation is writing into {folder}; wait for it to end.") from error
    return handle


def worst_first(results: Sequence[ClipResult]) -> list[ClipResult]:
    """Scored clips with errors, the highest WER first; then the one with more errors."""
    wrong = [result for result in results if not result.failed and result.word_errors]
    return sorted(wrong, key=lambda result: (-(result.wer or 0), -result.word_errors, result.id))
