"""What is known of a checkpoint: its config and sizes, the runs that made it, and the evaluations of it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tiny_audio.analysis.runs import evaluations, same_path
from tiny_audio.audio.reading import SAMPLING_RATE
from tiny_audio.console import say
from tiny_audio.data import Part, parts_of
from tiny_audio.errors import TinyAudioError
from tiny_audio.evaluation.results import SETTINGS, Metrics
from tiny_audio.model.config import ASRConfig
from tiny_audio.model.encoders import adapter_for
from tiny_audio.model_source import ModelSource, checkpoint_of, public_name
from tiny_audio.training.build import PartSize, outline_of, part_sizes
from tiny_audio.training.checkpoints import SETTINGS_FILE
from tiny_audio.training.record import Dataset, Record
from tiny_audio.training.run import saved_settings
from tiny_audio.training.schema import Settings, to_settings


@dataclass(frozen=True)
class Stage:
    """A training run: its settings and what it recorded, where they are there."""

    folder: Path
    settings: Settings | None
    record: Record | None

    @property
    def datasets(self) -> list[Dataset]:
        """What it was trained on; of a run without a record, what its settings name."""
        if self.record is not None:
            return self.record.datasets
        return [_named(part) for part in parts_of(self.settings.data)] if self.settings else []


@dataclass(frozen=True)
class Facts:
    """All that a card is written from."""

    repository: str
    config: ASRConfig
    parts: Sequence[PartSize]
    stages: Sequence[Stage]  # the first one first, this checkpoint's run last; none: not known
    started_from: str | None  # the model that the first stage went on from: Hub id, shipped name, or that of a folder
    evaluations: Sequence[Metrics]  # the newest of each dataset, split and normaliser
    given: Mapping[str, Any]  # metadata of the card that is there

    @property
    def name(self) -> str:
        return self.repository.split("/")[-1]

    @property
    def run(self) -> Stage | None:
        """The run that wrote the checkpoint."""
        return self.stages[-1] if self.stages else None

    @property
    def records(self) -> list[Record]:
        return [stage.record for stage in self.stages if stage.record is not None]

    @cached_property
    def datasets(self) -> list[Dataset]:
        """Of all stages, each once."""
        found = {(each.path, each.config, each.split): each for stage in self.stages for each in stage.datasets}
        return list(found.values())

    @property
    def languages(self) -> list[str]:
        """Of the speech that was trained on, where every dataset's is known."""
        known = [dataset.language for dataset in self.datasets]
        return sorted({language for language in known if language}) if all(known) else []

    @property
    def window_seconds(self) -> float | None:
        """The longest audio that the encoder takes at once; None: any."""
        samples = adapter_for(self.config.audio_config, self.config.encoder_file).max_samples
        return None if samples is None else samples / SAMPLING_RATE


def gather(checkpoint: Path, repository: str, given: Mapping[str, Any]) -> Facts:
    """Reads what there is about a checkpoint.

    Raises:
        TinyAudioError: it holds no config.json of ours. ValueError: its parts do not fit.
    """
    source = ModelSource.of(str(checkpoint))
    if source.model_type() != "asr_model":
        raise TinyAudioError(f"{checkpoint} holds a model of another kind; expected a checkpoint of tiny-audio.")
    checkpoint, config = Path(source.location), ASRConfig.from_pretrained(source.location)
    stages, started_from = stages_of(checkpoint)
    parts, measured = part_sizes(outline_of(config)), evaluations_of(checkpoint)
    return Facts(repository, config, parts, stages, started_from, measured, given)


def stages_of(checkpoint: Path) -> tuple[list[Stage], str | None]:
    """The runs that made a checkpoint, the first one first, and the model that it all began with, if it was one."""
    stages: list[Stage] = []
    before: str | None = str(checkpoint)
    while before is not None and Path(before).expanduser().exists():
        folder = Path(checkpoint_of(before)).expanduser().resolve().parent
        stage = Stage(folder, _settings(folder), Record.read(folder))
        if (stage.settings is None and stage.record is None) or folder in [known.folder for known in stages]:
            break
        stages.append(stage)
        before = stage.settings.model.pretrained if stage.settings else None
    return stages[::-1], public_name(before) if stages and before else None


def hours(dataset: Dataset) -> str:
    """Of audio; empty where they are not known."""
    return "" if dataset.hours is None else f"{dataset.hours:,.2f} h"


def _settings(folder: Path) -> Settings | None:
    if not (folder / SETTINGS_FILE).is_file():
        return None
    try:
        return to_settings(saved_settings(folder / SETTINGS_FILE))
    except TinyAudioError as error:
        say(f"Left out of the card: {error}")
        return None


def _named(part: Part) -> Dataset:
    try:
        return Dataset.of(part, None)
    except TinyAudioError:  # a local path that is no longer there
        return Dataset(Path(part.path).name, part.path, part.config, part.train_split, None, part.language, False)


def evaluations_of(checkpoint: Path) -> list[Metrics]:
    """The newest evaluation of each dataset, split and normaliser, of these weights."""
    run = checkpoint.resolve().parent
    inside = evaluations(run) if (run / SETTINGS_FILE).is_file() else []
    of_it = [m for m in [*evaluations(), *inside] if same_path(checkpoint_of(m.model), str(checkpoint))]
    newest: dict[tuple, Metrics] = {}
    for metrics in sorted(of_it, key=lambda m: m.date):
        if _measured(metrics.folder) not in (None, ModelSource.of(str(checkpoint)).fingerprint()):
            say(f"Left out of the card: {metrics.folder} measured the checkpoint before it was trained anew.")
            continue
        kind = [str(metrics.dataset.get(key)) for key in ("path", "config", "split", "max_samples")]
        newest[*kind, metrics.normalizer["name"]] = metrics
    return list(newest.values())


def _measured(folder: Path) -> str | None:
    """The fingerprint of the weights that an evaluation measured."""
    try:
        return json.loads((folder / SETTINGS).read_text(encoding="utf-8")).get("model_fingerprint")
    except (OSError, ValueError, AttributeError):
        return None
