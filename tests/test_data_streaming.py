"""Streams: the same rows as the map-style corpus, seeded order, and batches that a resumed run continues exactly."""

from itertools import islice

import pytest
from data_helpers import parquet_rows, write_audiofolder, write_clips, write_csv, write_jsonl, write_parquet
from torch.utils.data import DataLoader

from tiny_audio.data import DataConfig, Skipped, open_corpus, stream_corpus
from tiny_audio.data.corpus import Example, load_row
from tiny_audio.data.stream_batches import Limits, StreamDataset
from tiny_audio.data.streaming import hub_records
from tiny_audio.errors import TinyAudioError


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    """Forty clips of 0.2 to 0.59 s; number 7 is broken, number 9 has no text, number 11 does not state its length."""
    folder = tmp_path_factory.mktemp("stream")
    rows = write_clips(folder, 40, lambda i: 0.2 + 0.01 * i)
    (folder / "clip007.wav").write_bytes(b"not audio")
    rows[9]["text"] = ""
    rows[11]["duration"] = None
    return write_jsonl(folder / "m.jsonl", rows)


def config(path, **options) -> DataConfig:
    return DataConfig(path=str(path), streaming=True, **options)


def ids(rows) -> list[str]:
    return [row.id for row in rows]


@pytest.mark.parametrize("form", ["audiofolder", "parquet", "manifest"])
def test_same_rows_as_the_corpus(tmp_path, form):
    if form == "audiofolder":
        path = write_audiofolder(tmp_path, {"train": 4, "validation": 1, "test": 5})
    elif form == "parquet":
        path = write_parquet(tmp_path / "test.parquet", parquet_rows(5)).parent
    else:
        path = write_csv(tmp_path / "m.csv", write_clips(tmp_path, 5))
    rows = list(stream_corpus(config(path), "test"))
    corpus = open_corpus(config(path), "test")
    assert [(r.id, r.text, r.duration, r.metadata) for r in rows] == [
        (r.id, r.text, r.duration, r.metadata) for r in corpus.rows
    ]
    assert (load_row(rows[2]).waveform == corpus.load(2).waveform).all()


def test_order_is_stored_or_seeded_by_epoch(manifest):
    stored = ids(stream_corpus(config(manifest), "test"))
    first, again, second = (ids(stream_corpus(config(manifest), "test", epoch=e)) for e in (0, 0, 1))
    assert stored == sorted(stored)
    assert first == again != second
    assert sorted(first) == sorted(second) == stored
    assert ids(stream_corpus(config(manifest, seed=1), "test", epoch=0)) != first


def test_sample_is_seeded_and_the_same_in_every_epoch(manifest):
    sample = ids(stream_corpus(config(manifest), "test", max_samples=10))
    assert len(sample) == 10 and sample != sorted(sample)
    assert sample == ids(stream_corpus(config(manifest), "test", max_samples=10))
    later = ids(stream_corpus(config(manifest), "test", max_samples=10, epoch=3))
    assert later != sample and sorted(later) == sorted(sample)


def test_hold_out_is_disjoint_and_that_of_the_corpus(manifest):
    train, held_out = (ids(stream_corpus(config(manifest), split)) for split in ("train", "validation"))
    assert held_out == open_corpus(config(manifest), "validation").ids
    assert not set(train) & set(held_out) and len(train) + len(held_out) == 40


def test_shuffle_buffer_is_bounded_but_loses_nothing():
    from tiny_audio.data.streaming import shuffled

    out = list(shuffled(iter(range(1000)), 50, seed=0))
    assert sorted(out) == list(range(1000)) and out != sorted(out)
    source = iter(range(1000))
    next(shuffled(source, 50, seed=0))
    assert next(source) == 51


def test_stream_of_datasets(tmp_path):
    """The path a Hub dataset takes, over local Parquet files, with the Audio feature that the Hub's have."""
    import datasets

    files = [str(write_parquet(tmp_path / f"{i}.parquet", parquet_rows(6)[3 * i : 3 * i + 3])) for i in range(2)]
    stream = datasets.load_dataset(
        "parquet", data_files={"train": files}, split="train", streaming=True, cache_dir=str(tmp_path / "cache")
    )
    stream = stream.cast_column("audio", datasets.Audio())
    records, reader = hub_records(stream, DataConfig(path="owner/name"), "train")
    rows = [reader(record, number) for number, record in records(None, 0, 1)]
    assert [row.text for row in rows] == ["zero", "one", "two", "three", "four", "five"]
    assert load_row(rows[3]).duration == pytest.approx(0.45)
    orders = [[record["text"] for _, record in records(seed, 0, 1)] for seed in range(6)]
    assert any(order != orders[0] for order in orders) and all(len(order) == 6 for order in orders)
    for shares in (1, 2, 3):  # whole shards where there are enough, else every n-th row
        shared = [[record["text"] for _, record in records(0, share, shares)] for share in range(shares)]
        assert all(shared) and sorted(text for share in shared for text in share) == sorted(orders[0])
    with pytest.raises(TinyAudioError, match="no text column"):
        hub_records(stream, DataConfig(path="owner/name", text_column="words"), "train")


