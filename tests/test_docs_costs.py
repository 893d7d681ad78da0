"""The costs of docs/training-recipes.md are those that recipes/costs.py computes, and these are those of the planner."""

import re
from pathlib import Path

import pytest

from recipes import costs
from tiny_audio.training import compose
from tiny_audio.training.build import outline
from tiny_audio.training.cost import plan
from tiny_audio.training.feed import StreamFeed
from tiny_audio.training.gpus import gpu_table

PAGE = Path(__file__).parents[1] / "docs" / "training-recipes.md"


@pytest.fixture(autouse=True)
def shipped_prices(tmp_path, monkeypatch):
    """Not what this machine's user may have put into gpus.yaml."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))


def test_the_page_holds_the_tables():
    text = PAGE.read_text(encoding="utf-8")
    for table in costs.tables():
        assert table in text, "run: python -m recipes.costs"
    assert f"{gpu_table().utilisation:.0%}".replace("%", " %") + " of the GPU's dense bf16 peak" in text


def test_an_hour_costs_what_the_planner_says():
    settings = compose("transcription")
    planned = plan(outline(settings.model), StreamFeed(settings, 480_000), None, teacher=False)
    needed = costs.work("transcription")
    assert 3600 * planned.steps / planned.audio_seconds == pytest.approx(needed.of(1, 1))
    assert planned.flops["encoder"] / planned.steps == pytest.approx(needed.encoder / needed.of(1, 1))


def test_a_cached_encoder_hears_each_clip_once():
    needed = costs.Work(encoder=3.0, rest=1.0)
    assert needed.of(10, 5) == 200 and needed.of(10, 5, cached=True) == 80


def test_the_plan_that_the_page_compares_with_the_source():
    settings = compose("transcription")
    flops = costs.work("transcription").of(settings.training.max_steps * settings.training.batch_seconds / 3600, 1)
    price = costs.priced(flops, gpu_table().gpus["A40"], gpu_table().utilisation)
    assert price == "1 h 27 min, $0.72"
    assert re.search(r"1 h 27 min and\s+\$0\.72", PAGE.read_text(encoding="utf-8"))
