"""What LoRA has learned, read from PEFT's own files: size and effective rank of each ΔW, beside the weight it changes."""

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file

from tiny_audio.console import warn
from tiny_audio.errors import TinyAudioError
from tiny_audio.model.lora import ADAPTER, CONFIG_FILE, ENCODER_ADAPTER, TENSORS_FILE, base_name, find_adapter_file
from tiny_audio.model_source import ModelSource, offline_if_unreachable

from .measures import effective_rank
from .report import Table
from .subject import examined

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PARTS = {ADAPTER: "language_model", ENCODER_ADAPTER: "encoder"}
PREFIX = "base_model.model."  # PEFT's, before the name of a module
IDLE = 0.25  # share of the rank: an adapter that uses less could be smaller


@dataclass(frozen=True)
class Adapter:
    """An adapter as PEFT saves it: its config and tensors."""

    part: str
    config: dict[str, Any]
    tensors: dict[str, torch.Tensor]

    def scale(self, module: str, rank: int) -> float:
        """What B·A is multiplied by: alpha / r, or alpha / √r (arXiv 2312.03732)."""
        patterns = (self.config.get("alpha_pattern") or {}).items()
        own = (alpha for pattern, alpha in patterns if re.fullmatch(rf"(.*\.)?({pattern})", module))
        alpha = next(own, self.config["lora_alpha"])
        return alpha / (math.sqrt(rank) if self.config.get("use_rslora") else rank)

    def deltas(self) -> "Iterator[Delta]":
        """Each module's ΔW, in the order of the file."""
        for name, a in self.tensors.items():
            if name.endswith(".lora_A.weight") and a.dim() == 2:
                module = name.removeprefix(PREFIX).removesuffix(".lora_A.weight")
                b = self.tensors[name.replace(".lora_A.", ".lora_B.")]
                yield Delta(self.part, module, len(a), self.scale(module, len(a)) * product_spectrum(b, a))


@dataclass(frozen=True)
class Delta:
    """ΔW = scale · B·A of one module."""

    part: str
    module: str
    rank: int
    spectrum: torch.Tensor  # singular values of ΔW
    base_norm: float | None = None  # of the weight it is added to

    @property
    def norm(self) -> float:
        return float(self.spectrum.norm())

    @property
    def relative(self) -> float | None:
        """‖ΔW‖ / ‖W‖."""
        return self.norm / self.base_norm if self.base_norm else None

    @property
    def effective(self) -> float:
        return effective_rank(self.spectrum)

    @property
    def kind(self) -> str:
        """The part and the last name of the module: `language_model q_proj`."""
        return f"{self.part} {self.module.rsplit('.', 1)[-1]}"

    @property
    def layer(self) -> int:
        """The first number in the module's name."""
        return int(found[0]) if (found := re.search(r"\d+", self.module)) else 0


@dataclass(frozen=True)
class LoraReport:
    """The ΔW of every module, sorted by kind, then layer."""

    deltas: list[Delta]

    def kinds(self) -> list[tuple[str, list[Delta]]]:
        """The modules of each kind."""
        return [(kind, list(group)) for kind, group in groupby(self.deltas, key=lambda delta: delta.kind)]

    def tables(self) -> list[Table]:
        kinds = [(kind, len(group), *mean_cells(group)) for kind, group in self.kinds()]
        modules = [(delta.part, delta.module, *mean_cells([delta])) for delta in self.deltas]
        figures = ("r", "‖ΔW‖", "‖ΔW‖/‖W‖", "effective rank")
        return [
            Table("LoRA by kind of module, means", ("kind", "modules", *figures), kinds),
            Table("LoRA by module", ("part", "module", *figures), modules, left=2),
        ]

    def findings(self) -> list[str]:
        found = []
        for part, group in groupby(self.deltas, key=lambda delta: delta.part):
            modules = list(group)
            untrained = [delta.module for delta in modules if delta.norm == 0]
            if len(untrained) == len(modules):
                found.append(f"{part}: B is still zero in all {len(modules)} modules: LoRA was never trained.")
            elif untrained:
                found.append(
                    f"{part}: B is still zero in {len(untrained)} of {len(modules)} modules, first {untrained[0]}."
                )
        for kind, modules in self.kinds():
            used, rank = fmean(delta.effective for delta in modules), modules[0].rank
            if 0 < used < IDLE * rank:
                found.append(f"{kind} uses {used:.1f} of its {rank} directions: a smaller rank would do as much.")
        return found or ["Nothing stands out: every module has learned, and uses its rank."]

    def draw(self, figure: "Figure") -> None:
        norms, ranks = figure.subplots(1, 2)
        relative = all(delta.relative is not None for delta in self.deltas)
        for kind, group in self.kinds():
            layers = [delta.layer for delta in group]
            norms.plot(layers, [delta.relative if relative else delta.norm for delta in group], "o-", label=kind)
            (line,) = ranks.plot(layers, [delta.effective for delta in group], "o-")
            ranks.axhline(group[0].rank, linestyle="--", color=line.get_color())
        norms.set(title="‖ΔW‖ / ‖W‖" if relative else "‖ΔW‖", xlabel="layer", ylim=(0, None))
        ranks.set(title="Effective rank; r dashed", xlabel="layer", ylim=(0, None))
        norms.legend()


