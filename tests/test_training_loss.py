"""The loss by pieces is the plain one: value, gradients, label smoothing, frozen and trained output layers, a real model."""

import pytest
import torch
from torch import nn

from tiny_audio import ASRModel
from tiny_audio.model.modeling import label_loss
from tiny_audio.training import loss as module
from tiny_audio.training.loss import piecewise_loss

LABELS, DIM, VOCABULARY = 50, 64, 1000


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch) -> None:
    monkeypatch.setattr(module, "PIECE_BYTES", 4 * VOCABULARY * 7)  # seven labels at a time, and one left over
    monkeypatch.setattr(module, "CACHED_BYTES", 4 * LABELS * 300)  # 300 words at a time, and 100 left over


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("kind", ["frozen", "trained", "with bias"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_value_and_gradients(kind: str, smoothing: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    head = nn.Linear(DIM, VOCABULARY, bias=kind == "with bias", dtype=dtype).requires_grad_(kind == "trained")
    targets = torch.randint(0, VOCABULARY, (LABELS,))
    found = []
    for loss in (piecewise_loss, label_loss):
        hidden = torch.randn(LABELS, DIM, dtype=dtype, generator=torch.Generator().manual_seed(1), requires_grad=True)
        value = loss(head, hidden, targets, smoothing)[0]
        head.zero_grad()
        (3 * value).backward()
        found.append((value.detach(), hidden.grad, head.weight.grad if kind == "trained" else torch.zeros(1)))
    near = {"rtol": 1e-5, "atol": 1e-6} if dtype == torch.float32 else {"rtol": 0.02, "atol": 2e-4}
    for ours, plain in zip(*found, strict=True):
        torch.testing.assert_close(ours, plain, **near)


def test_without_gradients() -> None:
    head, hidden = nn.Linear(DIM, VOCABULARY, bias=False).requires_grad_(False), torch.randn(LABELS, DIM)
    targets = torch.randint(0, VOCABULARY, (LABELS,))
    with torch.no_grad():
        torch.testing.assert_close(piecewise_loss(head, hidden, targets)[0], label_loss(head, hidden, targets, 0.0)[0])


class Largest(torch.utils._python_dispatch.TorchDispatchMode):
    """Remembers the most values that a tensor made within held."""

    values = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, tuple | list) else (made,):
            if isinstance(tensor, torch.Tensor):
                self.values = max(self.values, tensor.numel())
        return made


@pytest.mark.parametrize("frozen", [True, False])
def test_no_tensor_of_all_logits(frozen: bool) -> None:
    head = nn.Linear(DIM, VOCABULARY, bias=False).requires_grad_(not frozen)
    hidden, targets = torch.randn(3 * LABELS, DIM, requires_grad=True), torch.randint(0, VOCABULARY, (3 * LABELS,))
    for loss, is_whole in ((piecewise_loss, False), (lambda *args: label_loss(*args, 0.0), True)):
        with Largest() as largest:
            loss(head, hidden, targets)[0].backward()
        assert (largest.values >= 3 * LABELS * VOCABULARY) == is_whole


def test_in_the_model(tiny_checkpoint, tone) -> None:
    found = []
    for loss in (label_loss, piecewise_loss):
        model = ASRModel.from_pretrained(tiny_checkpoint).train()
        model.label_loss = loss
        batch = model.processor(audio=[tone(0.7), tone(1.3)], text=["one two", "three"], return_tensors="pt")
        output = model(**batch)
        output.loss.backward()
        found.append((output.loss.detach(), *(p.grad for p in model.projector.parameters())))
        assert (output.logits is None) == (loss is piecewise_loss)
    for ours, plain in zip(*found, strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-6)
