"""The feature cache: the same losses without the encoder, whole after a kill, shared by processes, refused where it cannot be."""

import json
import multiprocessing
import shutil
import time
from collections import namedtuple
from pathlib import Path

import pytest
import torch
from data_helpers import sine, wav_bytes, write_clips, write_jsonl
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from training_helpers import log_of, weights_of

from tiny_audio.data import hashing
from tiny_audio.errors import TinyAudioError
from tiny_audio.model.encoders import EncoderAdapter
from tiny_audio.model.modeling import ASRModel
from tiny_audio.training import feature_cache, train
from tiny_audio.training.build import build_model
from tiny_audio.training.feature_cache import FeatureCache, cache_folder
from tiny_audio.training.feed import ClipFeed
from tiny_audio.training.run import make_feed, training_corpora

pytestmark = pytest.mark.usefixtures("one_thread")

BRIEF = ("data.max_train_samples=6", "data.max_eval_samples=1", "training.max_steps=5")  # more than one epoch


@pytest.fixture
def cached(settings_of, tmp_path):
    """`cached(run, *overrides)` → Settings of a run with a cache in this test's folder."""

    def make(run: str, *overrides: str, **options):
        own = (f"training.cache_dir={tmp_path / 'cache'}", "training.cache_features=true", "training.cache_dtype=fp32")
        return settings_of(tmp_path / run, *own, *overrides, **options)

    return make


@pytest.fixture
def encoded(monkeypatch) -> list[int]:
    """Clips of each call of the encoder, as they come."""
    calls, run = [], EncoderAdapter.forward

    def counted(self, features, lengths):
        calls.append(len(lengths))
        return run(self, features, lengths)

    monkeypatch.setattr(EncoderAdapter, "forward", counted)
    return calls


@pytest.fixture(scope="module")
def uncached(settings_of, tmp_path_factory) -> Path:
    """A run without a cache."""
    return train(settings_of(tmp_path_factory.mktemp("uncached"), *BRIEF)).folder


@pytest.fixture(scope="module")
def model(settings_of, tmp_path_factory) -> ASRModel:
    """Of all runs, before them."""
    return build_model(settings_of(tmp_path_factory.mktemp("model")).model)


def shards(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "cache").glob("*/*.safetensors"))


def test_a_cached_run_has_the_same_batches_and_losses(cached, uncached, tmp_path, encoded, capsys):
    result = train(cached("run", *BRIEF))
    said = capsys.readouterr().err
    assert "6 of 6 clips to encode" in said and "filled in" in said
    for key, tolerance in (("loss", 1e-4), ("audio_seconds", 0), ("grad_norm", 1e-3), ("eval_loss", 1e-3)):
        assert log_of(result.folder, key) == pytest.approx(log_of(uncached, key), abs=tolerance), key
    assert result.epochs > 1
    assert set(log_of(result.folder, "encoder_ratio")) == {0.0} and min(log_of(uncached, "encoder_ratio")) > 0
    assert log_of(result.folder, "padding_ratio") == pytest.approx(log_of(uncached, "padding_ratio"), abs=0.02)
    assert result.spent.done == pytest.approx(result.spent.planned, rel=0.25)
    names = [name for shard in shards(tmp_path) for name in safe_open(shard, "pt").keys()]  # noqa: SIM118
    assert len(names) == 6
    before = sum(encoded)
    train(cached("again", *BRIEF))
    assert "0 of 6 clips to encode" in capsys.readouterr().err
    assert sum(encoded) - before == before - 6  # validation and the start of the projector
    assert log_of(tmp_path / "again", "loss") == log_of(result.folder, "loss")