def mean_cells(deltas: list[Delta]) -> tuple[str | int | None, ...]:
    """Rank, norm, relative norm where the weights are known, and effective rank: the means of some modules."""
    relative = [delta.relative for delta in deltas if delta.relative is not None]
    return (
        deltas[0].rank,
        f"{fmean(delta.norm for delta in deltas):.4f}",
        f"{fmean(relative):.4f}" if relative else None,
        f"{fmean(delta.effective for delta in deltas):.2f}",
    )


def measure_lora(checkpoint: str, device: str = "auto", dtype: str = "auto") -> LoraReport:
    """What the adapters of a checkpoint have learned; beside the weights they change, where those can be loaded.

    Raises:
        TinyAudioError: no such checkpoint, or it has no LoRA, or files that do not fit.
    """
    source = ModelSource.of(checkpoint)
    source.model_type()  # a checkpoint that cannot be reached is not one without LoRA
    adapters = read_adapters(source)
    if not adapters:
        raise TinyAudioError(
            f"{checkpoint} has no LoRA; expected {CONFIG_FILE} in adapter/, encoder_adapter/ or beside config.json."
        )
    bases = base_norms(checkpoint, device, dtype)
    deltas = [
        Delta(delta.part, delta.module, delta.rank, delta.spectrum, base_norm(bases, delta))
        for adapter in adapters
        for delta in adapter.deltas()
    ]
    return LoraReport(sorted(deltas, key=lambda delta: (delta.kind, delta.layer)))


def read_adapters(source: ModelSource) -> list[Adapter]:
    """The adapters of a checkpoint, from a folder or the Hub."""
    found = []
    with offline_if_unreachable(source):
        for folder, part in PARTS.items():
            try:
                config = find_adapter_file(source.location, folder, CONFIG_FILE, revision=source.revision)
            except OSError:
                continue  # this part has none
            tensors = find_adapter_file(source.location, folder, TENSORS_FILE, revision=source.revision)
            found.append(Adapter(part, json.loads(Path(config).read_text(encoding="utf-8")), load_file(tensors)))
    return found


def product_spectrum(b: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
    """Singular values of B·A, (out, r) and (r, in), from its r × r core: B·A is never made."""
    cores = (torch.linalg.qr(factor.float()).R for factor in (b, a.T))
    left, right = cores
    return torch.linalg.svdvals(left @ right.T)


def base_norms(checkpoint: str, device: str, dtype: str) -> dict[str, float]:
    """‖W‖ of every linear layer, by its full name; none, with a warning, where the model cannot be loaded."""
    try:
        model = examined(checkpoint, device, dtype)
    except (TinyAudioError, OSError, ValueError) as error:
        warn(f"‖W‖ is unknown, since the model could not be loaded: {error}")
        return {}
    named = ((base_name(name), parameter) for name, parameter in model.named_parameters())
    return {
        name: float(parameter.detach().float().norm()) for name, parameter in named if name and is_matrix(parameter)
    }


def is_matrix(parameter: torch.Tensor) -> bool:
    """Whether it is a linear layer's weight, and not quantized."""
    return parameter.dim() == 2 and parameter.is_floating_point()


def base_norm(norms: dict[str, float], delta: Delta) -> float | None:
    """That of a module, whose name in the model is longer than in the adapter."""
    own = (
        norm for name, norm in norms.items() if name.startswith(delta.part) and name.endswith(f".{delta.module}.weight")
    )
    return next(own, None)
