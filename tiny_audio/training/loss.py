"""Cross-entropy over a large vocabulary, piece by piece: the logits of all labels at once never exist."""

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

PIECE_BYTES = 1 << 27  # of float32 logits at a time


def piecewise_loss(
    head: nn.Module, hidden: torch.Tensor, targets: torch.Tensor, smoothing: float = 0.0
) -> tuple[torch.Tensor, None]:
    """Mean cross-entropy of `head(hidden)` as the model's own `label_loss`, without its logits.

    A frozen, plain head gives the gradient to `hidden` in the same pass as the loss (as Liger's fused loss does); with
    another, each piece is computed once more for its gradients.

    Args:
        hidden: (labels, dim).
        targets: (labels,) token ids.
    """
    size = max(1, PIECE_BYTES // (4 * head.weight.shape[0]))
    if type(head) is nn.Linear and head.bias is None and not head.weight.requires_grad:
        return _FrozenHead.apply(hidden, head.weight, targets, smoothing, size), None
    pieces = zip(hidden.split(size), targets.split(size), strict=True)
    losses = [checkpoint(_piece, head, *piece, smoothing, use_reentrant=False) for piece in pieces]
    return torch.stack(losses).sum() / len(targets), None


def _piece(head: nn.Module, hidden: torch.Tensor, targets: torch.Tensor, smoothing: float) -> torch.Tensor:
    return F.cross_entropy(head(hidden).float(), targets, reduction="sum", label_smoothing=smoothing)


class _FrozenHead(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden, weight, targets, smoothing, size):
        losses, slopes = [], []
        for part, wanted in zip(hidden.split(size), targets.split(size), strict=True):
            logits = F.linear(part, weight).float()
            normalizer, wanted = logits.logsumexp(-1, keepdim=True), wanted[:, None]
            likely = (1 - smoothing) * logits.gather(-1, wanted) + smoothing * logits.mean(-1, keepdim=True)
            losses.append((normalizer - likely).sum())
            if hidden.requires_grad:
                slope = logits.sub_(normalizer).exp_().sub_(smoothing / len(weight))  # in the logits' own memory
                slope.scatter_add_(-1, wanted, slope.new_full(wanted.shape, smoothing - 1))
                slopes.append((slope.to(weight.dtype) @ weight).to(hidden.dtype))
        ctx.save_for_backward(torch.cat(slopes) / len(targets) if slopes else hidden.new_empty(0))
        return torch.stack(losses).sum() / len(targets)

    @staticmethod
    def backward(ctx, upstream):
        return ctx.saved_tensors[0] * upstream, None, None, None, None
