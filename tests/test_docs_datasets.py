"""The tables of datasets and benchmarks in the docs are those of configs/data and of the benchmarks' table."""

import re
from pathlib import Path

import pytest

from tiny_audio.evaluation.benchmarks import BENCHMARKS, GROUPS
from tiny_audio.training import compose
from tiny_audio.training.config import config_folders, members

ROOT = Path(__file__).parents[1]
BENCHMARK_OF = {
    **{name: name for name in ("ami", "earnings22", "gigaspeech", "spgispeech", "tedlium", "voxpopuli")},
    "commonvoice": "common-voice",
    "librispeech": "librispeech-clean",
    "loquacious": "loquacious-medium",
    "loquacious_large": "loquacious-large",
    "peoples_speech": "peoples-speech",
}


def rows_of(page: str, heading: str) -> dict[str, list[str]]:
    """Cells by the name in the first column, of the first table after a heading."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8").partition(f"\n{heading}\n")[2]
    table = re.search(r"(?:^\|.*\n)+", text, re.MULTILINE)
    assert table, f"{page} has no table after {heading}"
    lines = [line.strip("|\n").split("|") for line in table.group().splitlines()[2:]]
    return {cells[0].strip(" `"): [cell.strip() for cell in cells[1:]] for cells in lines}


DATASETS = rows_of("datasets.md", "## The shipped configurations")


def test_every_shipped_dataset_has_a_row():
    assert set(DATASETS) == set(members("data", config_folders())) - {"multiasr", "custom"}


@pytest.mark.parametrize("name", DATASETS)
def test_a_row_says_what_the_config_says(name):
    data, (path, config, splits, columns, hours, licence) = compose("transcription", data=name).data, DATASETS[name]
    assert (path, config) == ("shipped" if name == "quickstart" else data.path, data.config or "")
    assert splits == f"{data.train_split}, {data.eval_split}"
    assert columns == f"{data.audio_column}, {data.text_column}"
    assert licence == (BENCHMARKS[BENCHMARK_OF[name]].licence if name in BENCHMARK_OF else "MIT")
    lines = (ROOT / "configs" / "data" / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    if name != "quickstart":  # those are measured below
        states = re.search(r"\d (h|hours)\b", lines[1])
        assert bool(hours) == bool(states) and re.search(rf"\b{hours or ''}", lines[1])


def test_the_hours_of_quickstart_are_those_of_its_clips():
    from tiny_audio.data import DataConfig, open_corpus

    hours = open_corpus(DataConfig(path="quickstart"), "train").durations.sum() / 3600
    assert DATASETS["quickstart"][4] == f"{hours:.2f}"


def test_the_mixture_holds_what_the_page_says():
    text = " ".join((ROOT / "docs" / "datasets.md").read_text(encoding="utf-8").split())
    parts = [*compose("transcription", data="multiasr").data.mixture]
    assert f"{', '.join(parts[:-1])} and {parts[-1]}." in text


def test_the_benchmarks_are_those_of_the_code():
    found = rows_of("evaluation.md", "## The benchmarks")
    assert list(found) == list(BENCHMARKS)
    for name, benchmark in BENCHMARKS.items():
        place = ", ".join(filter(None, (benchmark.path, benchmark.config)))
        hours = "" if benchmark.hours is None else f"{benchmark.hours:g}"
        remark = "in the leaderboard's table" if benchmark.on_leaderboard else benchmark.remark
        assert found[name] == [place, benchmark.split, benchmark.licence, hours, remark]
    text = (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8")
    assert all(f"`{group}`" in text for group in GROUPS)