def test_half_precision_on_disk_is_near(cached, uncached, model, tmp_path):
    train(cached("run", *BRIEF, "training.cache_dtype=bf16", "training.num_workers=2"))
    assert log_of(tmp_path / "run", "loss") == pytest.approx(log_of(uncached, "loss"), abs=0.02)
    whole = fill(cached("run", *BRIEF), model).dataset
    for dtype, kind, near in (("bf16", torch.bfloat16, 2**-8), ("fp16", torch.float16, 2**-10)):
        for clip, theirs in zip(
            fill(cached("run", *BRIEF, f"training.cache_dtype={dtype}"), model).dataset, whole, strict=True
        ):
            assert clip.frames.dtype == kind
            assert torch.allclose(clip.frames.float(), theirs.frames, rtol=near, atol=1e-4)


def test_a_resumed_run_goes_on_exactly(cached, tmp_path):
    whole = train(cached("whole", *BRIEF, "training.save_steps=3"))
    run = shutil.copytree(whole.folder, tmp_path / "half")
    shutil.rmtree(run / "checkpoint-5")
    train(cached("half", *BRIEF, "training.save_steps=3"), resume=str(run))
    assert log_of(run, "loss") == log_of(whole.folder, "loss")
    ours, theirs = weights_of(run), weights_of(whole.folder)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_mixture_has_one_cache(cached, settings_of, tmp_path, capsys):
    """Two of the five clips of one part are those of the other, which comes twice an epoch."""
    tones = write_clips(tmp_path / "tones", 5, lambda i: 0.5 + 0.1 * i)
    write_jsonl(tmp_path / "tones" / "train.jsonl", tones)
    write_jsonl(tmp_path / "tones" / "validation.jsonl", tones[:1])
    for name in ("own.wav", "clip000.wav", "clip001.wav"):
        (tmp_path / "few").mkdir(exist_ok=True)
        audio = wav_bytes(sine(0.7, hertz=900)) if name == "own.wav" else (tmp_path / "tones" / name).read_bytes()
        (tmp_path / "few" / name).write_bytes(audio)
    rows = [{"file_name": name, "text": "nine"} for name in ("own.wav", "clip000.wav", "clip001.wav")]
    write_jsonl(tmp_path / "few" / "train.jsonl", rows)
    data = (
        f"++data.mixture.tones.path={tmp_path}/tones",
        f"++data.mixture.few={{path: {tmp_path}/few, clips: 6, eval_split: nowhere}}",
        "data.max_train_samples=null", "data.max_eval_samples=1", "training.batch_seconds=2", "training.max_steps=6",
    )  # fmt: skip
    theirs = train(settings_of(tmp_path / "uncached", *data))
    capsys.readouterr()
    ours = train(cached("run", *data))
    assert capsys.readouterr().err.count("Feature cache: 6 of 8 clips to encode") == 1
    assert ours.used == theirs.used and ours.used["few"] > 0 < ours.used["tones"]
    assert log_of(tmp_path / "run", "loss") == pytest.approx(log_of(tmp_path / "uncached", "loss"), abs=1e-4)
    assert ours.spent.done == pytest.approx(ours.spent.planned, rel=0.35)


def test_what_has_not_changed_is_not_read_again(cached, model, tmp_path, monkeypatch):
    fill(cached("run", *BRIEF), model)
    fill(cached("run", *BRIEF), model)  # reads the new shards once
    monkeypatch.setattr(hashing, "file_digest", None)
    assert len(fill(cached("run", *BRIEF), model).dataset[0].frames)


BESIDE = {
    "a CTC head alone": ["model.ctc_head=true", "model.freeze_projector=true"],
    "the other extras": [
        "model.ctc_head=true",
        "model.use_lora=true", "training.distillation_weight=0.5", "training.label_smoothing=0.1",
        "training.audio_token_dropout=0.2", "training.prompt_variety=[Write down what is said]",
    ],
}  # fmt: skip


