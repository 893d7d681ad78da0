"""The models that are timed: nano as shipped, `mini` for a CPU and `full` for a GPU, both of random weights."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerFast, WhisperFeatureExtractor

from tiny_audio import ASRConfig, ASRModel, embedded
from tiny_audio.assets import dimensions
from tiny_audio.model.processor import ASRProcessor
from tiny_audio.text.labels import clean_label
from tiny_audio.training import compose
from tiny_audio.training.build import build_model

VOCABULARY = 151_936  # of Qwen3: the real cost of logits
PIECES = 2_000  # learned from the texts, so that a word is about as many tokens as in Qwen3
MELS = 128


@dataclass(frozen=True)
class Size:
    """The configs of encoder and language model, and the width of the projector."""

    encoder: dict[str, Any]
    language_model: dict[str, Any]
    projector_hidden_dim: int


def square(width: int, layers: int, vocabulary: int = VOCABULARY) -> Size:
    """A GLM-ASR encoder and a Qwen3 as deep and as wide as each other, in heads of 64 or one head."""
    heads = max(1, width // 64)
    common = {
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "head_dim": width // heads,
    }
    encoder = {"model_type": "glmasr_encoder", "intermediate_size": 4 * width, "num_key_value_heads": heads}
    decoder = {"model_type": "qwen3", "intermediate_size": 3 * width, "num_key_value_heads": max(1, heads // 2)}
    decoder |= {"vocab_size": vocabulary, "tie_word_embeddings": True, "pad_token_id": 0}
    return Size({**common, **encoder, "num_mel_bins": MELS}, {**common, **decoder}, 2 * width)


def full() -> Size:
    """GLM-ASR-Nano's encoder and Qwen3-0.6B."""
    encoder, decoder = dimensions("zai-org/GLM-ASR-Nano-2512"), dimensions("Qwen/Qwen3-0.6B")
    assert encoder is not None and decoder is not None
    return Size(encoder, {**decoder, "pad_token_id": 0}, 2048)


def build(name: str, texts: Sequence[str], device: str = "cpu", dtype: torch.dtype = torch.float32) -> ASRModel:
    """The model of a size with a projector to train; what is frozen has `dtype`."""
    torch.manual_seed(0)
    if name == "nano":
        return build_model(compose("quickstart").model).to(device)
    return random_model(full() if name == "full" else square(256, layers=4), texts, device, dtype)


def random_model(size: Size, texts: Sequence[str], device: str = "cpu", dtype: torch.dtype = torch.float32) -> ASRModel:
    """A model of random weights whose tokenizer was learned from the texts."""
    config = ASRConfig(
        audio_config=AutoConfig.for_model(**size.encoder),
        text_config=AutoConfig.for_model(**size.language_model),
        projector_hidden_dim=size.projector_hidden_dim,
        encoder_dim=size.encoder["hidden_size"],
        llm_dim=size.language_model["hidden_size"],
    )
    processor = ASRProcessor(config, learned_tokenizer(texts), WhisperFeatureExtractor(feature_size=MELS))
    with torch.device(device):
        model = ASRModel(config, processor=processor)
    for part in (model.encoder, model.language_model):
        part.to(dtype)
    return model


def learned_tokenizer(texts: Sequence[str]) -> PreTrainedTokenizerFast:
    """Byte-level BPE of the texts as they are trained on, with nano's special tokens and chat template."""
    shipped = AutoTokenizer.from_pretrained(embedded("nano"))
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=PIECES,
        special_tokens=shipped.all_special_tokens,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(map(clean_label, texts), trainer)
    ends = {"eos_token": shipped.eos_token, "pad_token": shipped.pad_token}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, **ends)
    tokenizer.chat_template = shipped.chat_template
    return tokenizer
