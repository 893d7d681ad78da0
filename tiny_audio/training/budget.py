"""`training.batch_seconds=auto`: growing batches are tried on the very model and data; the smallest of the fastest is taken."""

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import psutil
import torch

from tiny_audio.console import say, table
from tiny_audio.data import Corpus
from tiny_audio.data.corpus import Example
from tiny_audio.data.durations import SAMPLING_RATE
from tiny_audio.data.stream_batches import place_among_ranks
from tiny_audio.errors import TinyAudioError
from tiny_audio.evaluation.hardware import peak_memory_bytes
from tiny_audio.model.modeling import ASRModel
from tiny_audio.model.processor import IGNORED_LABEL

from .feed import ClipFeed, Feed, collator_of, feed_of
from .out_of_memory import is_out_of_memory
from .processes import gathered, is_first, together
from .schema import AUTO, Settings
from .trainer import SpeechTrainer, checkpointed_layers
from .validation import Validation

PLANNED_SECONDS = 60.0  # where the budget has to be guessed
FIRST_SECONDS, MOST_SECONDS = 15.0, 2_400.0
LEAST_STEPS = 20  # of an epoch
LARGEST_SHARE = 1 / 3  # of an epoch in a batch, where an epoch has not even the seconds for that
MEMORY_SHARE = 0.85  # of the device that may be held
TIMED_SECONDS = 0.5  # at least, of steps whose fastest counts
ALIKE = 0.95  # of the best speed: as good
STREAMED_SECONDS, STREAMED_WORDS = 30.0, 2.5  # length of made-up clips where the data come as they come, words a second
COLUMNS = ("batch_seconds", "audio-s/s", "memory")


@dataclass(frozen=True)
class Trial:
    """A budget in seconds that was tried: audio seconds a second, and bytes that the device would hold."""

    batch_seconds: float
    speed: float
    memory: float


def with_budget(
    settings: Settings, model: ASRModel, corpora: list[Corpus] | None, *, limit: float | None = None
) -> Settings:
    """The settings with a number in place of `auto`, and with gradient checkpointing where nothing fits without it.

    With several processes the first one decides. Weights and random numbers stay as they were.

    Args:
        settings: of the run; any without `auto` come back as they are.
        model: that is to be trained, with the parts to train unfrozen.
        corpora: to train on; None: they are streamed.
        limit: bytes that may be held; None: a share of what is free on the device.

    Raises:
        TinyAudioError: not even the smallest batch fits.
    """
    if settings.training.batch_seconds != AUTO:
        return settings
    decided = None
    with together():
        if is_first():
            decided = _found(settings, model, corpora, limit)
    seconds, checkpointing = gathered(decided)[0]  # type: ignore[misc]
    return with_seconds(settings, seconds, gradient_checkpointing=checkpointing)


def with_seconds(settings: Settings, batch_seconds: float, **others: object) -> Settings:
    """The settings with another budget, and others of the training."""
    return replace(settings, training=replace(settings.training, batch_seconds=batch_seconds, **others))  # type: ignore[arg-type]


def _found(
    settings: Settings, model: ASRModel, corpora: list[Corpus] | None, limit: float | None
) -> tuple[float, bool]:
    """Seconds of a batch, and whether the language model's layers are computed again."""
    trying = with_seconds(settings, PLANNED_SECONDS, audio_token_dropout=0.0)  # its hook would stay on the model
    feed = feed_of(trying, corpora, model.processor.max_samples)
    validation = Validation(replace(trying.data, max_eval_samples=1), model.processor, PLANNED_SECONDS)
    with TemporaryDirectory() as folder, torch.random.fork_rng(range(torch.cuda.device_count())):
        probe = Probe(SpeechTrainer(model, trying, feed, validation, Path(folder), []), feed)
        limit = MEMORY_SHARE * (probe.held + free_bytes(probe.device)) if limit is None else limit
        budgets = [*budgets_of(feed, settings)]
        trials = search(budgets, probe, probe.held, limit)
        checkpointing = settings.training.gradient_checkpointing
        if not trials and not checkpointing:
            checkpointing = True
            probe.compute_layers_again()
            trials = search(budgets, probe, probe.held, limit)
        probe.end()
    if not trials:
        raise TinyAudioError(
            f"Not even batches of {budgets[0]:g} s fit into {limit / 1e9:.2f} GB, with gradient checkpointing; take a "
            "smaller model, set data.max_seconds, or training.dtype=bf16."
        )
    best = choose(trials)
    rows = [(f"{trial.batch_seconds:g}", f"{trial.speed:.0f}", f"{trial.memory / 1e9:.2f} GB") for trial in trials]
    table(COLUMNS, rows, right=COLUMNS)
    say(f"Found: training.batch_seconds={best.batch_seconds:g}, the smallest within 5 % of the best speed.")
    if checkpointing and not settings.training.gradient_checkpointing:
        say("Found: nothing fits without training.gradient_checkpointing=true, so it is on.")
    return best.batch_seconds, checkpointing


def budgets_of(feed: Feed, settings: Settings) -> Iterator[float]:
    """15 s, 30 s, 60 s, …, as long as an epoch keeps its steps; the first holds the longest clip."""
    most, longest = MOST_SECONDS, STREAMED_SECONDS
    seconds = FIRST_SECONDS
    if isinstance(feed, ClipFeed):
        epoch, longest = feed.sampler.epoch_seconds, float(feed.durations.max())
        ranks = place_among_ranks()[1]
        most = min(most, epoch / (LEAST_STEPS * settings.training.gradient_accumulation_steps * ranks))
        while seconds > LARGEST_SHARE * epoch and seconds / 2 >= longest:
            seconds /= 2
    while seconds < longest:
        seconds *= 2
    yield seconds
    while (seconds := 2 * seconds) <= most:
        yield seconds


