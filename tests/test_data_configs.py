"""Every dataset of configs/data reads rows of the layout that its Hub dataset has, mapped and streamed, through `datasets`."""

import numpy as np
import pytest
import yaml
from data_helpers import encoded, sine, wav_bytes

from tiny_audio.data import evaluated, open_corpus, parts_of, sources, stream_corpus, streaming
from tiny_audio.data.config import DataConfig
from tiny_audio.data.corpus import load_row
from tiny_audio.data.filtering import Limits
from tiny_audio.data.stream_batches import StreamDataset
from tiny_audio.errors import TinyAudioError
from tiny_audio.text.labels import clean_label
from tiny_audio.training.config import compose, config_folders, members

# Columns of the Hub's datasets beside audio and text, of one row; the datasets' cards and their users' code, November 2026.
LAYOUTS = {
    "librispeech": ("audio", "text", {"file": "1.flac", "speaker_id": 6930, "chapter_id": 75918, "id": "6930-75918-0000"}),
    "loquacious": ("wav", "text", {"ID": "yodas_1", "duration": 1.5, "start": 12.5, "sex": "unk", "spk_id": "7"}),
    "gigaspeech": ("audio", "text", {"segment_id": "YOU1_S1", "speaker": "N/A", "begin_time": 2.0, "end_time": 3.5, "audio_id": "YOU1", "title": "t", "url": "u", "source": 2, "category": 10, "original_full_path": "y/1.opus"}),
    "commonvoice": ("audio", "sentence", {"client_id": "c", "path": "en_1.mp3", "up_votes": 2, "down_votes": 0, "age": "", "gender": "", "accent": "", "locale": "en", "segment": "", "variant": ""}),
    "peoples_speech": ("audio", "text", {"id": "07282016HFUUforum/1.flac", "duration_ms": 1500, "continuation": ""}),
    "ami": ("audio", "text", {"meeting_id": "EN2001a", "audio_id": "AMI_EN2001a_H00_MEE068_1", "begin_time": 5.5, "end_time": 7.0, "microphone_id": "H00", "speaker_id": "MEE068"}),
    "spgispeech": ("audio", "transcript", {"wav_filename": "3/1.wav", "wav_filesize": 48044}),
    "voxpopuli": ("audio", "normalized_text", {"audio_id": "2009-en_1", "language": 0, "raw_text": "", "gender": "female", "speaker_id": "None", "is_gold_transcript": True, "accent": "None"}),
    "tedlium": ("audio", "text", {"speaker_id": "PaulaScher", "gender": "female", "file": "x.sph", "id": "PaulaScher-1"}),
    "earnings22": ("audio", "sentence", {"source_id": "4432298", "segment_id": "1", "start_ts": 0.5, "end_ts": 2.0}),
}  # fmt: skip
TEXTS = ("AND THEN <COMMA> there were two <PERIOD>", "two", "ignore_time_segment_in_scoring", "Three, {NOISE} four")
LABELS = ["and then there were two", "two", "three four"]


def clip(number: int, container: str) -> bytes:
    if container == "mp3":
        return encoded(sine(1.5, 48_000), "mp3", "libmp3lame", 48_000)
    return encoded(sine(1.5), "flac", "flac") if container == "flac" else wav_bytes(sine(1.5))


def write_hub_like(root, name: str, config: DataConfig) -> str:
    """A folder as a repository of the Hub is: Parquet with the Audio feature, and the configurations in its card."""
    from datasets import Audio, Dataset

    audio, text, others = LAYOUTS[name]
    container, rate = ("mp3", 48_000) if name == "commonvoice" else ("flac", 16_000)
    rows = [
        {**others, audio: {"bytes": clip(number, container), "path": f"{number}.{container}"}, text: words}
        for number, words in enumerate(TEXTS)
    ]
    for row, number in zip(rows, range(4), strict=True):
        row.update({key: f"{row[key]}{number}" for key in ("id", "ID", "segment_id") if key in row})
    dataset = Dataset.from_list(rows).cast_column(audio, Audio(sampling_rate=rate, decode=False))
    dataset = dataset.cast_column(audio, Audio(sampling_rate=rate))
    files: dict[str, list] = {}
    splits = [(config.config, config.train_split), (config.eval_config or config.config, config.eval_split)]
    for folder, split in splits:
        path = f"{folder or 'data'}/{split}/0000.parquet"
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        dataset.to_parquet(root / path)
        files.setdefault(folder or "default", []).append({"split": split, "path": path})
    card = {"configs": [{"config_name": key, "data_files": value} for key, value in files.items()]}
    (root / "README.md").write_text(f"---\n{yaml.safe_dump(card)}---\n")
    return str(root)


