"""Checkpoints go to a stand-in of the Hub while a run trains; what fails there is said and ends nothing."""

import socket
import time
from pathlib import Path

import pytest
from hub_server import READ_TOKEN, Fault, Hub, hub
from training_helpers import log_of

from tiny_audio import ASRModel
from tiny_audio.cli.main import run
from tiny_audio.errors import TinyAudioError
from tiny_audio.training import train
from tiny_audio.training.checkpoints import checkpoints
from tiny_audio.training.record import Record

pytestmark = pytest.mark.usefixtures("one_thread")
PUSH = "training.push_to=me/mine"
EACH_STEP = (PUSH, "training.eval_steps=1", "training.save_steps=1")


@pytest.fixture
def server(network) -> Hub:
    with hub({}) as running:
        network(running.url)
        yield running


def stored(server: Hub, folder: Path) -> Path:
    """A run's folder made of the repository, as docs/interruptions.md says."""
    for name, content in server.files.items():
        of_run = name.startswith("checkpoint-") or name in ("settings.yaml", "log.jsonl", "run.json")
        file = folder / name if of_run else folder / "best" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    return folder


def appears(path: Path) -> None:
    """Waits for a file or folder, half a minute at most."""
    for _ in range(300):
        if path.exists():
            return
        time.sleep(0.1)


def test_the_best_model_and_the_newest_checkpoint_are_on_the_hub(server, settings_of, tmp_path, capsys):
    server.faults = [Fault(lambda: appears(tmp_path / "run" / "checkpoint-5"))]  # so long the first upload takes
    pushed = (PUSH, "training.push_checkpoints=true", "training.save_steps=1", "training.max_steps=6")
    settings = settings_of(tmp_path / "run", *pushed)
    said = train(settings).summary()
    assert f"Pushed: checkpoint-6 is at {server.url}/me/mine." in said
    assert "Warning" not in capsys.readouterr().err
    assert server.created["name"] == "mine" and "private" in (server.created.get("visibility"), *server.created)
    summaries = [commit["summary"] for commit in server.commits]
    assert summaries[0] == "Training: checkpoint-1" and summaries[-1] == "Training: checkpoint-6"
    assert len(summaries) < 6  # of those that waited, the newest went
    assert not list((tmp_path / "run").glob(".*"))

    copy = stored(server, tmp_path / "elsewhere")
    best = tmp_path / "run" / "best"
    for file in (path.relative_to(best) for path in best.rglob("*") if path.is_file()):
        same = (copy / "best" / file).read_bytes() == (best / file).read_bytes()
        assert same or file.name == "config.json"  # which is pushed without the paths of this machine
    assert [path.name for path in checkpoints(copy)] == ["checkpoint-6"]
    assert isinstance(ASRModel.from_pretrained(copy / "best"), ASRModel)
    assert run(["train", "--resume", str(copy), "training.max_steps=7", "training.save_steps=7"]) == 0
    assert len(log_of(copy, "loss")) == 7
    assert [session.steps for session in Record.read(copy).sessions] == [[0, 6], [6, 7]]


def test_a_hub_that_fails_is_said_and_the_run_ends_well(server, settings_of, tmp_path, capsys):
    server.faults = [Fault(what) for what in (500, "cut") * 3]
    said = train(settings_of(tmp_path / "run", *EACH_STEP)).summary()
    assert not server.commits
    by_hand = f"hf upload --private me/mine {tmp_path}/run/best ."
    assert f"checkpoint-3 is not at me/mine, nothing of this run is there; by hand: {by_hand}" in said
    warnings = capsys.readouterr().err
    assert "Warning: checkpoint-1 was not pushed to me/mine (" in warnings and "500" in warnings
    assert "the run goes on" in warnings and "hf_right" not in warnings + said


def test_the_last_upload_is_tried_once_more(server, settings_of, tmp_path, capsys):
    server.faults = [Fault("cut")]
    said = train(settings_of(tmp_path / "run", PUSH)).summary()
    assert len(server.commits) == 1 and "Warning: checkpoint-3 was not pushed" in capsys.readouterr().err
    assert "Pushed: checkpoint-3 is at" in said and "1 upload before it failed" in said


def test_an_upload_that_takes_too_long_is_not_waited_for(server, settings_of, tmp_path, monkeypatch):
    monkeypatch.setattr("tiny_audio.training.publish.FINISH_SECONDS", 0.5)
    server.faults = [Fault(lambda: time.sleep(2))]
    assert "checkpoint-3 is not at me/mine" in train(settings_of(tmp_path / "run", PUSH)).summary()


def test_what_cannot_be_pushed_is_said_at_the_start(network, server, settings_of, tmp_path, monkeypatch):
    with pytest.raises(TinyAudioError, match="training.push_to is 'mine'; expected OWNER/NAME"):
        train(settings_of(tmp_path, "training.push_to=mine"))
    with pytest.raises(TinyAudioError, match="training.push_checkpoints is true and training.push_to is not set"):
        settings_of(tmp_path, "training.push_checkpoints=true")
    network(server.url, READ_TOKEN)
    with pytest.raises(TinyAudioError, match=r"me/mine cannot be pushed to \(.*403.*\); check its name and that"):
        train(settings_of(tmp_path, PUSH))
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    with pytest.raises(TinyAudioError, match="needs a token of the Hub and there is none; run `hf auth login`"):
        train(settings_of(tmp_path, PUSH))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert run(["train", "--dry-run", PUSH]) == 1
    assert not (tmp_path / "log.jsonl").exists()


def test_without_network_the_run_trains(network, settings_of, tmp_path, capsys):
    network("http://127.0.0.1:9")
    assert "checkpoint-3 is not at me/mine" in train(settings_of(tmp_path / "run", PUSH)).summary()
    assert "Warning: The Hub cannot be reached (" in capsys.readouterr().err


def test_a_hub_that_never_answers_does_not_hold_the_training_up(network, settings_of, tmp_path, monkeypatch, capsys):
    for name in ("OPEN_SECONDS", "FINISH_SECONDS"):
        monkeypatch.setattr(f"tiny_audio.training.publish.{name}", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        network(f"http://127.0.0.1:{silent.getsockname()[1]}")
        assert "checkpoint-3 is not at me/mine" in train(settings_of(tmp_path / "run", PUSH)).summary()
    assert "Warning: The Hub has not answered" in capsys.readouterr().err


def test_what_is_pushed_names_no_folder_of_this_machine(server, settings_of, parts, tmp_path):
    train(settings_of(tmp_path / "run", PUSH, "model.self_contained=true"))
    folder = parts[0].split("=")[1]
    assert folder.encode() in (tmp_path / "run" / "best" / "config.json").read_bytes()  # the run's own stays
    assert not [name for name, content in server.files.items() if folder.encode() in content]
    assert isinstance(ASRModel.from_pretrained(stored(server, tmp_path / "elsewhere") / "best"), ASRModel)
