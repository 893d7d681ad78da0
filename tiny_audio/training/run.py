"""A training run from settings to its result: data, model, trainer, summary."""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from shlex import quote
from typing import Any

import torch
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from transformers import TrainerCallback, set_seed
from yaml import YAMLError

from tiny_audio.console import say, table, warn
from tiny_audio.data import Corpus, Skipped, open_corpus, parts_of
from tiny_audio.data.augmentation import Recordings
from tiny_audio.data.stream_batches import place_among_ranks
from tiny_audio.errors import TinyAudioError, require_extra
from tiny_audio.evaluation.results import write_atomically
from tiny_audio.model.encoders import quiet_transformers
from tiny_audio.model.modeling import ASRModel
from tiny_audio.model.processor import ASRProcessor
from tiny_audio.model_source import BEST

from .budget import with_budget, with_seconds
from .build import PartSize, build_model, part_sizes
from .cached_feed import CachedFeed, check_frozen
from .checkpoints import SETTINGS_FILE, checkpoints, find_resume, latest_checkpoint, step_of, tidy
from .compilation import check_compiler
from .config import compose, overridden
from .cost import Spent, plan, spent
from .ctc import leaves_head_behind
from .feed import Feed, feed_of
from .initialization import match_embedding_scale
from .interruption import StopOnTerminate
from .precision import check_precision
from .processes import gathered, is_first, joined, said_once, summed, together
from .progress import ShowProgress, training_bar
from .publish import check_push, publishing
from .record import Recorder
from .schema import AUTO, SECTIONS, Settings, to_settings, to_tree
from .trainer import SpeechTrainer, per_cent
from .validation import Validation

OUTPUTS = Path("outputs")
SKIPPED_FILE = "skipped.jsonl"
# what a run that goes on must have in common with its beginning, or its batches and weights would not fit
FIXED_TRAINING = (
    "batch_seconds", "batch_size", "seed",
    "augment.speed_probability", "augment.speed_factors", "augment.silence_share",
)  # fmt: skip
PART_COLUMNS = ("part", "clips", "hours", "clips an epoch", "hours an epoch", "share")


@dataclass(frozen=True)
class TrainResult:
    """What a run came to; WERs are fractions on the validation sample, `seconds` is the wall time of the training."""

    folder: Path
    model: Path  # the best one by WER
    steps: int
    epochs: float
    seconds: float
    loss: float
    wer: float
    best_wer: float
    spent: Spent
    skipped: Skipped
    next_commands: tuple[str, ...]
    used: dict[str, int]  # clips of each part of a mixture
    pushed: tuple[str, ...] = ()  # a line on what is on the Hub, where that was asked for

    def summary(self) -> str:
        """The result and the next commands to type, for people."""
        minutes, seconds = divmod(round(self.seconds), 60)
        lines = (
            f"Trained {self.steps} steps ({self.epochs:.1f} epochs) in {minutes} min {seconds} s.",
            f"Loss {self.loss:.3f}, validation WER {per_cent(self.wer)}, best {per_cent(self.best_wer)}.",
            self.spent.describe(),
            *([f"Clips used: {shares_of(self.used)}."] if self.used else []),
            f"Data: {self.skipped.summary()}.",
            f"Best model: {self.model}",
            *self.pushed,
            "Next:",
            *(f"  {command}" for command in self.next_commands),
        )
        return "\n".join(lines)


def shares_of(used: dict[str, int]) -> str:
    """Counts by name, with their shares."""
    total = sum(used.values())
    return ", ".join(f"{name} {count:,} ({count / total:.1%})" for name, count in used.items())


def train(settings: Settings, *, resume: str | None = None) -> TrainResult:
    """Trains a model.

    Args:
        settings: of the run.
        resume: "auto", a run's folder or a checkpoint: go on from there.

    Raises:
        TinyAudioError: data, checkpoint or settings are not usable, the loss is no number, a checkpoint cannot be
            written, or SIGTERM came: then a checkpoint was written first. ValueError, OSError: a part of the model cannot be loaded.
    """
    with joined():
        return _train(settings, resume)


