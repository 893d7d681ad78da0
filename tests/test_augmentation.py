"""Augmented waveforms are what their settings say, at every length; batches of them are the same again, wherever made."""

import shutil
from functools import partial

import numpy as np
import pytest
import torch
from data_helpers import sine, wav_bytes
from scipy import signal
from training_helpers import log_of

from tiny_audio import ASRModel
from tiny_audio.audio.reading import load_audio
from tiny_audio.data import ClipDataset, SpeechCollator, effects, open_corpus
from tiny_audio.data.augmentation import Augmentation, AugmentSettings, Recordings
from tiny_audio.data.corpus import Example
from tiny_audio.errors import TinyAudioError
from tiny_audio.model.processor import IGNORED_LABEL
from tiny_audio.training import compose, train
from tiny_audio.training.feed import ClipFeed, StreamFeed
from tiny_audio.training.validation import Validation

pytestmark = pytest.mark.usefixtures("one_thread")
RATE = 16_000  # Hz
EVERYTHING = tuple(
    f"training.augment.{name}_probability=0.6" for name in ("noise", "reverb", "speed", "gain", "band", "codec")
)
ALL_ON = {f"{name}_probability": 1.0 for name in ("noise", "reverb", "speed", "gain", "band", "codec")}


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(scope="module")
def processor(tiny_checkpoint):
    return ASRModel.from_pretrained(tiny_checkpoint).processor


def clip(waveform: np.ndarray, text: str = "one") -> Example:
    return Example("clip", waveform, text, len(waveform) / RATE)


def level(waveform: np.ndarray) -> float:
    """dB relative to full scale."""
    return 10 * np.log10(np.square(waveform, dtype=np.float64).mean())


def some_speech(seconds: float) -> np.ndarray:
    """Bursts of harmonics with pauses between them, at -12 dBFS or so."""
    times = np.arange(round(seconds * RATE)) / RATE
    voice = sum(np.sin(2 * np.pi * 140 * k * times) / k for k in range(1, 30))
    return (0.15 * voice * (np.sin(2 * np.pi * 2 * times) > -0.3)).astype(np.float32)


def shift(changed: np.ndarray, original: np.ndarray) -> int:
    """Samples by which one lags behind the other."""
    return int(signal.correlate(changed, original, method="fft").argmax()) - (len(original) - 1)


# ---- what the effects do


@pytest.mark.parametrize("snr_db", [-5.0, 3.0, 20.0])
@pytest.mark.parametrize("colour", effects.COLOURS)
def test_noise_has_the_ratio_that_was_asked_for(colour, snr_db, rng):
    speech = some_speech(3) / 30
    noise = effects.add_noise(speech, effects.coloured_noise(len(speech), colour, rng), snr_db) - speech
    assert level(speech) - level(noise) == pytest.approx(snr_db, abs=0.1)


def test_a_loud_clip_is_scaled_down_and_keeps_the_ratio(rng):
    speech = sine(2) / 0.3
    noisy = effects.add_noise(speech, effects.coloured_noise(len(speech), "white", rng), 0.0)
    scale = float(noisy @ speech / (speech @ speech))
    assert np.abs(noisy).max() == pytest.approx(1)
    assert level(scale * speech) - level(noisy - scale * speech) == pytest.approx(0, abs=0.5)


@pytest.mark.parametrize(("colour", "slope"), [("white", 0.0), ("pink", -3.0), ("brown", -6.0)])
def test_colours_fall_by_so_many_db_an_octave(colour, slope, rng):
    frequencies, power = signal.welch(effects.coloured_noise(20 * RATE, colour, rng), RATE, nperseg=4096)
    band = (frequencies > 60) & (frequencies < 6000)
    fit = np.polyfit(np.log2(frequencies[band]), 10 * np.log10(power[band]), 1)
    assert fit[0] == pytest.approx(slope, abs=0.3)


