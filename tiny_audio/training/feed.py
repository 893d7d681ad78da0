"""What is trained on: the usable clips, and their batches by number over the whole run."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import lru_cache
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler

from tiny_audio.data import (
    ClipDataset,
    Corpus,
    SecondsBatchSampler,
    Skipped,
    SpeechCollator,
    parts_of,
    usable_rows,
)
from tiny_audio.data.augmentation import Augmentation
from tiny_audio.data.filtering import Limits
from tiny_audio.data.mixture import JoinedClips, MixtureSampler, clips_per_epoch, normalized, stream_shares
from tiny_audio.data.stream_batches import StreamDataset, place_among_ranks
from tiny_audio.errors import TinyAudioError
from tiny_audio.model.modeling import ASRModel
from tiny_audio.model.processor import ASRProcessor

from .augment import BatchNumbers, InstructionDraw
from .interruption import outlive_terminate
from .memory import RememberingProcessor
from .schema import Settings, TrainingSettings

CACHE_BYTES = 1 << 29  # of decoded clips, and as much of their log-mels, that are kept in memory


class ClipFeed:
    """Clips of a corpus, or of a mixture's; the batches of a run are numbered through all its epochs.

    Args:
        corpora: clips to train on; of a mixture, a corpus for each of its parts.
        settings: of the run.
        max_samples: the encoder's window at 16 kHz; longer clips are skipped and listed.
        place: rank of this process and number of processes, which share the batches; `accumulation` is those of a step,
            of all processes.

    Raises:
        TinyAudioError: no clip of a corpus can be trained on.
    """

    collator_class: type[SpeechCollator] = SpeechCollator
    dataset: ClipDataset | JoinedClips

    def __init__(
        self,
        corpora: Corpus | Sequence[Corpus],
        settings: Settings,
        max_samples: int | None,
        place: tuple[int, int] | None = None,
    ) -> None:
        self.rank, self.ranks = place or place_among_ranks()
        corpora = [corpora] if isinstance(corpora, Corpus) else corpora
        data, training = settings.data, settings.training
        self.parts, self.used = parts_of(data), Counter[str]()
        self.accumulation = self.ranks * training.gradient_accumulation_steps
        self.cache_bytes = CACHE_BYTES // max(1, training.num_workers) // self.ranks
        self.skipped, clips = Skipped(), []
        for part, corpus in zip(self.parts, corpora, strict=True):
            limits = asdict(Limits.of(part, max_samples))
            usable, skipped = usable_rows(corpus, **limits)
            if not len(usable):
                raise TinyAudioError(f"Nothing to train on in {corpus.name}: {skipped.summary()}.")
            self.skipped.merge(skipped)
            clips.append(ClipDataset(corpus, usable, cache_bytes=self.cache_bytes // len(corpora), **limits))
        durations = [own.corpus.durations[own.indices] for own in clips]
        self.durations = np.concatenate(durations)
        packing = (_own_seconds(training), data.seed, training.batch_size, self.accumulation)
        self.sampler = SecondsBatchSampler(self.durations, *packing)
        if data.mixture is not None:
            counts = clips_per_epoch(self.parts, [len(own) for own in clips])
            self.sampler = MixtureSampler(durations, counts, *packing)
        self.use(clips)
        self.training = training
        self.steps = self._steps()

    def use(self, clips: Sequence[ClipDataset]) -> None:
        """Takes the clips from these, a dataset for each part."""
        self.clips = list(clips)
        self.dataset = self.clips[0] if len(clips) == 1 else JoinedClips(clips)

    def fill(self, model: ASRModel) -> None:
        """What is to be done before the first step: nothing."""

    def _steps(self) -> int:
        """Optimizer steps of the run: `max_steps` or `num_epochs`, whichever ends first."""
        if self.training.num_epochs is None:
            return self.training.max_steps or 0
        whole, part = divmod(self.training.num_epochs, 1)
        batches = sum(self._batches_of(epoch) for epoch in range(int(whole)))
        batches += math.ceil(part * self._batches_of(int(whole))) if part else 0
        return min(math.ceil(batches / self.accumulation), self.training.max_steps or math.inf)  # type: ignore[return-value]

    def loader(self, start: int, processor: ASRProcessor) -> DataLoader:
        """This process's share of the batches from number `start` on; its length is that of the whole run."""
        if not self.training.augment.active:  # else a clip is never the same again
            processor = RememberingProcessor(processor, self.cache_bytes)
        collator = collator_of(processor, self.training, start, self.collator_class)
        batches = RunBatches(self.sampler, start, self.steps * self.accumulation, (self.rank, self.ranks))
        return DataLoader(
            self.dataset, batch_sampler=batches, collate_fn=collator, **worker_options(self.training.num_workers)
        )

    def epochs(self, step: int) -> float:
        """Passes over the data after `step` steps."""
        epoch, place = self.sampler.locate(step * self.accumulation)
        return epoch + place / self._batches_of(epoch)

    @lru_cache  # noqa: B019 (a feed lives as long as the run)
    def _batches_of(self, epoch: int) -> int:
        return len(self.sampler.epoch(epoch))

    @property
    def audio_seconds(self) -> float:
        """Of the whole run."""
        return self.sampler.epoch_seconds * self.epochs(self.steps)

    def describe(self) -> str:
        """One line: clips, hours, steps."""
        hours = self.sampler.epoch_seconds / 3600
        epochs = self.epochs(self.steps)
        return (
            f"{len(self.durations):,} clips, {float(self.durations.sum()) / 3600:.2f} h; {self.steps:,} steps of about "
            f"{hours * 3600 / len(self.sampler) * self.accumulation:.0f} s: {epochs:.1f} epochs, {self.audio_seconds / 3600:.2f} h of audio"
        )

    def part_sizes(self) -> list[tuple[int, float] | None]:
        """Clips and hours of each part; None where they are not known."""
        hours = [float(own.corpus.durations[own.indices].sum()) / 3600 for own in self.clips]
        return [(len(own), own_hours) for own, own_hours in zip(self.clips, hours, strict=True)]

    def describe_parts(self) -> list[tuple[str, ...]]:
        """Of each part of a mixture: name, clips, hours; clips, hours, and share of the clips in an epoch."""
        if not isinstance(self.sampler, MixtureSampler):
            return []
        own_hours = [size[1] for size in self.part_sizes() if size]
        epoch_hours = [seconds / 3600 for seconds in self.sampler.part_seconds]
        shares = normalized(self.sampler.counts)
        columns = (self.parts, self.sampler.sizes, own_hours, self.sampler.counts, epoch_hours, shares)
        return [
            (part.name, f"{size:,}", f"{own:.2f}", f"{count:,}", f"{hours:.2f}", f"{share:.1%}")
            for part, size, own, count, hours, share in zip(*columns, strict=True)
        ]