# Batches


def batches_of(manifest, workers: int = 0, start: int = 0, count: int = 12, **options) -> list[list]:
    dataset = StreamDataset(config(manifest), "test", **{"batch_seconds": 2.0, **options}, start=start)
    loader = DataLoader(dataset, batch_size=None, num_workers=workers, collate_fn=list)
    return list(islice(loader, count))


def names(batches: list[list]) -> list[list[str]]:
    return [[clip.id for clip in batch if isinstance(clip, Example)] for batch in batches]


def test_batches_keep_the_budget_and_list_what_is_skipped(manifest):
    batches = batches_of(manifest, count=14)
    skipped = Skipped()
    for batch in batches:
        examples = [clip for clip in batch if isinstance(clip, Example)]
        assert examples and max(clip.duration for clip in examples) * len(examples) <= 2.0
        skipped.update(vars(clip) for clip in batch if not isinstance(clip, Example))
    assert skipped.counts == {"empty text": 1, "unreadable": 1}
    assert len({name for batch in names(batches) for name in batch}) == 38


@pytest.mark.parametrize("workers", [0, 2])
def test_resumed_run_continues_with_the_same_batches(manifest, workers):
    everything = names(batches_of(manifest, workers))
    assert len({tuple(batch) for batch in everything}) > 8
    for start in (1, 4, 7):
        assert names(batches_of(manifest, workers, start=start, count=12 - start)) == everything[start:]


def test_workers_share_the_rows(manifest):
    seen = [name for batch in names(batches_of(manifest, workers=2, count=12)) for name in batch]
    assert len(set(seen)) >= 30


def test_options_act(manifest):
    assert len({n for batch in names(batches_of(manifest, max_samples=5)) for n in batch}) <= 5
    assert max(len(batch) for batch in names(batches_of(manifest, max_batch_size=2))) == 2
    short = batches_of(manifest, limits=Limits(max_samples_window=6400))
    assert max(clip.duration for batch in short for clip in batch if isinstance(clip, Example)) == pytest.approx(0.4)
    long = batches_of(manifest, limits=Limits(min_seconds=0.4))
    assert min(clip.duration for batch in long for clip in batch if isinstance(clip, Example)) >= 0.4
    kept = batches_of(manifest, clean=lambda text: text or "silence")
    assert any(clip.text == "" for batch in kept for clip in batch if isinstance(clip, Example))


def test_stream_of_only_bad_clips_is_one_line(tmp_path):
    rows = write_clips(tmp_path, 3)
    for row in rows:
        (tmp_path / row["file_name"]).write_bytes(b"not audio")
    with pytest.raises(TinyAudioError, match="no usable clip"):
        batches_of(write_csv(tmp_path / "m.csv", [{**row, "duration": ""} for row in rows]))
    with pytest.raises(TinyAudioError, match="no usable clip"):
        batches_of(write_csv(tmp_path / "m.csv", rows))


def test_workers_of_a_loader_read_a_stream_of_datasets_once(tmp_path, monkeypatch):
    """`datasets` divides its shards among a loader's workers by itself: rows must not be divided twice."""
    import datasets

    from tiny_audio.data import streaming

    files = [str(write_parquet(tmp_path / f"{i}.parquet", parquet_rows(20)[5 * i : 5 * i + 5])) for i in range(4)]
    monkeypatch.setattr(streaming, "hub_splits", lambda config: ["train"])
    monkeypatch.setattr(
        streaming,
        "load_hub",
        lambda config, split, streaming: datasets.load_dataset(
            "parquet", data_files=files, split="train", streaming=True, cache_dir=str(tmp_path / "cache")
        ),
    )
    for workers in (1, 2):
        dataset = StreamDataset(DataConfig(path="owner/name", eval_split="train"), "train", batch_seconds=1.0)
        loader = DataLoader(dataset, batch_size=None, num_workers=workers, collate_fn=list, prefetch_factor=1)
        seen: list[str] = []
        for batch in loader:
            seen += [clip.id for clip in batch]
            if len(set(seen)) == 20:
                break
        assert len(seen) < 60