def test_babble_is_made_of_the_voices(rng):
    together = effects.babble([sine(1, hertz=300), 0.01 * sine(2.3, hertz=700)], 2 * RATE, 6, rng)
    spectrum = np.abs(np.fft.rfft(together))
    assert len(together) == 2 * RATE and level(together) == pytest.approx(0, abs=0.01)
    assert set(np.argsort(spectrum)[-2:].tolist()) == {600, 1400}  # bins of half a hertz


@pytest.mark.parametrize("rt60", [0.2, 0.5, 0.9])
def test_a_room_decays_as_it_is_told_to(rt60, rng):
    """By Schroeder's integral of what a click leaves behind, from -5 to -25 dB."""
    click = np.zeros(2 * RATE, dtype=np.float32)
    click[100] = 0.1
    heard = effects.reverberate(click, effects.room_response(rt60, 0.0, rng))
    tail = np.square(heard[101:], dtype=np.float64)
    decay = 10 * np.log10(np.maximum(tail[::-1].cumsum()[::-1] / tail.sum(), 1e-12))
    start, end = (int(np.argmax(decay < limit)) for limit in (-5, -25))
    assert 3 * (end - start) / RATE == pytest.approx(rt60, rel=0.1)
    direct, rest = heard[100] ** 2, tail.sum()
    assert 10 * np.log10(direct / rest) == pytest.approx(0, abs=0.5)


def test_a_response_counts_from_its_direct_sound(rng):
    late = np.concatenate([np.zeros(2000), effects.room_response(0.4, 6, rng)]).astype(np.float32)
    speech = some_speech(2)
    heard = effects.reverberate(speech, late)
    assert abs(shift(heard, speech)) <= 2
    assert level(heard) == pytest.approx(level(speech), abs=0.1) and not np.allclose(heard, speech, atol=0.01)


@pytest.mark.parametrize("factor", [0.8, 0.9, 1.07, 1.25])
def test_speed_changes_length_and_pitch(factor):
    tone = sine(2, hertz=500)
    faster = effects.change_speed(tone, factor)
    peak = np.abs(np.fft.rfft(faster, 20 * RATE)).argmax() / 20
    assert len(faster) == pytest.approx(len(tone) / factor, abs=1)
    assert peak == pytest.approx(500 * factor, abs=1)
    assert level(faster) == pytest.approx(level(tone), abs=0.1)


@pytest.mark.parametrize(
    ("low", "high", "kept", "gone"),
    [(None, 2000, [300, 1000], [4000, 6000]), (400, None, [1000, 6000], [100, 200]), (300, 3400, [1000], [120, 7000])],
)
def test_limits_of_the_band(low, high, kept, gone):
    change = {hz: level(effects.limit_band(sine(1, hertz=hz), low, high)) - level(sine(1)) for hz in kept + gone}
    assert all(abs(change[hz]) < 1 for hz in kept) and all(change[hz] < -20 for hz in gone), change


@pytest.mark.parametrize("codec", [effects.mu_law, *(partial(effects.mp3, bit_rate=rate) for rate in (16_000, 32_000))])
def test_codecs_keep_place_and_length_and_lose_a_little(codec):
    speech = some_speech(3.21)
    decoded = codec(speech)
    assert len(decoded) == len(speech) and abs(shift(decoded, speech)) <= 8
    assert 3 < level(speech) - level(decoded - speech) < 50


