"""The parts of nano before training: tokenizer, encoder, language model, projector, and the CTC head beside them."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedTokenizerFast, Qwen3Config, WhisperFeatureExtractor
from transformers.models.glmasr.configuration_glmasr import GlmAsrEncoderConfig

from tiny_audio.model.config import ASRConfig
from tiny_audio.model.encoders import length_mask
from tiny_audio.model.modeling import ASRModel
from tiny_audio.model.processor import INSTRUCTION, ASRProcessor
from tiny_audio.training.ctc import CHARACTERS
from tiny_audio.training.initialization import match_embedding_scale

SPECIAL_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<audio>", "<think>", "</think>"]
CHAT_TEMPLATE = (
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}"
    "{{- '<|im_start|>assistant\\n' }}"
    "{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}"
    "{%- endif %}"
)
CTC_INDEX = {character: index for index, character in enumerate(CHARACTERS) if character}


def train_tokenizer(texts: Iterable[str], vocabulary: int = 768) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer with Qwen3's special tokens and a chat template like its."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=SPECIAL_TOKENS, initial_alphabet=alphabet, show_progress=False
    )
    template = [f"system\nuser\n {INSTRUCTION}\nassistant\n\n\n"] * 500  # the prompt itself should be few tokens
    tokenizer.train_from_iterator([*texts, *template], trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=[token for token in SPECIAL_TOKENS if token not in ("<|im_end|>", "<|endoftext|>")],
        model_max_length=2048,
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def encoder_config(**changes) -> GlmAsrEncoderConfig:
    """About 1.9 M parameters."""
    sizes = {"hidden_size": 192, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 4}
    return GlmAsrEncoderConfig(**{**sizes, "intermediate_size": 768, "head_dim": 48, "num_mel_bins": 128, **changes})


def decoder_config(tokenizer: PreTrainedTokenizerFast, **changes) -> Qwen3Config:
    """About 1.5 M parameters."""
    sizes = {"hidden_size": 192, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2}
    sizes |= {"head_dim": 48, "intermediate_size": 576, "max_position_embeddings": 2048}
    ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id, "bos_token_id": None}
    return Qwen3Config(**{**sizes, **ends, "vocab_size": len(tokenizer), "tie_word_embeddings": True, **changes})


def build_asr(tokenizer: PreTrainedTokenizerFast, encoder: dict | None = None, decoder: dict | None = None) -> ASRModel:
    """ASRModel of random weights, with a CTC head, whose parts are all to be trained."""
    audio_config, text_config = encoder_config(**(encoder or {})), decoder_config(tokenizer, **(decoder or {}))
    config = ASRConfig(
        audio_config=audio_config,
        text_config=text_config,
        encoder_dim=audio_config.hidden_size,
        llm_dim=text_config.hidden_size,
        projector_pool_stride=4,
        projector_hidden_dim=512,
        ctc_vocabulary=CHARACTERS,
        self_contained=True,
    )
    asr = ASRModel(config, processor=ASRProcessor(config, tokenizer, WhisperFeatureExtractor(feature_size=128)))
    match_embedding_scale(asr)
    for part in (asr.encoder.encoder, asr.language_model):
        part.set_attn_implementation("eager")  # the fused kernel's backward pass is several times slower on a CPU
    return asr.requires_grad_(True)


class MatmulConv1d(nn.Conv1d):
    """A convolution of kernel 3 as one matrix product: its backward pass is several times faster in bf16 on a CPU."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        (stride,), (padding,) = self.stride, self.padding
        padded = F.pad(x.transpose(1, 2), (0, 0, padding, padding))  # (batch, frames, channels)
        frames = (padded.shape[1] - 3) // stride + 1
        taps = [padded[:, tap : tap + stride * (frames - 1) + 1 : stride] for tap in range(3)]
        weight = self.weight.permute(0, 2, 1).flatten(1)  # (out, 3 · in), as the taps stand
        return F.linear(torch.cat(taps, -1), weight, self.bias).transpose(1, 2)


class JointModel(nn.Module):
    """Encoder, projector, language model and CTC head trained together."""

    def __init__(self, asr: ASRModel, dropout: float = 0.1):
        super().__init__()
        self.asr = asr
        for convolution in (asr.encoder.encoder.conv1, asr.encoder.encoder.conv2):
            convolution.__class__ = MatmulConv1d
        self.dropout = dropout

    def ctc_logits(self, features: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """(batch, 128, frames) → frames (batch, n, dim), their lengths, and CTC logits (batch, n, characters)."""
        encoder = self.asr.encoder
        frames = encoder.encode(features, lengths)  # as the adapter's forward, without cutting to the longest clip
        return frames, encoder.output_length(lengths), self.asr.ctc_head(frames)

    def forward(self, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """The CTC loss a character and the language model's loss a token."""
        frames, lengths, logits = self.ctc_logits(batch["features"], batch["lengths"])
        log_probabilities = logits.float().log_softmax(-1).transpose(0, 1)
        ctc = F.ctc_loss(
            log_probabilities,
            batch["characters"],
            lengths,
            batch["num_characters"],
            reduction="sum",
            zero_infinity=True,
        )
        ctc = ctc / batch["num_characters"].sum()
        if len(batch["lm_rows"]) == 0:
            return ctc, ctc.new_zeros(())
        rows = batch["lm_rows"]
        return ctc, self._lm_loss(frames[rows], lengths[rows], batch)

    def _lm_loss(self, frames: torch.Tensor, lengths: torch.Tensor, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        asr, ids = self.asr, batch["input_ids"]
        frames = F.dropout(frames, self.dropout, self.training)
        embeddings = asr.projector(frames, length_mask(lengths, frames.shape[1]))
        counts = asr.projector.output_length(lengths)
        placeholder = ids == asr.config.audio_token_id
        assert torch.equal(placeholder.sum(-1), counts)
        tokens = asr.language_model.get_input_embeddings()(ids)
        audio = embeddings[length_mask(counts, embeddings.shape[1])]
        tokens = tokens.masked_scatter(placeholder[..., None], audio.to(tokens.dtype))
        decoder = asr.language_model.get_decoder()
        hidden = decoder(
            inputs_embeds=tokens, attention_mask=batch["attention_mask"], use_cache=False
        ).last_hidden_state
        targets = batch["labels"][:, 1:]
        wanted = targets != -100
        answers = hidden[:, :-1][wanted]
        padded = F.pad(answers, (0, 0, 0, -len(answers) % 64))  # few different shapes
        logits = asr.language_model.get_output_embeddings()(padded)[: len(answers)]
        return F.cross_entropy(logits.float(), targets[wanted])
