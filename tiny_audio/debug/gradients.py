"""What of the loss reaches each trained tensor: gradient norms beside parameter norms, over a few training batches."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from statistics import fmean
from typing import TYPE_CHECKING, Any

import torch

from tiny_audio.errors import TinyAudioError
from tiny_audio.model.modeling import ASRModel
from tiny_audio.training.build import PartSize, hold_trained_in_float32, part_sizes
from tiny_audio.training.schema import TrainingSettings

from .measures import not_finite
from .report import Table
from .subject import examined, training_batches

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ADAM_EPSILON = 1e-8  # AdamW's: of gradients that are smaller, it makes no full steps
# LoRA's A as long as B is zero; a bias of the keys, which moves all scores of a query alike
WITHOUT = (".lora_A.", ".key.bias", ".k_proj.bias")
EXPLODED = 100.0  # norm that clipping to max_grad_norm makes a hundred times smaller
COLUMNS = ("gradient", "parameters", "ratio", "zeros", "NaN, inf")


@dataclass
class Gradient:
    """The gradients of one or more tensors, a value a batch, and the norm of the parameters themselves."""

    name: str
    size: int
    norm: float  # of the parameters
    norms: list[float] = field(default_factory=list)
    zeros: list[int] = field(default_factory=list)
    not_finite: list[int] = field(default_factory=list)

    def add(self, gradient: torch.Tensor | None) -> None:
        """Counts a batch's gradient; None is all zeros."""
        gradient = torch.zeros(self.size) if gradient is None else gradient
        self.norms.append(float(gradient.float().norm()))
        self.zeros.append(int((gradient == 0).sum()))
        self.not_finite.append(not_finite(gradient))

    @property
    def mean_norm(self) -> float:
        return fmean(self.norms)

    @property
    def rms(self) -> float:
        """Of one parameter's gradient."""
        return self.mean_norm / math.sqrt(self.size)

    @property
    def has_vanished(self) -> bool:
        """Whether AdamW makes no full steps of it, though it could."""
        return self.rms < ADAM_EPSILON and not any(name in self.name for name in WITHOUT)

    def cells(self) -> tuple[str, ...]:
        """Norms, their ratio, share of zeros in per cent, and values that are no numbers."""
        ratio = f"{self.mean_norm / self.norm:.1e}" if self.norm else "–"
        zeros = f"{100 * fmean(self.zeros) / self.size:.1f} %"
        return (f"{self.mean_norm:.2e}", f"{self.norm:.2e}", ratio, zeros, f"{max(self.not_finite):,}")


