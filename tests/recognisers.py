"""Miniatures of other people's recognisers: random weights, real classes, processors made on the spot and saved."""

import base64
import json
from functools import partial
from pathlib import Path

import torch
import transformers
from miniatures import HUBERT, LLAMA, PARAKEET, RAW, WIDTHS
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from tokenizers.pre_tokenizers import ByteLevel
from transformers import PreTrainedTokenizerFast

LETTERS = ["<pad>", "<s>", "</s>", "<unk>", "|", *"abcdefghijklmnopqrstuvwxyz'"]
SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<audio>", "<audio_bos>", "<audio_eos>"]
PARTS = (
    "{%- for message in messages %}{{ '<|im_start|>' + message.role + '\n' }}"
    "{%- if message.content is string %}{{ message.content }}{%- else %}{%- for part in message.content %}"
    "{{ '<audio>' if part.type == 'audio' else part.text }}{%- endfor %}{%- endif %}{{ '<|im_end|>\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{%- endif %}"
)
TEXT = {**LLAMA, "vocab_size": 256 + len(SPECIALS), "initializer_range": 0.3, "tie_word_embeddings": False}
TEXT |= {"eos_token_id": 258, "pad_token_id": 256, "bos_token_id": None}
MEL_128 = {**WIDTHS, "num_mel_bins": 128, "initializer_range": 0.2}


def save_whisper(folder: Path) -> None:
    """A Whisper that says bytes."""
    names = "endoftext startoftranscript en translate transcribe startoflm startofprev nospeech notimestamps"
    specials = [f"<|{name}|>" for name in names.split()]
    tokens = [*sorted(ByteLevel.alphabet()), *specials, *(f"<|{i * 0.02:.2f}|>" for i in range(1501))]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    tokenizer = transformers.WhisperTokenizer(
        vocab=vocabulary, merges=[], additional_special_tokens=specials, pad_token=specials[0]
    )
    config = transformers.WhisperConfig(
        vocab_size=len(tokens), d_model=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32, num_mel_bins=80, pad_token_id=256,
        decoder_start_token_id=257, eos_token_id=256, bos_token_id=256, init_std=0.3,
    )  # fmt: skip
    model = transformers.WhisperForConditionalGeneration(config)
    with torch.no_grad():
        model.model.decoder.embed_tokens.weight[:256] *= 3
        model.model.decoder.embed_tokens.weight[256:] = 0  # tied with the output: specials get a logit of 0
    generation = model.generation_config
    generation._from_model_config = False
    generation.update(max_length=24, suppress_tokens=None, begin_suppress_tokens=None)
    generation.no_timestamps_token_id = vocabulary["<|notimestamps|>"]
    generation.prev_sot_token_id = vocabulary["<|startofprev|>"]
    generation.is_multilingual = False
    generation.alignment_heads = [[0, 0]]
    model.save_pretrained(folder)
    transformers.WhisperProcessor(transformers.WhisperFeatureExtractor(), tokenizer).save_pretrained(folder)


def save_letters(folder: Path, kind: str, values: dict) -> None:
    """A CTC model of the wav2vec2 kind, whose tokens are letters."""
    (folder / "vocab.json").write_text(json.dumps({letter: number for number, letter in enumerate(LETTERS)}))
    model_class = getattr(transformers, kind)
    config = model_class.config_class(**{**values, "vocab_size": len(LETTERS), "initializer_range": 0.3})
    model_class(config).save_pretrained(folder)
    extractor = transformers.Wav2Vec2FeatureExtractor(return_attention_mask=config.feat_extract_norm == "layer")
    tokenizer = transformers.Wav2Vec2CTCTokenizer(str(folder / "vocab.json"))
    transformers.Wav2Vec2Processor(extractor, tokenizer).save_pretrained(folder)


