"""Evaluation end to end on miniature models: results, resuming after kill -9, failures, batches."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import wave
from pathlib import Path

import numpy as np
import pytest
from evaluation_helpers import settings_for, texts_of, write_corpus, write_manifest, write_wav

from tiny_audio.cli.main import run
from tiny_audio.errors import TinyAudioError
from tiny_audio.evaluation.providers import open_provider
from tiny_audio.evaluation.providers.base import Hypothesis
from tiny_audio.evaluation.results import ClipResult, Metrics, ResultsFolder, read_results, worst_first
from tiny_audio.evaluation.run import evaluate
from tiny_audio.evaluation.settings import EvalSettings


@pytest.fixture(scope="module")
def talker(tiny_checkpoint: Path, tmp_path_factory) -> Path:
    """The miniature checkpoint, made to say something that depends on what it hears."""
    import torch

    from tiny_audio import ASRModel

    model = ASRModel.from_pretrained(tiny_checkpoint)
    with torch.no_grad():
        for weight in model.language_model.model.layers.parameters():
            if weight.dim() > 1:
                weight.mul_(10)  # or the residual stream, that is the last token, drowns what was heard
        model.language_model.get_input_embeddings().weight[:6] = 0  # the special tokens, tied with their logits
    folder = shutil.copytree(tiny_checkpoint, tmp_path_factory.mktemp("talker") / "talker")
    model.language_model.save_pretrained(folder / "decoder")
    return folder


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    """40 clips of 0.3 to 2 s, one of 33 s, and one with an empty text."""
    seconds = [*np.random.default_rng(1).uniform(0.3, 2.0, 40), 33.0, 0.5]
    manifest = write_corpus(tmp_path_factory.mktemp("corpus"), seconds)
    rows = [json.loads(line) for line in manifest.read_text().splitlines()]
    return write_manifest(manifest, [*rows[:-1], {**rows[-1], "text": ""}])


class Counting:
    """A recogniser that remembers the clips it was given after the warm-up."""

    def __init__(self, settings: EvalSettings, poison: float | None = None) -> None:
        self.inner = open_provider(settings)
        self.device, self.decoding = self.inner.device, self.inner.decoding
        self.batches: list[int] = []
        self.poison = poison  # a clip of so many seconds cannot be decoded

    def transcribe(self, batch: list[np.ndarray]) -> list[Hypothesis]:
        self.batches.append(len(batch))
        if any(len(clip) == self.poison for clip in batch):
            raise RuntimeError("this clip breaks the model")
        return self.inner.transcribe(batch)


@pytest.fixture(scope="module")
def whole(talker: Path, corpus: Path, tmp_path_factory) -> Metrics:
    """An uninterrupted run over the corpus, two clips at a time."""
    return evaluate(settings_for(talker, corpus, tmp_path_factory.mktemp("whole"), batch_size=2))


def test_the_results_folder(whole: Metrics) -> None:
    results = read_results(whole.folder)
    assert len({result.id for result in results}) == len(results) == whole.num_samples == 42
    assert results[0].duration == pytest.approx(33.0, abs=0.01)  # longest first
    assert len(set(texts_of(whole.folder).values())) > 10  # the model does hear a difference
    errors = sum(result.word_errors for result in results)
    assert whole.wer == pytest.approx(errors / sum(result.reference_words for result in results))
    assert whole.wer_interval[0] <= whole.wer <= whole.wer_interval[1]
    assert whole.rtfx == pytest.approx(whole.audio_seconds / whole.decode_seconds, rel=0.02)
    assert whole.audio_seconds == pytest.approx(sum(result.duration for result in results), abs=0.01)
    stored = json.loads((whole.folder / "metrics.json").read_text())
    assert {"wer", "cer", "num_samples", "num_failed", "audio_seconds", "rtfx"} <= stored.keys()
    assert stored["normalizer"]["name"] == "whisper-en" and stored["other_normalizer"]["name"] == "basic"
    assert stored["versions"]["transformers"] and stored["hardware"]["device"] == "cpu"
    assert "WER" in (whole.folder / "results.txt").read_text()
    line = json.loads((whole.folder / "results.jsonl").read_text().splitlines()[0])
    expected = "id duration reference prediction wer substitutions deletions insertions seconds error"
    assert list(line)[:10] == expected.split()


def test_an_empty_reference_is_scored(whole: Metrics) -> None:
    result = next(result for result in read_results(whole.folder) if result.reference == "")
    assert not result.failed and result.reference_words == 0
    assert result.insertions == result.word_errors == result.wer


def test_batch_size_changes_no_text(talker: Path, corpus: Path, whole: Metrics, tmp_path: Path) -> None:
    one = evaluate(settings_for(talker, corpus, tmp_path / "1", batch_size=1))
    sixteen = evaluate(settings_for(talker, corpus, tmp_path / "16", batch_size=16))
    assert texts_of(one.folder) == texts_of(sixteen.folder) == texts_of(whole.folder)
    assert (one.wer, one.wer_interval, one.cer) == (sixteen.wer, sixteen.wer_interval, sixteen.cer)


def test_killed_and_resumed(talker: Path, corpus: Path, whole: Metrics, tmp_path: Path) -> None:
    arguments = ["eval", "-m", str(talker), "-d", str(corpus), "--batch-size", "2", "--device", "cpu"]
    command = [sys.executable, "-m", "tiny_audio.cli.main", *arguments, "--output-dir", str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    results = tmp_path / "results.jsonl"
    while process.poll() is None and not (results.exists() and results.read_bytes().count(b"\n") >= 8):
        time.sleep(0.005)
    assert process.poll() is None, "the run ended before it could be killed"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    done = results.read_bytes().count(b"\n")
    assert 8 <= done < 42
    with results.open("ab") as file:
        file.write(b'{"id": "clip-0')  # a line that was being written

    settings = settings_for(talker, corpus, tmp_path, batch_size=2)
    provider = Counting(settings)
    resumed = evaluate(settings, lambda _: provider)
    assert sum(provider.batches[1:]) == 42 - done  # the first was the warm-up
    assert len(read_results(tmp_path)) == results.read_bytes().count(b"\n") == 42
    assert texts_of(tmp_path) == texts_of(whole.folder)
    for name in ("wer", "wer_interval", "cer", "substitutions", "deletions", "insertions", "num_samples", "num_failed"):
        assert getattr(resumed, name) == pytest.approx(getattr(whole, name), abs=0)


def test_a_finished_run_is_not_done_again(talker: Path, corpus: Path, whole: Metrics) -> None:
    def refuse(_):
        raise AssertionError("nothing is left to decode")

    again = evaluate(settings_for(talker, corpus, whole.folder, batch_size=2), refuse)
    assert again.wer == whole.wer and again.date == whole.date


def test_other_settings_in_the_folder(talker: Path, corpus: Path, whole: Metrics) -> None:
    with pytest.raises(TinyAudioError, match=r"batch_size \(2 there, 3 now\), normalizer \(whisper-en there, basic"):
        evaluate(settings_for(talker, corpus, whole.folder, batch_size=3, normalizer="basic"))


def test_a_checkpoint_trained_anew_is_another_run(talker: Path, corpus: Path, tmp_path: Path) -> None:
    model = shutil.copytree(talker, tmp_path / "model")
    settings = settings_for(model, corpus, tmp_path / "out", max_samples=2)
    evaluate(settings)
    os.utime(model / "model.safetensors", (1, 1))
    with pytest.raises(TinyAudioError, match="model_fingerprint"):
        evaluate(settings)


def test_two_runs_in_one_folder(tmp_path: Path) -> None:
    with ResultsFolder(tmp_path, {"a": 1}), pytest.raises(TinyAudioError, match="Another evaluation is writing"):
        ResultsFolder(tmp_path, {"a": 1})
    with ResultsFolder(tmp_path, {"a": 1}):
        pass


def test_a_broken_line_in_the_middle_is_named(tmp_path: Path) -> None:
    with ResultsFolder(tmp_path, {}) as folder:
        folder.append([ClipResult("a", 1.0, "x", "x"), ClipResult("a", 1.0, "x", "x"), ClipResult("b", 1.0, "y", "y")])
    lines = (tmp_path / "results.jsonl").read_bytes().splitlines(keepends=True)
    assert len(lines) == 2
    (tmp_path / "results.jsonl").write_bytes(b"nonsense\n" + lines[0])
    with pytest.raises(TinyAudioError, match="Line 1 of"):
        ResultsFolder(tmp_path, {})


def test_texts_of_any_kind_survive_the_file(tmp_path: Path) -> None:
    text = 'line\nbreak \u2028 \x00 \ud800 ünïcödé "quoted" \\ 语音'
    with ResultsFolder(tmp_path, {}) as folder:
        folder.append([ClipResult(text, 1.0, text, text)])
    assert read_results(tmp_path)[0].prediction == text


@pytest.fixture()
def spoilt(corpus: Path, tmp_path: Path) -> Path:
    """Five good clips, one that is no audio, one that is missing, one without samples."""
    for number in range(5):
        shutil.copy(corpus.parent / f"{number:03d}.wav", tmp_path)
    (tmp_path / "noise.wav").write_bytes(b"this is no audio" * 20)
    write_wav(tmp_path / "empty.wav", np.zeros(0))
    names = [*(f"{number:03d}.wav" for number in range(5)), "noise.wav", "missing.wav", "empty.wav"]
    rows = [{"audio": name, "text": "hello world", "id": name} for name in names]
    return write_manifest(tmp_path / "test.jsonl", rows)


def test_bad_clips_are_counted_not_scored(talker: Path, spoilt: Path, tmp_path: Path, capsys) -> None:
    arguments = ["eval", str(talker), "-d", str(spoilt), "--output-dir", str(tmp_path / "out"), "--device", "cpu"]
    assert run(arguments) == 1
    shown = capsys.readouterr().out
    assert "Failed clips" in shown and "noise.wav  failed:" in shown
    metrics = Metrics.read(tmp_path / "out")
    assert (metrics.num_samples, metrics.num_failed, metrics.reference_words) == (8, 3, 10)
    failed = {result.id: result for result in read_results(tmp_path / "out") if result.failed}
    assert failed.keys() == {"noise.wav", "missing.wav", "empty.wav"}
    assert all(result.wer is None and result.prediction is None for result in failed.values())
    shutil.copy(tmp_path / "000.wav", tmp_path / "noise.wav")  # mended: the same command takes it in
    assert run([*arguments, "--allow-failures"]) == 0
    assert Metrics.read(tmp_path / "out").num_failed == 2
    assert len(read_results(tmp_path / "out")) == 8


def test_a_clip_that_breaks_its_batch_is_found(talker: Path, corpus: Path, tmp_path: Path) -> None:
    with wave.open(str(corpus.parent / "007.wav")) as file:
        poison = file.getnframes()
    settings = settings_for(talker, corpus, tmp_path, batch_size=16)
    metrics = evaluate(settings, lambda _: Counting(settings, poison))
    failed = [result for result in read_results(tmp_path) if result.failed]
    assert [result.id for result in failed] == ["clip-007"] and metrics.num_failed == 1
    assert failed[0].error == "RuntimeError: this clip breaks the model"


def test_a_model_that_fails_on_everything_stops_early(talker: Path, corpus: Path, tmp_path: Path) -> None:
    class Broken:
        device, decoding = "cpu", {}

        def transcribe(self, batch: list[np.ndarray]) -> list[Hypothesis]:
            raise RuntimeError("out of luck")

    with pytest.raises(TinyAudioError, match="first 20 clips.*out of luck"):
        evaluate(settings_for(talker, corpus, tmp_path / "all"), lambda _: Broken())
    with pytest.raises(TinyAudioError, match="No clip .* 3 found, 3 failed; the first error is RuntimeError"):
        evaluate(settings_for(talker, corpus, tmp_path / "few", max_samples=3), lambda _: Broken())
    assert not (tmp_path / "few" / "metrics.json").exists()


def test_zero_clips_is_an_error(talker: Path, tmp_path: Path, capsys) -> None:
    empty = write_manifest(tmp_path / "test.jsonl", [])
    assert run(["eval", "-m", str(talker), "-d", str(empty), "--output-dir", str(tmp_path / "out")]) == 1
    assert capsys.readouterr().err.startswith("Error: ")
    assert not (tmp_path / "out" / "metrics.json").exists()


BAD_COMMANDS = [
    (["-d", "./no-such-data"], "no-such-data"),
    (["-d", "nobody/no-such-corpus"], "no-such-corpus"),
    (["--split", "tset"], "tset"),
    (["--text-column", "words"], "words"),
    (["-m", "./no-such-model"], "./no-such-model does not exist"),
    (["-m", "nobody/no-such-model"], "neither a folder here nor readable on the Hugging Face Hub"),
    (["-m", "."], "holds no config.json"),
    (["--provider", "nobody"], "local, huggingface"),
    (["--device", "cuda:7"], "not on this machine"),
    (["--normalizer", "whisper"], "whisper-en, basic, none"),
    (["--dtype", "int3"], "float32"),
]


@pytest.mark.parametrize("options, message", BAD_COMMANDS)
def test_bad_commands_are_one_line(talker, speech, tmp_path, monkeypatch, capsys, options, message) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["eval", "-m", str(talker), "-d", str(speech / "spoken-digits"), "-n", "2"]
    assert run([*arguments, *options]) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("Error: ") and message in error


def test_sample_options_and_default_folder(talker, corpus, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["eval", "-m", str(talker), "-d", str(corpus), "-n", "7", "--normalizer", "basic"]
    assert run(arguments) == run([*arguments, "--num-beams", "2", "--max-new-tokens", "7"]) == run(arguments) == 0
    folders = sorted((tmp_path / "outputs" / "eval").iterdir())
    assert len(folders) == 2
    first, second = (Metrics.read(folder) for folder in sorted(folders, key=lambda f: f.stat().st_ctime))
    assert (first.num_samples, first.normalizer["name"]) == (7, "basic")
    assert (second.decoding["num_beams"], second.decoding["max_new_tokens"]) == (2, 7)
    assert texts_of(first.folder).keys() == texts_of(second.folder).keys()
    assert "basic" in capsys.readouterr().out


def test_streaming_measures_the_same(talker: Path, corpus: Path, whole: Metrics, tmp_path: Path) -> None:
    settings = settings_for(talker, corpus, tmp_path, streaming=True, batch_size=4)
    streamed = evaluate(settings)
    assert texts_of(tmp_path) == texts_of(whole.folder)
    assert (streamed.wer, streamed.wer_interval) == (whole.wer, whole.wer_interval)
    assert evaluate(settings, lambda _: pytest.fail("nothing is left")).date == streamed.date


def test_streaming_keeps_clips_that_share_an_id(talker: Path, corpus: Path, tmp_path: Path) -> None:
    rows = [{**json.loads(line), "id": "same"} for line in corpus.read_text().splitlines()[:5]]
    dataset = write_manifest(corpus.parent / "same.jsonl", rows)
    settings = settings_for(talker, dataset, tmp_path, streaming=True, batch_size=2)
    assert evaluate(settings).num_samples == 5
    assert {result.id for result in read_results(tmp_path)} == {"same", "same#2", "same#3", "same#4", "same#5"}


def test_several_datasets_one_table(talker, corpus, spoilt, tmp_path, capsys) -> None:
    arguments = ["eval", "-m", str(talker), "-d", str(corpus), "-d", str(spoilt), "-n", "5"]
    run([*arguments, "--output-dir", str(tmp_path / "out"), "--allow-failures"])
    assert len(list((tmp_path / "out").glob("*/metrics.json"))) == 2
    shown = capsys.readouterr().out
    assert shown.count("normalizer") == 1 and "pooled (mean of the 2: " in shown
    assert f"{talker}, 16 clips at a time on" in shown


def test_worst_clips_hold_inventions() -> None:
    silence = ClipResult("silence", 1, "", "ghost words", 2.0, 0, 0, 2)
    half = ClipResult("half", 1, "a b", "a", 0.5, 0, 1, 0)
    right = ClipResult("right", 1, "a", "a", 0.0, 0, 0, 0)
    broken = ClipResult("broken", None, "a", error="no audio")
    assert [result.id for result in worst_first([half, right, broken, silence])] == ["silence", "half"]


def test_real_speech_in_any_batch(talker: Path, speech: Path, tmp_path: Path) -> None:
    """Clips of 0.4 to 33 s; the tiny model's texts are nonsense, but the same nonsense."""
    dataset = speech / "librispeech-small"
    texts = []
    for size in (1, 16):
        settings = settings_for(talker, dataset, tmp_path / str(size), batch_size=size, max_samples=24)
        assert evaluate(settings).num_failed == 0
        texts.append(texts_of(tmp_path / str(size)))
    assert texts[0] == texts[1] and len(set(texts[0].values())) > 2


