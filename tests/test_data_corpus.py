"""Rows, durations, seeded samples, decoding, and the list of clips that cannot be used."""

import json
import math
import os
import pickle
from dataclasses import fields

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

from tiny_audio.data import ALIASES, DataConfig, Skipped, open_corpus, usable_rows
from tiny_audio.data.corpus import Row, load_row
from tiny_audio.errors import TinyAudioError

WINDOW = 480_000  # samples, 30 s


def whole(path, **options):
    return open_corpus(DataConfig(path=str(path), **options), "test")


def folder_of(tmp_path, files: dict[str, bytes], **columns):
    """A dataset without durations, so that they are probed."""
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    return whole(write_csv(tmp_path / "metadata.csv", [{"file_name": name, "text": "one"} for name in files]).parent)


GOOD = {
    "mono.wav": wav_bytes(sine(0.5)),
    "8bit.wav": wav_bytes(sine(0.5, 8000), 8000, width=1),
    "stereo.wav": wav_bytes(sine(0.5, 44_100), 44_100, channels=2),
    "surround.wav": wav_bytes(sine(0.5, 96_000), 96_000, channels=6),
}


def test_every_container_and_rate_is_decoded_and_probed(tmp_path):
    files = {
        **GOOD,
        "a.flac": encoded(sine(0.5), "flac", "flac"),
        "a.mp3": encoded(sine(0.5, 44_100), "mp3", "libmp3lame", 44_100),
        "a.ogg": encoded(sine(0.5, 48_000), "ogg", "libopus", 48_000),
    }
    corpus = folder_of(tmp_path, files)
    assert corpus.durations == pytest.approx(np.full(len(files), 0.5), abs=0.06)  # codecs pad their frames
    for index, name in enumerate(files):
        example = corpus.load(index)
        assert example.waveform.dtype == np.float32 and example.waveform.ndim == 1
        assert example.duration == pytest.approx(0.5, abs=0.06), name
        assert 0.15 < np.abs(example.waveform).max() < 0.45, name


BAD = {
    "text.wav": b"this is not audio, whatever its name says",
    "empty.wav": b"",
    "nothing.wav": wav_bytes(np.zeros(0, np.float32)),
    "cut.flac": b"fLaC\x00\x00",
}


def test_bad_clips_are_listed_with_reasons_and_the_good_ones_kept(tmp_path):
    corpus = folder_of(tmp_path, {**GOOD, **BAD, "tick.wav": wav_bytes(sine(0.02))})
    (tmp_path / "stereo.wav").unlink()
    assert np.isnan(corpus.durations[2]) and np.isnan(corpus.durations[4:8]).all()
    usable, skipped = usable_rows(corpus, max_samples_window=WINDOW, min_seconds=0.1)
    assert [corpus.ids[index] for index in usable] == ["mono", "8bit", "surround"]
    assert skipped.counts == {"unreadable": 5, "shorter than data.min_seconds": 1}
    details = {entry["id"]: entry["detail"] for entry in skipped.entries}
    assert "does not exist" in details["stereo"] and "not readable audio" in details["text"]
    assert "0 bytes" in details["empty"] and "no audio samples" in details["nothing"]


def test_stated_durations_are_taken_and_gaps_probed(tmp_path):
    rows = write_clips(tmp_path, 4)
    rows[0]["duration"] = 7.5
    rows[1]["duration"] = ""
    rows[2]["duration"] = "unknown"
    corpus = whole(write_csv(tmp_path / "m.csv", rows))
    assert corpus.durations.tolist() == pytest.approx([7.5, 0.35, 0.4, 0.45])
    assert corpus.durations.dtype == np.float32
    assert corpus.load(0).duration == pytest.approx(0.3)


def test_missing_file_is_found_although_its_duration_is_stated(tmp_path):
    rows = write_clips(tmp_path, 3)
    (tmp_path / "clip001.wav").unlink()
    usable, skipped = usable_rows(whole(write_csv(tmp_path / "m.csv", rows)), max_samples_window=None, min_seconds=0)
    assert usable.tolist() == [0, 2]
    assert "does not exist" in skipped.entries[0]["detail"]


def test_texts_of_which_nothing_is_left_are_skipped(tmp_path):
    rows = write_clips(tmp_path, 5)
    for row, text in zip(rows, ("one", "", "...", "<unk>", "Two!"), strict=True):
        row["text"] = text
    usable, skipped = usable_rows(whole(write_csv(tmp_path / "m.csv", rows)), max_samples_window=None, min_seconds=0)
    assert usable.tolist() == [0, 4]
    assert skipped.counts == {"empty text": 3}


def test_clips_over_the_window_of_real_recordings(speech):
    corpus = open_corpus(DataConfig(path=str(speech / "librispeech-small")), "train")
    usable, skipped = usable_rows(corpus, max_samples_window=WINDOW, min_seconds=0.1)
    assert (len(usable), len(skipped)) == (942, 5)
    assert skipped.counts == {"longer than the encoder's window": 5}
    assert all(entry["duration"] > 30 for entry in skipped.entries)
    assert "5 of 947 clips skipped: 5 longer than the encoder's window (" in skipped.summary()
    _, none_skipped = usable_rows(corpus, max_samples_window=None, min_seconds=0.1)
    assert len(none_skipped) == 0


def test_probed_durations_equal_the_stated_ones_of_real_recordings(speech):
    corpus = whole(speech / "clips")
    stated = corpus.durations.copy()
    corpus.__dict__.pop("durations")
    corpus.__dict__["_known_seconds"] = np.full(len(corpus), np.nan, np.float32)
    assert corpus.durations == pytest.approx(stated, abs=0.06)


