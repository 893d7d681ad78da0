"""Language models of every family that the configs name, as random miniatures: prompt, padding, loss, decoding, checkpoints."""

import numpy as np
import pytest
import torch
from miniatures import DECODERS, DecoderFamily, save_decoder_family

from tiny_audio import ASRConfig, ASRModel


def clips() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.normal(0, 0.1, samples).astype(np.float32) for samples in (16_000, 6_000)]


@pytest.fixture(scope="module", params=DECODERS)
def family(request) -> DecoderFamily:
    return DECODERS[request.param]


@pytest.fixture(scope="module")
def decoder(family, tiny_parts, tmp_path_factory):
    """A random miniature of the family with its tokenizer, as transformers saves them."""
    folder = tmp_path_factory.mktemp("decoder")
    torch.manual_seed(0)
    save_decoder_family(family, tiny_parts / "decoder", folder)
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