def save_parakeet(folder: Path) -> None:
    core = Tokenizer(models.WordLevel({letter: number for number, letter in enumerate(LETTERS)}, unk_token="<unk>"))
    core.decoder = decoders.Fuse()
    tokenizer = transformers.ParakeetTokenizer(tokenizer_object=core, pad_token="<pad>", unk_token="<unk>")
    config = transformers.ParakeetCTCConfig(**{**PARAKEET, "vocab_size": len(LETTERS), "pad_token_id": 0})
    model = transformers.ParakeetForCTC(config)
    torch.nn.init.normal_(model.ctc_head.weight if hasattr(model.ctc_head, "weight") else model.ctc_head.conv.weight)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    transformers.ParakeetFeatureExtractor().save_pretrained(folder)


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """Bytes and the special tokens of an audio language model."""
    alphabet = {letter: number for number, letter in enumerate(sorted(ByteLevel.alphabet()))}
    core = Tokenizer(models.BPE(vocab=alphabet, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(SPECIALS)
    named = {"audio_token": "<audio>", "audio_bos_token": "<audio_bos>", "audio_eos_token": "<audio_eos>"}
    return PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token="<|im_end|>", pad_token="<|endoftext|>", extra_special_tokens=named
    )


def save_glmasr(folder: Path, kind: str = "GlmAsr", text: str = "llama") -> None:
    """GLM-ASR, or Audio Flamingo 3, which is built like it."""
    config_class, processor_class = (getattr(transformers, kind + part) for part in ("Config", "Processor"))
    config = config_class(
        audio_config=MEL_128, text_config={**TEXT, "model_type": text}, audio_token_id=259, initializer_range=0.2
    )
    _silenced(getattr(transformers, f"{kind}ForConditionalGeneration")(config)).save_pretrained(folder)
    extractor = transformers.WhisperFeatureExtractor(feature_size=128)
    processor_class(extractor, byte_tokenizer(), chat_template=PARTS, audio_token="<audio>").save_pretrained(folder)


def save_qwen3_asr(folder: Path) -> None:
    audio = {
        "d_model": 32, "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 64, "output_dim": 32,
        "downsample_hidden_size": 8, "initializer_range": 0.2,
    }  # fmt: skip
    text = {**TEXT, "model_type": "qwen3", "head_dim": 16}
    config = transformers.Qwen3ASRConfig(
        audio_config=audio, text_config=text, audio_token_id=259, pad_token_id=256, eos_token_id=258,
        tie_word_embeddings=False, initializer_range=0.2,
    )  # fmt: skip
    _silenced(transformers.Qwen3ASRForConditionalGeneration(config)).save_pretrained(folder)
    processor = transformers.Qwen3ASRProcessor(
        transformers.Qwen3ASRFeatureExtractor(), byte_tokenizer(), chat_template=PARTS
    )
    processor.save_pretrained(folder)


def save_granite_speech(folder: Path) -> None:
    encoder = {"input_dim": 160, "num_layers": 2, "hidden_dim": 32, "num_heads": 2, "output_dim": 8, "context_size": 50}
    qformer = {"model_type": "blip_2_qformer", **WIDTHS, "encoder_hidden_size": 32, "initializer_range": 0.3}
    config = transformers.GraniteSpeechConfig(
        encoder_config={**encoder, "max_pos_emb": 50}, projector_config=qformer, audio_token_index=259,
        text_config={**TEXT, "model_type": "granite"}, has_lora_adapter=False, tie_word_embeddings=False,
        initializer_range=0.3,
    )  # fmt: skip
    _silenced(transformers.GraniteSpeechForConditionalGeneration(config)).save_pretrained(folder)
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = PARTS
    extractor = transformers.GraniteSpeechFeatureExtractor()
    transformers.GraniteSpeechProcessor(extractor, tokenizer).save_pretrained(folder)


def save_voxtral(folder: Path) -> None:
    names = (
        "<unk> <s> </s> [INST] [/INST] [AVAILABLE_TOOLS] [/AVAILABLE_TOOLS] [TOOL_RESULTS] [/TOOL_RESULTS] [TOOL_CALLS] "
        "[IMG] <pad> [IMG_BREAK] [IMG_END] [PREFIX] [MIDDLE] [SUFFIX] [SYSTEM_PROMPT] [/SYSTEM_PROMPT] [TOOL_CONTENT]"
    )
    specials = dict(enumerate(names.split())) | {24: "[AUDIO]", 25: "[BEGIN_AUDIO]", 34: "[TRANSCRIBE]"}
    listed = [{"rank": i, "token_str": specials.get(i, f"<SPECIAL_{i}>"), "is_control": True} for i in range(40)]
    in_base64 = [base64.b64encode(bytes([i])).decode() for i in range(256)]
    vocabulary = [{"rank": i, "token_bytes": token, "token_str": None} for i, token in enumerate(in_base64)]
    sizes = {"num_vocab_tokens": 256, "default_vocab_size": 296, "default_num_special_tokens": 40}
    tekken = {
        "config": {"pattern": r"[^\s]+|\s+", **sizes, "version": "v7"},
        "vocab": vocabulary, "special_tokens": listed, "version": 1, "type": "Tekken",
        "audio": {
            "sampling_rate": 16000, "frame_rate": 12.5, "chunk_length_s": 30.0,
            "audio_encoding_config": {"num_mel_bins": 128, "hop_length": 160, "window_size": 400},
        },
    }  # fmt: skip
    (folder / "tekken.json").write_text(json.dumps(tekken))
    text = {**TEXT, "vocab_size": 296, "eos_token_id": 2, "pad_token_id": 11, "bos_token_id": 1, "head_dim": 16}
    audio = {**MEL_128, "intermediate_size": 128}  # four frames of the encoder in each embedding
    config = transformers.VoxtralConfig(audio_config=audio, text_config=text, audio_token_id=24)
    model = transformers.VoxtralForConditionalGeneration(config)
    model.get_output_embeddings().weight.data[:40] = 0
    model.save_pretrained(folder)
    extractor = transformers.WhisperFeatureExtractor(feature_size=128)
    tokenizer = transformers.MistralCommonBackend(folder / "tekken.json")
    transformers.VoxtralProcessor(extractor, tokenizer).save_pretrained(folder)


def _silenced(model):
    """No special token is ever said, so that there is text."""
    model.get_output_embeddings().weight.data[256:] = 0
    return model


LETTER_MODELS = {
    "wav2vec2-layer": ("Wav2Vec2ForCTC", RAW),
    "wav2vec2-group": ("Wav2Vec2ForCTC", {**RAW, "feat_extract_norm": "group", "do_stable_layer_norm": False}),
    "hubert": ("HubertForCTC", HUBERT),
    "wavlm": ("WavLMForCTC", RAW),
}
OTHERS = {
    "whisper": save_whisper,
    "parakeet": save_parakeet,
    "glmasr": save_glmasr,
    "audioflamingo3": partial(save_glmasr, kind="AudioFlamingo3", text="qwen2"),
    "qwen3-asr": save_qwen3_asr,
    "granite-speech": save_granite_speech,
    "voxtral": save_voxtral,
}


def save_recogniser(name: str, folder: Path) -> Path:
    """A random miniature with its processor, as transformers saves them."""
    folder.mkdir(parents=True)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if name in LETTER_MODELS:
            save_letters(folder, *LETTER_MODELS[name])
        else:
            OTHERS[name](folder)
    return folder
