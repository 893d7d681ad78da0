"""Language models of every family that the configs name, as random miniatures: prompt, padding, loss, decoding, checkpoints."""

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from transformers import (
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    SmolLM3Config,
    SmolLM3ForCausalLM,
)

from tiny_audio import ASRConfig, ASRModel

CHAT = (
    "{%- for message in messages %}{{ '[' + message.role + ']' + message.content + '\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{ '[assistant]' }}{%- endif %}"
)


@dataclass(frozen=True)
class Family:
    """A language model's classes, and what its tokenizer has."""

    config: type
    model: type
    chat: bool = True
    pad: bool = True
    bos: str | None = None
    options: dict = field(default_factory=dict)


FAMILIES = {
    "qwen3": Family(Qwen3Config, Qwen3ForCausalLM, options={"head_dim": 16, "tie_word_embeddings": True}),
    "qwen3-8b": Family(Qwen3Config, Qwen3ForCausalLM, options={"head_dim": 16, "tie_word_embeddings": False}),
    "smollm3": Family(
        SmolLM3Config, SmolLM3ForCausalLM, options={"tie_word_embeddings": True, "no_rope_layers": [1, 0]}
    ),
    "smollm3-base": Family(
        SmolLM3Config, SmolLM3ForCausalLM, chat=False, pad=False, options={"no_rope_layers": [1, 0]}
    ),
    "llama": Family(LlamaConfig, LlamaForCausalLM, chat=False, pad=False, bos="<s>"),
}


def clips() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.normal(0, 0.1, samples).astype(np.float32) for samples in (16_000, 6_000)]


@pytest.fixture(scope="module", params=FAMILIES)
def family(request) -> Family:
    return FAMILIES[request.param]


@pytest.fixture(scope="module")
def decoder(family, tiny_parts, tmp_path_factory):
    """A random miniature of the family with its tokenizer, as transformers saves them."""
    folder = tmp_path_factory.mktemp("decoder")
    tokenizer = AutoTokenizer.from_pretrained(tiny_parts / "decoder")
    tokenizer.chat_template = CHAT if family.chat else None
    if not family.pad:
        tokenizer.pad_token = None
    if family.bos:
        tokenizer.add_special_tokens({"bos_token": family.bos})
    tokenizer.save_pretrained(folder)
    ids = {"eos_token_id": tokenizer.eos_token_id, "bos_token_id": tokenizer.bos_token_id, "pad_token_id": None}
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    torch.manual_seed(0)
    config = family.config(vocab_size=len(tokenizer), num_key_value_heads=1, **sizes, **ids, **family.options)
    family.model(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def asr(decoder, tiny_parts) -> ASRModel:
    config = ASRConfig(audio_model_id=str(tiny_parts / "encoder"), text_model_id=str(decoder), projector_hidden_dim=32)
    torch.manual_seed(1)
    return ASRModel.from_parts(config).eval()


def test_the_prompt_is_a_chat_turn_or_plain_and_padding_has_a_token(family, asr):
    batch = asr.processor(clips())
    (text, padded) = asr.processor.tokenizer.batch_decode(batch["input_ids"])
    heard = "<audio>" * asr.processor.audio_token_count(16_000)
    wanted = f"{heard} Transcribe the speech to text\n"
    assert text == (f"[user]{wanted}[assistant]" if family.chat else (family.bos or "") + wanted)
    pad = asr.processor.tokenizer.pad_token
    assert pad and padded.startswith(pad) and batch["attention_mask"][1, 0] == 0
    if not family.pad:
        assert pad == asr.processor.tokenizer.eos_token


def test_the_end_is_learnt_although_it_may_also_be_the_padding(asr):
    batch = asr.processor(clips(), text=["one two three", "four"])
    ends = [row[row != -100][-1].item() for row in batch["labels"]]
    assert ends == [asr.processor.tokenizer.eos_token_id] * 2


def test_loss_has_gradients_in_the_projector_only(asr):
    asr.zero_grad()
    asr(**asr.processor(clips(), text=["one two", "three"])).loss.backward()
    assert all(parameter.grad.isfinite().all() and parameter.grad.any() for parameter in asr.projector.parameters())
    assert all(parameter.grad is None for parameter in asr.language_model.parameters())


def test_the_placeholder_is_never_said(asr):
    batch, placeholder = asr.processor(clips()[0]), asr.config.audio_token_id
    head = asr.language_model.get_output_embeddings().weight
    with torch.no_grad():
        embeddings = asr.embed(batch["input_ids"], batch["input_features"], batch["audio_attention_mask"])
        before = head[placeholder].clone()
        head[placeholder] = 1000 * asr.language_model.get_decoder()(inputs_embeds=embeddings).last_hidden_state[0, -1]
        said, masked = (
            asr.generate(**batch, max_new_tokens=1, **options) for options in ({"suppress_tokens": None}, {})
        )
        head[placeholder] = before
    assert said.tolist() == [[placeholder]] and masked.tolist() != said.tolist()


def test_a_batch_reads_as_its_clips_alone(asr):
    texts = asr.transcribe(clips(), batch_size=2, max_new_tokens=8)
    assert texts == [asr.transcribe(clip, max_new_tokens=8) for clip in clips()]


def test_fine_tuned_and_saved_it_gives_the_same_logits(asr, decoder, tiny_parts, tmp_path):
    config = ASRConfig(
        audio_model_id=str(tiny_parts / "encoder"), text_model_id=str(decoder), projector_hidden_dim=32,
        freeze_language_model=False,
    )  # fmt: skip
    model = ASRModel.from_parts(config).eval()
    with torch.no_grad():
        for parameter in model.language_model.parameters():
            parameter.add_(0.01)
    model.save_pretrained(tmp_path, self_contained=True)
    again, batch = ASRModel.from_pretrained(tmp_path), model.processor(clips())
    with torch.no_grad():
        torch.testing.assert_close(again(**batch).logits, model(**batch).logits)