CHANGES = {
    **{f"{name} noise": lambda x, rng, name=name: effects.add_noise(x, effects.coloured_noise(len(x), name, rng), 0)
       for name in effects.COLOURS},
    "babble": lambda x, rng: effects.add_noise(x, effects.babble([x, sine(0.4)], len(x), 5, rng), -5),
    "room": lambda x, rng: effects.reverberate(x, effects.room_response(0.6, 3, rng)),
    "slower": lambda x, rng: effects.change_speed(x, 0.87),
    "band": lambda x, rng: effects.limit_band(x, 300, 3400),
    "mu-law": lambda x, rng: effects.mu_law(x),
    "mp3": lambda x, rng: effects.mp3(x, 16_000),
    "gain": lambda x, rng: effects.change_gain(x, 30),
    "level": lambda x, rng: effects.at_level(x, -3),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_comes_out_is_audio_at_every_length(change, rng):
    for seconds in (0.1, 0.10006, 0.777, 3.3, 30):
        zeros, loud = np.zeros(round(seconds * RATE), np.float32), 6 * sine(min(seconds, 4))
        for before in (some_speech(seconds), zeros, loud):
            after = change(before.copy(), rng)
            assert after.dtype == np.float32 and after.ndim == 1
            assert len(after) == len(before) or change is CHANGES["slower"]
            assert np.isfinite(after).all() and np.abs(after).max() <= 1
            assert before.any() or not after.any()  # silence stays silence


def test_people_stay_people(speech, rng):
    """Real recordings through everything: none is lost, and the clips that were given are as before."""
    files = sorted((speech / "clips").glob("*.*"))
    clips = [clip(load_audio(file)) for file in files if file.suffix in (".wav", ".flac", ".mp3")][:8]
    before = [example.waveform.copy() for example in clips]
    for number in range(2):
        heard = Augmentation(AugmentSettings(**ALL_ON), 30 * RATE, 0, lambda number=number: number)(clips)
        assert len(heard) == len(clips)
        for old, kept, new in zip(before, clips, heard, strict=True):
            assert np.array_equal(old, kept.waveform) and new.text == kept.text
            assert np.isfinite(new.waveform).all() and 0 < np.abs(new.waveform).max() <= 1
            assert new.duration == len(new.waveform) / RATE and 0.9 <= kept.duration / new.duration <= 1.11


# ---- what is drawn


def feed_of(settings, processor):
    if settings.data.streaming:
        return StreamFeed(settings, processor.max_samples)
    return ClipFeed(open_corpus(settings.data, "train", max_samples=12), settings, processor.max_samples)


def batches(feed, processor, start: int, count: int) -> list[dict]:
    return [batch for _, batch in zip(range(count), feed.loader(start, processor), strict=False)]


def same(one: dict, other: dict) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one if name != "skipped")


@pytest.mark.parametrize("streamed", [False, True])
def test_workers_and_a_later_start_change_nothing(streamed, settings_of, processor, tmp_path):
    options = [*EVERYTHING, "training.augment.silence_share=0.3", "training.max_steps=5"]
    options += [f"data.streaming={streamed}", "training.num_workers=2"]
    made = batches(feed_of(settings_of(tmp_path, *options), processor), processor, 0, 5)
    workers = 2 if streamed else 0  # what a stream's batches hold depends on the number of workers
    resumed = feed_of(settings_of(tmp_path, *options, f"training.num_workers={workers}"), processor)
    assert all(map(same, made[3:], batches(resumed, processor, 3, 2)))
    assert any((batch["labels"] != IGNORED_LABEL).sum(1).min() == 1 for batch in made)  # silence is among them


def test_epochs_differ_and_the_cache_keeps_the_clips_as_they_are(settings_of, processor, tmp_path):
    settings = settings_of(tmp_path, *EVERYTHING, "training.max_steps=40")
    feed = feed_of(settings, processor)
    parts = [batches(feed, processor, start, 2) for start in (0, len(feed.sampler.epoch(0)))]
    places = [[*feed.sampler.batches(start, start + 2)] for start in (0, len(feed.sampler.epoch(0)))]
    sums = [{float(row.double().sum()) for batch in part for row in batch["input_features"]} for part in parts]
    assert all(sums) and not sums[0] & sums[1]
    assert {i for batch in places[0] for i in batch} & {i for batch in places[1] for i in batch}
    assert feed.dataset[3] is feed.dataset[3]
    assert np.array_equal(feed.dataset[3].waveform, feed.dataset.corpus.load(int(feed.dataset.indices[3])).waveform)


