"""Costs of remote jobs: the estimate is the dry run's, the bill counts the hours that a job ran."""

import pytest

from tiny_audio.cli.main import run
from tiny_audio.remote.costs import bill, estimate
from tiny_audio.training.config import compose
from tiny_audio.training.cost import amount


def test_the_estimate_is_that_of_the_dry_run(capsys):
    overrides = ["training.max_steps=2000"]
    assert run(["train", "--dry-run", "--experiment", "quickstart", *overrides]) == 0
    shown = capsys.readouterr().out
    settings = compose("quickstart", overrides)
    one = estimate(settings, "NVIDIA A40", 1, 0.44)
    assert f"{amount(one.hours * 3600 * 149.7e12 * 0.4)} in all" in shown  # the A40's peak, and the share of it
    assert one.describe().startswith(
        f"About {one.hours:.2f} h of 1 × A40 for the training steps, ${one.dollars:.2f} at"
    )
    two = estimate(settings, "NVIDIA A40", 2, 0.88)
    assert two.dollars == pytest.approx(one.dollars) and two.hours == pytest.approx(one.hours / 2)
    assert estimate(settings, "NVIDIA A4000", 1, 0.2) is None
    assert capsys.readouterr().out == ""


def test_the_bill_counts_what_ran():
    state = {"started": "2026-11-22T00:00:00.000+00:00", "ended": "2026-11-22T09:00:00.000+00:00", "seconds": 5400.0}
    assert bill(state, 0.44) == "1.50 h at $0.440 an hour: $0.66."
    assert bill({}, 0.44) == "0.00 h at $0.440 an hour: $0.00."
