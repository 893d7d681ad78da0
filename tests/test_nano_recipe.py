"""The recipe of nano: sentences, voices, augmentation, a few training steps, and the corpus that ships."""

import dataclasses
import shutil
from itertools import islice

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from recipes.nano import corpus, human, train
from recipes.nano.data import Curriculum, Mixture, read_shards
from recipes.nano.export import export
from recipes.nano.features import MELS, MelAugmentation, augment, raw_log_mel, scaled
from recipes.nano.sentences import DIGITS, number_words, ordinal_words, sentences, split_of
from recipes.nano.synthesize import (
    FLITE_VOICES,
    TEST_VARIANTS,
    TRAIN_VARIANTS,
    VALIDATION_VARIANTS,
    Voice,
    plan,
    speak,
    write_shard,
)
from tiny_audio.assets import embedded
from tiny_audio.audio.reading import load_audio
from tiny_audio.errors import TinyAudioError
from tiny_audio.model.modeling import ASRModel

SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "intermediate_size": 64,
    "head_dim": 16,
}
SPLITS = {"train": 1000, "validation": 60, "test": 150}


@pytest.fixture(scope="module")
def shipped() -> dict[str, list[dict]]:
    return {split: pq.read_table(embedded("quickstart") / f"{split}.parquet").to_pylist() for split in SPLITS}


@pytest.fixture
def work_dir(tmp_path, tone):
    """Shards of eight utterances."""
    folder = tmp_path / "work" / "train"
    folder.mkdir(parents=True)
    texts = ["one two", "set a timer for ten minutes", "seven", "half past eight", "play jazz", "no", "yes", "oh nine"]
    clips = [tone(0.8 + 0.2 * i, 200.0 + 100 * i) for i in range(8)]
    write_shard(
        folder, 0, clips, [{"text": text, "speaker": "tone", "ctc_only": i == 7} for i, text in enumerate(texts)]
    )
    shutil.copytree(folder, tmp_path / "work" / "validation")
    return tmp_path / "work"


def test_sentences_are_the_same_for_a_seed_and_differ_between_seeds():
    first = list(islice(sentences("train", 3), 200))
    assert first == list(islice(sentences("train", 3), 200))
    assert first != list(islice(sentences("train", 4), 200))


def test_splits_share_no_sentence():
    sets = {split: set(islice(sentences(split), 800)) for split in SPLITS}
    assert not sets["train"] & sets["test"]
    assert not sets["train"] & sets["validation"]
    assert not sets["validation"] & sets["test"]


def test_training_says_every_digit_alone_and_in_strings():
    texts = list(islice(sentences("train"), 5000))
    assert set(DIGITS) <= set(texts)
    assert all(split_of(digit) == "train" for digit in DIGITS)
    strings = {word for text in texts if len(text.split()) > 2 for word in text.split()}
    assert {*DIGITS, "oh", "double"} <= strings


@pytest.mark.parametrize(
    ("number", "words"),
    [(7, "seven"), (40, "forty"), (99, "ninety nine"), (300, "three hundred"), (5000, "five thousand")],
)
def test_cardinals(number, words):
    assert number_words(number) == words


@pytest.mark.parametrize(
    ("number", "words"), [(1, "first"), (20, "twentieth"), (30, "thirtieth"), (31, "thirty first")]
)
def test_ordinals(number, words):
    assert ordinal_words(number) == words


def test_voices_of_the_splits_are_disjoint():
    variants = [set(TRAIN_VARIANTS), set(VALIDATION_VARIANTS), set(TEST_VARIANTS)]
    assert sum(map(len, variants)) == len(set.union(*variants))
    assert not set(FLITE_VOICES["train"]) & set(FLITE_VOICES["test"])
    allowed = {"espeak": set(TEST_VARIANTS), "flite": set(FLITE_VOICES["test"])}
    assert all(job.voice.name in allowed[job.voice.engine] for job in islice(plan("test", 0), 200))


@pytest.mark.parametrize(
    ("engine", "voice"),
    [("espeak-ng", Voice("espeak", "en-gb", "linda", 50, 170)), ("flite", Voice("flite", "", "slt", 180, 1))],
)
def test_each_engine_speaks(engine, voice):
    if shutil.which(engine) is None:
        pytest.skip(f"{engine} is not installed")
    waveform = speak(voice, "nine a m")
    assert waveform.dtype == np.float32
    assert 0.3 * 16_000 < len(waveform) < 3 * 16_000
    assert 0.01 < np.abs(waveform).max() <= 1


def test_log_mel_is_the_processors(nano, tone):
    from tiny_audio.model.processor import ASRProcessor

    waveform = tone(1.003) + np.random.default_rng(0).normal(0, 0.01, round(1.003 * 16_000)).astype(np.float32)
    expected = ASRProcessor.from_pretrained(nano).features([waveform])["input_features"][0].T.numpy()
    assert np.abs(scaled(raw_log_mel(waveform)) - expected).max() < 1e-3