def _train(settings: Settings, resume: str | None) -> TrainResult:
    now, settings = gathered(datetime.now())[0], replace(settings, processes=place_among_ranks()[1])
    with together():
        check_machine(settings)
        folder, checkpoint = run_folder(settings, resume, now)
        corpora = None if settings.data.streaming else training_corpora(settings)
        set_seed(settings.training.seed)
        model = build_model(settings.model)
        processor: ASRProcessor = model.processor  # type: ignore[assignment]
        settings = with_budget_before(settings, checkpoint)
    settings = with_budget(settings, model, corpora)
    with together():
        feed = make_feed(settings, corpora, model)
        check_unfinished(checkpoint, feed.steps)
        validation = Validation(settings.data, processor, settings.training.batch_seconds)
        if settings.model.pretrained is None and checkpoint is None:
            match_embedding_scale(model, validation.speech)
    announce(model, feed, validation, folder)
    planned = plan(model, feed, processor, settings.training.distillation_weight > 0)
    begin(settings, folder, feed)
    feed.fill(model)
    started = time.monotonic()
    with (
        training_bar(feed.steps) as bar,
        quiet_transformers(),
        StopOnTerminate() as stop,
        publishing(settings.training, folder) as publishers,
    ):
        callbacks = [stop, ShowProgress(bar, feed.steps), *trackers(settings, folder, checkpoint)]
        trainer = SpeechTrainer(model, settings, feed, validation, folder, callbacks)
        for callback in (Recorder(trainer, now, settings.processes), *publishers):  # which push what was recorded
            trainer.add_callback(callback)
        try:
            trainer.fit(checkpoint)
        except KeyboardInterrupt:
            warn(f"Stopped after step {trainer.state.global_step}. {_how_to_go_on(folder)}")
            raise
        finally:
            if is_first():
                feed.skipped.write(folder / SKIPPED_FILE)
        seconds = time.monotonic() - started
        if trainer.state.global_step < feed.steps:
            ended = f"Ended by SIGTERM after step {trainer.state.global_step}. {_how_to_go_on(folder)}"
            raise said_once(TinyAudioError(ended))
    share = 1 - trainer.start_step / feed.steps
    processes, flops, busy = summed((1, trainer.meter.all_flops, trainer.meter.all_seconds))
    cost = spent(share * planned.steps, flops, busy / processes, trainer.gpus, round(processes))
    return result(trainer, settings, seconds, cost, [publisher.outcome() for publisher in publishers])


def _how_to_go_on(folder: Path) -> str:
    kept = latest_checkpoint(folder)
    if kept is None:
        return "No checkpoint was written yet; training.save_steps says how often one is."
    several = f" --num-processes {os.environ.get('LOCAL_WORLD_SIZE', 'N')}" if place_among_ranks()[1] > 1 else ""
    return f"{kept.name} is whole; go on with: ta train --resume {quote(str(folder))}{several}"


def training_corpora(settings: Settings) -> list[Corpus]:
    """The clips to train on, of each part of a mixture, sampled if the settings say so."""
    parts = parts_of(settings.data)
    return [open_corpus(part, part.train_split, max_samples=part.max_train_samples) for part in parts]


def make_feed(settings: Settings, corpora: list[Corpus] | None, model: ASRModel) -> Feed:
    """What the model is trained on; its `fill` comes before the first step.

    Args:
        corpora: of `training_corpora`; None for a stream.

    Raises:
        TinyAudioError: no clip can be trained on, or the encoder's frames are to be kept and it is trained.
    """
    window = model.processor.max_samples
    if corpora is None or not settings.training.cache_features:
        return feed_of(settings, corpora, window)
    check_frozen(model)
    return CachedFeed(corpora, settings, window)


def check_machine(settings: Settings) -> None:
    """Fails early where something that the settings ask for is not here."""
    check_precision(settings.training.dtype)
    if settings.training.push_to is not None:
        check_push(settings.training.push_to)
    if settings.training.compile:
        check_compiler()
    for folder in (settings.training.augment.noise_folder, settings.training.augment.rir_folder):
        if folder is not None:
            Recordings(folder)
    if settings.processes > 1 and torch.backends.mps.is_available():
        raise TinyAudioError(
            "Several processes train on CUDA GPUs or CPUs; this machine has one Apple GPU for one process."
        )
    if settings.training.fsdp and settings.processes == 1:
        raise TinyAudioError("training.fsdp needs several processes to spread the model over; see --num-processes.")
    if settings.training.report_to == "tensorboard":
        require_extra("tensorboard", "train")
    if settings.training.report_to == "wandb":
        require_extra("wandb", "wandb")


