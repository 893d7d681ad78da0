"""Mixtures: shares hold in every stretch, mapped and streamed; runs resume; validation sees every part; filters act."""

import shutil
import subprocess
import sys
from collections import Counter
from itertools import islice

import numpy as np
import pytest
from data_helpers import parquet_rows, sine, wav_bytes, write_audiofolder, write_clips, write_jsonl, write_parquet
from torch.utils.data import DataLoader
from training_helpers import log_of

from tiny_audio.data import DataConfig, SecondsBatchSampler, open_corpus, parts_of, usable_rows
from tiny_audio.data.corpus import Example
from tiny_audio.data.filtering import Limits
from tiny_audio.data.mixture import MixtureSampler, clips_per_epoch, even_quotas
from tiny_audio.data.stream_batches import StreamDataset
from tiny_audio.errors import TinyAudioError
from tiny_audio.text.labels import is_placeholder
from tiny_audio.training import train
from tiny_audio.training.feed import ClipFeed
from tiny_audio.training.validation import Validation

SIZES = {"long": 300, "short": 2000, "few": 40}


def sampler(counts=(300, 2000, 40), seed=0, seconds=60.0) -> MixtureSampler:
    rng = np.random.default_rng(1)
    durations = [
        rng.uniform(*lengths, size) for lengths, size in zip(((8, 16), (1, 8), (2, 12)), SIZES.values(), strict=True)
    ]
    return MixtureSampler(durations, counts, seconds, seed)


def part_of(position: int) -> int:
    return int(np.searchsorted(np.cumsum(list(SIZES.values())), position, side="right"))


# ---- mapped


def test_every_stretch_of_batches_holds_the_parts_in_their_shares():
    shares = np.array([1000, 1000, 400]) / 2400
    for batch_seconds in (60.0, 200.0):
        batches = sampler((1000, 1000, 400), seconds=batch_seconds).epoch(0)
        clips = np.array([part_of(position) for batch in batches for position in batch])
        assert np.bincount(clips).tolist() == [1000, 1000, 400]
        for first in range(0, len(clips) - 800, 400):
            found = np.bincount(clips[first : first + 800], minlength=3) / 800
            assert abs(found - shares).max() < 0.08, found


def test_a_part_of_short_clips_comes_in_no_bursts():
    """Its clips fill few batches, which a free order would crowd together: none for 30 batches, then two in a row."""
    rng = np.random.default_rng(0)
    durations = [rng.uniform(0.3, 0.6, 400), rng.uniform(2, 5, 800)]
    batches = MixtureSampler(durations, (400, 800), 8.0).epoch(0)
    short = np.array([any(position < 400 for position in batch) for batch in batches])
    gaps = np.diff(np.flatnonzero(short))
    assert short.sum() > 15 and gaps.max() < 2 * gaps.mean()


def test_each_clip_comes_once_before_any_comes_again():
    mixture = sampler((100, 2000, 100))
    epochs = [[position for batch in mixture.epoch(number) for position in batch] for number in range(6)]
    assert all(len(epoch) == 2200 for epoch in epochs)
    counts = Counter(position for epoch in epochs for position in epoch)
    assert {counts[position] for position in range(300)} == {2}  # 600 of 300 long ones
    assert {counts[position] for position in range(300, 2300)} == {6}
    assert {counts[position] for position in range(2300, 2340)} == {15}  # 600 of 40
    assert len(set(epochs[0][:]) & set(range(300)) & set(epochs[1])) == 0


def test_mixed_batches_are_deterministic_and_addressed_by_number():
    everything = [batch for epoch in range(3) for batch in sampler().epoch(epoch)]
    for start in (0, 1, len(sampler()), len(everything) - 2):
        assert list(sampler().batches(start, len(everything))) == everything[start:]
    assert sampler().epoch(0) != sampler(seed=1).epoch(0) != sampler().epoch(1)
    assert sampler().padding_ratio <= 0.05


def test_clips_an_epoch_and_quotas():
    def counts(sizes, **options):
        mixture = {name: {"path": name, **own} for name, own in options.items()}
        return clips_per_epoch(parts_of(DataConfig(mixture=mixture)), sizes)

    assert counts([10, 20], a={}, b={}) == [10, 20]
    assert counts([10, 20], a={"clips": 100}, b={}) == [100, 20]
    assert counts([10, 20], a={"weight": 2}, b={"weight": 1}) == [20, 10]
    assert even_quotas(None, [3, 4]) == [3, 4]
    assert even_quotas(9, [100, 1, 100]) == [4, 1, 4]
    assert even_quotas(2, [5, 5, 5]) == [1, 1, 1]


