"""Clips become the model's tensors, in this process and in workers; bad clips are dropped, counted and never fatal."""

import numpy as np
import pytest
from data_helpers import sine, wav_bytes, write_clips, write_csv

from tiny_audio.data import ClipDataset, DataConfig, SecondsBatchSampler, Skipped, SpeechCollator, open_corpus
from tiny_audio.data.collator import Dropped
from tiny_audio.data.corpus import Example
from tiny_audio.errors import TinyAudioError


@pytest.fixture(scope="module")
def processor(tiny_checkpoint):
    from tiny_audio.model.processor import ASRProcessor

    return ASRProcessor.from_pretrained(tiny_checkpoint)


@pytest.fixture
def corpus(tmp_path):
    """Eight clips of 0.3 to 0.65 s; numbers 2 and 3 are broken, and the metadata lie about number 5."""
    rows = write_clips(tmp_path, 8)
    for broken in (2, 3):
        (tmp_path / f"clip{broken:03d}.wav").write_bytes(b"not audio")
    (tmp_path / "clip005.wav").write_bytes(wav_bytes(sine(2.0)))
    return open_corpus(DataConfig(path=str(write_csv(tmp_path / "metadata.csv", rows))), "test")


def test_batch_has_the_tensors_of_the_processor(processor, corpus):
    dataset = ClipDataset(corpus)
    batch = SpeechCollator(processor)(dataset.__getitems__([0, 1, 4]))
    alone = processor(
        audio=[corpus.load(i).waveform for i in (0, 1, 4)], text=["zero", "one", "four"], return_tensors="pt"
    )
    assert set(batch) == {*alone, "audio_seconds", "skipped"}
    assert all((batch[name] == alone[name]).all() for name in alone)
    assert batch["audio_seconds"].tolist() == pytest.approx([0.3, 0.35, 0.5])
    assert batch["skipped"] == []
    assert (batch["labels"] != -100).any(dim=1).all()


def test_labels_are_cleaned(processor, corpus):
    clip = corpus.load(0)
    noisy = Example(clip.id, clip.waveform, "ZERO, <unk>!", clip.duration)
    collate = SpeechCollator(processor)
    assert collate([noisy])["labels"].tolist() == collate([clip])["labels"].tolist()
    raw = SpeechCollator(processor, clean=lambda text: text)
    assert raw([noisy])["labels"].tolist() != raw([clip])["labels"].tolist()


def test_bad_members_are_dropped_and_listed(processor, corpus):
    dataset = ClipDataset(corpus, max_samples_window=16_000)
    batch = SpeechCollator(processor)(dataset.__getitems__([1, 2, 5]))
    assert batch["audio_seconds"].tolist() == pytest.approx([0.35])
    skipped = Skipped()
    skipped.update(batch["skipped"])
    assert skipped.counts == {"unreadable": 1, "longer than the encoder's window": 1}
    assert [entry["id"] for entry in skipped.entries] == ["clip002", "clip005"]


def test_batch_of_only_bad_members_is_replaced(processor, corpus):
    clips = ClipDataset(corpus, max_samples_window=16_000).__getitems__([2])
    assert [clip.id for clip in clips] == ["clip002", "clip003", "clip004"]
    batch = SpeechCollator(processor)(clips)
    assert batch["audio_seconds"].tolist() == [0.5] and len(batch["skipped"]) == 2
    around = ClipDataset(corpus, [0, 1, 2, 3]).__getitems__([3])
    assert [clip.id for clip in around if isinstance(clip, Example)] == ["clip000"]


def test_only_unreadable_clips_is_one_line(processor, corpus):
    with pytest.raises(TinyAudioError, match="None of the 2 clips"):
        ClipDataset(corpus, [2, 3]).__getitems__([0])
    with pytest.raises(TinyAudioError):
        SpeechCollator(processor)([Dropped("a", "unreadable", "")])


def test_limits_hold_for_the_decoded_length(corpus):
    dataset = ClipDataset(corpus, min_seconds=0.32, max_seconds=1.0)
    assert [clip.reason for clip in (dataset[0], dataset[5])] == [
        "shorter than data.min_seconds",
        "longer than data.max_seconds",
    ]


def test_decoded_clips_are_kept_within_the_budget(corpus):
    dataset = ClipDataset(corpus, cache_bytes=corpus.load(0).waveform.nbytes + 10)
    assert dataset[0] is dataset[0]
    assert dataset[1] is not dataset[1]
    nothing_kept = ClipDataset(corpus)
    assert nothing_kept[0] is not nothing_kept[0]


@pytest.mark.parametrize(("context", "workers"), [("fork", 2), ("spawn", 1)])
def test_loader_with_workers_equals_one_without(processor, corpus, context, workers):
    from torch.utils.data import DataLoader

    def batches(**options):
        dataset = ClipDataset(corpus, max_samples_window=16_000)
        sampler = list(SecondsBatchSampler(corpus.durations, 1.5, seed=0).batches(0, 6))
        return list(DataLoader(dataset, batch_sampler=sampler, collate_fn=SpeechCollator(processor), **options))

    here = batches()
    there = batches(num_workers=workers, multiprocessing_context=context, persistent_workers=True)
    assert len(here) == len(there) == 6
    for mine, theirs in zip(here, there, strict=True):
        assert mine["skipped"] == theirs["skipped"]
        assert all(np.array_equal(mine[name], theirs[name]) for name in mine if name != "skipped")
    assert any(batch["skipped"] for batch in there)