def settings_to_resume(
    resume: str, overrides: Sequence[str] = (), *, data: str | None = None, output_dir: Path | None = None
) -> tuple[Settings, Path]:
    """The settings that a run began with, changed by what the command line says, and the checkpoint to go on from."""
    checkpoint = find_resume(resume, None, output_dir, OUTPUTS)
    file = checkpoint.parent / SETTINGS_FILE
    if not file.is_file():
        return compose(None, overrides, data=data, output_dir=checkpoint.parent), checkpoint
    tree = saved_settings(file)
    return to_settings(overridden(tree, overrides, data=data)), checkpoint


def saved_settings(file: Path) -> dict[str, Any]:
    """The tree of settings that a run began with.

    Raises:
        TinyAudioError: the file is damaged.
    """
    try:
        tree: Any = OmegaConf.to_container(OmegaConf.load(file))
        return {**tree, **{section: dict(tree[section]) for section in SECTIONS}}
    except (ValueError, TypeError, KeyError, YAMLError, OmegaConfBaseException) as error:
        raise TinyAudioError(
            f"{file} is damaged; expected the settings that the run began with: begin anew with model.pretrained="
            f"{quote(str(file.parent))}."
        ) from error


def run_folder(settings: Settings, resume: str | None, now: datetime) -> tuple[Path, Path | None]:
    """The folder of a run that begins now, and the checkpoint it goes on from.

    Raises:
        TinyAudioError: the folder holds another run, or the one to resume was made with other settings.
    """
    wanted = Path(settings.output_dir) if settings.output_dir else None
    if resume is None:
        folder = wanted or OUTPUTS / f"{settings.experiment}-{now:%Y%m%d-%H%M%S}"
        if checkpoints(folder):
            raise TinyAudioError(
                f"{folder} already holds a run; go on with it by --resume {quote(str(folder))}, or name another --output-dir."
            )
        return folder, None
    checkpoint = find_resume(resume, settings.experiment, wanted, OUTPUTS)
    check_same_run(settings, checkpoint)
    return checkpoint.parent, checkpoint


def check_same_run(settings: Settings, checkpoint: Path) -> None:
    """Compares with the settings that the run began with: some may change on the way, some may not."""
    file = checkpoint.parent / SETTINGS_FILE
    if not file.is_file():
        return
    before, now = saved_settings(file), to_tree(settings)
    check_same_steps(checkpoint, before, settings)
    current = flat({section: now[section] for section in SECTIONS})
    earlier = flat({section: before[section] for section in SECTIONS})
    changed = {key: (old, current.get(key)) for key, old in earlier.items() if current.get(key) != old}
    fixed = {f"training.{name}" for name in FIXED_TRAINING}
    described = {key: f"{key} was {old}, is {new}" for key, (old, new) in changed.items()}
    if settings.training.batch_seconds == AUTO:  # what was found then is taken
        described.pop("training.batch_seconds", None)
    wrong = [text for key, text in described.items() if not key.startswith("training.") or key in fixed]
    if wrong:
        raise TinyAudioError(f"{checkpoint} belongs to a run with other settings: {'; '.join(wrong)}.")
    if described:
        warn(f"Going on with other settings: {'; '.join(described.values())}.")


def check_same_steps(checkpoint: Path, before: Mapping[str, Any], settings: Settings) -> None:
    """A step's batches may be spread in another way over processes and accumulation, but stay as many."""
    processes, steps = before.get("processes", 1), before["training"]["gradient_accumulation_steps"]
    now = settings.processes * settings.training.gradient_accumulation_steps
    if now != processes * steps or (settings.data.streaming and processes != settings.processes):
        only = "; streamed data stay with their number of processes" if settings.data.streaming else ""
        raise TinyAudioError(
            f"{checkpoint} belongs to a run with {processes} process{'es' * (processes > 1)} × "
            f"training.gradient_accumulation_steps={steps} batches a step; expected as many again, not "
            f"{settings.processes} × {settings.training.gradient_accumulation_steps}{only}."
        )


def with_budget_before(settings: Settings, checkpoint: Path | None) -> Settings:
    """The settings with the budget that a run to go on with has found, where they say `auto`."""
    if settings.training.batch_seconds != AUTO or checkpoint is None:
        return settings
    file = checkpoint.parent / SETTINGS_FILE
    if not file.is_file():
        raise TinyAudioError(f"{file} is not there, so what training.batch_seconds=auto found is not known; set it.")
    before = saved_settings(file)["training"]
    checkpointing = settings.training.gradient_checkpointing or before["gradient_checkpointing"]
    return with_seconds(settings, before["batch_seconds"], gradient_checkpointing=checkpointing)


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A tree's values by their dotted keys."""
    values: dict[str, Any] = {}
    for key, value in tree.items():
        values |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return values