def test_another_seed_draws_otherwise(settings_of, processor, tmp_path):
    one, two = (
        batches(feed_of(settings_of(tmp_path, *EVERYTHING, f"training.seed={seed}"), processor), processor, 0, 2)
        for seed in (0, 1)
    )
    assert not any(map(same, one, two))


def test_off_is_what_was_before(settings_of, processor, tmp_path):
    """Batches equal those of a collator that knows nothing of augmentation, bit for bit."""
    feed = feed_of(settings_of(tmp_path), processor)
    collate, clips = SpeechCollator(processor), ClipDataset(feed.dataset.corpus, feed.dataset.indices)
    plain = [collate(clips.__getitems__(indices)) for indices in feed.sampler.batches(0, 3)]
    assert feed.sampler.batch_seconds == 8 and all(map(same, plain, batches(feed, processor, 0, 3)))


def test_a_slower_clip_stays_inside_the_window_and_the_batch(settings_of, processor, tmp_path):
    settings = AugmentSettings(speed_probability=1, speed_factors=[0.5, 0.8])
    for samples in (30 * RATE, 30 * RATE - 1, 29 * RATE, 20 * RATE):
        (slower,) = Augmentation(settings, 30 * RATE, 0, lambda: 0)([clip(np.zeros(samples, np.float32))])
        assert samples <= len(slower.waveform) <= 30 * RATE
        assert len(slower.waveform) > 1.2 * samples or samples > 24 * RATE
    options = ("training.augment.speed_probability=1", "training.augment.speed_factors=[0.6,0.8]")
    made = batches(feed_of(settings_of(tmp_path, *options), processor), processor, 0, 3)
    for batch in made:
        seconds = batch["audio_seconds"]
        assert len(seconds) == 1 or float(seconds.max()) * len(seconds) <= 8
        tokens = (batch["input_ids"] == processor.audio_token_id).sum(1).tolist()
        assert tokens == [processor.audio_token_count(round(s * RATE)) for s in seconds.double().tolist()]


def test_nothing_is_drawn_more_often_than_asked_for():
    settings = AugmentSettings(gain_probability=0.25)
    numbers = iter(range(100))
    augment = Augmentation(settings, None, 0, lambda: next(numbers))
    given = [clip(sine(0.1)) for _ in range(20)]
    changed = sum(
        new.waveform is not old.waveform for _ in range(100) for new, old in zip(augment(given), given, strict=True)
    )
    assert 0.22 < changed / 2000 < 0.28


# ---- one's own recordings


@pytest.fixture
def folder(tmp_path):
    """Hums of 1 kHz: 44.1 kHz stereo and 8 kHz mono."""
    (tmp_path / "mine" / "deeper").mkdir(parents=True)
    (tmp_path / "mine" / "a.wav").write_bytes(wav_bytes(sine(3, 44_100, 1000), 44_100, channels=2))
    (tmp_path / "mine" / "deeper" / "b.WAV").write_bytes(wav_bytes(sine(0.5, 8000, 1000), 8000))
    (tmp_path / "mine" / "._a.wav").write_bytes(b"of a Mac")
    (tmp_path / "mine" / "notes.txt").write_text("not audio")
    return tmp_path / "mine"


def test_noise_of_ones_own(folder):
    settings = AugmentSettings(noise_probability=1, noise_snr_db=[10, 10], noise_folder=str(folder))
    numbers = iter(range(8))
    augment = Augmentation(settings, None, 0, lambda: next(numbers))
    tone = 0.3 * sine(1.2, hertz=400)
    for _ in range(8):
        (noisy,) = augment([clip(tone)])
        noise = noisy.waveform - tone
        assert level(tone) - level(noise) == pytest.approx(10, abs=0.5)
        assert np.abs(np.fft.rfft(noise)).argmax() / 1.2 == pytest.approx(1000, abs=5)
    assert sorted(map(len, augment.noises._kept.values())) == pytest.approx([0.5 * RATE, 3 * RATE], abs=40)