class StreamFeed:
    """Clips as they come from a stream, or from a mixture's, whose length is not known; each process reads its share."""

    def __init__(self, settings: Settings, max_samples: int | None, place: tuple[int, int] | None = None) -> None:
        self.data, self.training = settings.data, settings.training
        if self.training.max_steps is None or self.training.num_epochs is not None:
            raise TinyAudioError(
                "With data.streaming=true the length of an epoch is not known; set training.max_steps and no num_epochs."
            )
        _, self.ranks = place or place_among_ranks()
        self.steps = self.training.max_steps
        self.accumulation = self.ranks * self.training.gradient_accumulation_steps
        self.limits = Limits.of(self.data, max_samples)
        self.parts, self.used = parts_of(self.data), Counter[str]()
        self.skipped = Skipped()

    @property
    def dataset(self) -> StreamDataset:
        return self._dataset(0)

    def _dataset(self, start: int) -> StreamDataset:
        return StreamDataset(
            self.data,
            self.data.train_split,
            batch_seconds=_own_seconds(self.training),
            max_batch_size=self.training.batch_size,
            max_samples=self.data.max_train_samples,
            start=start,
            limits=self.limits,
        )

    def loader(self, start: int, processor: ASRProcessor) -> DataLoader:
        """This process's batches from number `start` of all on, endlessly."""
        collator = collator_of(processor, self.training, start)
        dataset, workers = self._dataset(start // self.ranks), worker_options(self.training.num_workers)
        return DataLoader(dataset, batch_size=None, collate_fn=collator, **workers)

    def fill(self, model: ASRModel) -> None:
        """What is to be done before the first step: nothing."""

    def epochs(self, step: int) -> float:
        """How much of the run is done: a stream's epochs cannot be counted."""
        return step / self.steps

    @property
    def audio_seconds(self) -> float:
        """Of the whole run, at most."""
        return self.steps * self.accumulation * self.training.batch_seconds

    def describe(self) -> str:
        """One line: what is streamed, and how much of it."""
        hours = self.audio_seconds / 3600
        name = self.data.path if self.data.mixture is None else f"{len(self.parts)} datasets"
        return f"{name}, streamed; {self.steps:,} steps: at most {hours:.2f} h of audio"

    def part_sizes(self) -> list[tuple[int, float] | None]:
        """As of a ClipFeed: not known."""
        return [None] * len(self.parts)

    def describe_parts(self) -> list[tuple[str, ...]]:
        """Of each part of a mixture: name, and share of the clips; how many it has is not known."""
        if self.data.mixture is None:
            return []
        shares = zip(self.parts, stream_shares(self.parts), strict=True)
        return [(part.name, "", "", "", "", f"{share:.1%}") for part, share in shares]


Feed = ClipFeed | StreamFeed


def feed_of(settings: Settings, corpora: list[Corpus] | None, max_samples: int | None) -> Feed:
    """The clips of the corpora, or of streams where there are none."""
    return StreamFeed(settings, max_samples) if corpora is None else ClipFeed(corpora, settings, max_samples)


class RunBatches(Sampler[list[int]]):
    """Of the batches number `start` to `stop`, every `ranks`th, from the rank on: whole steps of all processes.

    The length counts those before `start` too, as the Trainer expects.
    """

    def __init__(self, sampler: SecondsBatchSampler, start: int, stop: int, place: tuple[int, int] = (0, 1)) -> None:
        self.sampler, self.start, self.stop = sampler, start, stop
        self.rank, self.ranks = place

    def __iter__(self) -> Iterator[list[int]]:
        return islice(self.sampler.batches(self.start, self.stop), self.rank, None, self.ranks)

    def __len__(self) -> int:
        return self.stop // self.ranks


def collator_of(
    processor: ASRProcessor, training: TrainingSettings, start: int = 0, kind: type[SpeechCollator] = SpeechCollator
) -> SpeechCollator:
    """What makes the batches of a loader that begins with number `start`."""
    draw = InstructionDraw(training.prompt_variety, training.seed, start) if training.prompt_variety else None
    augment = None
    if training.augment.active:
        augment = Augmentation(training.augment, processor.max_samples, training.seed, BatchNumbers(start))
    return kind(processor, draw_instructions=draw, teacher=training.distillation_weight > 0, augment=augment)


def _own_seconds(training: TrainingSettings) -> float:
    """Seconds of a batch that are packed with the dataset's clips, before augmentation makes them more."""
    return training.batch_seconds * training.augment.batch_share


def pins(device_type: str) -> bool:
    """Whether batches for this kind of device lie in pinned memory, from which they are copied beside the computing."""
    return device_type == "cuda"


def worker_options(number: int) -> dict[str, Any]:
    """Of a DataLoader with so many workers."""
    # A generator of its own: the loader would take its seed from the global one, and a resumed run has one loader more.
    options: dict[str, Any] = {"num_workers": number, "generator": torch.Generator().manual_seed(0)}
    options["pin_memory"] = pins("cuda" if torch.cuda.is_available() else "cpu")
    return {**options, "prefetch_factor": 4, "worker_init_fn": outlive_terminate} if number else options
