"""The start of a new projector: audio at the scale of the language model's token embeddings."""

from collections.abc import Callable, Iterable

import torch

from tiny_audio.model.encoders import length_mask
from tiny_audio.model.modeling import ASRModel
from tiny_audio.model.projectors import RMSNorm


@torch.no_grad()
def match_embedding_scale(model: ASRModel, speech: Callable[[], Iterable[torch.Tensor]] | None = None) -> None:
    """Starts the projected audio at the RMS of the token embeddings: further off, training takes long to take off.

    The last layer is scaled; where it is no norm, by what it makes of speech, or of random frames.

    Args:
        model: with a projector of random weights.
        speech: gives features (batch, mels, frames) or (batch, samples), and their mask; called only where they are needed.
    """
    *_, last = (module for module in model.projector.modules() if module._parameters)
    wanted = rms(model.language_model.get_input_embeddings().weight)
    made = last.weight if isinstance(last, RMSNorm) else _projected(model, speech)
    factor = wanted.to(made.device) / rms(made)
    for parameter in last.parameters() if factor.isfinite() else ():
        parameter.mul_(factor)


def rms(x: torch.Tensor) -> torch.Tensor:
    """Root mean square of all elements, in float32."""
    return x.detach().float().pow(2).mean().sqrt()


def _projected(model: ASRModel, speech: Callable[[], Iterable[torch.Tensor]] | None) -> torch.Tensor:
    """Audio tokens (tokens, llm_dim)."""
    weight = next(model.projector.parameters())
    if speech is None:
        frames = torch.randn(1, 240, model.encoder.dim, generator=torch.Generator().manual_seed(0))
        return model.projector(frames.to(weight))[0]
    embeddings, counts = model.encode_audio(*(tensor.to(weight.device) for tensor in speech()))
    return embeddings[length_mask(counts, embeddings.shape[1])]