def test_augmentation_changes_the_clip_and_keeps_its_range(tone):
    mel = raw_log_mel(tone(1.5))
    changed = [augment(np.random.default_rng(seed), mel, MelAugmentation()) for seed in range(3)]
    for other in changed:
        assert other.shape[1] == MELS
        assert np.isfinite(other).all()
        assert other.max() - other.min() <= 2.0 + 1e-5
    assert len({len(other) for other in changed}) > 1
    weak = augment(np.random.default_rng(0), mel, MelAugmentation().weakened(0), speed=1.0)
    strong = augment(np.random.default_rng(0), mel, MelAugmentation(), speed=1.0)
    assert np.abs(weak - scaled(mel)).mean() < np.abs(strong - scaled(mel)).mean()


def test_batches_are_of_one_shape_and_short_first(work_dir):
    curriculum = Curriculum(first_seconds=1.5, length_batches=10_000)
    mixture = Mixture({work_dir / "train": 1.0}, 8.0, MelAugmentation(), 0, curriculum)
    for size, planned in islice(mixture, 20):
        assert len(planned) == -(-800 // size)
        assert all(clip.frames <= min(size, 151) for clip in planned)


def test_a_few_steps_train_and_export_a_folder_that_loads(work_dir, tmp_path, tone):
    options = train.Options(work_dir=work_dir, batch_seconds=4.0, minutes=5, max_steps=3, encoder=SMALL, decoder=SMALL)
    trainer = train.run(options)
    assert trainer.step == 3
    continued = train.Trainer(options)
    continued.load()
    assert continued.step == 3
    assert all(torch.equal(a, b) for a, b in zip(continued.average, trainer.average, strict=True))
    export(trainer.averaged, tmp_path / "exported")
    assert not list((tmp_path / "exported").glob("*.py"))
    started = train.Trainer(dataclasses.replace(options, start_from=tmp_path / "exported"))
    weight, exported = (t.averaged.asr.encoder.encoder.conv1.weight for t in (started, trainer))
    assert weight.requires_grad
    torch.testing.assert_close(weight, exported, atol=1e-3, rtol=1e-3)
    assert isinstance(ASRModel.from_pretrained(tmp_path / "exported").transcribe(tone(0.5), max_new_tokens=4), str)


def test_human_digits_become_strings_of_one_speaker(speech):
    clips = list(human.digit_clips(speech / "spoken-digits" / "validation", strings=5, singles_each=1, seed=0))
    strings = [row for _, row in clips if " " in row["text"]]
    assert strings
    assert all(set(row["text"].split()) <= set(DIGITS) and split_of(row["text"]) == "train" for row in strings)


def test_only_what_ships_has_a_name():
    with pytest.raises(TinyAudioError, match="nano, quickstart, clips"):
        embedded("large")


def test_shipped_corpus_has_its_counts_and_size(shipped):
    assert {split: len(rows) for split, rows in shipped.items()} == SPLITS
    assert sum(file.stat().st_size for file in embedded("quickstart").iterdir()) <= 8e6
    for rows in shipped.values():
        assert all(row["text"] == row["text"].lower() and 0.3 < row["duration"] < 15 for row in rows)


def test_shipped_model_fits():
    assert sum(file.stat().st_size for file in embedded("nano").rglob("*") if file.is_file()) <= 16e6


def test_shipped_test_voices_and_sentences_are_in_no_training(shipped):
    assert {row["speaker"] for row in shipped["test"]}.isdisjoint(row["speaker"] for row in shipped["train"])
    for split, rows in shipped.items():
        assert {split_of(row["text"]) for row in rows} == {split}
    voices = {f"espeak:{name}" for name in TEST_VARIANTS} | {f"flite:{name}" for name in FLITE_VOICES["test"]}
    assert {row["speaker"] for row in shipped["test"]} <= voices


def test_shipped_corpus_decodes(shipped):
    for row in shipped["test"][:5]:
        waveform = load_audio(row["audio"]["bytes"])
        assert len(waveform) / 16_000 == pytest.approx(row["duration"], abs=0.01)
        assert np.abs(waveform).max() > 0.05


def test_the_corpus_is_made_of_the_jobs_of_its_seed(shipped):
    assert [row["text"] for row in shipped["test"]] == [job.text for job in corpus.jobs("test", SPLITS["test"])]


def test_shards_give_back_what_was_written(work_dir):
    utterances = read_shards(work_dir / "train")
    assert [utterance.text for utterance in utterances][:2] == ["one two", "set a timer for ten minutes"]
    assert utterances[-1].ctc_only
    assert utterances[3].mel().shape == (utterances[3].frames, MELS)