def check_unfinished(checkpoint: Path | None, steps: int) -> None:
    """Says so where nothing is left to do."""
    if checkpoint is not None and step_of(checkpoint) >= steps:
        raise TinyAudioError(
            f"{checkpoint.parent} is finished: {step_of(checkpoint)} of {steps} steps; raise training.max_steps (or "
            "training.num_epochs) to go on, or start anew without --resume."
        )


def announce(model: ASRModel, feed: Feed, validation: Validation, folder: Path) -> None:
    """Says what is trained, on what, and where it goes."""
    show_parts(part_sizes(model))
    if leaves_head_behind(model):
        warn("The encoder is trained and the CTC head is not, so word times drift; model.ctc_head=true trains it too.")
    if rows := feed.describe_parts():
        table(PART_COLUMNS, rows, right=PART_COLUMNS[1:])
    say(f"Training: {feed.describe()}.")
    if len(feed.skipped):
        say(f"Training: {feed.skipped.summary()}; listed in {folder / SKIPPED_FILE}.")
    say(f"Validation: {validation.describe()}.")
    say(f"Run folder: {folder}")


def show_parts(sizes: list[PartSize]) -> None:
    """The table of parameters."""
    rows = [(size.name, f"{size.total:,}", f"{size.trainable:,}") for size in sizes]
    rows.append(("all", f"{sum(size.total for size in sizes):,}", f"{sum(size.trainable for size in sizes):,}"))
    table(("part", "parameters", "trained"), rows, right=("parameters", "trained"))


def begin(settings: Settings, folder: Path, feed: Feed) -> None:
    """Makes the run's folder and writes down what the run is made of."""
    if not is_first():
        return
    folder.mkdir(parents=True, exist_ok=True)
    tidy(folder)
    write_atomically(folder / SETTINGS_FILE, OmegaConf.to_yaml(OmegaConf.structured(settings)))
    feed.skipped.write(folder / SKIPPED_FILE)


def trackers(settings: Settings, folder: Path, checkpoint: Path | None) -> list[TrainerCallback]:
    """What draws the curves."""
    if not is_first():
        return []
    if settings.training.report_to == "tensorboard":
        from torch.utils.tensorboard import SummaryWriter
        from transformers.integrations import TensorBoardCallback

        after = None if checkpoint is None else step_of(checkpoint) + 1
        return [TensorBoardCallback(SummaryWriter(str(folder / "tensorboard"), purge_step=after))]
    if settings.training.report_to == "wandb":
        from transformers.integrations import WandbCallback

        os.environ.setdefault("WANDB_PROJECT", "tiny-audio")
        return [WandbCallback()]
    return []


def result(
    trainer: SpeechTrainer, settings: Settings, seconds: float, cost: Spent, pushed: Sequence[str] = ()
) -> TrainResult:
    """Collects what the trainer logged last."""
    history = trainer.state.log_history

    def last(name: str) -> float:
        return next((entry[name] for entry in reversed(history) if name in entry), float("nan"))

    steps, model = trainer.state.global_step, trainer.folder / BEST
    best = quote(str(model))
    commands = [
        f"ta eval -m {best} -d {quote(trainer.feed.parts[0].path)}",
        f"ta transcribe -m {best} CLIP",
        f"ta demo -m {best}",
    ]
    commands.append(f"ta push OWNER/NAME -c {best}")
    if settings.training.report_to == "tensorboard":
        commands.append(f"tensorboard --logdir {quote(str(trainer.folder))}")
    return TrainResult(
        folder=trainer.folder,
        model=model,
        steps=steps,
        epochs=trainer.feed.epochs(steps),
        seconds=seconds,
        loss=last("loss"),
        wer=last("eval_wer"),
        best_wer=trainer.state.best_metric if trainer.state.best_metric is not None else float("nan"),
        spent=cost,
        skipped=trainer.feed.skipped,
        next_commands=tuple(commands),
        used={part.name: trainer.feed.used[part.name] for part in trainer.feed.parts if part.name},
        pushed=tuple(pushed),
    )