@pytest.mark.parametrize("options", BESIDE.values(), ids=BESIDE)
def test_what_needs_no_audio_goes_with_it(options, cached, settings_of, tmp_path):
    once = (*BRIEF, "training.max_steps=1")
    train(settings_of(tmp_path / "uncached", *options, *once))
    train(cached("cached", *options, *once))
    for key in ("loss", "grad_norm"):
        theirs = log_of(tmp_path / "uncached", key)
        assert theirs and log_of(tmp_path / "cached", key) == pytest.approx(theirs, abs=1e-3), key


def test_another_encoder_precision_or_layer_is_another_cache(cached, model, tiny_parts, tmp_path):
    changed = shutil.copytree(tiny_parts / "encoder", tmp_path / "changed")
    weights = load_file(changed / "model.safetensors")
    next(iter(weights.values())).view(-1)[0] += 1e-3
    save_file(weights, changed / "model.safetensors", {"format": "pt"})
    renamed = shutil.copytree(tiny_parts / "encoder", tmp_path / "renamed")

    def folder(*overrides: str) -> Path:
        settings = cached("run", *overrides)
        own = any(override.startswith("model.") for override in overrides)
        return cache_folder(build_model(settings.model) if own else model, settings.training)

    others = (
        "training.cache_dtype=bf16", "training.dtype=bf16", "model.encoder_padding=window", "model.encoder_layer=1",
        "model.model_dtype=bfloat16", f"model.audio_model_id={changed}",
    )  # fmt: skip
    assert len({folder(), *map(folder, others)}) == len(others) + 1
    assert folder("training.seed=3", "model.projector_hidden_dim=16", f"model.audio_model_id={renamed}") == folder()


def test_changed_audio_is_encoded_anew_and_unreadable_clips_are_skipped(cached, model, settings_of, tmp_path, capsys):
    folder = tmp_path / "corpus"
    write_jsonl(folder / "train.jsonl", rows := write_clips(folder, 6, lambda i: 0.5 + 0.1 * i))
    write_jsonl(folder / "validation.jsonl", rows[:2])
    (folder / "clip001.wav").write_text("this is no audio")
    data = ("data.max_train_samples=null", "data.max_eval_samples=1", "training.batch_size=2", "training.max_steps=3")
    train(settings_of(tmp_path / "uncached", *data, data=str(folder)))
    train(cached("one", *data, data=str(folder)))
    assert "6 of 6 clips" in capsys.readouterr().err
    for file, read in (("log.jsonl", lambda run: log_of(run, "loss")), ("skipped.jsonl", skipped_ids)):
        assert read(tmp_path / "one") == pytest.approx(read(tmp_path / "uncached"), abs=1e-4), file
    assert skipped_ids(tmp_path / "one") == ["clip001"]
    before = fill(cached("one", *data, data=str(folder)), model).dataset[2].frames
    (folder / "clip002.wav").write_bytes(wav_bytes(sine(0.7, hertz=900)))
    (folder / "clip003.wav").write_bytes((folder / "clip000.wav").read_bytes())
    capsys.readouterr()
    clips = fill(cached("two", *data, data=str(folder)), model).dataset
    assert "2 of 6 clips" in capsys.readouterr().err  # the changed one, and the unreadable one is tried again
    assert not torch.allclose(clips[2].frames, before) and torch.equal(clips[3].frames, clips[0].frames)


def skipped_ids(run: Path) -> list[str]:
    return [json.loads(line)["id"] for line in (run / "skipped.jsonl").read_text().splitlines()]


def fill(settings, model) -> ClipFeed:
    """The clips of a run, in a full cache."""
    feed = make_feed(settings, training_corpora(settings), model)
    feed.fill(model)
    return feed


