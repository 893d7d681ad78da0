"""Where a mixture of experts sends its tokens: shares, gates, dead experts, and the entropy of the routing."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from tiny_audio.errors import TinyAudioError
from tiny_audio.model.encoders import length_mask
from tiny_audio.model.modeling import ASRModel

from .report import Table
from .subject import examined, projected_audio, training_batches

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DEAD = 0.01  # mean gate: such an expert says next to nothing
UNEVEN = 0.8  # of the entropy of even use
UNDECIDED = 0.98  # of the largest entropy of a token's gates


@dataclass(frozen=True)
class RoutingReport:
    """The gates of some speech, (tokens, experts), each row summing to 1; of `moe` without the shared expert."""

    kind: str
    gates: torch.Tensor
    chosen: int  # experts that a token can go to: all of `mosa`

    @property
    def experts(self) -> int:
        return self.gates.shape[-1]

    @property
    def mean_gates(self) -> torch.Tensor:
        return self.gates.mean(0)

    @property
    def entropy_of_mean(self) -> float:
        """Bits: log2(experts) if all are used alike."""
        return float(entropy_bits(self.mean_gates))

    @property
    def entropy_per_token(self) -> float:
        """Bits, the mean of the tokens: 0 if each goes to one expert, log2(chosen) if it goes to all of its own alike."""
        return float(entropy_bits(self.gates).mean())

    @property
    def dead(self) -> list[int]:
        """Experts, counted from 1, that get less than 1 % of the gates."""
        return [number for number, gate in enumerate(self.mean_gates.tolist(), 1) if gate < DEAD]

    def tables(self) -> list[Table]:
        used, first = (self.gates > 0).float().mean(0), self.gates.argmax(-1)
        shares = torch.bincount(first, minlength=self.experts) / len(first)
        rows = [
            (number, *(f"{100 * value:.1f} %" for value in values), "dead" if number in self.dead else None)
            for number, values in enumerate(
                zip(used.tolist(), shares.tolist(), self.mean_gates.tolist(), strict=True), 1
            )
        ]
        entropies = [
            ("of the mean gates", f"{self.entropy_of_mean:.3f}", f"{math.log2(self.experts):.3f}"),
            ("mean of each token's", f"{self.entropy_per_token:.3f}", f"{math.log2(self.chosen):.3f}"),
        ]
        return [
            Table(
                f"Routing of {len(self.gates):,} audio tokens",
                ("expert", "used by", "first choice of", "mean gate", ""),
                rows,
            ),
            Table("Entropy of the routing, in bits", ("entropy", "found", "at most"), entropies),
        ]

    def findings(self) -> list[str]:
        if self.dead:
            dead = ", ".join(map(str, self.dead))
            remedy = "raise model.router_aux_loss_coef" if self.kind == "moe" else "fewer experts would do the same"
            return [
                f"{len(self.dead)} of {self.experts} experts are dead (less than {100 * DEAD:.0f} % of the gates): {dead}; {remedy}."
            ]
        if self.entropy_of_mean < UNEVEN * math.log2(self.experts):
            return [f"The experts are used unevenly: {self.entropy_of_mean:.2f} of {math.log2(self.experts):.2f} bits."]
        if self.entropy_per_token > UNDECIDED * math.log2(self.chosen):
            return ["The router tells no token from another: all of a token's experts get the same gate."]
        return ["Nothing stands out: every expert is used, and the router tells tokens apart."]

    def draw(self, figure: "Figure") -> None:
        bars, entropies = figure.subplots(1, 2)
        numbers = range(1, self.experts + 1)
        bars.bar(numbers, self.mean_gates.tolist())
        bars.axhline(1 / self.experts, linestyle="--", color="gray", label="even use")
        bars.set(title="Mean gate", xlabel="expert", xticks=list(numbers))
        bars.legend()
        entropies.hist(entropy_bits(self.gates).numpy(), bins=50)
        entropies.axvline(math.log2(self.chosen), linestyle="--", color="gray", label="at most")
        entropies.set(title="Entropy of a token's gates", xlabel="bits", ylabel="tokens")
        entropies.legend()


def measure_routing(
    kind: str, checkpoint: str, data: str = "quickstart", batches: int = 4, device: str = "auto", dtype: str = "auto"
) -> RoutingReport:
    """The routing of a checkpoint's `moe` or `mosa` projector over the first batches of some speech.

    Raises:
        TinyAudioError: no such model or data, or the projector is of another type. OSError, ValueError: not a checkpoint of ours.
    """
    model = examined(checkpoint, device, dtype)
    found = model.config.projector_type
    if found != kind:
        raise TinyAudioError(
            f"The projector of {checkpoint} is {found!r}, and `ta debug {kind}` reads the routing of {kind!r}; expected a "
            f"checkpoint trained with model.projector_type={kind}."
        )
    return routing_of(model, training_batches(model, data, batches))


def routing_of(model: ASRModel, batches: Iterable[dict[str, Any]]) -> RoutingReport:
    """The routing of some speech by a model whose projector is `moe` or `mosa`."""
    config = model.config
    gates = routing_gates(model, batches)[:, -config.num_experts :]
    chosen = config.num_experts_per_tok if config.projector_type == "moe" else config.num_experts
    return RoutingReport(config.projector_type, gates, chosen)


def routing_gates(model: ASRModel, batches: Iterable[dict[str, Any]]) -> torch.Tensor:
    """What each expert is multiplied by (tokens, experts), float32 on the CPU, of the clips' own tokens."""
    given: list[torch.Tensor] = []
    hook = model.projector.experts.register_forward_pre_hook(lambda module, inputs: given.append(inputs[1]))
    own = [projected_audio(model, batch)[1] for batch in batches]
    hook.remove()
    kept = [gates[length_mask(counts, gates.shape[1])] for gates, counts in zip(given, own, strict=True)]
    return torch.cat(kept).float().cpu()


def entropy_bits(shares: torch.Tensor) -> torch.Tensor:
    """(…, experts) → (…): of distributions over experts."""
    return torch.special.entr(shares).sum(-1) / math.log(2)
