"""Projectors: the small trained network from encoder frames to the language model's embedding space."""

import importlib.util
import logging
import re
import sys
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F
from transformers import AutoConfig, AutoModel

from .encoders import length_mask


class RMSNorm(nn.RMSNorm):
    """Root-mean-square norm (arXiv 1910.07467) over the last axis, in the precision of its weight at least."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.rms_norm(x.to(self.weight.dtype), self.normalized_shape, self.weight, 1e-6)


class Projector(nn.Module):
    """Groups of `stride` frames become `queries` tokens each, at least one group.

    Subclasses say how in `project(x, lengths)`: (batch, groups, stride · encoder_dim), zero in the padding, and clips'
    frames (batch,) → (batch, tokens, llm_dim). The module they make last gives the output, and is scaled at the start.
    """

    def __init__(self, config):
        super().__init__()
        self.stride, self.queries = config.projector_pool_stride, 1
        self.fill = False  # whether zeros complete the last group, or it is dropped where it is incomplete
        self.stacked_dim = config.encoder_dim * self.stride

    def groups(self, length):
        groups = (length + self.fill * (self.stride - 1)) // self.stride
        return groups.clamp(min=1) if isinstance(groups, torch.Tensor) else max(1, groups)

    def output_length(self, length):
        """Audio tokens that `length` encoder frames give; int or tensor."""
        return self.groups(length) * self.queries

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """(batch, frames, encoder_dim), (batch, frames) bool: True, then False → (batch, tokens, llm_dim)."""
        if mask is None:
            mask = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
        groups = self.groups(x.shape[1])
        x = F.pad(x.masked_fill(~mask[..., None], 0), (0, 0, 0, groups * self.stride - x.shape[1]))
        return self.project(x.reshape(len(x), groups, -1), mask.sum(-1))


class MLPProjector(Projector):
    """Frame stacking and two linear layers, in the variants of `projector_variant`.

    `norm` (the default, tensors as published): RMSNorm after each, GELU, no biases. `relu`: ReLU, biases. `glm`: GELU,
    biases, GLM-ASR's `multi_modal_projector`, whose hidden width is twice the language model's.
    """

    def __init__(self, config):
        super().__init__(config)
        variant, hidden = config.projector_variant, config.projector_hidden_dim
        if variant not in ("norm", "relu", "glm"):
            raise ValueError(f"projector_variant is {variant!r}; expected norm, relu or glm.")
        self.activation, normed = F.relu if variant == "relu" else F.gelu, variant == "norm"
        self.linear_1 = nn.Linear(self.stacked_dim, hidden, bias=not normed)
        self.norm = RMSNorm(hidden) if normed else nn.Identity()
        self.linear_2 = nn.Linear(hidden, config.llm_dim, bias=not normed)
        self.norm_2 = RMSNorm(config.llm_dim) if normed else nn.Identity()

    def project(self, x, lengths):
        return self.norm_2(self.linear_2(self.activation(self.norm(self.linear_1(x)))))


class SwiGLUProjector(Projector):
    """Frame stacking, RMSNorm, a gated layer (SwiGLU, arXiv 2002.05202), RMSNorm; without biases."""

    def __init__(self, config):
        super().__init__(config)
        self.norm = RMSNorm(self.stacked_dim)
        self.gate = nn.Linear(self.stacked_dim, config.projector_hidden_dim, bias=False)
        self.up = nn.Linear(self.stacked_dim, config.projector_hidden_dim, bias=False)
        self.down = nn.Linear(config.projector_hidden_dim, config.llm_dim, bias=False)
        self.norm_2 = RMSNorm(config.llm_dim)

    def project(self, x, lengths):
        x = self.norm(x)
        return self.norm_2(self.down(F.silu(self.gate(x)) * self.up(x)))


class Experts(nn.Module):
    """Two-layer ReLU networks side by side in two matrices; the sum of their outputs, each times its gate.

    All are computed, also where the gate is 0: no wait for a count of tokens, and zeros, never nothing, as gradients.
    """

    def __init__(self, count: int, dim: int, hidden: int, out_dim: int):
        super().__init__()
        self.linear_1 = nn.Linear(dim, count * hidden, bias=False)
        self.linear_2 = nn.Linear(count * hidden, out_dim, bias=False)

    def forward(self, x: torch.Tensor, gates: torch.Tensor) -> torch.Tensor:
        """(…, dim), (…, experts) → (…, out_dim)."""
        hidden = F.relu(self.linear_1(x)).unflatten(-1, (gates.shape[-1], -1)) * gates[..., None]
        return self.linear_2(hidden.flatten(-2))


class MOSAProjector(Projector):
    """Mixture of simple adapters (arXiv 2508.18998): two convolutions, n frames → ceil(n / 4); a softmax over adapters."""

    def __init__(self, config):
        super().__init__(config)
        self.stride, self.fill = 4, True  # the stride of both convolutions
        self.conv_1 = nn.Conv1d(config.encoder_dim, config.llm_dim, 3, stride=2, padding=1)
        self.conv_2 = nn.Conv1d(config.llm_dim, config.llm_dim, 3, stride=2, padding=1)
        self.router = nn.Linear(config.llm_dim, config.num_experts)
        self.experts = Experts(config.num_experts, config.llm_dim, config.projector_hidden_dim, config.llm_dim)

    def project(self, x, lengths):
        x = x.reshape(len(x), -1, self.conv_1.in_channels).transpose(1, 2)
        for convolution in (self.conv_1, self.conv_2):
            x, lengths = F.gelu(convolution(x)), (lengths + 1) // 2
            x = x * length_mask(lengths, x.shape[-1])[:, None]  # its bias would leak from the padding into the next
        x = x.transpose(1, 2)
        return self.experts(x, self.router(x).softmax(-1))


class MoEProjector(Projector):
    """Frame stacking, RMSNorm, a shared expert and the best `num_experts_per_tok` of `num_experts`, RMSNorm.

    In training `auxiliary_loss` keeps the router's load balanced (arXiv 2101.03961) and its logits small (2202.08906).
    """

    def __init__(self, config):
        super().__init__(config)
        self.chosen = config.num_experts_per_tok
        self.norm = RMSNorm(self.stacked_dim)
        self.router = nn.Linear(self.stacked_dim, config.num_experts, bias=False)
        self.experts = Experts(1 + config.num_experts, self.stacked_dim, config.projector_hidden_dim, config.llm_dim)
        self.norm_2 = RMSNorm(config.llm_dim)

    def project(self, x, lengths):
        x = self.norm(x)
        logits = self.router(x).float()
        best, experts = logits.topk(self.chosen)
        gates = torch.zeros_like(logits).scatter(-1, experts, best.softmax(-1))
        if self.training:
            self.auxiliary_loss = router_loss(logits, gates, length_mask(self.groups(lengths), x.shape[1]))
        return self.norm_2(self.experts(x, F.pad(gates, (1, 0), value=1.0).to(x.dtype)))  # the first is the shared one


def router_loss(logits: torch.Tensor, gates: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
    """Load balancing (1 if all experts are used alike) and z-loss of (batch, tokens, experts) where `own` is True."""
    weights = (own / own.sum())[..., None]  # no indexing by the mask: it would wait for the GPU
    used, probability = ((values * weights).sum((0, 1)) for values in ((gates > 0).float(), logits.softmax(-1)))
    balance = logits.shape[-1] * (used / used.sum() * probability).sum()
    return balance + 0.1 * (logits.logsumexp(-1, keepdim=True).pow(2) * weights).sum()  # ST-MoE's 1e-2 and 1e-3


class QFormerProjector(Projector):
    """BLIP-2's Q-Former over windows of frames, as in Granite-speech (arXiv 2505.08699), whose tensor names it has.

    n frames → ceil(n / window) · (window // downsample_rate) tokens: zeros fill the last window, and are seen, as there.
    """

    def __init__(self, config):
        super().__init__(config)
        dim = config.qformer_hidden_size or config.encoder_dim
        self.stride, self.fill = config.qformer_window_size, True
        self.queries = self.stride // config.downsample_rate
        self.query = nn.Parameter(torch.randn(1, self.queries, dim))
        qformer_config = AutoConfig.for_model(
            "blip_2_qformer", hidden_size=dim, encoder_hidden_size=config.encoder_dim, cross_attention_frequency=1,
            num_hidden_layers=config.qformer_num_layers, num_attention_heads=config.qformer_num_heads,
            intermediate_size=config.qformer_intermediate_size or 4 * dim,
            hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
        )  # fmt: skip
        self.qformer = AutoModel.from_config(qformer_config)
        self.linear = nn.Linear(dim, config.llm_dim)

    def project(self, x, lengths):
        windows = x.reshape(x.shape[0] * x.shape[1], self.stride, -1)
        found = self.qformer(query_embeds=self.query, encoder_hidden_states=windows).last_hidden_state
        return self.linear(found.reshape(len(x), -1, found.shape[-1]))


PROJECTOR_CLASSES: dict[str, type[nn.Module]] = {
    "mlp": MLPProjector, "swiglu": SwiGLUProjector, "mosa": MOSAProjector, "moe": MoEProjector, "qformer": QFormerProjector,
}  # fmt: skip


def build_projector(config) -> nn.Module:
    """The projector that `config.projector_type` names; `config.projector_file`, if any, is run first and registers it.

    Raises:
        ValueError: no class is registered under that name.
    """
    file = Path(config.projector_file or "")
    if file.is_file() and _can_join(file):
        spec = importlib.util.spec_from_file_location(f"{__package__}.{file.stem}", file)
        sys.modules[spec.name] = module = importlib.util.module_from_spec(spec)  # type: ignore[union-attr, arg-type]
        spec.loader.exec_module(module)  # type: ignore[union-attr]
    if config.projector_type not in PROJECTOR_CLASSES:
        raise ValueError(
            f"Unknown projector_type {config.projector_type!r}; known: {', '.join(sorted(PROJECTOR_CLASSES))}. Your own "
            "needs projector_file, a local file like my_projector.py (from the Hub: AutoModel and trust_remote_code=True)."
        )
    return PROJECTOR_CLASSES[config.projector_type](config)


def _can_join(file: Path) -> bool:
    """Whether a user's file may lie beside this one, as it does in a checkpoint (there it has been run already)."""
    return file.suffix == ".py" and file.stem.isidentifier() and not Path(__file__).with_name(file.name).exists()


def export_projector(projector: nn.Module, folder: Path) -> str | None:
    """Write a user's own projector file, whose name is returned, beside the exported code, which then imports it."""
    name, module = type(projector).__name__, type(projector).__module__
    file = Path(getattr(sys.modules[module], "__file__", None) or "")
    if file.parent == Path(__file__).parent:  # in exported code the user's file is one of those copied anyway
        return None if file == Path(__file__) else file.name
    if module == "__main__" or not _can_join(file):
        logging.getLogger(__name__).warning("%s is not saved: put it into a file of its own, as projector_file.", name)
        return None
    code = re.sub(r"(?m)^from tiny_audio[.\w]* import", "from .projectors import", file.read_text("utf-8"))
    (folder / file.name).write_text(code, "utf-8")
    with open(folder / Path(__file__).name, "a", encoding="utf-8") as ours:
        ours.write(f"\n\nfrom .{file.stem} import {name}  # noqa: E402, F401\n")
    return file.name
