"""The speed benchmarks: both training loops compute the same, faster but not different, and the commands print and keep figures."""

import json
import subprocess
import sys

import pytest
import torch
from data_helpers import write_audiofolder
from torch.nn import functional as F

from benchmarks import infer, startup
from benchmarks import train as training
from benchmarks.clips import CHECKOUT, LIST, dataset_of
from benchmarks.measures import Moment, Speed, between
from benchmarks.reference import Clips, Collator, freeze, loss_of
from benchmarks.sizes import random_model, square
from tiny_audio.data import DataConfig, SpeechCollator, open_corpus
from tiny_audio.errors import TinyAudioError
from tiny_audio.model.processor import IGNORED_LABEL

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def corpus():
    return open_corpus(DataConfig(path="quickstart"), "train", max_samples=5)


@pytest.fixture
def model(corpus):
    return random_model(square(width=32, layers=2, vocabulary=700), corpus.texts).train()


def gradients(model) -> dict[str, torch.Tensor]:
    found = {name: parameter.grad.clone() for name, parameter in model.projector.named_parameters()}
    model.zero_grad()
    return found


def ours(model, corpus) -> torch.Tensor:
    batch = SpeechCollator(model.processor)([corpus.load(index) for index in range(len(corpus))])
    return model(**{name: value for name, value in batch.items() if name not in ("audio_seconds", "skipped")}).loss


def plainly(model, corpus) -> torch.Tensor:
    """Each clip alone, so that nothing is padded; all logits, and the labels picked from them."""
    total, count = torch.zeros(()), 0
    for index in range(len(corpus)):
        clip = corpus.load(index)
        inputs = model.processor(clip.waveform, text=clip.text.lower())
        frames = model.encoder.encoder(inputs["input_features"]).last_hidden_state
        audio = model.projector(frames)
        places = inputs["input_ids"] == model.config.audio_token_id
        tokens = model.language_model.get_input_embeddings()(inputs["input_ids"])
        embeddings = tokens.masked_scatter(places[..., None], audio)
        logits, labels = model.language_model(inputs_embeds=embeddings).logits[0, :-1], inputs["labels"][0, 1:]
        total = total + F.cross_entropy(logits, labels, ignore_index=IGNORED_LABEL, reduction="sum")
        count += int((labels != IGNORED_LABEL).sum())
    return total / count


def test_faster_not_different(model, corpus):
    losses, found = [], []
    for computed in (ours, plainly):
        loss = computed(model, corpus)
        loss.backward()
        losses.append(float(loss.detach()))
        found.append(gradients(model))
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)
    assert all(torch.allclose(found[0][name], found[1][name], atol=1e-4, rtol=1e-4) for name in found[1])
    assert any(gradient.abs().max() > 1e-3 for gradient in found[0].values())


def test_the_reference_is_the_same_task(model, corpus):
    """What it loses on 30 s of mel is what ours loses when its encoder sees 30 s as well."""
    freeze(model)
    with torch.no_grad():
        theirs = loss_of(model, Collator(model.processor)([Clips(corpus)[index] for index in range(len(corpus))]))
        for part in (model.encoder, model.processor.adapter):
            part.window = True
        assert float(ours(model, corpus)) == pytest.approx(float(theirs), abs=1e-4)


@pytest.mark.parametrize("side", training.SIDES)
def test_a_loop_is_timed(side):
    options = training.Options(
        "nano", "quickstart", warm_up=1, threads=1, workers=0, device="cpu",
        overrides=("training.batch_seconds=8",), clips=10,
    )  # fmt: skip
    speed = training.measure(side, options)
    assert speed.audio_seconds_per_s > 0 and speed.peak_bytes > 0 and 0 < speed.data_wait_ratio < 1
    padded = {"reference": (0.8, 1.0), "ours": (0.0, 0.2)}[side]
    assert padded[0] < speed.padding_ratio < padded[1]


