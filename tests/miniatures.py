"""Miniatures of pretrained parts, random and of the real classes: encoder and decoder families as transformers saves them."""

from dataclasses import dataclass, field
from pathlib import Path

import transformers
from transformers import (
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    SmolLM3Config,
    SmolLM3ForCausalLM,
)

WIDTHS = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
RAW = {
    **WIDTHS,
    "conv_dim": (16,) * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    "vocab_size": 16,
}
RAW |= {"feat_extract_norm": "layer", "do_stable_layer_norm": True}
HUBERT = {**RAW, "conv_bias": True}
ADAPTER = {"add_adapter": True, "num_adapter_layers": 2, "output_hidden_size": 24}
BERT = {**WIDTHS, "vocab_size": 16, "conv_depthwise_kernel_size": 7}
LLAMA = {**WIDTHS, "model_type": "llama", "vocab_size": 16, "num_key_value_heads": 2}
AUDIO_LLM = {"audio_config": WIDTHS, "text_config": LLAMA, "audio_token_id": 5}
WHISPER = {"d_model": 32, "encoder_layers": 2, "decoder_layers": 1, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64}
WHISPER |= {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "vocab_size": 16, "pad_token_id": 0}
WHISPER |= {"bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 3}
FAST_CONFORMER = {**WIDTHS, "subsampling_conv_channels": 8}
PARAKEET = {"encoder_config": FAST_CONFORMER, "vocab_size": 16}
TDT = {**PARAKEET, "decoder_hidden_size": 16, "num_decoder_layers": 1, "blank_token_id": 15}

# name: (the larger checkpoint's model class, its config, the encoder inside it)
ENCODERS = {
    "hubert": ("HubertForCTC", HUBERT, "hubert"),
    "hubert-xlarge": ("HubertForCTC", {**HUBERT, "hidden_size": 48}, "hubert"),
    "hubert-group": ("HubertForCTC", {**RAW, "feat_extract_norm": "group", "do_stable_layer_norm": False}, "hubert"),
    "hubert-batch-norm": ("HubertForCTC", {**RAW, "conv_pos_batch_norm": True}, "hubert"),
    "wav2vec2": ("Wav2Vec2ForCTC", RAW, "wav2vec2"),
    "wav2vec2-adapter": ("Wav2Vec2Model", {**RAW, **ADAPTER}, ""),
    "wavlm": ("WavLMForCTC", RAW, "wavlm"),
    "w2v-bert": ("Wav2Vec2BertForCTC", BERT, "wav2vec2_bert"),
    "w2v-bert-adapter": ("Wav2Vec2BertModel", {**BERT, **ADAPTER, "output_hidden_size": 32}, ""),
    "whisper": ("WhisperForConditionalGeneration", WHISPER, "model.encoder"),
    "voxtral": ("VoxtralForConditionalGeneration", AUDIO_LLM, "model.audio_tower"),
    "glmasr": ("GlmAsrForConditionalGeneration", AUDIO_LLM, "model.audio_tower"),
    "parakeet": ("ParakeetForCTC", PARAKEET, "encoder"),
    "parakeet-tdt": ("ParakeetForTDT", TDT, "encoder"),
    "parakeet-encoder": ("ParakeetEncoder", FAST_CONFORMER, ""),
}

# every projector, and every variant of one, by the keys of its config
PROJECTORS: dict[str, dict] = {
    "mlp-norm": {},
    "mlp-relu": {"projector_variant": "relu", "projector_pool_stride": 5},
    "mlp-glm": {"projector_variant": "glm"},
    "swiglu": {"projector_type": "swiglu", "projector_pool_stride": 5},
    "mosa": {"projector_type": "mosa"},
    "moe": {"projector_type": "moe"},
    "qformer": {"projector_type": "qformer"},
}


def encoder_family(name: str):
    """The larger checkpoint of a family, of random weights."""
    kind, values, _ = ENCODERS[name]
    model_class = getattr(transformers, kind)
    return model_class(model_class.config_class(**values)).eval()


def extractor_of(name: str):
    if name.startswith("parakeet"):
        return transformers.ParakeetFeatureExtractor()
    if name.startswith("w2v-bert"):
        return transformers.SeamlessM4TFeatureExtractor()
    if name in ("whisper", "voxtral", "glmasr"):
        return transformers.WhisperFeatureExtractor(feature_size=80 if name == "whisper" else 128)
    return transformers.Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=True)


CHAT = (
    "{%- for message in messages %}{{ '[' + message.role + ']' + message.content + '\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{ '[assistant]' }}{%- endif %}"
)


@dataclass(frozen=True)
class DecoderFamily:
    """A language model's classes, and what its tokenizer has."""

    config: type
    model: type
    chat: bool = True
    pad: bool = True
    bos: str | None = None
    options: dict = field(default_factory=dict)


DECODERS = {
    "qwen3": DecoderFamily(Qwen3Config, Qwen3ForCausalLM, options={"head_dim": 16, "tie_word_embeddings": True}),
    "qwen3-8b": DecoderFamily(Qwen3Config, Qwen3ForCausalLM, options={"head_dim": 16, "tie_word_embeddings": False}),
    "smollm3": DecoderFamily(
        SmolLM3Config, SmolLM3ForCausalLM, options={"tie_word_embeddings": True, "no_rope_layers": [1, 0]}
    ),
    "smollm3-base": DecoderFamily(
        SmolLM3Config, SmolLM3ForCausalLM, chat=False, pad=False, options={"no_rope_layers": [1, 0]}
    ),
    "llama": DecoderFamily(LlamaConfig, LlamaForCausalLM, chat=False, pad=False, bos="<s>"),
}


def save_decoder_family(family: DecoderFamily, tokenizer_at: Path, folder: Path) -> None:
    """A random miniature of the family with its tokenizer, as transformers saves them."""
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_at)
    tokenizer.chat_template = CHAT if family.chat else None
    if not family.pad:
        tokenizer.pad_token = None
    if family.bos:
        tokenizer.add_special_tokens({"bos_token": family.bos})
    tokenizer.save_pretrained(folder)
    ids = {"eos_token_id": tokenizer.eos_token_id, "bos_token_id": tokenizer.bos_token_id, "pad_token_id": None}
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = family.config(vocab_size=len(tokenizer), num_key_value_heads=1, **sizes, **ids, **family.options)
    family.model(config).save_pretrained(folder)
