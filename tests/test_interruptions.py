"""A training that is stopped by SIGTERM or kill -9 at random moments goes on to the very same curve and weights."""

import random
import signal
from pathlib import Path

import pytest
from interruptions import Moment, Script, check_whole, difference, leftovers, length, moments

from tiny_audio.training import compose, train
from tiny_audio.training.run import settings_to_resume

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_run_that_is_killed_and_then_told_to_end_goes_on_exactly(parts, tmp_path):
    train(compose(None, [*parts, *length(16)], output_dir=tmp_path / "whole"))
    script = Script(tmp_path / "run", [*parts, *length(16), "training.num_workers=1"])
    draw = random.Random(0)
    assert script.interrupted(Moment(draw.randint(5, 8), draw.random() < 1 / 3, draw.uniform(0, 30)), signal.SIGKILL)
    assert check_whole(script.folder) >= 1
    with open(script.folder / "log.jsonl", "a") as log:
        log.write('{"step": 15, "loss": 1')  # what a kill may leave behind
    assert script.interrupted(Moment(draw.randint(1, 4), False, draw.uniform(0, 30)), signal.SIGTERM)
    assert script.ended == [-signal.SIGKILL, 1] and check_whole(script.folder) >= 2
    settings, checkpoint = settings_to_resume(str(script.folder))
    train(settings, resume=str(checkpoint))
    assert difference(script.folder, tmp_path / "whole") <= 1e-6
    assert not leftovers(script.folder)


@pytest.fixture(scope="module")
def whole(parts, tmp_path_factory) -> Path:
    """The run that nothing stops."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    train(compose(None, [*parts, *length(60)], output_dir=folder))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("kill", [signal.SIGTERM, signal.SIGKILL], ids=lambda kill: kill.name)
def test_ten_interruptions(kill, workers, whole, parts, tmp_path):
    script = Script(tmp_path / "run", [*parts, *length(60), f"training.num_workers={workers}"])
    starting = Moment(0, False, random.Random(workers).uniform(0, 8_000))  # before there is anything to go on from
    most = 6 if kill == signal.SIGTERM else 9  # of which a kill keeps those up to a checkpoint
    for moment in (starting, *moments(9, most, seed=workers)):
        assert script.interrupted(moment, kill)
        found = check_whole(script.folder) if script.folder.is_dir() else 0
        left = leftovers(script.folder) if script.folder.is_dir() else []
        print(f"{moment}: exit code {script.ended[-1]}, {found} whole folders, {left}")
    script.finish()
    print(f"largest difference: {difference(script.folder, whole)}")
    assert difference(script.folder, whole) <= 1e-6
    assert not leftovers(script.folder)