def test_nano_on_the_shipped_corpus(nano: Path, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["eval", "-n", "8", "--device", "cpu"]) == 0
    captured = capsys.readouterr()
    assert "Normalizer basic" in captured.err and "whisper-en" in captured.out
    metrics = Metrics.read(next((tmp_path / "outputs" / "eval").iterdir()))
    assert metrics.wer < 0.5 and metrics.num_samples == 8


def test_the_folder_of_a_run_means_its_best(talker: Path, corpus: Path, tmp_path: Path) -> None:
    shutil.copytree(talker, tmp_path / "run" / "best")
    metrics = evaluate(settings_for(tmp_path / "run", corpus, tmp_path / "out", max_samples=2))
    assert metrics.provider == "local" and metrics.num_failed == 0


def test_several_providers_side_by_side(talker: Path, corpus: Path, nano: Path, tmp_path: Path, capsys) -> None:
    arguments = [
        "eval",
        "--providers",
        f"local:{talker}, tiny-audio:nano",
        "-d",
        str(corpus),
        "-n",
        "3",
        "--device",
        "cpu",
    ]
    assert run([*arguments, "--output-dir", str(tmp_path)]) == 0
    table = capsys.readouterr().out.split("Side by side")[1]
    assert str(talker.name) in table and "nano" in table and table.count("RTFx") == 2 and " * (" in table
    folders = sorted(path.parent.name for path in tmp_path.glob("*/metrics.json"))
    assert len(folders) == 2 and folders[1] == "tiny-audio-nano"


