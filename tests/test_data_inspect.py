"""`ta data inspect`: hours, lengths, speaking rates and labels as they are, from headers alone."""

import json

import pytest
from data_helpers import parquet_rows, sine, wav_bytes, write_clips, write_jsonl, write_parquet

from tiny_audio.cli.main import run
from tiny_audio.data import DataConfig
from tiny_audio.data.inspect import inspect_dataset


@pytest.fixture
def manifest(tmp_path):
    """Forty clips of a second with ten characters each, one of them read too fast, four without a label, one broken."""
    rows = write_clips(tmp_path, 40, lambda i: 1.0)
    for number, row in enumerate(rows):
        del row["duration"]
        row.update(text=f"{'a' * (8 + number % 5)}", speaker=f"s{number % 4}")
    rows[3]["text"] = "a " * 100
    for number, text in enumerate(("", "<unk>", "IGNORE_TIME_SEGMENT_IN_SCORING", "[inaudible]"), start=10):
        rows[number]["text"] = text
    (tmp_path / "clip020.wav").write_bytes(b"not audio")
    (tmp_path / "clip021.wav").write_bytes(wav_bytes(sine(12.5, 8000), 8000))
    return write_jsonl(tmp_path / "m.jsonl", rows)


def test_what_is_found(manifest):
    found = inspect_dataset(DataConfig(path=str(manifest), max_chars_per_second=30), "test")
    assert len(found.seconds) == 40
    assert found.hours == pytest.approx((38 + 12.5) / 3600)
    assert {low: count for low, _, count in found.histogram() if count} == {1: 38, 10: 1}
    slow, fast = found.outliers()[0], found.outliers()[-1]
    assert (slow.id, fast.id) == ("clip021", "clip003") and fast.chars_per_second == 199
    assert found.percentiles()[50] == pytest.approx(10, abs=1)
    assert found.unusable == {
        "more characters a second than data.max_chars_per_second": ["clip003"],
        "empty text": ["clip010", "clip011", "clip013"],
        "placeholder for a text": ["clip012"],
        "unreadable": ["clip020"],
    }
    assert found.sampling_rates == {16_000: 38, 8_000: 1}
    assert found.speakers == {f"s{number}": 10 for number in range(4)}


def test_for_people_and_as_json(manifest, capsys):
    assert run(["data", "inspect", str(manifest), "--split", "test"]) == 0
    shown = capsys.readouterr().out
    assert "40 clips, 0.01 h" in shown and f"    1-2        38 {'█' * 40}" in shown
    assert "empty text: 3 (clip010, clip011, clip013)" in shown
    assert "placeholder for a text: 1 (clip012)" in shown
    assert "Sampling rates: 16,000 Hz 38, 8,000 Hz 1" in shown and "Speakers: 4, at most 10 clips of one" in shown
    assert " 199.0    1.00 s  clip003: a a a" in shown
    assert run(["data", "inspect", str(manifest), "--split", "test", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert (found["clips"], found["speakers"]) == (40, 4)
    assert found["unusable"]["unreadable"] == {"clips": 1, "ids": ["clip020"]}
    assert found["outliers"][-1]["id"] == "clip003"


def test_no_audio_is_decoded(tmp_path, monkeypatch):
    rows = parquet_rows(5)
    rows[1]["audio"]["bytes"] = rows[1]["audio"]["bytes"][:60]  # a header, and little more
    del rows[1]["duration"]
    write_parquet(tmp_path / "train-00000.parquet", rows)
    monkeypatch.setattr("tiny_audio.audio.reading.stream_audio", lambda *_: pytest.fail("decoded"))
    found = inspect_dataset(DataConfig(path=str(tmp_path), eval_split="train"))
    assert len(found.seconds) == 5 and found.seconds[0] == pytest.approx(0.3)
    assert found.speakers == {"s0": 2, "s1": 2, "s2": 1}


def test_each_part_of_a_mixture(manifest, capsys):
    parts = f"data.mixture={{a: {{path: quickstart}}, b: {{path: {manifest}}}}}"
    assert run(["data", "inspect", "quickstart", parts, "--split", "test"]) == 0
    shown = capsys.readouterr().out
    assert "quickstart, split test: 150 clips" in shown and "m.jsonl, split test: 40 clips" in shown


def test_mistakes_are_one_line(manifest, capsys):
    assert run(["data", "inspect", str(manifest), "--split", "dev2"]) == 1
    assert "has no splits, so there is no `dev2`" in capsys.readouterr().err
    assert run(["data", "inspect", str(manifest), "data.text_colum=x"]) == 1
    assert "did you mean data.text_column?" in capsys.readouterr().err