@pytest.fixture
def of_the_hub(tmp_path, monkeypatch):
    """Folders are read as datasets of the Hub are: by `datasets`, with its caches here."""
    import datasets.config

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    for module in (sources, streaming):
        monkeypatch.setattr(module, "is_local", lambda config: False)


def test_every_dataset_of_the_configs_has_a_layout_here():
    derived = {"custom", "quickstart", "loquacious_large", "multiasr"}
    assert set(members("data", config_folders())) == set(LAYOUTS) | derived
    assert set(compose("transcription", ["data=multiasr"]).data.mixture) <= set(LAYOUTS)


@pytest.mark.parametrize("name", LAYOUTS)
def test_layout_of_the_hub(name, tmp_path, of_the_hub):
    config = compose("transcription", [f"data={name}"]).data
    config.path = write_hub_like(tmp_path / "repository", name, config)
    rows = list(stream_corpus(config, config.train_split))
    assert [row.text for row in rows] == list(TEXTS) and len({row.id for row in rows}) == 4
    assert load_row(rows[1]).duration == pytest.approx(1.5, abs=0.08)
    corpus = open_corpus(config, config.train_split)
    assert corpus.texts == list(TEXTS) and corpus.durations == pytest.approx(np.full(4, 1.5), abs=0.08)
    assert corpus.ids == [row.id for row in rows]
    assert len(list(stream_corpus(evaluated(config), config.eval_split))) == 4
    dataset = StreamDataset(config, config.train_split, batch_seconds=60, limits=Limits.of(config, 480_000))
    reasons = [clip.reason for batch in [next(iter(dataset))] for clip in batch if hasattr(clip, "reason")]
    assert "placeholder for a text" in reasons


@pytest.mark.parametrize("name", ["gigaspeech", "tedlium"])
def test_a_local_copy_of_the_layout(name, tmp_path):
    config = compose("transcription", [f"data={name}"]).data
    config.path = write_hub_like(tmp_path / "copy", name, config)
    config.config = config.config or "data"
    corpus = open_corpus(config, config.train_split)
    assert corpus.texts == list(TEXTS) and len(corpus) == 4
    assert corpus.load(0).duration == pytest.approx(1.5)
    assert len(open_corpus(evaluated(config), config.eval_split)) == 4


def test_the_open_mixture(tmp_path, of_the_hub):
    config = compose("transcription", ["data=multiasr", "data.mixture.ami.weight=2"]).data
    for part in parts_of(config):
        config.mixture[part.name]["path"] = write_hub_like(tmp_path / part.name, part.name, part)
    batches = iter(StreamDataset(config, "train", batch_seconds=60))
    clips = [clip for _ in range(12) for clip in next(batches) if not hasattr(clip, "reason")]
    found = {clip.part for clip in clips}
    assert found == set(config.mixture)
    assert {clean_label(clip.text) for clip in clips} == set(LABELS)
    shares = {name: sum(clip.part == name for clip in clips) / len(clips) for name in found}
    weights = {part.name: part.weight for part in parts_of(config)}
    assert shares == pytest.approx({name: weight / sum(weights.values()) for name, weight in weights.items()}, abs=0.05)


def test_the_hubs_own_conversion_has_configurations_as_folders(tmp_path, of_the_hub):
    config = compose("transcription", ["data=ami", "data.revision=refs/convert/parquet"]).data
    config.path = write_hub_like(tmp_path / "repository", "ami", config)
    (tmp_path / "repository" / "README.md").unlink()  # that branch has none
    assert [row.text for row in stream_corpus(config, "train")] == list(TEXTS)
    with pytest.raises(TinyAudioError, match="no split `test`"):
        list(stream_corpus(config, "test"))
