"""run.json: what a run came to, added up over its sessions, and what its GPUs cost."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest
from data_helpers import write_audiofolder
from safetensors.torch import load_file
from training_helpers import log_of

from tiny_audio.data.config import Part
from tiny_audio.training import compose, train
from tiny_audio.training.build import build_model, part_sizes
from tiny_audio.training.feed import StreamFeed
from tiny_audio.training.gpus import gpu_table
from tiny_audio.training.record import Dataset, Record, Session

pytestmark = pytest.mark.usefixtures("one_thread")
LONGER = (
    "training.max_steps=5",
    "training.save_steps=2",
    "training.save_total_limit=null",
    "training.lr_scheduler=constant",
)


@pytest.fixture(scope="module")
def whole(settings_of, tmp_path_factory) -> Path:
    """A run of five steps in one go."""
    folder = tmp_path_factory.mktemp("record") / "whole"
    train(settings_of(folder, *LONGER))
    return folder


def test_a_run_says_what_it_came_to(whole, settings_of):
    record = Record.read(whole)
    model = build_model(settings_of(whole).model)
    assert record.parameters == {s.name: {"total": s.total, "trained": s.trainable} for s in part_sizes(model)}
    assert record.parameters["projector"]["trained"] > 0 == record.parameters["encoder"]["trained"]
    (data,) = record.datasets
    assert (data.name, data.clips, data.language, data.on_hub) == ("quickstart", 12, "en", False)
    assert data.hours == pytest.approx(12 * 2.5 / 3600, rel=0.5)
    assert record.steps == 5 and record.epochs == pytest.approx(log_of(whole, "epoch")[-1], abs=1e-3)
    assert record.audio_hours * 3600 == pytest.approx(sum(log_of(whole, "audio_seconds")), abs=0.1)
    assert record.best_wer == min(log_of(whole, "eval_wer"))
    (session,) = record.sessions
    assert session.steps == [0, 5] and session.seconds > 0 and session.versions["torch"] and session.began[:2] == "20"
    assert record.gpu_hours == 0 and record.dollars is None and record.kg_co2 is None


def test_the_sessions_of_a_resumed_run_add_up(whole, settings_of, tmp_path):
    """The result is that of one run, and so is what was computed."""
    train(settings_of(tmp_path, *LONGER, "training.max_steps=4"))
    first = Record.read(tmp_path)
    train(settings_of(tmp_path, *LONGER), resume="auto")
    record, in_one_go = Record.read(tmp_path), Record.read(whole)
    assert [session.steps for session in record.sessions] == [[0, 4], [4, 5]]
    assert asdict(record.sessions[0]) == asdict(first.sessions[0])
    assert record.flops == pytest.approx(in_one_go.flops) and record.audio_hours == pytest.approx(in_one_go.audio_hours)
    ours, theirs = (load_file(run / "checkpoint-5" / "model.safetensors") for run in (tmp_path, whole))
    assert all(ours[name].equal(theirs[name]) for name in theirs)


def test_a_checkpoint_finds_the_record_up_to_it(settings_of, tmp_path, monkeypatch):
    """What a run that is killed right after a checkpoint leaves."""
    written = []
    write = Record.write

    def noted(record: Record, folder: Path) -> None:
        write(record, folder)
        written.append((record.steps, sorted(path.name for path in folder.glob("checkpoint-*"))))

    monkeypatch.setattr(Record, "write", noted)
    train(settings_of(tmp_path, *LONGER))
    assert (
        written[0] == (0, []) and (2, ["checkpoint-2"]) in written and (4, ["checkpoint-2", "checkpoint-4"]) in written
    )


def test_a_damaged_record_does_not_stop_a_resume(settings_of, tmp_path, capsys):
    train(settings_of(tmp_path, "training.save_steps=2"))
    (tmp_path / "run.json").write_text('{"sessions": [1')
    train(settings_of(tmp_path, "training.max_steps=4"), resume="auto")
    assert "run.json is damaged" in capsys.readouterr().err
    assert [session.steps for session in Record.read(tmp_path).sessions] == [[3, 4]]


def test_a_record_that_cannot_be_written_does_not_stop_a_run(settings_of, tmp_path, capsys):
    (tmp_path / "run.json").mkdir()
    assert train(settings_of(tmp_path)).steps == 3
    assert "Warning: run.json was not written (Is a directory); the run goes on." in capsys.readouterr().err


def test_keys_of_another_version_are_left_out(whole, tmp_path):
    stored = json.loads((whole / "run.json").read_text())
    stored |= {"new": 1, "sessions": [{**session, "new": 2} for session in stored["sessions"]]}
    (tmp_path / "run.json").write_text(json.dumps(stored))
    assert Record.read(tmp_path) == Record.read(whole)
    assert Record.read(tmp_path / "nothing") is None


def test_a_mixture_has_clips_and_hours_of_each_part(settings_of, tmp_path):
    for name in "ab":
        write_audiofolder(tmp_path / name, {"train": 6, "validation": 2})
    parts = (
        "{" + ",".join(f"{n}:{{path:{tmp_path}/{n},language:{lang}}}" for n, lang in (("a", "de"), ("b", "en"))) + "}"
    )
    train(settings_of(tmp_path / "run", f"data.mixture={parts}", "data.language=null"))
    record = Record.read(tmp_path / "run")
    assert [(each.name, each.clips, each.language) for each in record.datasets] == [("a", 6, "de"), ("b", 6, "en")]
    assert sum(each.used for each in record.datasets) > 0
    assert record.datasets[0].hours == pytest.approx(sum(0.3 + 0.05 * i for i in range(6)) / 3600, rel=1e-3)


def test_a_stream_says_what_is_known():
    settings = compose("transcription", ["training.max_steps=9"])
    feed = StreamFeed(settings, None)
    assert settings.data.streaming and feed.part_sizes() == [None]
    data = Dataset.of(feed.parts[0], None)
    assert data.on_hub and (data.name, data.clips, data.hours) == ("speechbrain/LoquaciousSet", None, None)


def test_the_language_of_a_dataset_follows_its_configuration():
    assert compose(None, ["data=commonvoice", "data.config=de"]).data.language == "de"
    assert compose(None, ["data=librispeech"]).data.language == "en"
    assert compose(None, ["data.path=somewhere"], data="somewhere").data.language is None


def session(gpu: str | None, hours: float, processes: int) -> Session:
    known = gpu_table().named(gpu) if gpu else None
    entry = known and {"name": known[0], "dollars": known[1].dollars, "watts": known[1].watts}
    hardware = {"device": "cuda", "gpu": gpu} if gpu else {"device": "cpu"}
    return Session("2026-01-01", [0, 1], processes, hardware, {}, entry, seconds=3600 * hours)


def test_gpu_hours_cost_dollars_energy_and_co2():
    data = [Dataset.of(Part(path="quickstart"), (1, 1.0))]
    record = Record({}, data, "2026", 0.5, "assumed", [session("NVIDIA H200", 1, 2), session("NVIDIA A40", 2, 1)])
    assert record.gpu_hours == pytest.approx(4)
    assert record.dollars == pytest.approx(2 * 3.59 + 2 * 0.50)
    assert record.kilowatt_hours == pytest.approx(2 * 0.7 + 2 * 0.3)
    assert record.kg_co2 == pytest.approx(0.5 * record.kilowatt_hours)
    record.sessions.append(session("Tesla T4", 1, 1))
    assert record.gpu_hours == pytest.approx(5) and record.dollars is None and record.kg_co2 is None
    assert all(gpu.watts for gpu in gpu_table().gpus.values())