# ---- what a user who tried to break it found


def test_metadata_that_json_cannot_hold(talker: Path, corpus: Path, tmp_path: Path) -> None:
    lines = [json.loads(line) for line in corpus.read_text().splitlines()[:2]]
    lines[0] |= {"x": float("nan"), "speaker": None, "words": ["a"]}
    lines[1] |= {"x": float("inf"), "words": [{"text": "a", "start": None, "end": 1.0}]}
    dataset = write_manifest(corpus.parent / "odd.jsonl", lines)
    assert evaluate(settings_for(talker, dataset, tmp_path)).num_failed == 0
    results = read_results(tmp_path)
    assert all(result.metadata["x"] is None and result.reference_times is None for result in results)
    assert results[0].speaker is None


def test_a_recording_that_was_replaced_is_decoded_again(talker: Path, corpus: Path, tmp_path: Path) -> None:
    for number in range(3):
        shutil.copy(corpus.parent / f"{number:03d}.wav", tmp_path)
    rows = [{"audio": f"{n:03d}.wav", "text": "one", "id": str(n)} for n in range(3)]
    settings = settings_for(talker, write_manifest(tmp_path / "test.jsonl", rows), tmp_path / "out")
    evaluate(settings)
    before = {result.id: result for result in read_results(tmp_path / "out")}
    shutil.copy(corpus.parent / "010.wav", tmp_path / "001.wav")
    evaluate(settings)
    after = {result.id: result for result in read_results(tmp_path / "out")}
    assert after["1"].duration != before["1"].duration and len(after) == 3
    assert [after[name] == before[name] for name in "02"] == [True, True]