def mixture_of(tmp_path, *overrides: str) -> list[str]:
    """A part whose ids are those of another; one of few clips; one without a split for validation."""
    write_audiofolder(tmp_path / "one", {"train": 12, "validation": 3, "test": 1})
    write_audiofolder(tmp_path / "two", {"train": 4, "validation": 5, "test": 1})
    write_audiofolder(tmp_path / "digits", {"train": 12})
    return [
        f"++data.mixture.one.path={tmp_path}/one",
        f"++data.mixture.two.path={tmp_path}/two",
        "++data.mixture.two.clips=12",
        f"++data.mixture.digits={{path: {tmp_path}/digits, clips: 3, eval_split: nowhere}}",
        "data.max_train_samples=null",
        "data.max_eval_samples=6",
        *overrides,
    ]


def test_a_run_on_a_mixture(settings_of, tmp_path, capsys):
    options = mixture_of(tmp_path, "training.max_steps=3", "training.batch_seconds=4", "training.save_steps=2")
    whole = train(settings_of(tmp_path / "whole", *options))
    shown = capsys.readouterr()
    assert "digits" in shown.out and "44.4%" in shown.out  # 12 of 27 clips an epoch
    assert "6 clips (one 3, two 3)" in shown.err
    assert "Nothing of digits is measured during training" in shown.err
    for name in ("eval_wer", "eval_wer_one", "eval_wer_two"):
        assert len(log_of(whole.folder, name)) == 1
    assert sum(whole.used.values()) > 10 and set(whole.used) == {"one", "two", "digits"}
    assert f"Clips used: one {whole.used['one']} (" in whole.summary()

    shutil.copytree(whole.folder, tmp_path / "half")
    shutil.rmtree(tmp_path / "half" / "checkpoint-3")
    half = train(settings_of(tmp_path / "half", *options), resume="auto")
    assert half.used == whole.used
    for name in ("loss", "audio_seconds", "eval_wer_one"):
        assert log_of(tmp_path / "half", name) == pytest.approx(log_of(whole.folder, name), abs=1e-5)


def test_without_a_mixture_nothing_changes(settings_of, tmp_path):
    write_audiofolder(tmp_path, {"train": 30, "validation": 3})
    settings = settings_of(tmp_path / "run", f"data.path={tmp_path}", "data.max_train_samples=null")
    corpus = open_corpus(settings.data, "train")
    feed = ClipFeed(corpus, settings, None)
    usable, _ = usable_rows(corpus, min_seconds=0.1)
    expected = SecondsBatchSampler(corpus.durations[usable], settings.training.batch_seconds, 0)
    assert type(feed.sampler) is SecondsBatchSampler and feed.describe_parts() == []
    assert [feed.sampler.epoch(number) for number in range(2)] == [expected.epoch(number) for number in range(2)]
    assert feed.dataset[3].id == corpus.ids[3] and feed.dataset[3].part == ""


def test_parts_have_columns_filters_and_ids_of_their_own(tmp_path):
    rows = write_clips(tmp_path / "wavs", 6)
    write_jsonl(tmp_path / "a.jsonl", [{"wav": f"wavs/{row['file_name']}", "words": row["text"]} for row in rows])
    write_jsonl(tmp_path / "b.jsonl", [{"audio": f"wavs/{row['file_name']}", "text": row["text"]} for row in rows])
    mixture = [
        {"path": str(tmp_path / "a.jsonl"), "audio_column": "wav", "text_column": "words", "min_seconds": 0.42},
        {"path": str(tmp_path / "b.jsonl"), "name": "b", "max_train_samples": 2},
    ]
    config = DataConfig(mixture=mixture, min_seconds=0.34)
    first, second = parts_of(config)
    assert (first.name, first.min_seconds, second.min_seconds) == ("a.jsonl", 0.42, 0.34)
    corpora = [open_corpus(part, "all", max_samples=part.max_train_samples) for part in (first, second)]
    assert corpora[0].ids[0] == "a.jsonl/wavs/clip000" and corpora[1].id(0).startswith("b/wavs/")
    assert corpora[0].load(5).part == "a.jsonl" and len(corpora[1]) == 2


