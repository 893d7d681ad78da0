"""The CTC head in training: the encoder checkpoint's own or a new one, its loss and its own text."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers import AutoConfig, AutoModelForCTC, Wav2Vec2CTCTokenizer

from tiny_audio.model.alignment import SEPARATORS
from tiny_audio.model.encoders import quiet_transformers
from tiny_audio.model.modeling import ASRModel
from tiny_audio.model.processor import IGNORED_LABEL

CHARACTERS = ["", *"abcdefghijklmnopqrstuvwxyz'", " "]  # of a new head; index 0 is the blank
BRING_THEIRS = ("hubert", "wav2vec2", "wavlm", "wav2vec2-bert")  # model types whose CTC checkpoints spell characters


def add_ctc_head(model: ASRModel, encoder_at: tuple[str | None, str]) -> None:
    """Lets a model's CTC head be trained; one that has none gets one.

    The head of an encoder that was fine-tuned for CTC is taken over, and trained only where nothing else is.

    Args:
        encoder_at: where the encoder lies: path or Hub id, and subfolder.
    """
    config, alone = model.config, not trained(model)
    brought = model.ctc_head is None and brings_head(*encoder_at) and config.encoder_layer == -1
    if model.ctc_head is None:
        config.ctc_vocabulary = own_vocabulary(*encoder_at) if brought else CHARACTERS
        model.ctc_head = nn.Linear(model.encoder.dim, len(config.ctc_vocabulary), device=model.device)
    if brought and model.device.type != "meta":
        model.ctc_head.load_state_dict(own_weights(*encoder_at))
    model.ctc_head.requires_grad_(alone or not brought)


def brings_head(path: str | None, subfolder: str) -> bool:
    """Whether an encoder's checkpoint holds a CTC head that spells characters."""
    if path is None:
        return False
    encoder = AutoConfig.from_pretrained(path, subfolder=subfolder)
    fine_tuned = any(name.endswith("ForCTC") for name in encoder.architectures or ())
    return fine_tuned and encoder.model_type in BRING_THEIRS


def own_vocabulary(path: str | None, subfolder: str) -> list[str]:
    """The tokens of an encoder's own head, the blank (their padding token) first."""
    tokenizer = Wav2Vec2CTCTokenizer.from_pretrained(path, subfolder=subfolder)
    known = {index: token for token, index in tokenizer.get_vocab().items()}
    size = AutoConfig.from_pretrained(path, subfolder=subfolder).vocab_size
    return [known.get(index, f"<{index}>") for index in _blank_first(tokenizer.pad_token_id, size)]


def own_weights(path: str | None, subfolder: str) -> dict[str, torch.Tensor]:
    """The weight and bias of an encoder's own head, in the order of its vocabulary."""
    with quiet_transformers():
        head = AutoModelForCTC.from_pretrained(path, subfolder=subfolder).lm_head
    blank = Wav2Vec2CTCTokenizer.from_pretrained(path, subfolder=subfolder).pad_token_id
    return {name: tensor[_blank_first(blank, len(tensor))] for name, tensor in head.state_dict().items()}


def _blank_first(blank: int, size: int) -> list[int]:
    return [blank, *(index for index in range(size) if index != blank)]


def leaves_head_behind(model: ASRModel) -> bool:
    """Whether the encoder's frames change under a CTC head that stays as it is."""
    return model.ctc_head is not None and not model.ctc_head.weight.requires_grad and trained(model.encoder.encoder)


def trained(part: nn.Module) -> bool:
    """Whether any of its parameters is."""
    return any(parameter.requires_grad for parameter in part.parameters())


def trains_head_alone(model: ASRModel) -> bool:
    """Whether the CTC head is all that is trained: then projector and language model need not run."""
    return {name.split(".")[0] for name, weight in model.named_parameters() if weight.requires_grad} == {"ctc_head"}


def audio_inputs(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What the encoder and the head take of a batch."""
    names = ("input_features", "input_values", "audio_attention_mask", "frames")
    return {name: batch[name] for name in names if name in batch}


def frame_lengths(model: ASRModel, batch: dict[str, Any]) -> torch.Tensor:
    """Encoder frames of each clip, (batch,)."""
    return (
        batch["frames"][1] if "frames" in batch else model.encoder.output_length(batch["audio_attention_mask"].sum(-1))
    )


def ctc_loss(scores: torch.Tensor, lengths: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Sum of the CTC losses (Graves et al., 2006) of the clips that have labels.

    Scores are (batch, frames, classes), lengths (batch,), labels (batch, characters) with -100 in the padding.
    """
    counts = (labels != IGNORED_LABEL).sum(-1)
    targets = labels.clamp(min=0)
    losses = F.ctc_loss(scores.transpose(0, 1), targets, lengths, counts, reduction="none", zero_infinity=True)
    return losses[counts > 0].sum()


def ctc_texts(scores: torch.Tensor, lengths: torch.Tensor, vocabulary: Sequence[str]) -> list[str]:
    """The text of each clip's best path, in lower case."""
    texts = []
    for row, length in zip(scores, lengths.tolist(), strict=True):
        best = torch.unique_consecutive(row[:length].argmax(-1)).tolist()
        characters = (" " if vocabulary[index] in SEPARATORS else vocabulary[index] for index in best if index)
        texts.append(" ".join("".join(characters).lower().split()))
    return texts
