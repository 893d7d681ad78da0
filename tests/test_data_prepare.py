"""`ta data prepare`: the copy holds what was usable, goes on after a break as if there had been none, and trains."""

import json

import numpy as np
import pytest
from data_helpers import (
    encoded,
    parquet_rows,
    sine,
    wav_bytes,
    write_audiofolder,
    write_clips,
    write_csv,
    write_jsonl,
    write_parquet,
)

from tiny_audio.cli.main import run
from tiny_audio.data import DataConfig, open_corpus, stream_corpus
from tiny_audio.data.corpus import load_row
from tiny_audio.data.durations import probe_header
from tiny_audio.data.prepare import Form, flac, prepare
from tiny_audio.errors import TinyAudioError
from tiny_audio.training import compose
from tiny_audio.training.feed import ClipFeed
from tiny_audio.training.run import training_corpora
from tiny_audio.training.validation import evaluation_corpora


@pytest.fixture
def folder(tmp_path):
    """Twenty training clips, of which three cannot be used, and two for validation."""
    source = write_audiofolder(tmp_path / "source", {"train": 20, "validation": 2})
    rows = write_clips(source / "train", 20)
    for number, row in enumerate(rows):
        row.update(text=f"Text {number}, as written!", speaker=f"s{number}")
    rows[4]["text"], rows[5]["text"] = "", "ignore_time_segment_in_scoring"
    write_csv(source / "train" / "metadata.csv", rows)
    (source / "train" / "clip006.wav").write_bytes(b"not audio")
    return source


def files(folder) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_copy_holds_what_was_usable(folder, tmp_path, capsys):
    out = tmp_path / "copy"
    assert run(["data", "prepare", str(folder), str(out), "--shard-seconds", "3"]) == 0
    shown = capsys.readouterr().out
    assert "train: 17 clips" in shown and f"ta train -d {out}" in shown
    assert sorted(files(out)) == [
        "README.md", "data/train-00000.parquet", "data/train-00001.parquet", "data/train-00002.parquet",
        "data/train-00003.parquet", "data/validation-00000.parquet", "skipped.jsonl",
    ]  # fmt: skip
    before, after = (open_corpus(DataConfig(path=str(path)), "train") for path in (folder, out))
    assert after.ids == [id for id in before.ids if id not in ("clip004", "clip005", "clip006")]
    assert after.texts[0] == "Text 0, as written!"
    assert after.rows[16].metadata == {"speaker": "s19"}
    assert (after.load(16).waveform == before.load(19).waveform).all()  # FLAC loses nothing
    reasons = {row["id"]: row["reason"] for row in map(json.loads, (out / "skipped.jsonl").read_text().splitlines())}
    assert reasons == {"clip004": "empty text", "clip005": "placeholder for a text", "clip006": "unreadable"}
    card = (out / "README.md").read_text()
    assert "path: data/train-*" in card and "train: 17 clips" in card and "min_seconds 0.1" in card
    assert len(open_corpus(DataConfig(path=str(out)), "validation")) == 2


def test_a_broken_copy_goes_on_as_if_there_had_been_no_break(folder, tmp_path):
    config, form = DataConfig(path=str(folder)), Form(shard_seconds=2)
    prepare(config, tmp_path / "whole", form=form)

    class Killed(Exception):
        pass

    done: list[int] = []

    def stop(clips: int) -> None:
        done.append(clips)
        if sum(done) > 9:
            raise Killed

    with pytest.raises(Killed):
        prepare(config, tmp_path / "broken", form=form, progress=stop)
    assert 0 < len(files(tmp_path / "broken")) < len(files(tmp_path / "whole"))
    (tmp_path / "broken" / "data" / ".train-00002.parquet").write_bytes(b"half a shard")
    seen: list[int] = []
    copies = prepare(config, tmp_path / "broken", form=form, progress=seen.append)
    assert seen[0] > 0 and sum(copy.clips for copy in copies) == 19
    assert files(tmp_path / "broken") == files(tmp_path / "whole")
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "whole" / "data").iterdir()}
    prepare(config, tmp_path / "whole", form=form)
    assert times == {path: path.stat().st_mtime_ns for path in (tmp_path / "whole" / "data").iterdir()}
    with pytest.raises(TinyAudioError, match="name another folder"):
        prepare(DataConfig(path=str(folder), min_seconds=0.5), tmp_path / "whole", form=form)