@pytest.mark.parametrize(
    ("mixture", "message"),
    [
        ({"a": {"weight": 1}}, "expected a part with a path"),
        ([{"path": "x"}, {"path": "x"}], "named 'x' that is taken"),
        ({"a": {"path": "x", "weight": 1}, "b": {"path": "y"}}, "set the weight of every part"),
        ({"a": {"path": "x", "clips": 0}}, "data.mixture.a.clips is 0"),
        ("librispeech", "expected parts"),
        ({"a": {"path": "x", "mixture": {"b": {"path": "y"}}}}, "data.mixture.a is a mixture itself"),
    ],
)
def test_senseless_mixtures_are_one_line(mixture, message):
    with pytest.raises(TinyAudioError, match=message):
        DataConfig(mixture=mixture)
    with pytest.raises(TinyAudioError, match="data.text_column is 'words' beside data.mixture"):
        DataConfig(mixture={"a": {"path": "x"}}, text_column="words")
    with pytest.raises(TinyAudioError, match="set the weight or the clips of every part"):
        DataConfig(mixture={"a": {"path": "x"}}, streaming=True)


def test_misspelt_options_of_a_part_name_the_nearest(settings_of, tmp_path):
    with pytest.raises(TinyAudioError, match=r"Unknown key data.mixture.a.weigt; did you mean data.mixture.a.weight\?"):
        settings_of(tmp_path, "++data.mixture.a={path: x, weigt: 2}")


# ---- filters


def test_filters_have_reasons_of_their_own(tmp_path):
    texts = ("one", "Ignore_Time_Segment_In_Scoring", "(inaudible)", "<inaudible>", "o" * 30, "two words", "")
    rows = write_clips(tmp_path, len(texts), lambda i: 1.0)
    for row, text in zip(rows, texts, strict=True):
        row["text"] = text
    corpus = open_corpus(DataConfig(path=str(write_jsonl(tmp_path / "m.jsonl", rows))), "test")
    usable, skipped = usable_rows(corpus, min_chars_per_second=4, max_chars_per_second=25)
    assert usable.tolist() == [5]
    assert skipped.counts == {
        "placeholder for a text": 2,
        "empty text": 2,
        "fewer characters a second than data.min_chars_per_second": 1,
        "more characters a second than data.max_chars_per_second": 1,
    }
    assert "30.0: ooo" in {entry["id"]: entry["detail"] for entry in skipped.entries}["clip004"]
    config = DataConfig(path=str(tmp_path / "m.jsonl"), min_chars_per_second=4, max_chars_per_second=25)
    dataset = StreamDataset(config, "test", batch_seconds=5, limits=Limits.of(config, None))
    assert Counter(clip.reason for clip in next(iter(dataset)) if not isinstance(clip, Example)) == skipped.counts


@pytest.mark.parametrize("text", ["ignore_time_segment_in_scoring", "INAUDIBLE", " [x] Inaudible. "])
def test_placeholders_in_any_case(text):
    assert is_placeholder(text) and not is_placeholder(f"an {text} word")


# ---- streamed


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """Two datasets of Parquet files: 90 and 30 clips."""
    root = tmp_path_factory.mktemp("shards")
    for name, files in {"big": 3, "small": 1}.items():
        for number in range(files):
            rows = parquet_rows(30, lambda i: 0.2 + 0.01 * i)
            for i, row in enumerate(rows):
                row["audio"]["path"] = f"{number}-{i}.wav"
            write_parquet(root / name / f"train-{number:05d}.parquet", rows)
    return root


def streamed(shards, start=0, workers=0, **options) -> DataLoader:
    mixture = {"big": {"path": f"{shards}/big", "weight": 2}, "small": {"path": f"{shards}/small", "weight": 1}}
    config = DataConfig(streaming=True, mixture={name: {**part, **options} for name, part in mixture.items()})
    dataset = StreamDataset(config, "train", batch_seconds=4.0, start=start)
    return DataLoader(dataset, batch_size=None, num_workers=workers, collate_fn=list)


