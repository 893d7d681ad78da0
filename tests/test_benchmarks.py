"""The table of benchmarks, read through datasets of their column layout; the forms in which others read the results."""

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from data_helpers import parquet_rows, write_parquet
from hub_server import hub

from tiny_audio.cli.main import run
from tiny_audio.errors import TinyAudioError
from tiny_audio.evaluation import benchmarks
from tiny_audio.evaluation.benchmarks import BENCHMARKS, GROUPS, comparability, expand, is_scored, resolved
from tiny_audio.evaluation.leaderboard import eval_result, manifest_name
from tiny_audio.evaluation.results import Metrics, read_results
from tiny_audio.evaluation.settings import EvalSettings

LEADERBOARD_TABLE = {"ami", "gigaspeech", "librispeech-clean", "librispeech-other", "spgispeech", "voxpopuli"}


def test_the_table_holds_what_the_issue_of_benchmarks_names() -> None:
    wanted = "ami earnings22 gigaspeech librispeech-clean librispeech-other spgispeech tedlium voxpopuli"
    wanted += " loquacious-clean loquacious-small loquacious-medium loquacious-large common-voice peoples-speech"
    wanted += " switchboard edacc fleurs-en earnings21-long tedlium-long"
    assert set(wanted.split()) <= BENCHMARKS.keys()
    assert set(GROUPS["leaderboard"]) == LEADERBOARD_TABLE
    assert all(member in BENCHMARKS for members in GROUPS.values() for member in members)
    assert not BENCHMARKS.keys() & GROUPS.keys()
    assert all(entry.licence and "/" in entry.path for entry in BENCHMARKS.values())


def test_groups_are_taken_apart_and_nothing_is_measured_twice() -> None:
    assert expand(["librispeech", "librispeech-other", "./mine"]) == [
        "librispeech-clean",
        "librispeech-other",
        "./mine",
    ]
    everything = [resolved(EvalSettings(dataset=name)) for name in expand(["all"])]
    hub_ids = [(one.dataset, "" if "Loquacious" in one.dataset else one.config, one.split) for one in everything]
    assert len(set(hub_ids)) == len(hub_ids) >= 20  # LoquaciousSet's configurations share one test split


def test_what_the_user_says_comes_before_the_table() -> None:
    plain = resolved(EvalSettings(dataset="loquacious-small"))
    assert (plain.dataset, plain.config, plain.split) == ("speechbrain/LoquaciousSet", "small", "test")
    assert (plain.audio_column, plain.text_column, plain.benchmark) == ("wav", "text", "loquacious-small")
    own = resolved(EvalSettings(dataset="loquacious-small", config="large", split="dev", text_column="words"))
    assert (own.config, own.split, own.text_column, own.audio_column) == ("large", "dev", "words", "wav")
    other = resolved(EvalSettings(dataset="./ami"))
    assert (other.dataset, other.split, other.audio_column, other.benchmark) == ("./ami", "test", "audio", None)


@pytest.mark.parametrize(
    "text", ["ignore_time_segment_in_scoring", "IGNORE TIME SEGMENT IN SCORING", "", "[noise]", "um"]
)
def test_what_the_leaderboard_leaves_out(text: str) -> None:
    assert not is_scored(text) and is_scored("yes")


def test_what_does_not_compare_is_said() -> None:
    ami = resolved(EvalSettings(dataset="ami"))
    assert "compare" not in comparability(ami, failed=0) and "ami:" in comparability(ami, failed=0)
    assert comparability(resolved(EvalSettings(dataset="./mine")), failed=0) == ""
    for change, failed, reason in (
        ({"max_samples": 5}, 0, "5 clips drawn"),
        ({"split": "dev"}, 0, "split dev"),
        ({"config": "ami"}, 0, "configuration ami"),
        ({"normalizer": "basic"}, 0, "normaliser basic"),
        ({"replacements": Path("x")}, 0, "replacements of x"),
        ({}, 3, "3 clips failed"),
    ):
        said = comparability(replace(ami, **change), failed)
        assert "does not compare" in said and reason in said
    assert "no set of the leaderboard" in comparability(resolved(EvalSettings(dataset="fleurs-en")), failed=0)