@pytest.mark.parametrize("damaged", ['{"w', '{"wer": 1}', "[]"])
def test_damaged_figures_are_computed_again(talker: Path, corpus: Path, tmp_path: Path, damaged: str) -> None:
    settings = settings_for(talker, corpus, tmp_path, max_samples=2)
    first = evaluate(settings)
    (tmp_path / "metrics.json").write_text(damaged)
    assert evaluate(settings).wer == first.wer == Metrics.read(tmp_path).wer
    (tmp_path / "settings.json").write_text("{")
    with pytest.raises(TinyAudioError, match=r"settings.json is damaged"):
        evaluate(settings)


def test_datasets_of_one_name_stay_apart(talker: Path, corpus: Path, tmp_path: Path, capsys) -> None:
    folders = [tmp_path / side / "x" / "data" for side in "ab"]
    for number, folder in enumerate(folders, start=1):
        shutil.copytree(corpus.parent, folder)
        write_manifest(folder / "test.jsonl", [{"audio": f"00{n}.wav", "text": "one"} for n in range(number)])
        for other in folder.glob("*.jsonl"):
            other.unlink() if other.name != "test.jsonl" else None
    named = [option for folder in (*folders, f"{folders[0]}/.") for option in ("-d", str(folder))]
    models = ["--providers", f"local:{talker},huggingface:{talker}"]
    assert (
        run(["eval", *models[:1], f"local:{talker},tiny-audio:nano", *named, "--output-dir", str(tmp_path / "out")])
        == 0
    )
    tables = capsys.readouterr().out.replace("\n", "").split("Side by side")
    assert all(str(folder) in table for folder in folders for table in tables)
    assert len(list((tmp_path / "out").glob("*/*/metrics.json"))) == 4  # ./a once, though it is named twice


