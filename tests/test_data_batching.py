"""Batches keep to their budget, differ by epoch, waste little, and can be addressed by number."""

from itertools import islice

import numpy as np
import pytest

from tiny_audio.data import DataConfig, SecondsBatchSampler, open_corpus, usable_rows
from tiny_audio.data.batching import padding_ratio
from tiny_audio.data.mixture import MixtureSampler


def lengths(clips: int = 500, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0.3, 20.0, clips)


def padded_seconds(durations, batch) -> float:
    return max(durations[i] for i in batch) * len(batch)


@pytest.mark.parametrize("batch_seconds", [5.0, 30.0, 120.0])
def test_every_clip_once_within_the_budget(batch_seconds):
    durations = lengths()
    for epoch in range(3):
        batches = SecondsBatchSampler(durations, batch_seconds, seed=3).epoch(epoch)
        assert sorted(i for batch in batches for i in batch) == list(range(500))
        for batch in batches:
            assert padded_seconds(durations, batch) <= batch_seconds or len(batch) == 1
    assert max(durations) > 5.0  # the smallest budget is exceeded by single clips


def test_most_clips_in_a_batch():
    sampler = SecondsBatchSampler(lengths(), 1e9, max_batch_size=7)
    assert max(len(batch) for batch in sampler) == 7
    assert len(sampler) == len(list(sampler))


def test_deterministic_by_seed_and_epoch():
    def epochs(seed):
        sampler = SecondsBatchSampler(lengths(), 60.0, seed=seed)
        return [sampler.epoch(e) for e in range(2)]

    assert epochs(0) == epochs(0)
    assert epochs(0) != epochs(1)
    first, second = epochs(0)
    assert {frozenset(batch) for batch in first} != {frozenset(batch) for batch in second}  # grouped anew


def test_order_is_not_by_length():
    durations = lengths()
    means = [durations[batch].mean() for batch in SecondsBatchSampler(durations, 60.0).epoch(0)]
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.3


@pytest.mark.parametrize("make", [SecondsBatchSampler, lambda *args: MixtureSampler([args[0]], [900], *args[1:])])
def test_the_largest_batch_is_the_very_first(make):
    durations = lengths(2000)
    sampler = make(durations, 60.0, 3)
    for epoch in range(3):
        sizes = [padded_seconds(durations, batch) for batch in sampler.epoch(epoch)]
        assert (sizes.index(max(sizes)) == 0) is (epoch == 0)
    equal = make(np.array([2.0, 2.0, 4.0] * 300), 4.0, 3).epoch(0)  # every batch is of 4 s
    assert len(equal[0]) == 1 and len(equal[-1] + equal[-2] + equal[-3]) > 3


def test_batches_by_number_continue_over_epochs():
    sampler = SecondsBatchSampler(lengths(60), 60.0, seed=1)
    everything = [batch for epoch in range(4) for batch in sampler.epoch(epoch)]
    assert list(islice(sampler.batches(), len(everything))) == everything
    for start in (0, 1, len(sampler), len(sampler) + 3, len(everything) - 2):
        resumed = SecondsBatchSampler(lengths(60), 60.0, seed=1)
        assert list(resumed.batches(start, len(everything))) == everything[start:]
    assert list(sampler.batches(5, 5)) == []
    assert sampler.locate(len(sampler)) == (1, 0)


def test_padding_on_real_speech(speech):
    corpus = open_corpus(DataConfig(path=str(speech / "librispeech-small")), "train")
    usable, _ = usable_rows(corpus, max_samples_window=480_000, min_seconds=0.1)
    sampler = SecondsBatchSampler(corpus.durations[usable], batch_seconds=120)
    assert sampler.padding_ratio <= 0.05
    random_order = np.array_split(np.random.default_rng(0).permutation(len(usable)), len(sampler))
    assert padding_ratio(corpus.durations[usable], random_order) > 0.15


def test_one_clip_and_equal_clips():
    assert SecondsBatchSampler([2.0], 1.0).epoch(0) == [[0]]
    sampler = SecondsBatchSampler([1.0] * 100, 10.0)
    assert sampler.padding_ratio == 0.0
    assert sampler.epoch(0) != sampler.epoch(1)


def test_large_corpora_are_quick():
    import time

    start = time.perf_counter()
    SecondsBatchSampler(lengths(300_000), 120.0).epoch(0)
    assert time.perf_counter() - start < 5  # 0.3 s on a quiet machine


@pytest.mark.parametrize(
    ("durations", "seconds"), [([], 10.0), ([1.0, float("nan")], 10.0), ([1.0], 0.0), ([1.0], -5.0)]
)
def test_senseless_input_is_refused(durations, seconds):
    with pytest.raises(ValueError):
        SecondsBatchSampler(durations, seconds)