@pytest.fixture()
def local_hub(tmp_path: Path, monkeypatch) -> Path:
    """Benchmarks whose datasets lie here, in the columns and splits that the Hub has them in."""
    rows = parquet_rows(6)
    rows[4]["text"], rows[5]["text"] = "ignore_time_segment_in_scoring", ""
    write_parquet(tmp_path / "board" / "ami_cleaned" / "test-00000-of-00001.parquet", rows)
    for split in ("test.clean", "test.other"):
        write_parquet(tmp_path / "board" / "librispeech" / f"{split}-00000-of-00001.parquet", parquet_rows(3))
    loquacious = [
        {"ID": f"c{i}", "wav": row["audio"], "spk_id": "s", "sex": "F", "text": row["text"]}
        for i, row in enumerate(rows[:3])
    ]
    write_parquet(tmp_path / "loquacious" / "medium" / "test-00000-of-00001.parquet", loquacious)
    places = {"hf-audio/open-asr-leaderboard": "board", "speechbrain/LoquaciousSet": "loquacious"}
    for name, entry in BENCHMARKS.items():
        if entry.path in places:
            monkeypatch.setitem(benchmarks.BENCHMARKS, name, replace(entry, path=str(tmp_path / places[entry.path])))
    return tmp_path


def test_benchmarks_of_several_layouts_in_one_command(tiny_checkpoint, local_hub, tmp_path, capsys) -> None:
    names = ["-d", "ami", "-d", "librispeech", "-d", "loquacious"]
    arguments = ["eval", "-m", str(tiny_checkpoint), *names, "--device", "cpu", "--output-dir", str(tmp_path / "out")]
    assert run(arguments) == 0
    found = {folder.name: Metrics.read(folder) for folder in (tmp_path / "out").iterdir()}
    assert {name: (metrics.num_samples, metrics.left_out) for name, metrics in found.items()} == {
        "ami": (4, 2), "librispeech-clean": (3, 0), "librispeech-other": (3, 0), "loquacious-medium": (3, 0),
    }  # fmt: skip
    shown = capsys.readouterr()
    assert "pooled (mean of the 4:" in shown.out and "2 clips without speech were left out" in shown.err
    assert "loquacious-medium does not compare" in shown.err and "ami: the Open ASR Leaderboard's clips" in shown.err
    results = read_results(tmp_path / "out" / "loquacious-medium")
    assert {result.speaker for result in results} == {"s"} and {result.id for result in results} == {"c0", "c1", "c2"}


def test_the_list(capsys) -> None:
    assert run(["eval", "--list"]) == 0
    shown = capsys.readouterr().out
    for word in ("hf-audio/open-asr-leaderboard", "voxpopuli_cleaned_aa", "CC BY 4.0", "sentence", "quickstart", "all"):
        assert word in shown


# ---- the forms of others


@pytest.fixture(scope="module")
def measured(tiny_checkpoint, tmp_path_factory) -> Metrics:
    folder = tmp_path_factory.mktemp("measured")
    write_parquet(folder / "data" / "test.parquet", parquet_rows(4))
    out = folder / "out"
    assert (
        run(
            [
                "eval",
                "-m",
                str(tiny_checkpoint),
                "-d",
                str(folder / "data"),
                "--device",
                "cpu",
                "--output-dir",
                str(out),
            ]
        )
        == 0
    )
    return Metrics.read(out)


def test_the_leaderboards_manifest(measured: Metrics) -> None:
    (file,) = (measured.folder / "leaderboard").iterdir()
    assert (
        file.name == manifest_name(measured)
        and file.name.startswith("MODEL_")
        and file.name.endswith("_default_test.jsonl")
    )
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    results = {result.id: result for result in read_results(measured.folder)}
    assert len(lines) == 4 and all(
        line.keys() == {"audio_filepath", "duration", "time", "text", "pred_text"} for line in lines
    )
    assert all(line["pred_text"] == results[line["audio_filepath"]].prediction for line in lines)
    # The leaderboard's RTFx: all audio over all transcription time.
    assert sum(line["duration"] for line in lines) / sum(line["time"] for line in lines) == pytest.approx(
        measured.rtfx, rel=0.01
    )


def test_names_of_the_manifest_can_be_taken_apart(measured: Metrics) -> None:
    dataset = {
        **measured.dataset,
        "path": "hf-audio/open-asr-leaderboard",
        "config": "librispeech",
        "split": "test.clean",
    }
    name = manifest_name(replace(measured, model="mazesmazes/tiny-audio", dataset=dataset))
    assert name == "MODEL_mazesmazes-tiny-audio_DATASET_hf-audio-open-asr-leaderboard_librispeech_test.clean.jsonl"


def test_eval_results_yaml(measured: Metrics) -> None:
    assert eval_result(measured) is None  # the dataset is a folder here
    dataset = {**measured.dataset, "path": "hf-audio/open-asr-leaderboard", "config": "ami_cleaned", "benchmark": "ami"}
    entry = eval_result(replace(measured, dataset=dataset, wer=0.123456))
    assert entry is not None and entry["value"] == 12.3456
    assert entry["dataset"] == {"id": "hf-audio/open-asr-leaderboard", "task_id": "ami_cleaned_test"}
    assert "whisper-en" in entry["notes"] and "4 clips" in entry["notes"]
    assert yaml.safe_load(yaml.safe_dump([entry])) == [entry]


