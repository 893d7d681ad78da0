"""Every form a dataset can have is found, opened by split and column, and refused with one line when it is not one."""

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pytest
from data_helpers import (
    parquet_rows,
    sine,
    wav_bytes,
    write_audiofolder,
    write_clips,
    write_csv,
    write_jsonl,
    write_parquet,
)

from tiny_audio.data import DataConfig, open_corpus
from tiny_audio.data import records as records_module
from tiny_audio.data.hub import hub_splits, load_hub
from tiny_audio.errors import TinyAudioError


def opened(path, split="train", **options):
    return open_corpus(DataConfig(path=str(path), **options), split)


def message(*args, **options) -> str:
    with pytest.raises(TinyAudioError) as caught:
        opened(*args, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Local forms


@pytest.mark.parametrize("metadata", ["metadata.csv", "metadata.jsonl"])
def test_audiofolder(tmp_path, metadata):
    for split, count in {"train": 4, "validation": 2, "test": 3}.items():
        rows = write_clips(tmp_path / split, count)
        (write_csv if metadata.endswith("csv") else write_jsonl)(tmp_path / split / metadata, rows)
    assert [len(opened(tmp_path, split)) for split in ("train", "validation", "test")] == [4, 2, 3]
    corpus = opened(tmp_path, "test")
    assert corpus.name == tmp_path.name
    assert corpus.ids == ["clip000", "clip001", "clip002"]
    assert corpus.texts == ["zero", "one", "two"]
    assert corpus.load(2).duration == pytest.approx(0.4)
    assert corpus.load(2).text == "two"


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".tsv"])
def test_manifest_with_nemo_columns(tmp_path, suffix):
    rows = [
        {"audio_filepath": f"wavs/{row['file_name']}", "duration": row["duration"], "text": row["text"] + ', "quoted'}
        for row in write_clips(tmp_path / "wavs", 4)
    ]
    file = tmp_path / f"manifest{suffix}"
    if suffix == ".csv":
        write_csv(file, rows)
    elif suffix == ".tsv":  # as Common Voice writes them: a stray quotation mark is part of the text
        lines = ["\t".join(rows[0]), *("\t".join(str(value) for value in row.values()) for row in rows)]
        file.write_text("\n".join(lines) + "\n")
    else:
        write_jsonl(file, rows)
    corpus = opened(file, "test")
    assert len(corpus) == 4
    assert corpus.texts[3] == 'three, "quoted'
    assert corpus.durations.tolist() == pytest.approx([0.3, 0.35, 0.4, 0.45])
    assert len(corpus.load(3).waveform) == round(0.45 * 16_000)


def test_json_array_absolute_paths_and_offsets(tmp_path):
    recording = np.linspace(-0.9, 0.9, 62 * 16_000, dtype=np.float32)  # more than two blocks of the decoder
    (tmp_path / "long.wav").write_bytes(wav_bytes(recording))
    parts = ((0.0, 0.5), (29.75, 0.5), (45.0, 1.0), (61.75, 0.5))
    rows = [
        {"audio_filepath": str(tmp_path / "long.wav"), "offset": start, "duration": seconds, "text": "a"}
        for start, seconds in parts
    ]
    (tmp_path / "m.json").write_text(json.dumps(rows))
    corpus = opened(tmp_path / "m.json", "test")
    assert len(set(corpus.ids)) == 4
    for index, (start, seconds) in enumerate(parts):  # the last part is cut where the recording ends
        expected = recording[round(start * 16_000) : round((start + seconds) * 16_000)]
        assert corpus.load(index).waveform == pytest.approx(expected, abs=1e-4)


def test_folder_of_manifests_and_synonyms(tmp_path):
    rows = write_clips(tmp_path, 5)
    write_jsonl(tmp_path / "train_manifest.json", rows[:3])
    write_jsonl(tmp_path / "dev_manifest.json", rows[3:])
    assert len(opened(tmp_path, "train")) == 3
    assert len(opened(tmp_path, "validation")) == 2


@pytest.mark.parametrize(
    "names",
    [
        {"train.parquet": 3, "validation.parquet": 2, "test.parquet": 1},
        {"data/train-00000-of-00002.parquet": 2, "data/train-00001-of-00002.parquet": 1,
         "data/validation-00000-of-00001.parquet": 2, "data/test-00000-of-00001.parquet": 1},
        {"train/0000.parquet": 2, "train/0001.parquet": 1, "validation/0000.parquet": 2, "test/0000.parquet": 1},
    ],
)  # fmt: skip
def test_parquet_folder(tmp_path, names):
    for name, count in names.items():
        write_parquet(tmp_path / name, parquet_rows(count))
    assert [len(opened(tmp_path, split)) for split in ("train", "validation", "test")] == [3, 2, 1]
    corpus = opened(tmp_path)
    assert corpus.rows[1].metadata == {"speaker": "s1"}
    assert corpus.load(1).duration == pytest.approx(0.35)


