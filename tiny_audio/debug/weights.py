"""What the weights look like: sizes by part and tensor, ranks of the projector, and its scale beside the token embeddings."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from tiny_audio.model.encoders import length_mask
from tiny_audio.model.modeling import ASRModel
from tiny_audio.training.build import PARTS
from tiny_audio.training.initialization import rms

from .measures import SPREAD, effective_rank, likeness, not_finite, sampled, singular_values, spread, zeros
from .report import Table
from .subject import examined, projected_audio, training_batches

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = ("RMS", "largest", "zeros", "NaN, inf")
FAR_OFF = 3.0  # times larger or smaller than the token embeddings
ALIKE = 0.9  # mean cosine of two audio tokens: the language model can hardly tell them apart
LEGEND = 12  # lines that a legend can name
FLAT = 0.05  # of its full rank: a projector's matrix that uses less has collapsed


@dataclass(frozen=True)
class Weight:
    """One tensor."""

    name: str
    shape: tuple[int, ...]
    rms: float
    largest: float
    zeros: float  # share
    not_finite: int
    spectrum: torch.Tensor | None  # singular values of a projector's matrix

    @classmethod
    def of(cls, name: str, x: torch.Tensor) -> "Weight":
        """Measures a tensor; its singular values only where it is a matrix of the projector."""
        broken = not_finite(x)
        matrix = name.startswith("projector.") and x.dim() > 1 and min(len(x), x[0].numel()) > 1
        spectrum = singular_values(x) if matrix and not broken else None
        return cls(name, tuple(x.shape), float(rms(x)), float(x.detach().abs().max()), zeros(x), broken, spectrum)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def rank(self) -> float | None:
        return None if self.spectrum is None else effective_rank(self.spectrum)

    def cells(self) -> tuple[str, ...]:
        """RMS, largest value, share of zeros in per cent, and values that are no numbers."""
        return (f"{self.rms:.3g}", f"{self.largest:.3g}", f"{100 * self.zeros:.1f} %", f"{self.not_finite:,}")


@dataclass(frozen=True)
class WeightReport:
    """All tensors, and what the projector makes of speech beside what the language model makes of text."""

    weights: list[Weight]
    audio: torch.Tensor  # (tokens, llm_dim)
    tokens: torch.Tensor  # (vocabulary, llm_dim)

    @property
    def scale(self) -> float:
        """RMS of the projected audio over that of the token embeddings."""
        return float(rms(self.audio) / rms(self.tokens))

    def tables(self) -> list[Table]:
        parts = [(part.name, f"{part.size:,}", *part.cells()) for part in map(self.part, PARTS)]
        tensors = [
            (weight.name, "×".join(map(str, weight.shape)), *weight.cells(), *rank_cells(weight))
            for weight in self.weights
            if weight.name.startswith("projector.")
        ]
        both = (("projected audio", self.audio), ("token embeddings", self.tokens))
        scales = [(name, *spread(x), f"{likeness(x):.3f}") for name, x in both]
        return [
            Table("Weights by part", ("part", "parameters", *COLUMNS), parts),
            Table("The projector", ("tensor", "shape", *COLUMNS, "effective rank", "full rank"), tensors),
            Table(
                f"Embeddings: {len(self.audio):,} audio tokens of speech",
                ("embeddings", *SPREAD, "cosine of two"),
                scales,
            ),
        ]

    def part(self, name: str) -> Weight:
        """All tensors of a part as one."""
        weights = [weight for weight in self.weights if weight.name.startswith(f"{name}.")]
        size = sum(weight.size for weight in weights)
        square, small = (
            sum(weight.size * value(weight) for weight in weights) / size
            for value in (lambda weight: weight.rms**2, lambda weight: weight.zeros)
        )
        largest = max(weight.largest for weight in weights)
        return Weight(name, (size,), math.sqrt(square), largest, small, sum(w.not_finite for w in weights), None)

    def findings(self) -> list[str]:
        found = [
            f"{weight.name} holds {weight.not_finite:,} values that are NaN or infinite."
            for weight in self.weights
            if weight.not_finite
        ]
        found += [
            f"{weight.name} is all zeros." for weight in self.weights if len(weight.shape) > 1 and weight.largest == 0
        ]
        found += [
            f"{weight.name} has collapsed: effective rank {weight.rank:.1f} of {len(weight.spectrum)}."
            for weight in self.weights
            if weight.spectrum is not None and weight.largest and (weight.rank or 0) < FLAT * len(weight.spectrum)
        ]
        if not 1 / FAR_OFF < self.scale < FAR_OFF:
            found.append(
                f"The projected audio is {self.scale:.3g} × as large as the token embeddings; expected about 1."
            )
        if (alike := likeness(self.audio)) > ALIKE:
            found.append(
                f"The projector makes nearly the same of all speech: the mean cosine of two audio tokens is {alike:.3f}."
            )
        return found or [
            f"Nothing stands out: the projected audio is {self.scale:.2f} × as large as the token embeddings."
        ]

    def draw(self, figure: "Figure") -> None:
        values, spectra = figure.subplots(1, 2)
        for name, x in (("projected audio", sampled(self.audio)), ("token embeddings", sampled(self.tokens))):
            if x.isfinite().any():
                values.hist(x[x.isfinite()].numpy(), bins=200, density=True, histtype="step", label=name)
        values.set(title="Values of the embeddings", ylabel="density")
        values.legend()
        matrices = {weight.name: weight.spectrum for weight in self.weights if weight.spectrum is not None}
        for name, spectrum in matrices.items():
            spectra.plot((spectrum / spectrum[0]).numpy(), label=name.removeprefix("projector."))
        spectra.set(title="Singular values of the projector, over the largest", xlabel="number", yscale="log")
        if 0 < len(matrices) <= LEGEND:
            spectra.legend(fontsize="small")


def rank_cells(weight: Weight) -> tuple[str | None, int | None]:
    """Effective and full rank, where there are any."""
    return (None, None) if weight.spectrum is None else (f"{weight.rank:.1f}", len(weight.spectrum))


def measure_weights(
    checkpoint: str, data: str = "quickstart", batches: int = 1, device: str = "auto", dtype: str = "auto"
) -> WeightReport:
    """The weights of a checkpoint, and what it makes of the first batches of some speech.

    Raises:
        TinyAudioError: no such model or data. OSError, ValueError: not a checkpoint of ours.
    """
    model = examined(checkpoint, device, dtype)
    return weights_of(model, training_batches(model, data, batches))


def weights_of(model: ASRModel, batches: Iterable[dict[str, Any]]) -> WeightReport:
    """The weights of a model, those that are quantized left out, and what it makes of some speech."""
    weights = [Weight.of(name, x) for name, x in model.named_parameters() if x.is_floating_point()]
    embedding: Any = model.language_model.get_input_embeddings()
    return WeightReport(weights, audio_tokens(model, batches), embedding.weight.detach())


def audio_tokens(model: ASRModel, batches: Iterable[dict[str, Any]]) -> torch.Tensor:
    """The clips' own projected tokens (tokens, llm_dim)."""
    found = []
    for batch in batches:
        audio, counts = projected_audio(model, batch)
        found.append(audio[length_mask(counts, audio.shape[1])])
    return torch.cat(found)