def test_filters_bytes_as_they_are_and_formats(tmp_path):
    rows = parquet_rows(4)
    rows[0]["audio"] = {"bytes": encoded(sine(0.5, 44_100), "mp3", "libmp3lame", 44_100), "path": "a.mp3"}
    rows[1]["audio"] = {"bytes": wav_bytes(sine(0.35, 8000), 8000), "path": "b.wav"}
    del rows[0]["duration"]
    rows[3]["text"] = "x" * 99
    write_parquet(tmp_path / "source" / "train-00000.parquet", rows)
    config = DataConfig(path=str(tmp_path / "source"), eval_split="train", max_chars_per_second=30)
    for as_is, rates in ((False, {16_000}), (True, {44_100, 8_000, 16_000})):
        out = tmp_path / f"copy-{as_is}"
        (copy,) = prepare(config, out, ["train"], Form(as_is=as_is))
        assert (copy.clips, [entry["id"] for entry in copy.skipped]) == (3, ["3"])
        copied = list(stream_corpus(DataConfig(path=str(out), eval_split="train"), "train"))
        assert {probe_header(row.audio)[1] for row in copied} == rates
        assert (copied[1].audio["bytes"] == rows[1]["audio"]["bytes"]) is as_is
        assert load_row(copied[1]).duration == pytest.approx(0.35, abs=0.01)


def test_the_hub_and_datasets_know_the_audio(folder, tmp_path, monkeypatch):
    import datasets
    import datasets.config

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    prepare(DataConfig(path=str(folder)), tmp_path / "copy", form=Form(shard_seconds=3))
    loaded = datasets.load_dataset(str(tmp_path / "copy"), split="train")
    assert loaded.features["audio"] == datasets.Audio(sampling_rate=16_000)
    assert len(loaded) == 17 and set(loaded.column_names) == {"id", "audio", "text", "duration", "speaker"}


def test_a_dataset_without_splits_is_not_its_own_test(tmp_path):
    manifest = write_jsonl(tmp_path / "m.jsonl", write_clips(tmp_path, 40, lambda i: 0.2))
    copies = prepare(DataConfig(path=str(manifest)), tmp_path / "copy")
    assert [(copy.role, copy.clips) for copy in copies] == [("train", 38), ("validation", 2)]
    ids = [open_corpus(DataConfig(path=str(tmp_path / "copy")), split).ids for split in ("train", "validation")]
    assert not set(ids[0]) & set(ids[1])


def test_parts_of_recordings_are_cut_out(tmp_path):
    recording = np.linspace(-0.9, 0.9, 4 * 16_000, dtype=np.float32)
    (tmp_path / "long.wav").write_bytes(wav_bytes(recording))
    rows = [{"audio": "long.wav", "offset": start, "duration": 0.5, "text": "a"} for start in (0.0, 1.25, 3.0)]
    prepare(DataConfig(path=str(write_jsonl(tmp_path / "train.jsonl", rows))), tmp_path / "copy", form=Form(as_is=True))
    clips = [
        row
        for split in ("train", "validation")
        for row in open_corpus(DataConfig(path=str(tmp_path / "copy")), split).rows
    ]
    assert [load_row(clip).duration for clip in clips] == [0.5] * 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--split", "dev"], "dev is no split of a copy; expected one of train, validation, test."),
        (["--split", "test"], "has no split `test`"),
        (["data.min_seconds=60"], "Nothing to copy"),
    ],
)
def test_mistakes_are_one_line(folder, tmp_path, capsys, arguments, message):
    assert run(["data", "prepare", str(folder), str(tmp_path / "copy"), *arguments]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert message in error


def test_a_dataset_is_not_copied_into_itself(folder, capsys):
    before = sorted(folder.rglob("*"))
    assert run(["data", "prepare", str(folder), f"{folder}/."]) == 1
    assert "is the dataset itself; expected another folder" in capsys.readouterr().err
    assert sorted(folder.rglob("*")) == before


def test_flac_is_exact_to_16_bits():
    from tiny_audio.audio.reading import load_audio

    waveform = np.clip(np.random.default_rng(0).normal(0, 0.4, 10_000), -1, 1).astype(np.float32)
    assert load_audio(flac(waveform)) == pytest.approx(waveform, abs=1 / 32768)


def test_training_reads_the_copy(folder, tmp_path):
    prepare(DataConfig(path=str(folder)), tmp_path / "copy", form=Form(shard_seconds=3))
    settings = compose(data=str(tmp_path / "copy"))
    feed = ClipFeed(training_corpora(settings), settings, 480_000)
    assert len(feed.dataset) == 17 and feed.skipped.summary() == "no clip of 17 skipped"
    assert len(evaluation_corpora(settings.data)[0][1]) == 2


def test_a_mixture_is_refused(tmp_path, capsys):
    assert run(["data", "prepare", "multiasr", str(tmp_path / "copy")]) == 1
    assert "A mixture is prepared part by part" in capsys.readouterr().err
