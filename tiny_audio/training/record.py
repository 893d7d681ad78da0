"""What a run came to, in `run.json` of its folder: parameters, data, steps, and what each of its sessions took."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from transformers import TrainerCallback

from tiny_audio.console import warn
from tiny_audio.data import Part
from tiny_audio.data.sources import dataset_name, is_local
from tiny_audio.evaluation.hardware import hardware, library_versions
from tiny_audio.evaluation.results import write_atomically

from .build import part_sizes
from .checkpoints import RUN_FILE
from .processes import is_first, summed
from .trainer import SpeechTrainer

LIBRARIES = ("accelerate", "peft", "tokenizers")  # that shape a training, beside those that shape an evaluation

T = TypeVar("T")


@dataclass
class Dataset:
    """A dataset that was trained on; clips and hours are those that were usable, None where it was streamed."""

    name: str  # the Hub id, or the last part of a local path
    path: str
    config: str | None
    split: str
    revision: str | None
    language: str | None
    on_hub: bool
    clips: int | None = None
    hours: float | None = None
    used: int | None = None  # clips of a mixture's part so far, repeated ones too

    @classmethod
    def of(cls, part: Part, size: tuple[int, float] | None) -> "Dataset":
        """A part of the data, with its clips and hours."""
        clips, hours = size or (None, None)
        name = part.name or dataset_name(part)
        of_it = (part.path, part.config, part.train_split, part.revision, part.language)
        return cls(name, *of_it, not is_local(part), clips, hours)


@dataclass
class Session:
    """One process, or several together, from their start to their last checkpoint or the end."""

    began: str  # ISO 8601
    steps: list[int]  # two: those behind it at its beginning, and at its end
    processes: int
    hardware: dict[str, Any]
    versions: dict[str, str]
    gpu: dict[str, Any] | None = None  # of configs/gpus.yaml: name, dollars an hour, watts; None: not known there
    seconds: float = 0.0  # by the clock, with loading, filling a cache and validation
    audio_seconds: float = 0.0  # trained on, steps that a resume repeats included
    flops: float = 0.0

    @property
    def gpu_hours(self) -> float:
        """Hours times GPUs; 0 on a CPU."""
        return self.seconds * self.processes / 3600 if "gpu" in self.hardware else 0.0

    def priced(self, key: str) -> float | None:
        """GPU hours times what `gpus.yaml` says of an hour; None where it does not say."""
        value = (self.gpu or {}).get(key)
        return None if value is None else self.gpu_hours * value


@dataclass
class Record:
    """run.json."""

    parameters: dict[str, dict[str, int]]  # by part: total, trained
    datasets: list[Dataset]
    prices: str  # when and how those of the GPUs were found
    carbon: float  # kg of CO2 a kWh
    carbon_from: str
    sessions: list[Session] = field(default_factory=list)
    steps: int = 0
    epochs: float | None = None  # None: streamed
    best_wer: float | None = None  # a fraction, on the validation sample
    skipped: dict[str, int] = field(default_factory=dict)  # clips that could not be used, by reason

    @classmethod
    def read(cls, folder: Path) -> "Record | None":
        """A run folder's; None where there is none or it is damaged, which is said."""
        file = folder / RUN_FILE
        if not file.is_file():
            return None
        try:
            stored = json.loads(file.read_text(encoding="utf-8"))
            stored["sessions"] = [_of(Session, session) for session in stored["sessions"]]
            stored["datasets"] = [_of(Dataset, dataset) for dataset in stored["datasets"]]
            return _of(cls, stored)
        except (ValueError, TypeError, KeyError) as error:
            warn(f"{file} is damaged ({error}) and left out: what the run took before is not known.")
            return None

    def write(self, folder: Path) -> None:
        """Whole or not at all."""
        write_atomically(folder / RUN_FILE, json.dumps(asdict(self), ensure_ascii=False, indent=2) + "\n")

    @property
    def seconds(self) -> float:
        return sum(session.seconds for session in self.sessions)

    @property
    def gpu_hours(self) -> float:
        return sum(session.gpu_hours for session in self.sessions)

    @property
    def audio_hours(self) -> float:
        return sum(session.audio_seconds for session in self.sessions) / 3600

    @property
    def flops(self) -> float:
        return sum(session.flops for session in self.sessions)

    @property
    def dollars(self) -> float | None:
        """By the prices of `gpus.yaml` at the time; None where a session's GPU has none."""
        return total([session.priced("dollars") for session in self.sessions])

    @property
    def kilowatt_hours(self) -> float | None:
        """Of the GPUs alone, at the power of their data sheets: about the most that they drew."""
        watts = total([session.priced("watts") for session in self.sessions])
        return None if watts is None else watts / 1000

    @property
    def kg_co2(self) -> float | None:
        return None if self.kilowatt_hours is None else self.kilowatt_hours * self.carbon