def test_limits_of_the_configuration(tmp_path):
    corpus = whole(write_csv(tmp_path / "m.csv", write_clips(tmp_path, 4)))  # 0.3, 0.35, 0.4, 0.45 s
    assert len(usable_rows(corpus, max_samples_window=None, min_seconds=0.34)[0]) == 3
    usable, skipped = usable_rows(corpus, max_samples_window=None, min_seconds=0, max_seconds=0.36)
    assert usable.tolist() == [0, 1]
    assert skipped.counts == {"longer than data.max_seconds": 2}
    assert len(usable_rows(corpus, max_samples_window=6400, min_seconds=0)[0]) == 3  # exactly 0.4 s fits


def test_skipped_counts_a_clip_once_and_is_written_whole(tmp_path):
    skipped = Skipped(total=10)
    assert skipped.summary() == "no clip of 10 skipped"
    for _ in range(3):
        skipped.add("a", "unreadable", "not audio")
    skipped.update([{"id": "a", "reason": "unreadable", "detail": ""}, {"id": "b", "reason": "x", "detail": "y"}])
    assert len(skipped) == 2 and skipped.counts == {"unreadable": 1, "x": 1}
    skipped.write(tmp_path / "run" / "skipped.jsonl")
    lines = (tmp_path / "run" / "skipped.jsonl").read_text().splitlines()
    assert [json.loads(line)["id"] for line in lines] == ["a", "b"]
    assert os.listdir(tmp_path / "run") == ["skipped.jsonl"]


def test_samples_are_seeded_nested_and_in_stored_order(tmp_path):
    path = write_jsonl(tmp_path / "m.jsonl", write_clips(tmp_path, 30, lambda i: 0.1))
    corpus = whole(path)
    ten = corpus.sample(10, seed=0)
    assert ten.ids == sorted(ten.ids) and len(set(ten.ids)) == 10
    assert ten.ids == corpus.sample(10, seed=0).ids
    assert ten.ids != corpus.sample(10, seed=1).ids
    assert set(corpus.sample(5, seed=0).ids) < set(ten.ids)
    assert len(corpus.sample(100, seed=0)) == 30
    assert open_corpus(DataConfig(path=str(path)), "test", max_samples=10).ids == ten.ids
    assert [ten.load(i).text for i in range(10)] == ten.texts


def test_ids_are_unique(tmp_path):
    rows = [{**row, "file_name": "clip000.wav"} for row in write_clips(tmp_path, 3)]
    assert whole(write_csv(tmp_path / "m.csv", rows)).ids == ["clip000", "clip000#1", "clip000#2"]
    corpus = whole(write_parquet(tmp_path / "a.parquet", parquet_rows(2)))
    assert corpus.ids == ["0", "1"]  # the names of the audio files
    rows = [{"audio": {"bytes": row["audio"]["bytes"]}, "text": "x"} for row in parquet_rows(2)]
    assert whole(write_parquet(tmp_path / "c.parquet", rows)).ids == ["test-000000", "test-000001"]
    assert [row.id for row in corpus.rows] == corpus.ids
    own = whole(
        write_parquet(tmp_path / "b.parquet", [{**row, "id": f"u{i}"} for i, row in enumerate(parquet_rows(2))])
    )
    assert own.ids == ["u0", "u1"]


def test_rows_are_a_sequence(tmp_path):
    corpus = whole(write_csv(tmp_path / "m.csv", [{**row, "speaker": "x"} for row in write_clips(tmp_path, 3)]))
    assert len(corpus.rows) == 3
    assert corpus.rows[-1].text == "two" and [row.id for row in corpus.rows[1:]] == ["clip001", "clip002"]
    assert corpus.rows[0].metadata == {"speaker": "x"}
    with pytest.raises(IndexError):
        corpus.rows[3]


def test_corpus_can_be_pickled(tmp_path):
    write_audiofolder(tmp_path, {"train": 3, "validation": 1})
    for corpus in (
        open_corpus(DataConfig(path=str(tmp_path)), "train"),
        open_corpus(DataConfig(), "test").sample(3, 0),
    ):
        copy = pickle.loads(pickle.dumps(corpus))
        assert copy.ids == corpus.ids
        assert (copy.load(0).waveform == corpus.load(0).waveform).all()


def test_audio_inside_an_archive_is_read_through_fsspec(tmp_path):
    import zipfile

    with zipfile.ZipFile(tmp_path / "clips.zip", "w") as archive:
        archive.writestr("a.wav", wav_bytes(sine(0.5)))
    row = Row("a", {"bytes": None, "path": f"zip://a.wav::{tmp_path}/clips.zip"}, "one")
    assert load_row(row).duration == 0.5


def test_nan_samples_are_refused():
    row = Row("a", {"array": [0.0, math.nan, 0.1], "sampling_rate": 16_000}, "one")
    with pytest.raises(ValueError, match="NaN"):
        load_row(row)


# The configuration


def test_options_have_a_sentence_and_aliases_mean_options():
    names = {option.name for option in fields(DataConfig)}
    assert all(option.metadata["help"].endswith(".") for option in fields(DataConfig))
    assert set(ALIASES.values()) <= names and not set(ALIASES) & names


@pytest.mark.parametrize(
    "wrong", [{"max_train_samples": 0}, {"max_eval_samples": -1}, {"min_seconds": 5.0, "max_seconds": 4.0}]
)
def test_senseless_values_are_refused(wrong):
    with pytest.raises(TinyAudioError, match="data.max_"):
        DataConfig(**wrong)
