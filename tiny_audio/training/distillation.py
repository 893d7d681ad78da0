"""Distillation: the language model that reads the transcript teaches the one that hears the audio."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch.nn import functional as F

from tiny_audio.model.lora import ADAPTER, adapted_parts
from tiny_audio.model.modeling import ASRModel


def teacher_logits(model: ASRModel, prompts: dict[str, torch.Tensor]) -> torch.Tensor:
    """(labels, vocabulary) of the language model without its LoRA, for prompts that hold the transcripts."""
    with torch.no_grad(), _without_lora(model):
        hidden, _ = model.label_states(**prompts)
        return model.language_model.get_output_embeddings()(hidden)


def _without_lora(model: ASRModel) -> AbstractContextManager:
    if ADAPTER not in adapted_parts(model):
        return nullcontext()
    from peft.helpers import rescale_adapter_scale

    return rescale_adapter_scale(model.language_model, 0.0)


def distillation_loss(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    """KL(teacher ‖ student) × temperature² (arXiv 1503.02531), the mean over tokens, as Ultravox trains with.

    Args:
        student, teacher: logits (labels, vocabulary).
        temperature: both are divided by it, so that more than the likeliest token counts.
    """
    heard, read = (F.log_softmax(logits.float() / temperature, -1) for logits in (student, teacher))
    return F.kl_div(heard, read, reduction="batchmean", log_target=True) * temperature**2