@pytest.mark.parametrize("options", [["-m", "nano"], ["--provider", "local"], ["--providers", "local:nano,"]])
def test_providers_take_the_place_of_a_model(options: list[str], capsys) -> None:
    assert run(["eval", "--providers", "local:nano", *options]) == 2
    assert "--providers takes A,B:MODEL" in capsys.readouterr().err


def test_all_providers_are_checked_before_the_first_is_measured(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DEEPGRAM_API_KEY", raising=False)
    assert run(["eval", "--providers", "local:nano,deepgram", "-n", "1"]) == 1
    assert "DEEPGRAM_API_KEY" in capsys.readouterr().err and not (tmp_path / "outputs").exists()


def test_a_price_named_later(talker: Path, corpus: Path, tmp_path: Path) -> None:
    plain = evaluate(settings_for(talker, corpus, tmp_path, max_samples=2))
    assert plain.cost_usd is None
    priced = evaluate(
        settings_for(talker, corpus, tmp_path, max_samples=2, price_per_minute=0.6), lambda _: pytest.fail()
    )
    assert priced.cost_usd == pytest.approx(plain.audio_seconds * 0.01, abs=1e-5) == Metrics.read(tmp_path).cost_usd


def test_a_dataset_of_a_long_path(talker: Path, corpus: Path, tmp_path: Path) -> None:
    folder = tmp_path / ("a" * 120) / ("b" * 120)
    shutil.copytree(corpus.parent, folder)
    assert evaluate(settings_for(talker, folder / "test.jsonl", tmp_path / "out", max_samples=2)).num_samples == 2