@dataclass(frozen=True)
class GradientReport:
    """Gradients of the trained tensors, and the loss of each batch."""

    losses: list[float]
    gradients: list[Gradient]
    sizes: list[PartSize]

    def tables(self) -> list[Table]:
        losses = [(number, f"{loss:.4f}") for number, loss in enumerate(self.losses, 1)]
        parts = [(size.name, f"{size.trainable:,}", *self._part_cells(size)) for size in self.sizes]
        tensors = [(gradient.name, f"{gradient.size:,}", *gradient.cells()) for gradient in self.gradients]
        return [
            Table("Loss", ("batch", "loss"), losses, left=0),
            Table("Gradients by part", ("part", "trained", *COLUMNS), parts),
            Table("Gradients by tensor", ("tensor", "trained", *COLUMNS), tensors),
        ]

    def _part_cells(self, size: PartSize) -> tuple[str | None, ...]:
        return self.part(size.name).cells() if size.trainable else (None,) * len(COLUMNS)

    def part(self, name: str) -> Gradient:
        """The trained tensors of a part as one."""
        return joined(name, [gradient for gradient in self.gradients if gradient.name.startswith(f"{name}.")])

    def findings(self) -> list[str]:
        parts = [self.part(size.name) for size in self.sizes if size.trainable]
        found = [*self._not_finite(), *(sentence for part in parts if (sentence := verdict(part)))]
        reached = tuple(f"{part.name}." for part in parts if any(part.norms))
        faint = [each.name for each in self.gradients if each.has_vanished and each.name.startswith(reached)]
        if faint:
            found.append(
                f"{len(faint)} of {len(self.gradients)} trained tensors have gradients that vanish (RMS below AdamW's "
                f"epsilon, {ADAM_EPSILON:.0e}): {', '.join(faint[:3])}{'…' if faint[3:] else '.'}"
            )
        return found or ["Nothing stands out: gradients of a usual size reach every trained tensor."]

    def _not_finite(self) -> list[str]:
        broken = [gradient.name for gradient in self.gradients if any(gradient.not_finite)]
        if not broken and all(map(math.isfinite, self.losses)):
            return []
        where = f"in {len(broken)} tensors, first {broken[0]}" if broken else "in the loss alone"
        return [f"NaN or infinity {where}: a lower learning rate, fp32 or bf16, or a look at `ta debug weights`."]

    def draw(self, figure: "Figure") -> None:
        losses, bars = figure.subplots(1, 2, width_ratios=(1, 2))
        numbers = range(1, len(self.losses) + 1)
        losses.plot(numbers, self.losses, "o-")
        losses.set(title="Loss", xlabel="batch", xticks=numbers, ylim=(0, None))
        # the largest ones: a language model that is trained too has hundreds
        shown = sorted(self.gradients, key=lambda gradient: gradient.mean_norm, reverse=True)[:30][::-1]
        for offset, label, values in (
            (0.2, "gradient", [gradient.mean_norm for gradient in shown]),
            (-0.2, "parameters", [gradient.norm for gradient in shown]),
        ):
            bars.barh([place + offset for place in range(len(shown))], values, height=0.4, label=label)
        bars.set(title="Norms by tensor", xscale="log", yticks=range(len(shown)))
        bars.set_yticklabels([gradient.name for gradient in shown], fontsize="x-small")
        bars.legend()


def measure_gradients(
    checkpoint: str, data: str = "quickstart", batches: int = 4, device: str = "auto", dtype: str = "auto"
) -> GradientReport:
    """The gradients of the first batches of a training that goes on from a checkpoint, frozen as its config says.

    Raises:
        TinyAudioError: no such model or data, or the config freezes everything. OSError, ValueError: no checkpoint of ours.
    """
    model = examined(checkpoint, device, dtype)
    hold_trained_in_float32(model)
    return gradients_of(model.train(), training_batches(model, data, batches))


def gradients_of(model: ASRModel, batches: Iterable[dict[str, Any]]) -> GradientReport:
    """The gradients of each batch by itself; the model is left without any."""
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    if not trained:
        raise TinyAudioError(
            "The checkpoint's config freezes every part, so nothing has a gradient; expected one trained."
        )
    gradients = {name: Gradient(name, p.numel(), float(p.detach().float().norm())) for name, p in trained.items()}
    losses = []
    for batch in batches:
        torch.manual_seed(TrainingSettings.seed)  # of dropout, where there is any
        loss = model(**batch).loss
        loss.backward()
        losses.append(loss.item())
        for name, parameter in trained.items():
            gradients[name].add(parameter.grad)
            parameter.grad = None
    return GradientReport(losses, list(gradients.values()), part_sizes(model))


def joined(name: str, gradients: list[Gradient]) -> Gradient:
    """Several tensors as one long vector."""
    whole = Gradient(name, sum(each.size for each in gradients), math.hypot(*(each.norm for each in gradients)))
    for values in zip(*(each.norms for each in gradients), strict=True):
        whole.norms.append(math.hypot(*values))
    whole.zeros = [sum(counts) for counts in zip(*(each.zeros for each in gradients), strict=True)]
    whole.not_finite = [sum(counts) for counts in zip(*(each.not_finite for each in gradients), strict=True)]
    return whole


def verdict(part: Gradient) -> str | None:
    """What is wrong with the gradients of a part as a whole, if anything."""
    if not any(part.norms):
        return f"Nothing reaches the {part.name}: all its gradients are zero."
    if part.mean_norm > EXPLODED:
        limit, left = TrainingSettings.max_grad_norm, TrainingSettings.max_grad_norm / part.mean_norm
        clipped = f"clipping to training.max_grad_norm={limit:g} leaves {left:.1e} of them"
        return f"The gradients of the {part.name} have exploded: norm {part.mean_norm:.0f}; {clipped}."
    return None