def names(loader: DataLoader, count: int) -> list[list[str]]:
    return [[clip.id for clip in batch if isinstance(clip, Example)] for batch in islice(loader, count)]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_streamed_mixture_keeps_its_shares_and_resumes(shards, workers):
    batches = names(streamed(shards, workers=workers), 60)
    clips = [name.split("/")[0] for batch in batches for name in batch]
    assert clips.count("big") / len(clips) == pytest.approx(2 / 3, abs=0.03)
    half = clips[: len(clips) // 2]
    assert half.count("big") / len(half) == pytest.approx(2 / 3, abs=0.06)
    for start in (1, 7):
        assert names(streamed(shards, start, workers), 60 - start) == batches[start:]


def test_a_part_of_which_nothing_is_usable_is_named(shards):
    with pytest.raises(TinyAudioError, match="The stream of .*/big has no usable clip in its split `train`"):
        names(streamed(shards, min_seconds=9.0), 1)


@pytest.mark.parametrize("workers", [1, 2])
def test_ranks_and_workers_share_the_clips(shards, workers, monkeypatch):
    """No clip twice, none lost: an epoch ends where a worker brings a clip again."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    seen: list[str] = []
    for rank in (0, 1):
        monkeypatch.setenv("RANK", str(rank))
        config = DataConfig(path=f"{shards}/big", streaming=True, eval_split="train")
        dataset = StreamDataset(config, "train", batch_seconds=1.5)
        loader = DataLoader(dataset, batch_size=None, num_workers=workers, collate_fn=list)
        batches = names(loader, 40 * workers)
        for worker in range(workers):
            mine = [name for batch in batches[worker::workers] for name in batch]
            epoch = list(dict.fromkeys(mine))
            assert mine[: len(epoch)] == epoch and len(mine) > len(epoch)
            seen += epoch
    assert len(seen) == len(set(seen)) == 90


def test_torch_distributed_says_the_rank(tmp_path):
    from torch import distributed

    from tiny_audio.data.stream_batches import place_among_ranks

    distributed.init_process_group(
        "gloo", store=distributed.FileStore(str(tmp_path / "store"), 1), rank=0, world_size=1
    )
    try:
        assert place_among_ranks() == (0, 1)
    finally:
        distributed.destroy_process_group()


def test_validation_of_a_streamed_mixture_sees_every_part(settings_of, tiny_checkpoint, tmp_path):
    from tiny_audio.model.processor import ASRProcessor

    for name, count in {"one": 9, "two": 2}.items():
        write_audiofolder(tmp_path / name, {"train": 2, "validation": count})
    mixture = {name: {"path": f"{tmp_path}/{name}", "weight": 1} for name in ("one", "two")}
    data = DataConfig(streaming=True, mixture=mixture, max_eval_samples=6)
    validation = Validation(data, ASRProcessor.from_pretrained(tiny_checkpoint), 8)
    assert validation.describe() == "5 clips (one 3, two 2)"


MEMORY = """
import sys
from itertools import islice
from tiny_audio.data import DataConfig
from tiny_audio.data.stream_batches import StreamDataset

def resident():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmRSS"))

config = DataConfig(path=sys.argv[1], streaming=True, eval_split="train")
batches = iter(StreamDataset(config, "train", batch_seconds=20))
print(*(resident() for number, _ in enumerate(islice(batches, 2001)) if number % 100 == 0))
"""


@pytest.mark.slow
def test_memory_stays_flat_over_2000_batches(tmp_path):
    """Resident memory of a stream, from batch 500 on: it has seen all of its files by then."""
    rng = np.random.default_rng(0)
    for number in range(6):
        rows = [
            {"audio": {"bytes": wav_bytes(sine(rng.uniform(1, 12))), "path": f"{number}-{i}.wav"}, "text": "one"}
            for i in range(400)
        ]
        write_parquet(tmp_path / f"train-{number:05d}.parquet", rows)
    done = subprocess.run([sys.executable, "-c", MEMORY, str(tmp_path)], capture_output=True, text=True, check=True)
    resident = np.array([int(value) for value in done.stdout.split()]) / 1024
    print("MiB at every hundredth batch:", resident.round().tolist())
    assert len(resident) == 21
    assert resident[5:].max() / resident[5:].min() < 1.05
    assert resident[15:].mean() / resident[5:10].mean() < 1.05