def total(numbers: Sequence[float | None]) -> float | None:
    """The sum, where all are known and there is one."""
    known = [number for number in numbers if number is not None]
    return sum(known) if known and len(known) == len(numbers) else None


def _of(kind: type[T], stored: Mapping[str, Any]) -> T:
    """The dataclass, without the keys of other versions."""
    known = {item.name for item in fields(kind)}  # type: ignore[arg-type]
    return kind(**{key: value for key, value in stored.items() if key in known})


class Recorder(TrainerCallback):
    """Writes run.json when a session begins, at every checkpoint, so that a killed run has it, and at the end.

    Args:
        trainer: of the run, before it trains; its parts are as they will be trained.
        began: when this session did, with its loading.
        processes: that train together.
    """

    def __init__(self, trainer: SpeechTrainer, began: datetime, processes: int) -> None:
        self.trainer, self.began = trainer, began
        gpus, feed = trainer.gpus, trainer.feed
        known = gpus.here()
        self.session = Session(
            began=began.astimezone().isoformat(timespec="seconds"),
            steps=[0, 0],
            processes=processes,
            hardware=hardware(str(trainer.args.device)),
            versions=library_versions(LIBRARIES),
            gpu=known and {"name": known[0], "dollars": known[1].dollars, "watts": known[1].watts},
        )
        sizes = zip(feed.parts, feed.part_sizes(), strict=True)
        self.record = Record(
            parameters={
                part.name: {"total": part.total, "trained": part.trainable} for part in part_sizes(trainer.model)
            },
            datasets=[Dataset.of(part, size) for part, size in sizes],
            prices=f"{gpus.date}, {gpus.prices}",
            carbon=gpus.carbon,
            carbon_from=gpus.carbon_from,
            sessions=[self.session],
        )

    def on_train_begin(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        start = self.trainer.start_step
        before = Record.read(self.trainer.folder) if start and is_first() else None
        self.record.sessions = [*(before.sessions if before else ()), self.session]
        self.session.steps = [start, start]
        self._write(state)

    def on_save(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        self._write(state)

    def on_train_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        self._write(state)

    def _write(self, state: Any) -> None:
        """All processes come here; the first one writes."""
        meter, feed = self.trainer.meter, self.trainer.feed
        audio_seconds, flops = summed((meter.all_audio_seconds, meter.all_flops))
        if not is_first():
            return
        session, record = self.session, self.record
        session.steps[1] = state.global_step
        session.seconds = round((datetime.now() - self.began).total_seconds(), 1)
        session.audio_seconds, session.flops = round(audio_seconds, 1), flops
        record.steps, record.best_wer = state.global_step, state.best_metric
        record.epochs = None if None in feed.part_sizes() else round(feed.epochs(state.global_step), 3)
        record.skipped = feed.skipped.counts
        for dataset, part in zip(record.datasets, feed.parts, strict=True):
            dataset.used = feed.used[part.name] if part.name else None
        try:
            record.write(self.trainer.folder)
        except OSError as error:  # a full disk: no reason to end a training
            warn(f"{RUN_FILE} was not written ({error.strerror or error}); the run goes on.")
