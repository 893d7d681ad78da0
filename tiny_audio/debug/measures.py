"""Measures of tensors: RMS, what is zero or no number, the spread of values, and the effective rank."""

import torch
from torch.nn import functional as F

from tiny_audio.training.initialization import rms

SPREAD = ("RMS", "5 %", "50 %", "95 %", "RMS of a token, 5 %", "RMS of a token, 95 %")
NEAR_ZERO = 1e-3  # of the RMS: of a normal distribution 0.08 % of the values are smaller
SAMPLE = 1_000_000  # values from which percentiles are taken; torch.quantile takes 16 million at most


def zeros(x: torch.Tensor) -> float:
    """Share of the values that are next to nothing beside the others."""
    return float((x.detach().float().abs() <= NEAR_ZERO * rms(x)).float().mean())


def not_finite(x: torch.Tensor) -> int:
    """How many values are NaN or infinite."""
    return int((~torch.isfinite(x)).sum())


def sampled(x: torch.Tensor) -> torch.Tensor:
    """Up to a million values, evenly taken, float32 on the CPU."""
    return x.detach().flatten()[:: -(-x.numel() // SAMPLE)].float().cpu()


def spread(x: torch.Tensor) -> tuple[str, ...]:
    """Of (tokens, dim), as SPREAD names them: RMS and percentiles of the values, and percentiles of the tokens' RMS."""
    values = torch.quantile(sampled(x), torch.tensor([0.05, 0.5, 0.95]))
    each = torch.quantile(x.detach().float().pow(2).mean(-1).sqrt().cpu(), torch.tensor([0.05, 0.95]))
    return tuple(f"{value:.4f}" for value in (rms(x), *values.tolist(), *each.tolist()))


def likeness(x: torch.Tensor) -> float:
    """Mean cosine of two different tokens of (tokens, dim): about 0 where directions are random, 1 where all are one."""
    total, count = F.normalize(x.detach().float(), dim=-1).sum(0), len(x)
    return float((total @ total - count) / (count * (count - 1))) if count > 1 else 1.0


def singular_values(matrix: torch.Tensor) -> torch.Tensor:
    """Of a matrix, or of a convolution's kernels as rows; largest first, float32 on the CPU.

    From the eigenvalues of the smaller Gram matrix, which a projector of the full size has six times sooner than its
    singular values; in float64, so that the squares lose nothing.
    """
    rows = matrix.detach().flatten(1)
    rows = (rows if rows.is_cuda else rows.cpu()).double()
    gram = rows @ rows.T if len(rows) <= rows.shape[1] else rows.T @ rows
    return torch.linalg.eigvalsh(gram).clamp(min=0).sqrt().flip(0).float().cpu()


def effective_rank(values: torch.Tensor) -> float:
    """exp of the entropy of the singular values (Roy and Vetterli 2007): n if n are alike, 0 of a zero matrix."""
    shares = values / values.sum()
    return float(torch.special.entr(shares).sum().exp()) if values.sum() > 0 else 0.0
