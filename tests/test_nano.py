"""The shipped model on real speech: padding and batches change nothing, and what it is trained on it can learn whole."""

import json

import numpy as np
import pytest
import torch

from tiny_audio import ASRModel, load_audio
from tiny_audio.assets import embedded
from tiny_audio.data import DataConfig, open_corpus
from tiny_audio.evaluation.scoring import score
from tiny_audio.text.normalizers import get_normalizer
from tiny_audio.training import compose, train


@pytest.fixture(scope="module")
def model(nano):
    return ASRModel.from_pretrained(nano)


@pytest.fixture(scope="module")
def recordings(speech) -> dict[str, np.ndarray]:
    """Real clips of 0.3 to 33 s, of many origins."""
    names = [
        "spoken-digits/test/3_theo_29.flac", "clips/cards-001.wav", "clips/cards-005.wav", "clips/jfk.flac",
        "clips/mfa-common_voice_en_22058264.mp3", "clips/mfa-acoustic_corpus.wav", "clips/2412-153948-0000.flac",
        "clips/sense_and_sensibility_01_austen_64kb-0880.wav",
    ]  # fmt: skip
    clips = {name: load_audio(speech / name) for name in names}
    test = open_corpus(DataConfig(path=str(speech / "librispeech-small")), "test")
    longest = int(np.argmax(test.durations))
    assert test.durations[longest] > 30
    return clips | {test.id(longest): test.load(longest).waveform}


def test_the_example_clips_are_heard(model):
    clips = sorted(embedded("clips").glob("*.ogg"))
    assert len(clips) == 3
    said = [clip.stem.replace("-", " ") for clip in clips]
    assert score(said, model.transcribe(clips), get_normalizer("basic")).wer == 0


def word_error_rate(model, split: str) -> float:
    corpus = open_corpus(DataConfig(), split)
    texts = model.transcribe([corpus.load(index).waveform for index in range(len(corpus))], batch_size=16)
    return score(corpus.texts, texts, get_normalizer("basic")).wer


def test_unheard_voices_and_sentences_are_read(model):
    assert word_error_rate(model, "test") <= 0.03


def test_a_quarter_of_the_quickstart_trains_a_projector_from_random(tmp_path):
    steps = [
        "training.max_steps=125",
        "training.eval_steps=null",
        "training.save_steps=null",
        "training.report_to=none",
    ]
    result = train(compose(None, steps, output_dir=tmp_path))
    assert word_error_rate(ASRModel.from_pretrained(result.model), "test") <= 0.12


def test_nano_is_small_and_of_the_production_classes(nano, model):
    size = sum(file.stat().st_size for file in nano.rglob("*") if file.suffix == ".safetensors")
    assert size <= 16e6
    assert (
        type(model.encoder.encoder).__name__ == "GlmAsrEncoder"
        and type(model.language_model).__name__ == "Qwen3ForCausalLM"
    )
    assert model.encoder.encoder.config.num_mel_bins == 128


def test_batch_and_order_change_no_text(model, recordings):
    clips = list(recordings.values())
    assert min(map(len, clips)) < 0.5 * 16_000 and max(map(len, clips)) > 30 * 16_000
    alone = model.transcribe(clips, batch_size=1)
    assert model.transcribe(clips, batch_size=16) == alone
    order = np.random.default_rng(0).permutation(len(clips))
    assert model.transcribe([clips[index] for index in order], batch_size=4) == [alone[index] for index in order]


def test_frames_of_padded_clips_are_those_of_clips_alone(model, recordings):
    clips = [clip[: 30 * 16_000] for clip in recordings.values()]
    batch = model.processor(clips)
    frames, counts = model.encoder(batch["input_features"], batch["audio_attention_mask"].sum(-1))
    for row, clip in enumerate(clips):
        single = model.processor(clip)
        alone, count = model.encoder(single["input_features"], single["audio_attention_mask"].sum(-1))
        assert count == counts[row]
        torch.testing.assert_close(frames[row, : counts[row]], alone[0], atol=1e-4, rtol=0)


OVERFIT = (
    "data.max_train_samples=10",
    "data.max_eval_samples=10",
    "data.eval_split=train",
    "training.logging_steps=10",
)


def overfit(folder, *overrides: str):
    return train(
        compose(
            None,
            [*OVERFIT, "training.eval_steps=null", "training.save_steps=null", "training.report_to=none", *overrides],
            output_dir=folder,
        )
    )


def test_the_projector_alone_learns_ten_quickstart_clips(nano, tmp_path):
    steps = ("training.max_steps=300", "training.warmup_steps=10", "training.learning_rate=4e-3")
    result = overfit(tmp_path, *steps)
    assert result.loss < 0.05 and result.wer == 0


def test_with_the_language_model_it_learns_ten_librispeech_clips(nano, speech, tmp_path):
    steps = ("training.max_steps=200", "training.warmup_steps=10", "training.learning_rate=2e-3", "data.max_seconds=6")
    result = overfit(tmp_path, f"data.path={speech / 'librispeech-small'}", "model.freeze_language_model=false", *steps)
    assert result.loss < 0.05 and result.wer == 0


def test_the_shipped_corpus(nano):
    corpora = {split: open_corpus(DataConfig(), split) for split in ("train", "validation", "test")}
    assert {split: len(corpus) for split, corpus in corpora.items()} == {"train": 1000, "validation": 60, "test": 150}
    speakers = {
        split: {corpus.row(index).metadata["speaker"] for index in range(len(corpus))}
        for split, corpus in corpora.items()
    }
    assert not speakers["test"] & (speakers["train"] | speakers["validation"])
    assert not set(corpora["test"].texts) & {*corpora["train"].texts, *corpora["validation"].texts}
    assert sum(file.stat().st_size for file in embedded("quickstart").iterdir()) <= 8e6


def test_config_names_no_path_of_the_machine_it_was_made_on(nano):
    for file in nano.rglob("*.json"):
        text = file.read_text()
        assert "/tmp/" not in text and "/work/" not in text and "/root/" not in text, file.name
    config = json.loads((nano / "config.json").read_text())
    assert config["self_contained"] and config["encoder_padding"] == "masked"
