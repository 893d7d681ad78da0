"""What a run costs: planned from model and data, priced on GPUs, compared with what happened, and where the time went."""

import math
import re

import pytest
import torch
from training_helpers import log_of

from tiny_audio.cli.main import run
from tiny_audio.errors import TinyAudioError
from tiny_audio.training import compose, train
from tiny_audio.training.build import build_model, outline
from tiny_audio.training.cost import Spent, amount, clip_lengths, duration, plan, price_rows
from tiny_audio.training.feed import ClipFeed, StreamFeed
from tiny_audio.training.gpus import Gpu, gpu_table, own_file
from tiny_audio.training.meter import Meter, lengths_of
from tiny_audio.training.progress import ShowProgress
from tiny_audio.training.run import make_feed, training_corpora

pytestmark = pytest.mark.usefixtures("one_thread")


def test_the_plan_of_all_clips_is_what_the_batches_need(settings_of, tmp_path):
    """One epoch: each clip once, so the plan from the texts is the meter's count of the real tensors."""
    settings = settings_of(tmp_path, "training.max_steps=null", "training.num_epochs=1")
    model = build_model(settings.model)
    feed = ClipFeed(training_corpora(settings), settings, model.processor.max_samples)
    planned, meter = plan(model, feed, model.processor, teacher=True), Meter(model, teacher=True)
    for batch in feed.loader(0, model.processor):
        meter.count(batch["audio_seconds"], batch)
    assert planned.total == pytest.approx(meter.all_flops, rel=1e-3)
    assert planned.audio_seconds == pytest.approx(meter.audio_seconds, rel=1e-3)
    assert planned.flops["teacher"] > 0 and "counted on 12 clips" in planned.describe()
    guessed = plan(outline(settings.model), feed, None, teacher=True)
    assert guessed.total == pytest.approx(planned.total, rel=0.5) and "guessed" in guessed.basis


def test_the_plan_of_a_cached_run_has_the_encoder_once(settings_of, tmp_path):
    """Its steps are the meter's count without the encoder; what fills the cache is the encoder's share of an epoch."""
    cached = ("training.cache_features=true", f"training.cache_dir={tmp_path}/cache")
    settings = settings_of(tmp_path, *cached, "training.max_steps=null", "training.num_epochs=3")
    model = build_model(settings.model)
    feed = make_feed(settings, training_corpora(settings), model)
    uncached = plan(model, ClipFeed(training_corpora(settings_of(tmp_path)), settings_of(tmp_path), None), None, True)
    planned = plan(model, feed, model.processor, teacher=False)
    feed.fill(model)
    meter = Meter(model)
    for batch in feed.loader(0, model.processor):
        meter.count(batch["audio_seconds"], batch)
    assert planned.steps == pytest.approx(meter.all_flops, rel=1e-3) and "encoder" not in planned.flops
    each = {name: part / uncached.audio_seconds for name, part in uncached.flops.items()}
    assert planned.once == pytest.approx(each["encoder"] * feed.sampler.epoch_seconds, rel=1e-3)
    assert planned.flops["projector"] == pytest.approx(each["projector"] * planned.audio_seconds, rel=1e-3)
    assert planned.total == planned.steps + planned.once and "of it to fill the feature cache" in planned.describe()


def test_lengths_are_those_of_a_batch(tiny_checkpoint, tone):
    from tiny_audio import ASRModel
    from tiny_audio.data import Example, SpeechCollator

    model, seconds, texts = ASRModel.from_pretrained(tiny_checkpoint), (0.5, 1.23), ["one", "Two, three!"]
    clips = [Example(text, tone(length), text, length) for length, text in zip(seconds, texts, strict=True)]
    counted, real = clip_lengths(model, seconds, texts, model.processor), SpeechCollator(model.processor)(clips)
    for name in ("features", "tokens", "labels"):
        assert torch.equal(getattr(counted, name), getattr(lengths_of(real), name))


def test_a_stream_is_planned_with_a_clip_of_ten_seconds():
    settings = compose("transcription")
    planned = plan(outline(settings.model), StreamFeed(settings, 480_000), None, teacher=False)
    assert planned.audio_seconds == 50_000 * 60
    assert planned.describe().startswith("104 GFLOP for a second of audio (encoder 65 %")
    (h200,) = (row for row in price_rows(planned.total, gpu_table()) if row[0] == "H200")
    hours = planned.total / (0.4 * 989.4e12) / 3600
    assert float(h200[4]) == pytest.approx(hours * 3.59, abs=0.006)