def test_rooms_of_ones_own(tmp_path):
    response = np.zeros(4800, np.float32)
    response[[240, 2640]] = 0.5, 0.25  # at 48 kHz: an echo 50 ms after the direct sound, which is 5 ms late itself
    (tmp_path / "room.wav").write_bytes(wav_bytes(response, 48_000, channels=2))
    settings = AugmentSettings(reverb_probability=1, rir_folder=str(tmp_path))
    click = np.zeros(RATE, np.float32)
    click[1000] = 0.5
    (heard,) = Augmentation(settings, None, 0, lambda: 0)([clip(click)])
    assert sorted(np.argsort(np.abs(heard.waveform))[-1:].tolist()) == [1000]
    assert abs(int(np.abs(heard.waveform[1400:]).argmax()) + 1400 - 1800) <= 1


def test_a_folder_that_cannot_be_used_is_one_line(folder, settings_of, tmp_path):
    (tmp_path / "none").mkdir()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.flac").write_bytes(b"not audio")
    cases = {"nowhere": "is no folder", "none": "holds no audio files", "bad": "1 of the 1 audio files"}
    for name, message in cases.items():
        with pytest.raises(TinyAudioError, match=message) as caught:
            train(settings_of(tmp_path / "run", f"training.augment.noise_folder={tmp_path / name}"))
        assert "\n" not in str(caught.value) and not (tmp_path / "run").exists()
    assert len(Recordings(str(folder)).files) == 2


def test_a_recording_that_breaks_off_costs_nothing(tmp_path, rng):
    whole = wav_bytes(sine(1))
    (tmp_path / "a.wav").write_bytes(whole)
    recordings = Recordings(str(tmp_path))
    (tmp_path / "a.wav").write_bytes(b"gone bad since")
    settings = AugmentSettings(noise_probability=1, noise_folder=str(tmp_path))
    assert not recordings.draw(rng).any()
    (tmp_path / "a.wav").write_bytes(whole)
    augment = Augmentation(settings, None, 0, lambda: 0)
    augment.noises = recordings
    (after,) = augment([clip(sine(0.5))])
    assert np.array_equal(after.waveform, sine(0.5))


# ---- silence


def test_silent_clips_reach_the_model_with_nothing_to_write(settings_of, processor, tmp_path):
    settings = settings_of(tmp_path, "training.augment.silence_share=0.25", "training.max_steps=50")
    made = batches(feed_of(settings, processor), processor, 0, 50)
    labels = [[token for token in row.tolist() if token != IGNORED_LABEL] for batch in made for row in batch["labels"]]
    silent = [row for row in labels if len(row) == 1]
    assert all(row == [processor.tokenizer.eos_token_id] for row in silent)
    assert len(silent) / (len(labels) - len(silent)) == pytest.approx(0.25, abs=0.05)
    for batch in made:
        assert not batch["skipped"] and len(batch["audio_seconds"]) == len(batch["labels"]) == len(
            batch["input_features"]
        )
        ends = [int(row[row != IGNORED_LABEL].numel()) for row in batch["labels"]]
        assert ends == sorted(ends, key=lambda n: n == 1)  # after the speech


def test_silence_is_zeros_or_noise_of_every_level():
    numbers = iter(range(300))
    augment = Augmentation(AugmentSettings(silence_share=1), None, 0, lambda: next(numbers))
    speech = clip(sine(0.5))
    silent = [example for _ in range(300) for example in augment([speech])[1:]]
    assert len(silent) == 300 and all(example.text == "" and example.duration == 0.5 for example in silent)
    assert len({example.id for example in silent}) == 300
    zeros = [example for example in silent if not example.waveform.any()]
    levels = [level(example.waveform) for example in silent if example.waveform.any()]
    assert 0.18 < len(zeros) / 300 < 0.32 and min(levels) < -65 and -25 < max(levels) < -19