def test_parquet_file_and_config_subfolder(tmp_path):
    write_parquet(tmp_path / "clean" / "train.parquet", parquet_rows(3))
    write_parquet(tmp_path / "other" / "train.parquet", parquet_rows(2))
    assert len(opened(tmp_path / "clean" / "train.parquet", "test")) == 3
    assert len(opened(tmp_path, "train", config="other", eval_split="train")) == 2
    assert "clean, other" in message(tmp_path, "train", config="noisy")


def test_large_parquet_is_memory_mapped_by_datasets(tmp_path, monkeypatch):
    import datasets.config

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    file = write_parquet(tmp_path / "train.parquet", parquet_rows(6))
    in_memory = opened(file, "test")
    monkeypatch.setattr(records_module, "IN_MEMORY_BYTES", 0)
    mapped = opened(file, "test")
    assert type(mapped.records).__name__ == "HubRecords"
    assert (mapped.ids, mapped.texts) == (in_memory.ids, in_memory.texts)
    assert mapped.durations.tolist() == in_memory.durations.tolist()
    assert (mapped.load(4).waveform == in_memory.load(4).waveform).all()


def test_parquet_written_by_datasets_with_its_audio_feature(tmp_path):
    from datasets import Audio, Dataset

    rows = [{"audio": row["audio"], "sentence": row["text"]} for row in parquet_rows(3)]
    dataset = Dataset.from_list(rows).cast_column("audio", Audio(sampling_rate=16_000, decode=False))
    dataset.to_parquet(tmp_path / "train.parquet")
    corpus = opened(tmp_path, eval_split="train")
    assert corpus.texts == ["zero", "one", "two"]
    assert corpus.durations.tolist() == pytest.approx([0.3, 0.35, 0.4])
    assert corpus.load(0).duration == pytest.approx(0.3)


def test_audio_cells_as_arrays(tmp_path):
    rows = [{"audio": {"array": sine(0.5, 8000).tolist(), "sampling_rate": 8000}, "text": "one"}]
    corpus = opened(write_parquet(tmp_path / "a.parquet", rows), "test")
    assert corpus.durations.tolist() == pytest.approx([0.5])
    assert corpus.load(0).duration == pytest.approx(0.5, abs=0.002)


def test_shipped_corpus():
    counts = {split: len(opened("quickstart", split)) for split in ("train", "validation", "test")}
    assert counts["test"] >= 100 and counts["train"] >= 900
    corpus = opened("quickstart", "test")
    assert corpus.name == "quickstart"
    assert corpus.load(0).duration == pytest.approx(float(corpus.durations[0]), abs=0.05)


def test_real_recordings(speech):
    counts = {
        name: [len(opened(speech / name, split)) for split in ("train", "validation", "test")]
        for name in ("spoken-digits", "librispeech-small")
    }
    assert counts == {"spoken-digits": [1800, 200, 500], "librispeech-small": [947, 140, 182]}
    assert len(opened(speech / "clips", "test")) == 23


# Splits


def test_dataset_without_splits_holds_out_for_evaluation(tmp_path, caplog):
    manifest = write_jsonl(tmp_path / "m.jsonl", write_clips(tmp_path, 60, lambda i: 0.1))
    train, held_out = opened(manifest, "train"), opened(manifest, "validation")
    assert (len(train), len(held_out)) == (57, 3)
    assert "3 of its 60 clips" in caplog.text
    assert not set(train.ids) & set(held_out.ids)
    assert opened(manifest, "validation").ids == held_out.ids
    assert opened(manifest, "validation", seed=1).ids != held_out.ids
    assert len(opened(manifest, "test")) == 60


def test_hold_out_where_only_the_validation_split_lacks(tmp_path):
    write_audiofolder(tmp_path, {"train": 20, "test": 2})
    assert (len(opened(tmp_path, "train")), len(opened(tmp_path, "validation"))) == (19, 1)
    assert len(opened(tmp_path, "train", eval_split="test")) == 20
    assert len(opened(tmp_path, "test")) == 2


def test_own_split_names(tmp_path):
    write_audiofolder(tmp_path, {"train": 3, "validation": 2, "test": 1})
    config = DataConfig(path=str(tmp_path), train_split="test", eval_split="train", test_split="validation")
    assert [len(open_corpus(config, split)) for split in ("test", "train", "validation")] == [1, 3, 2]


def test_unknown_split_names_the_found_ones(tmp_path):
    write_audiofolder(tmp_path, {"train": 2, "validation": 1, "test": 1})
    text = message(tmp_path, "tset")
    assert "test, train, validation" in text and "did you mean test?" in text
    assert "has no splits" in message(tmp_path / "train", "dev2")


# Refusals


def test_missing_path_is_named(tmp_path):
    assert "does not exist" in message(tmp_path / "nowhere")
    assert "does not exist" in message("manifest.jsonl")
    assert "does not exist" in message("./some/folder")


def test_column_errors_name_the_found_and_the_nearest(tmp_path):
    write_audiofolder(tmp_path, {"train": 2, "validation": 1})
    text = message(tmp_path, text_column="txt")
    assert "file_name, text, duration" in text and "data.text_column=text" in text
    assert "audio column `sound`" in message(tmp_path, audio_column="sound")