def test_results_go_into_the_folders_card(tiny_checkpoint, tmp_path) -> None:
    model = shutil.copytree(tiny_checkpoint, tmp_path / "model")
    own = "---\nlicense: mit\ntags: [mine]\n---\n\n# Mine\n\nWords of my own.\n"
    (model / "README.md").write_text(own)
    write_parquet(tmp_path / "data" / "test.parquet", parquet_rows(4))
    arguments = ["eval", "-m", str(model), "-d", str(tmp_path / "data"), "--device", "cpu", "--push-results"]
    assert run([*arguments, "--output-dir", str(tmp_path / "a")]) == 0
    assert run([*arguments, "--output-dir", str(tmp_path / "b"), "--batch-size", "2"]) == 0
    card = (model / "README.md").read_text()
    head, body = card.split("---\n")[1], card.split("---\n")[2]
    metadata = yaml.safe_load(head)
    assert "Words of my own." in body and metadata["license"] == "mit" and metadata["tags"] == ["mine"]
    (result,) = metadata["model-index"][0]["results"]  # the second run's took the place of the first's
    assert result["task"]["type"] == "automatic-speech-recognition"
    (metric,) = result["metrics"]
    assert metric["type"] == "wer" and metric["value"] == round(100 * Metrics.read(tmp_path / "b").wer, 2)


@pytest.mark.parametrize("model, message", [("nano", "has no card of yours")])
def test_no_card_of_yours(model, message, tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["eval", "-m", model, "-n", "1", "--push-results"]) == 1
    assert message in capsys.readouterr().err


def test_a_card_that_cannot_be_read_is_left_alone(measured: Metrics) -> None:
    from tiny_audio.evaluation.card import updated_card

    with pytest.raises(TinyAudioError, match="metadata of the model's card cannot be read"):
        updated_card("---\nlicense: [mit\n---\ntext", "m", [measured])


PUSH = """
import sys
import threading
from dataclasses import replace
from pathlib import Path
from tiny_audio.errors import TinyAudioError
from tiny_audio.evaluation.card import push_results
from tiny_audio.evaluation.results import Metrics
from tiny_audio.evaluation.settings import EvalSettings
metrics = Metrics.read(Path(sys.argv[1]))
metrics.dataset |= {"path": "hf-audio/open-asr-leaderboard", "config": "ami_cleaned", "benchmark": "ami"}
try:
    push_results(EvalSettings(model="me/mine", provider="local"), [metrics])
except TinyAudioError as error:
    sys.exit(f"Error: {error}")
"""


def push(measured: Metrics, endpoint: str, token: str, cache: Path) -> subprocess.CompletedProcess[str]:
    """In a process of its own: huggingface_hub reads its endpoint when it is imported."""
    environment = {
        **os.environ,
        "HF_ENDPOINT": endpoint,
        "HF_TOKEN": token,
        "HF_HUB_OFFLINE": "0",
        "HF_HOME": str(cache),
    }
    command = [sys.executable, "-c", PUSH, str(measured.folder)]
    return subprocess.run(command, check=False, env=environment, capture_output=True, text=True, timeout=120)


def test_results_go_to_the_hub_in_one_commit(measured: Metrics, tmp_path: Path) -> None:
    with hub({"README.md": b"---\nlicense: mit\n---\n\n# Mine\n"}) as server:
        done = push(measured, server.url, server.token, tmp_path)
        assert done.returncode == 0, done.stderr
        assert len(server.commits) == 1 and server.commits[0]["summary"] == "Add evaluation results of ami"
        metadata = yaml.safe_load(server.files["README.md"].decode().split("---\n")[1])
        assert metadata["license"] == "mit"
        assert metadata["model-index"][0]["results"][0]["dataset"]["name"] == "ami"
        (entry,) = yaml.safe_load(server.files[".eval_results/ami.yaml"])
        assert entry["value"] == round(100 * measured.wer, 4)


def test_a_hub_that_refuses_is_one_line(measured: Metrics, tmp_path: Path) -> None:
    with hub({"README.md": b"# Mine\n"}) as server:
        done = push(measured, server.url, "hf_wrong", tmp_path)
        assert done.returncode == 1 and not server.commits
    error = done.stderr.strip().splitlines()[-1]
    assert error.startswith("Error: The card of me/mine was not changed (") and "hf_wrong" not in done.stderr


def test_a_hub_that_hangs_up_is_one_line(measured: Metrics, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=lambda: [listener.accept()[0].close() for _ in range(50)], daemon=True).start()
        done = push(measured, f"http://127.0.0.1:{listener.getsockname()[1]}", "hf_right", tmp_path)
    error = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 1 and error.startswith("Error: The card of me/mine was not changed (")
