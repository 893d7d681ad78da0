"""Cross-entropy over a large vocabulary, piece by piece: the logits of all labels at once never exist."""

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

PIECE_BYTES = 1 << 27  # of float32 logits at a time
CACHED_BYTES = 1 << 20  # the same on a CPU, where a piece stays in its cache
LEAST_WORDS = 128  # of the vocabulary in a piece, below which products are slow


def piecewise_loss(
    head: nn.Module, hidden: torch.Tensor, targets: torch.Tensor, smoothing: float = 0.0
) -> tuple[torch.Tensor, None]:
    """Mean cross-entropy of `head(hidden)` as the model's own `label_loss`, without its logits.

    A frozen, plain head gives the gradient to `hidden` in the same pass as the loss; with another, each piece is
    computed once more for its gradients.

    Args:
        hidden: (labels, dim).
        targets: (labels,) token ids.
    """
    if type(head) is nn.Linear and head.bias is None and not head.weight.requires_grad:
        return _FrozenHead.apply(hidden, head.weight, targets, smoothing), None
    size = max(1, PIECE_BYTES // (4 * head.weight.shape[0]))
    pieces = zip(hidden.split(size), targets.split(size), strict=True)
    losses = [checkpoint(_piece, head, *piece, smoothing, use_reentrant=False) for piece in pieces]
    return torch.stack(losses).sum() / len(targets), None


def _piece(head: nn.Module, hidden: torch.Tensor, targets: torch.Tensor, smoothing: float) -> torch.Tensor:
    return F.cross_entropy(head(hidden).float(), targets, reduction="sum", label_smoothing=smoothing)


class _FrozenHead(torch.autograd.Function):
    """The gradient to a hidden state is the mean of the output embeddings by their probabilities, less the wanted one."""

    @staticmethod
    def forward(ctx, hidden, weight, targets, smoothing):
        wanted = weight[targets].float()
        if smoothing:
            wanted = torch.lerp(wanted, weight.mean(0, dtype=torch.float32), smoothing)
        normalizer, expected = _expected(hidden, weight)
        ctx.save_for_backward(((expected - wanted) / len(targets)).to(hidden.dtype))
        return (normalizer - (hidden * wanted).sum(-1)).sum() / len(targets)

    @staticmethod
    def backward(ctx, upstream):
        return ctx.saved_tensors[0] * upstream, None, None, None


def _expected(hidden: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Of logits hidden · weightᵀ: the logsumexp (labels,) and softmax(logits) · weight (labels, dim), both float32.

    That is attention whose keys and values are the vocabulary, so it goes as in FlashAttention (arXiv 2205.14135): a
    stretch of words at a time, what was summed before rescaled to the new maximum.
    """
    hidden = hidden.to(weight.dtype)
    largest = hidden.new_full((len(hidden), 1), -torch.inf, dtype=torch.float32)
    total, weighted = torch.zeros_like(largest), hidden.new_zeros(hidden.shape, dtype=torch.float32)
    for words in weight.split(_words_at_once(hidden)):
        logits = (hidden @ words.T).float()
        before, largest = largest, torch.maximum(largest, logits.amax(-1, keepdim=True))
        shares, scale = logits.sub_(largest).exp_(), (before - largest).exp_()
        total = total * scale + shares.sum(-1, keepdim=True)
        weighted = weighted * scale + (shares.to(weight.dtype) @ words)
    return (largest + total.log()).squeeze(-1), weighted / total


def _words_at_once(hidden: torch.Tensor) -> int:
    room = CACHED_BYTES if hidden.device.type == "cpu" else PIECE_BYTES
    return max(LEAST_WORDS, room // (4 * max(1, len(hidden))))