@pytest.mark.parametrize("damage", ["cut", "bit", "header"])
def test_a_damaged_shard_is_made_anew(damage, cached, model, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(feature_cache, "SHARD_BYTES", 50_000)
    before = [clip.frames.clone() for clip in fill(cached("run"), model).dataset]
    assert len(shards(tmp_path)) > 1
    shard = shards(tmp_path)[0]
    data = bytearray(shard.read_bytes())
    data[{"cut": -1, "bit": -100, "header": 3}[damage]] ^= 1
    shard.write_bytes(data[:-7] if damage == "cut" else data)
    capsys.readouterr()
    after = [clip.frames for clip in fill(cached("run"), model).dataset]
    said = capsys.readouterr().err
    assert f"{shard} is damaged" in said and "0 of 12 clips" not in said and "12 of 12" not in said
    assert all(torch.allclose(old, new, atol=1e-5) for old, new in zip(before, after, strict=True))
    fill(cached("run"), model)
    assert "0 of 12 clips" in capsys.readouterr().err


def fill_slowly(settings, model) -> None:
    """In a process of its own: a shard a batch, and time between them."""
    write = FeatureCache.add
    feature_cache.SHARD_BYTES = 1
    FeatureCache.add = lambda self, clips: (write(self, clips), time.sleep(0.1))  # type: ignore[method-assign]
    fill(settings, model)


def test_a_killed_run_goes_on_and_two_share_the_work(cached, model, tmp_path, capfd):
    settings, context = cached("run", "training.batch_size=2"), multiprocessing.get_context("fork")
    killed = context.Process(target=fill_slowly, args=(settings, model))
    killed.start()
    while len(shards(tmp_path)) < 3:
        assert killed.is_alive()
        time.sleep(0.01)
    killed.kill()
    killed.join()
    there = {path: path.stat().st_mtime_ns for path in shards(tmp_path)}
    (shards(tmp_path)[0].parent / "x.1.unfinished").write_bytes(b"half")
    capfd.readouterr()
    both = [context.Process(target=fill_slowly, args=(settings, model)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(60)
    said = capfd.readouterr().err
    assert [process.exitcode for process in both] == [0, 0], said
    assert f"{12 - len(there)} of 12 clips" in said and "0 of 12 clips" in said and "Another process fills" in said
    assert 3 <= len(there) < 12 == len(shards(tmp_path))
    assert all(path.stat().st_mtime_ns == date for path, date in there.items())
    assert not list((tmp_path / "cache").glob("*/*.unfinished"))


def test_a_disk_without_room_is_refused_before(cached, model, tmp_path, monkeypatch, encoded):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9 - 1000, 1000))
    with pytest.raises(TinyAudioError, match=r"needs 0\.2 MB and .* has 0\.0 MB free; make room"):
        fill(cached("run"), model)
    assert not shards(tmp_path) and not encoded


def test_a_full_disk_leaves_the_shards_before(cached, model, tmp_path, monkeypatch):
    monkeypatch.setattr(feature_cache, "SHARD_BYTES", 1)
    write, written = Path.write_bytes, []

    def limited(self, data):
        written.append(self)
        if len(written) == 3:
            write(self, data[:100])
            raise OSError(28, "No space left on device")
        return write(self, data)

    monkeypatch.setattr(Path, "write_bytes", limited)
    with pytest.raises(TinyAudioError, match="No space left on device"):
        fill(cached("run"), model)
    assert len(shards(tmp_path)) == 2 and not list((tmp_path / "cache").glob("*/*.unfinished"))


REFUSED = {
    "training.time_masks=1": "training.time_masks changes the audio",
    "training.frequency_masks=2": "training.frequency_masks changes the audio",
    "training.augment.noise_probability=0.5": "training.augment changes the audio",
    "data.streaming=true": "data.streaming=false",
    "model.encoder_lora_rank=2": "frozen encoder",
    "model.encoder_layer=weighted": "frozen encoder",
    "training.cache_dtype=int8": "expected one of: fp32, bf16, fp16",
}


@pytest.mark.parametrize("override", REFUSED)
def test_what_needs_the_audio_is_refused_in_one_line(override, cached, tmp_path):
    with pytest.raises(TinyAudioError, match=REFUSED[override]) as error:
        train(cached("run", override))
    assert "\n" not in str(error.value) and not (tmp_path / "cache").exists()