def test_ambiguous_text_column_is_not_guessed(tmp_path):
    rows = [{"file_name": "a.wav", "sentence": "x", "transcript": "y"}]
    assert "no text column" in message(write_csv(tmp_path / "m.csv", rows))
    assert opened(write_csv(tmp_path / "m.csv", rows), "test", text_column="transcript").texts == ["y"]


def test_folder_with_only_audio(tmp_path):
    write_clips(tmp_path / "wavs", 1)
    text = message(tmp_path)
    assert "metadata.csv" in text and "clip000.wav" in text


def test_folder_and_files_that_are_no_dataset(tmp_path):
    assert "folder without a dataset" in message(tmp_path)
    (tmp_path / "notes.txt").write_text("hello")
    assert ".txt" in message(tmp_path / "notes.txt")
    (tmp_path / "broken.parquet").write_bytes(b"not parquet at all")
    assert "broken.parquet" in message(tmp_path / "broken.parquet", "test")
    (tmp_path / "broken.jsonl").write_text('{"audio": "a.wav", "text": "x"}\n{"audio": \n')
    assert "line 2" in message(tmp_path / "broken.jsonl", "test")
    (tmp_path / "broken.csv").write_text("file_name,text\na.wav,one, two\n")
    assert "line 2" in message(tmp_path / "broken.csv", "test")
    (tmp_path / "empty.jsonl").write_text("")
    assert "no rows" in message(tmp_path / "empty.jsonl", "test")


def test_revision_of_a_local_dataset_is_refused(tmp_path):
    write_audiofolder(tmp_path, {"train": 2, "validation": 1})
    assert "revision" in message(tmp_path, revision="v1")
    assert "revision" in message("quickstart", revision="v1")
    assert "no subfolder" in message("quickstart", config="large")


# The Hub: what `datasets` loads, and its errors


@pytest.fixture
def hub_like(tmp_path, monkeypatch):
    """A folder as a dataset repository of the Hub looks, loaded by `datasets` itself."""
    import datasets.config

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    repository = tmp_path / "repository"
    for name, count in {"clean/train": 4, "clean/validation": 2, "noisy/train": 3}.items():
        write_parquet(repository / f"{name}.parquet", parquet_rows(count))
    configs = "\n".join(
        f"- config_name: {name}\n  data_files:\n"
        + "".join(f"  - split: {split}\n    path: {name}/{split}.parquet\n" for split in splits)
        for name, splits in {"clean": ("train", "validation"), "noisy": ("train",)}.items()
    )
    (repository / "README.md").write_text(f"---\nconfigs:\n{configs}---\n")
    return str(repository)


def test_hub_configs_and_splits(hub_like):
    assert hub_splits(DataConfig(path=hub_like, config="clean")) == ["train", "validation"]
    dataset = load_hub(DataConfig(path=hub_like, config="noisy"), "train")
    assert len(records_module.HubRecords(dataset)) == 3
    with pytest.raises(TinyAudioError, match="several configurations.*clean, noisy"):
        hub_splits(DataConfig(path=hub_like))
    with pytest.raises(TinyAudioError, match="no configuration `clear`.*did you mean data.config=clean"):
        hub_splits(DataConfig(path=hub_like, config="clear"))


def test_hub_offline_is_one_line():
    text = message("nobody/nothing-here")
    assert "nobody/nothing-here" in text and "cannot be reached" in text


SCRIPT = """
import time
from tiny_audio.data import DataConfig, open_corpus
start = time.monotonic()
try:
    open_corpus(DataConfig(path="nobody/nothing-here"), "train")
except Exception as error:
    print(type(error).__name__, "|", error, "|", time.monotonic() - start)
"""


def run_against(endpoint: str, home) -> list[str]:
    environment = {**os.environ, "HF_HUB_OFFLINE": "0", "HF_ENDPOINT": endpoint, "HF_HOME": str(home)}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout.strip().split(" | ")


def test_unreachable_hub_answers_without_retries(tmp_path):
    kind, text, seconds = run_against("http://127.0.0.1:9", tmp_path)
    assert kind == "TinyAudioError" and "cannot be reached" in text
    assert float(seconds) < 10  # `datasets` alone retries for 23 s


def test_unknown_hub_dataset(tmp_path):
    class NoSuchRepository(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_HEAD = do_POST = do_GET

        def log_message(self, *args):
            pass

    server = HTTPServer(("127.0.0.1", 0), NoSuchRepository)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    kind, text, _ = run_against(f"http://127.0.0.1:{server.server_port}", tmp_path)
    server.shutdown()
    assert kind == "TinyAudioError" and "neither a local path" in text and "doesn't exist" in text


def test_a_test_of_what_was_trained_on_is_said(tmp_path, caplog) -> None:
    file = write_jsonl(tmp_path / "all.jsonl", write_clips(tmp_path, 4))
    with caplog.at_level("WARNING", logger="tiny_audio"):
        open_corpus(DataConfig(path=str(file)), "test")
    assert "also the clips that `ta train` would train on" in caplog.text