def test_a_dry_run_prices_the_run(parts, capsys):
    assert run(["train", "--dry-run", *parts, "data.max_train_samples=9", "training.max_steps=5"]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"Work: [\d.]+ [MG]FLOP for a second of audio .*; counted on 9 clips\.", shown)
    assert all(name in shown for name in ("RTX 4090", "A40", "A100", "L40S", "H100", "H200"))
    assert "an assumption, since no GPU has been measured yet" in shown and "Prices of 20" in shown


def test_a_dry_run_prices_the_feature_cache(parts, tmp_path, capsys):
    cached = ("training.cache_features=true", f"training.cache_dir={tmp_path}/cache")
    assert run(["train", "--dry-run", *parts, *cached, "data.max_train_samples=9", "training.max_steps=5"]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"second of audio \(projector .* in all, [\d.]+ [MG]FLOP of it to fill the feature cache", shown)
    assert "Training steps, and the feature cache from empty." in shown and not (tmp_path / "cache").exists()


def test_a_table_of_ones_own(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    own_file().parent.mkdir()
    own_file().write_text("utilisation: 0.2\ngpus:\n  H200: {dollars: 1.0}\n  B200: {tflops: 2250, dollars: 5}\n")
    table = gpu_table()
    assert table.utilisation == 0.2 and table.gpus["H200"] == Gpu(989.4, 1.0, 700) and table.gpus["B200"].tflops == 2250
    own_file().write_text("gpus: {H200: {dolars: 1}}")
    with pytest.raises(TinyAudioError, match="gpus.yaml cannot be read"):
        gpu_table()
    assert run(["train", "--dry-run", "data.max_train_samples=9"]) == 1
    assert "expected the keys of configs/gpus.yaml" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("device", "name"),
    [("NVIDIA A100-SXM4-80GB", "A100"), ("NVIDIA H200", "H200"), ("NVIDIA GeForce RTX 4090", "RTX 4090"),
     ("NVIDIA L40S", "L40S"), ("NVIDIA RTX A4000", None), ("NVIDIA L40", None)],
)  # fmt: skip
def test_gpus_are_known_by_the_names_that_cuda_gives(device, name):
    found = gpu_table().named(device)
    assert (found and found[0]) == name


def test_planned_and_happened_in_words():
    spent = Spent(planned=2e15, done=1e15, seconds=10.0, gpu=("H200", Gpu(1000, 3.6)), utilisation=0.4)
    assert spent.describe() == (
        "Work on H200: planned 5 s, $0.01 at 40% of its peak; took 10 s, $0.01 at 10% (100 TFLOP/s)."
    )
    assert [amount(value) for value in (3.12e17, 1.034e11, 5e3)] == ["312 PFLOP", "103 GFLOP", "0.005 MFLOP"]
    assert [duration(value) for value in (41.2, 74, 760, 7500)] == ["41 s", "1 min 14 s", "13 min", "2 h 05 min"]


@pytest.mark.parametrize("overrides", [(), ("model.freeze_projector=true", "model.use_lora=true")])
def test_a_run_says_where_its_time_went(settings_of, tmp_path, overrides, monkeypatch, capsys):
    monkeypatch.setattr("tiny_audio.training.progress.PROFILE_SECONDS", 0.0)
    result = train(settings_of(tmp_path, *overrides))
    shares = [log_of(tmp_path, f"{part}_ratio") for part in ("data_wait", "encoder", "language_model")]
    assert all(len(share) == 3 and all(value > 0 for value in share) for share in shares)
    assert all(sum(values) <= 1.001 for values in zip(*shares, strict=True))
    assert result.spent.done == pytest.approx(result.spent.planned, rel=0.25)
    assert "FLOP planned" in result.summary()
    line = r"Step 3: data wait [\d.]+ %, encoder [\d.]+ %, language model [\d.]+ %, padding [\d.]+ %, \d+ GFLOP/s"
    assert re.search(line, capsys.readouterr().err)
    assert not math.isnan(log_of(tmp_path, "gflop_per_s")[0]) and not log_of(tmp_path, "mfu")


def test_a_resumed_run_compares_its_own_part(settings_of, tmp_path):
    train(settings_of(tmp_path))
    longer = ("training.max_steps=6", "training.lr_scheduler=constant")
    result = train(settings_of(tmp_path, *longer), resume="auto")
    assert result.spent.done == pytest.approx(result.spent.planned, rel=0.25)


def test_the_profile_line_comes_once_a_minute(capsys):
    logs = {f"{name}_ratio": 0.1 for name in ("data_wait", "encoder", "language_model", "padding")}
    progress = ShowProgress(bar=None, steps=9)  # type: ignore[arg-type]
    progress._profile(1, {**logs, "mfu": 0.35})
    assert not capsys.readouterr().err
    progress.profiled -= 61
    for _ in range(2):
        progress._profile(2, {**logs, "mfu": 0.35})
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("MFU 35.0 %")
