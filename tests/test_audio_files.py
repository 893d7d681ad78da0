"""Clips kept beside their results: each can be heard, whatever its id, and the results name its file."""

import numpy as np
import pytest
from data_helpers import parquet_rows, write_audiofolder, write_parquet

from tiny_audio import load_audio
from tiny_audio.cli.main import run
from tiny_audio.evaluation.audio_files import wav_bytes
from tiny_audio.evaluation.results import read_results


def test_wav_bytes_are_what_was_heard(tone) -> None:
    waveform = tone(0.5)
    assert np.abs(load_audio(wav_bytes(waveform)) - waveform).max() <= 1 / 32767
    assert np.abs(load_audio(wav_bytes(waveform * 10))).max() == pytest.approx(1.0, abs=1e-3)


def test_kept_clips(tiny_checkpoint, tmp_path) -> None:
    rows = parquet_rows(4)
    for row, name in zip(rows, ["a", "../../up", "a/b", "a b"], strict=True):
        row["id"] = name
    rows[3]["audio"] = {"bytes": b"no audio", "path": "x.wav"}
    write_parquet(tmp_path / "data" / "test.parquet", rows)
    out = tmp_path / "out"
    arguments = [
        "eval",
        "-m",
        str(tiny_checkpoint),
        "-d",
        str(tmp_path / "data"),
        "--device",
        "cpu",
        "--allow-failures",
    ]
    assert run([*arguments, "--keep-audio", "--output-dir", str(out)]) == 0
    results = {result.id: result for result in read_results(out)}
    for name in ("a", "../../up", "a/b"):
        result = results[name]
        assert result.audio is not None and (out / result.audio).resolve().parent == out / "audio"
        assert len(load_audio(out / result.audio)) / 16_000 == pytest.approx(result.duration, abs=1e-3)
    assert results["a"].audio == "audio/a.wav" and results["a b"].audio is None
    assert len({result.audio for result in results.values()}) == 4


def test_files_of_the_dataset_are_named_not_copied(tiny_checkpoint, tmp_path, monkeypatch) -> None:
    write_audiofolder(tmp_path / "data", {"test": 2})
    monkeypatch.chdir(tmp_path)
    assert run(["eval", "-m", str(tiny_checkpoint), "-d", "data", "--device", "cpu", "--output-dir", "out"]) == 0
    assert {result.audio for result in read_results(tmp_path / "out")} == {
        str(tmp_path / "data" / "test" / f"clip00{i}.wav") for i in range(2)
    }
    assert not (tmp_path / "out" / "audio").exists()