def test_a_cached_pass_is_timed_and_said(tmp_path, capsys):
    cached = ("training.batch_seconds=8", "training.cache_features=true", f"training.cache_dir={tmp_path}")
    options = training.Options("nano", "quickstart", 6, 2, 1, 1, 0, "cpu", cached)
    speed = training.measure("ours", options)
    assert speed.cached and speed.audio_seconds_per_s > 0 and "6 of 6 clips to encode" in capsys.readouterr().err
    training.show(training.figures({"reference": [Speed(1.0, 0.7, 0.1, 1.0, 800)], "ours": [speed]}))
    assert "ours, cached" in (shown := capsys.readouterr().out) and "from the feature cache" in shown


def test_the_last_pass_is_timed():
    options = training.Options("nano", "quickstart", warm_up=5)
    assert [training.first_timed(before, options) for before in (0, 5, 38)] == [4, 4, 37]
    begin = Moment(clock=1.0)
    speed = between(begin, Moment(clock=3.0, audio_seconds=10.0, own_frames=900, frames=1000, waited=0.1))
    assert speed == Speed(5.0, pytest.approx(0.1), pytest.approx(0.05), 2.0)


def test_figures_are_medians_and_the_ratio_is_of_pairs(capsys):
    speeds = {
        "reference": [Speed(rate, 0.7, 0.1, 1.0, 800) for rate in (1.0, 2.0, 4.0)],
        "ours": [Speed(rate, 0.1, 0.01, 1.0, 200) for rate in (9.0, 16.0, 40.0)],
    }
    result = training.figures(speeds)
    assert result["ratio"] == 9.0 and result["memory_ratio"] == 0.25
    assert result["ours"]["audio_seconds_per_s"] == 16.0
    training.show(result)
    assert "ours / reference: 9.00 × the speed, 0.25 × the memory" in capsys.readouterr().out


def test_the_command_prints_and_keeps_figures(tmp_path):
    file = tmp_path / "speed.jsonl"
    data = write_audiofolder(tmp_path / "data", {"train": 10, "validation": 1})
    options = ["--size=nano", f"--data={data}", "--repeats=1", "--warm-up=1", "--threads=1", "--workers=0"]
    command = [sys.executable, "-m", "tiny_audio.cli.main", "dev", "bench", "train", *options, f"--json={file}"]
    result = subprocess.run([*command, "training.batch_seconds=1"], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "ours / reference:" in result.stdout
    (line,) = map(json.loads, file.read_text().splitlines())
    assert line["benchmark"] == "train" and line["machine"]["cpu_cores"] and line["commit"] and line["ratio"] > 0


def test_decoding_is_timed(capsys):
    options = ["--data=quickstart", "--clips=3", "--batch-size=2", "--threads=1", "--device=cpu"]
    infer.main(options)
    shown = capsys.readouterr().out
    assert "RTFx" in shown and "nano: 3 clips" in shown


def test_start_up_is_timed(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(startup, "TA", ("-c", "pass"))
    startup.main(["--repeats=1", f"--json={tmp_path / 'speed.jsonl'}"])
    assert "ta --help" in capsys.readouterr().out
    assert json.loads((tmp_path / "speed.jsonl").read_text())["seconds"]["python"] > 0


def test_the_list_of_clips(speech, tmp_path):
    corpus = open_corpus(DataConfig(path=str(dataset_of(LIST, tmp_path))), "train")
    assert len(corpus) == 300 and corpus.load(0).text
    assert corpus.durations.sum() / 3600 == pytest.approx(0.70, abs=0.005) and corpus.durations.max() <= 30


def test_a_missing_list_is_one_line(tmp_path):
    with pytest.raises(TinyAudioError, match="does not exist; expected a list of clips"):
        dataset_of(tmp_path / "none.txt", tmp_path)
    command = [sys.executable, "-m", "benchmarks.train", "--list", str(tmp_path / "none.txt")]
    result = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert result.returncode == 1 and result.stderr.startswith("Error: ") and len(result.stderr.splitlines()) == 1
