"""What a run costs: FLOPs, hours and dollars, as planned from model and data, and as they came out."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from tiny_audio.audio.reading import SAMPLING_RATE
from tiny_audio.data.filtering import default_clean
from tiny_audio.model.modeling import ASRModel
from tiny_audio.model.processor import IGNORED_LABEL, ASRProcessor

from .feed import ClipFeed, Feed
from .flops import Lengths, TrainingFlops
from .gpus import Gpu, GpuTable

SAMPLE = 2_000  # clips at most that the plan looks at
NOMINAL_SECONDS, NOMINAL_TEXT = 10.0, "x" * 145  # a clip of read English, where the data are not known
CHARACTERS_PER_TOKEN, PROMPT_TOKENS = 4, 16  # about, where the tokenizer cannot be had
UNITS = ((1e18, "EFLOP"), (1e15, "PFLOP"), (1e12, "TFLOP"), (1e9, "GFLOP"), (1e6, "MFLOP"))


@dataclass(frozen=True)
class Plan:
    """FLOPs of the steps by part for a number of seconds of audio, and what they were counted on.

    `once`: of the encoder over each clip before the first step, to fill an empty feature cache.
    """

    flops: dict[str, float]
    audio_seconds: float
    basis: str
    once: float = 0.0

    @property
    def steps(self) -> float:
        return sum(self.flops.values())

    @property
    def total(self) -> float:
        return self.steps + self.once

    def describe(self) -> str:
        """One line: FLOPs of a second of audio and of the run, and the share of each part."""
        shares = ", ".join(
            f"{name.replace('_', ' ')} {100 * part / self.steps:.0f} %" for name, part in self.flops.items()
        )
        each = f"{amount(self.steps / self.audio_seconds)} for a second of audio{f' ({shares})' if shares else ''}"
        once = f", {amount(self.once)} of it to fill the feature cache" if self.once else ""
        return f"{each}, {amount(self.total)} in all{once}; counted on {self.basis}"


@dataclass(frozen=True)
class Spent:
    """What the steps of a run did: FLOPs as planned and as done, and their seconds, without validation."""

    planned: float
    done: float
    seconds: float
    gpu: tuple[str, Gpu] | None = None
    utilisation: float = 0.0  # planned
    processes: int = 1  # each with a GPU of its own

    def describe(self) -> str:
        """One line: planned against happened; hours and dollars where the GPU is known."""
        rate = f"{amount(self.done / max(self.seconds, 1e-9))}/s"
        if self.gpu is None:
            return (
                f"Work: {amount(self.planned)} planned, {amount(self.done)} done in {duration(self.seconds)} at {rate}."
            )
        name, gpu = self.gpu
        planned, took = hours(self.planned, gpu, self.utilisation), self.processes * self.seconds / 3600  # of a GPU
        reached = self.done / took / 3600 / gpu.tflops / 1e12
        return (
            f"Work on {f'{self.processes} × ' if self.processes > 1 else ''}{name}: planned "
            f"{duration(3600 * planned / self.processes)}, ${planned * gpu.dollars:.2f} at {self.utilisation:.0%} of its "
            f"peak; took {duration(self.seconds)}, ${took * gpu.dollars:.2f} at {reached:.0%} ({rate})."
        )


def plan(model: ASRModel, feed: Feed, processor: ASRProcessor | None, teacher: bool) -> Plan:
    """What a run needs, from a sample of its clips, or from a clip of 10 s where its data are not known.

    Args:
        model: its weights may be on the meta device.
        processor: of the model; None: tokens are guessed from characters.
        teacher: as of TrainingFlops.
    """
    once, seconds, texts, basis = 0.0, [NOMINAL_SECONDS], [NOMINAL_TEXT], f"a clip of {NOMINAL_SECONDS:.0f} s"
    if isinstance(feed, ClipFeed):
        epoch = np.sort(np.concatenate(feed.sampler.epoch(0)))  # of a mixture, in its shares
        chosen = np.random.default_rng(0).permutation(epoch)[:SAMPLE]
        seconds = feed.durations[chosen].tolist()
        texts = [feed.dataset.text(position) for position in chosen.tolist()]
        basis = f"{len(chosen):,} clips"
    lengths, needs = clip_lengths(model, seconds, texts, processor), TrainingFlops(model, teacher)
    if isinstance(feed, ClipFeed) and feed.training.cache_features:
        lengths = replace(lengths, features=model.encoder.output_length(lengths.features), encoded=True)
        once = _encoding_of_each(model, needs, feed.durations)
    factor = feed.audio_seconds / sum(seconds)
    flops = {name: factor * part for name, part in needs(lengths).items()}
    basis = basis if processor else f"{basis}, tokens guessed from characters"
    return Plan(flops, feed.audio_seconds, basis, once)


def _encoding_of_each(model: ASRModel, needs: TrainingFlops, seconds: np.ndarray) -> float:
    """FLOPs of the encoder over clips of these lengths, each once; from a sample of them."""
    chosen = np.random.default_rng(0).permutation(seconds)[:SAMPLE]
    return float(needs.encoding(_feature_lengths(model, chosen.tolist())).sum()) * len(seconds) / len(chosen)


def _feature_lengths(model: ASRModel, seconds: Sequence[float]) -> torch.Tensor:
    return torch.tensor([model.encoder.feature_length(round(length * SAMPLING_RATE)) for length in seconds])


def clip_lengths(
    model: ASRModel, seconds: Sequence[float], texts: Sequence[str], processor: ASRProcessor | None
) -> Lengths:
    """Lengths of clips as a batch of them would have."""
    features = _feature_lengths(model, seconds)
    audio = model.projector.output_length(model.encoder.output_length(features))
    cleaned = [*map(default_clean(), texts)]
    if processor is not None:
        batch = processor.training_tokens(cleaned, audio.tolist())
        return Lengths(features, batch["attention_mask"].sum(-1), (batch["labels"] != IGNORED_LABEL).sum(-1))
    labels = torch.tensor([len(text) // CHARACTERS_PER_TOKEN + 1 for text in cleaned])
    return Lengths(features, audio + PROMPT_TOKENS + labels, labels)


def spent(planned: float, done: float, seconds: float, table: GpuTable, processes: int = 1) -> Spent:
    """Planned against happened, with this machine's GPU."""
    return Spent(planned, done, seconds, table.here(), table.utilisation, processes)


def price_rows(flops: float, table: GpuTable) -> list[tuple[str, str, str, str, str]]:
    """GPU, peak, time, price of an hour, price of the run."""
    needed = {name: hours(flops, gpu, table.utilisation) for name, gpu in table.gpus.items()}
    return [
        (name, f"{gpu.tflops:.0f}", duration(3600 * needed[name]), f"{gpu.dollars:.2f}", f"{needed[name] * gpu.dollars:,.2f}")
        for name, gpu in table.gpus.items()
    ]  # fmt: skip


def hours(flops: float, gpu: Gpu, utilisation: float) -> float:
    """Of one GPU at a share of its peak."""
    return flops / (gpu.tflops * 1e12 * utilisation) / 3600


def amount(flops: float) -> str:
    """1.03e11 → `103 GFLOP`."""
    size, unit = next(((size, unit) for size, unit in UNITS if flops >= size), UNITS[-1])
    return f"{flops / size:.3g} {unit}"


def duration(seconds: float) -> str:
    """`2 h 05 min`, `13 min`, `1 min 14 s`, `41 s`."""
    if seconds < 600:
        minutes, rest = divmod(round(seconds), 60)
        return f"{minutes} min {rest} s" if minutes else f"{rest} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min"
