"""Distillation: the loss is the formula's, the teacher reads the transcript, only the student learns, and off is off."""

import math

import pytest
import torch
from training_helpers import log_of, weights_of

from tiny_audio import ASRModel
from tiny_audio.data import Example, SpeechCollator
from tiny_audio.errors import TinyAudioError
from tiny_audio.training import compose, train
from tiny_audio.training.build import build_model
from tiny_audio.training.distillation import distillation_loss, teacher_logits

pytestmark = pytest.mark.usefixtures("one_thread")
TEXTS = ["one two three", "four"]


@pytest.fixture(scope="module")
def asr(tiny_checkpoint) -> ASRModel:
    return ASRModel.from_pretrained(tiny_checkpoint)


def test_the_loss_is_the_formula():
    """Two tokens over three words, by hand."""
    student, teacher = [[0.0, 1.0, 2.0], [3.0, 0.0, 0.0]], [[2.0, 0.0, 0.0], [0.0, 0.0, 1.0]]

    def softened(logits: list[float]) -> list[float]:
        exponents = [math.exp(logit / 2) for logit in logits]
        return [exponent / sum(exponents) for exponent in exponents]

    pairs = [(softened(t), softened(s)) for t, s in zip(teacher, student, strict=True)]
    by_hand = sum(p * math.log(p / q) for t, s in pairs for p, q in zip(t, s, strict=True)) / 2 * 2**2
    assert float(distillation_loss(torch.tensor(student), torch.tensor(teacher), 2.0)) == pytest.approx(by_hand)
    assert float(distillation_loss(torch.tensor(teacher), torch.tensor(teacher), 2.0)) == pytest.approx(0, abs=1e-6)


def test_the_teacher_reads_the_same_prompt_with_the_transcript_in_place_of_the_audio(asr, tone):
    waveforms = [tone(1.0), tone(0.4)]
    heard = asr.processor(waveforms, text=TEXTS, instructions=["Write", "Transcribe the speech to text"])
    read = asr.processor.training_tokens(TEXTS, instructions=["Write", "Transcribe the speech to text"])
    for row, (text, waveform) in enumerate(zip(TEXTS, waveforms, strict=True)):
        audio = "<audio>" * asr.processor.audio_token_count(len(waveform))
        with_audio, with_text = (
            asr.processor.tokenizer.decode(batch["input_ids"][row][batch["attention_mask"][row].bool()])
            for batch in (heard, read)
        )
        assert audio in with_audio and with_text == with_audio.replace(audio, text)
    assert torch.equal(heard["labels"][heard["labels"] != -100], read["labels"][read["labels"] != -100])


def test_the_teacher_reads_the_instruction_that_the_clip_has(asr, tone):
    collate = SpeechCollator(asr.processor, draw_instructions=lambda clips: ["Write"] * clips, teacher=True)
    batch = collate([Example("one", tone(1.0), "one two", 1.0)])
    for prompts in (batch, batch["teacher"]):
        assert "Write" in asr.processor.tokenizer.decode(prompts["input_ids"][0])


def test_the_teacher_is_the_language_model_alone(asr):
    prompts = asr.processor.training_tokens(TEXTS)
    logits = teacher_logits(asr, prompts)
    assert not logits.requires_grad
    with torch.no_grad():
        every = asr.language_model(prompts["input_ids"], attention_mask=prompts["attention_mask"]).logits
    torch.testing.assert_close(logits, every[:, :-1][prompts["labels"][:, 1:] != -100])
    other = teacher_logits(asr, asr.processor.training_tokens(["five six seven", "nine"]))
    assert other.shape != logits.shape or not torch.allclose(other, logits)


def test_the_teacher_has_no_lora(settings_of, tmp_path):
    model = build_model(settings_of(tmp_path, "model.use_lora=true").model).eval()
    prompts = model.processor.training_tokens(TEXTS)
    before = teacher_logits(model, prompts)
    lora = [parameter for name, parameter in model.named_parameters() if ".lora_" in name]
    with torch.no_grad():
        for parameter in lora:
            parameter.add_(0.1)
        hidden, _ = model.label_states(**prompts)
        assert not torch.allclose(model.language_model.get_output_embeddings()(hidden), before)
    assert torch.equal(teacher_logits(model, prompts), before)
    assert lora and all(parameter.requires_grad for parameter in lora)


def test_the_forward_gives_the_logits_of_its_loss(asr, tone):
    batch = asr.processor([tone(1.0), tone(0.4)], text=TEXTS)
    with torch.no_grad():
        output = asr(**batch)
        every = asr(**{name: tensor for name, tensor in batch.items() if name != "labels"}).logits
    wanted = batch["labels"][:, 1:] != -100
    torch.testing.assert_close(output.logits, every[:, :-1][wanted])
    assert output.num_label_tokens == wanted.sum()


@pytest.mark.parametrize("projector", ["mlp", "moe"])
def test_the_loss_is_mixed_by_its_weight(projector, settings_of, tmp_path):
    """Step 1, from the same weights: (1 - w) · cross-entropy + w · divergence + what the router adds."""
    of_router = 0.0 if projector == "mlp" else compose().model.router_aux_loss_coef
    first = {}
    for weight in (0, 0.3):
        options = (f"training.distillation_weight={weight}", f"model.projector_type={projector}")
        train(settings_of(tmp_path / str(weight), "training.max_steps=1", *options))
        (first[weight],) = log_of(tmp_path / str(weight), "loss")
    assert not log_of(tmp_path / "0", "distillation_loss")
    (divergence,) = log_of(tmp_path / "0.3", "distillation_loss")
    router = of_router * sum(log_of(tmp_path / "0.3", "auxiliary_loss"))
    assert divergence > 0
    assert first[0.3] == pytest.approx(0.7 * (first[0] - router) + 0.3 * divergence + router, rel=1e-5)


def test_temperature_acts_and_accumulation_equals_one_large_batch(settings_of, tmp_path):
    sampled = ("data.max_train_samples=2", "training.batch_seconds=100", "training.distillation_weight=1")
    two = ("training.batch_size=1", "training.gradient_accumulation_steps=2", "training.max_steps=2")
    train(settings_of(tmp_path / "one", *sampled, "training.max_steps=2"))
    train(settings_of(tmp_path / "two", *sampled, *two))
    train(settings_of(tmp_path / "cold", *sampled, "training.max_steps=1", "training.distillation_temperature=1"))
    assert log_of(tmp_path / "one", "loss") == log_of(tmp_path / "one", "distillation_loss")
    assert log_of(tmp_path / "two", "loss") == pytest.approx(log_of(tmp_path / "one", "loss"), abs=1e-4)
    assert log_of(tmp_path / "two", "grad_norm") == pytest.approx(log_of(tmp_path / "one", "grad_norm"), rel=1e-3)
    assert log_of(tmp_path / "cold", "loss")[0] != pytest.approx(log_of(tmp_path / "one", "loss")[0], rel=0.01)


def test_the_divergence_falls_and_the_teacher_stands_still(settings_of, tmp_path):
    steps = ("training.max_steps=30", "training.learning_rate=1e-2", "data.max_train_samples=4")
    train(settings_of(tmp_path, *steps, "training.distillation_weight=1"))
    divergence = log_of(tmp_path, "distillation_loss")
    assert sum(divergence[-3:]) < 0.8 * sum(divergence[:3])
    assert all(name.startswith("projector.") for name in weights_of(tmp_path))


def test_a_language_model_that_is_trained_is_no_teacher():
    with pytest.raises(TinyAudioError, match="cannot be its own teacher"):
        compose(overrides=["training.distillation_weight=0.5", "model.freeze_language_model=false"])