def search(
    budgets: Sequence[float], attempt: Callable[[float], Trial | None], held: float, limit: float
) -> list[Trial]:
    """The trials up to the first budget that does not fit or would not, or until larger ones are not faster.

    Args:
        budgets: growing.
        attempt: tries one; None: the memory ran out.
        held: bytes that are held without any batch.
        limit: bytes that may be held.
    """
    trials: list[Trial] = []
    for budget in budgets:
        if trials and held + (trials[-1].memory - held) * budget / trials[-1].batch_seconds > limit:
            break
        trial = attempt(budget)
        if trial is None or trial.memory > limit:
            break
        trials.append(trial)
        if len(trials) > 2 and choose(trials) not in trials[-2:]:
            break
    return trials


def choose(trials: Sequence[Trial]) -> Trial:
    """The smallest of those that are about as fast as the fastest."""
    fastest = max(trial.speed for trial in trials)
    return next(trial for trial in trials if trial.speed >= ALIKE * fastest)


class Probe:
    """Tries budgets with training steps on the longest clips, by the trainer's own loss but without its optimizer.

    Args:
        trainer: of the model.
        feed: whose clips are taken; where they are streamed, noise stands for them.
    """

    def __init__(self, trainer: SpeechTrainer, feed: Feed) -> None:
        self.trainer, self.feed, self.device = trainer, feed, trainer.args.device
        self.training = trainer.model.training
        trained = [parameter for parameter in trainer.model.parameters() if parameter.requires_grad]
        self._before = held_bytes(self.device)
        # AdamW keeps two numbers for each that is trained
        self.held = self._before + 2 * sum(tensor.numel() * tensor.element_size() for tensor in trained)

    def compute_layers_again(self) -> None:
        """Switches gradient checkpointing on."""
        self.trainer._checkpointed = checkpointed_layers(self.trainer.model)

    def end(self) -> None:
        """Leaves the model as it was."""
        self.trainer.model.train(self.training)

    def __call__(self, batch_seconds: float) -> Trial | None:
        """Tries a budget: first for the memory, then for the time."""
        collate = collator_of(self.trainer.validation.processor, self.trainer.settings)
        batch = collate(longest_clips(self.feed, batch_seconds))
        forget_peak(self.device)
        try:
            self._step(batch)
            seconds = self._fastest(batch)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            return None
        finally:
            self._clear()
        padded = len(batch["audio_seconds"]) * float(batch["audio_seconds"].max())
        used = max(0, (peak_memory_bytes(str(self.device)) or 0) - self._before)
        return Trial(batch_seconds, padded / seconds, self.held + used * max(1.0, batch_seconds / padded))

    def _fastest(self, batch: dict[str, Any]) -> float:
        """Seconds of the fastest of some steps: other work on the machine only makes one slower."""
        times: list[float] = []
        while sum(times) < TIMED_SECONDS:
            started = time.perf_counter()
            self._step(batch)
            times.append(time.perf_counter() - started)
        return min(times)

    def _step(self, batch: dict[str, Any]) -> None:
        """Forward and backward."""
        trainer, labels = self.trainer, (batch["labels"] != IGNORED_LABEL).sum()
        trainer.model.train()
        others = ("audio_seconds", "skipped", "parts")
        inputs = trainer._prepare_inputs({name: value for name, value in batch.items() if name not in others})
        with trainer.accelerator.autocast():
            loss = trainer.compute_loss(trainer.model, inputs, num_items_in_batch=labels.to(self.device))
        trainer.accelerator.backward(loss)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def _clear(self) -> None:
        self.trainer.model.zero_grad(set_to_none=True)
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def longest_clips(feed: Feed, batch_seconds: float) -> Sequence:
    """As many of the longest clips as make a batch, at least one."""
    own = batch_seconds * feed.training.augment.batch_share
    if not isinstance(feed, ClipFeed):
        return made_up(max(1, int(own // STREAMED_SECONDS)))
    number = max(1, int(own // feed.durations.max()))
    chosen = np.argsort(-feed.durations, kind="stable")[: min(number, feed.training.batch_size or number)]
    return feed.dataset.__getitems__(chosen.tolist())


def made_up(number: int) -> list[Example]:
    """Clips of noise with a text, as long as the encoder's window mostly is."""
    rng = np.random.default_rng(0)
    text = " ".join(["speech"] * int(STREAMED_SECONDS * STREAMED_WORDS))
    samples = int(STREAMED_SECONDS * SAMPLING_RATE)
    return [
        Example(f"noise-{index}", rng.normal(0, 0.1, samples).astype(np.float32), text, STREAMED_SECONDS)
        for index in range(number)
    ]


def held_bytes(device: torch.device) -> float:
    """What this process holds of a device's memory."""
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else psutil.Process().memory_info().rss


def forget_peak(device: torch.device) -> None:
    """The peak is counted anew from here; where the system cannot, that of the loading may make a batch seem larger."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")


def free_bytes(device: torch.device) -> float:
    """What it could hold beyond that."""
    if device.type == "cuda":
        reserved = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + reserved
    return psutil.virtual_memory().available