def test_nano_learns_to_write_nothing_on_noise(nano, tmp_path):
    """Thirty steps of its projector: words that it invents on noise go, those of speech stay."""
    options = ("model.pretrained=nano", "training.augment.silence_share=0.5", "training.learning_rate=1e-3")
    length = (
        "training.max_steps=30",
        "training.batch_seconds=8",
        "training.warmup_steps=5",
        "data.max_eval_samples=12",
    )
    quiet = ("training.report_to=none", "training.eval_steps=null", "training.save_steps=null")
    result = train(compose(None, [*options, *length, *quiet], output_dir=tmp_path / "run"))
    rng = np.random.default_rng(7)
    noises = [effects.at_level(effects.coloured_noise(RATE * 2, "pink", rng), -30 - i) for i in range(20)]

    def words(path) -> int:
        return sum(len(text.split()) for text in ASRModel.from_pretrained(path).transcribe(noises))

    before, after = words(nano), words(result.model)
    assert after < before / 3, (before, after)
    assert result.best_wer < 0.1


# ---- in a run


def test_a_resumed_run_is_exact_and_validation_is_never_augmented(settings_of, tmp_path):
    options = (*EVERYTHING, "training.augment.silence_share=0.2", "training.max_steps=6", "training.save_steps=3")
    settings = settings_of(tmp_path / "whole", *options)
    train(settings)
    shutil.copytree(tmp_path / "whole", tmp_path / "again")
    shutil.rmtree(tmp_path / "again" / "checkpoint-6")
    train(settings_of(tmp_path / "again", *options), resume="auto")
    for key in ("loss", "grad_norm", "eval_loss", "audio_seconds"):
        assert log_of(tmp_path / "again", key) == pytest.approx(log_of(tmp_path / "whole", key), abs=1e-5), key
    model = ASRModel.from_pretrained(tmp_path / "whole" / "best")
    alone = Validation(settings_of(tmp_path).data, model.processor, settings.training.batch_seconds).measure(model)
    assert log_of(tmp_path / "whole", "eval_loss") == [pytest.approx(alone.loss, abs=1e-5)]
    shutil.rmtree(tmp_path / "again" / "checkpoint-6")
    with pytest.raises(TinyAudioError, match="training.augment.silence_share was 0.2, is 0.4"):
        train(settings_of(tmp_path / "again", *options, "training.augment.silence_share=0.4"), resume="auto")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.augment.noise_probabilty=1", "Unknown key training.augment.noise_probabilty; did you mean training.augment.noise_probability?"),
        ("training.noise_probability=1", "Unknown key training.noise_probability; did you mean training.augment.noise_probability?"),
        ("training.augment.noise_probability=1.2", "training.augment.noise_probability is 1.2; expected 0 to 1."),
        ("training.augment.noise_snr_db=[20,5]", "training.augment.noise_snr_db is [20.0, 5.0]; expected [LEAST,MOST], two numbers from -20 to 60."),
        ("training.augment.speed_factors=[1]", "two numbers from 0.5 to 2."),
        ("training.augment.gain_db=[nan,1]", "two numbers from -60 to 40."),
        ("training.augment.codecs=[opus]", "training.augment.codecs is ['opus']; expected some of mu-law, mp3."),
        ("training.augment.noise_kinds=[]", "expected some of white, pink, brown, babble."),
        ("training.augment=strong", "training.augment is 'strong'; expected a group of options, training.augment.OPTION=VALUE."),
    ],
)  # fmt: skip
def test_mistakes_are_one_line(override, message):
    with pytest.raises(TinyAudioError) as caught:
        compose(overrides=[override])
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_ctc_head_alone_cannot_use_silence():
    head = ("model.pretrained=nano", "model.ctc_head=true", "model.freeze_projector=true")
    with pytest.raises(TinyAudioError, match="training.augment.silence_share has no effect"):
        compose(overrides=[*head, "training.augment.silence_share=0.1"])
