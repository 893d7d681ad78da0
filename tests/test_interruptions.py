"""A training that is stopped by SIGTERM or kill -9 at random moments goes on to the very same curve and weights."""

import signal
from pathlib import Path

import pytest
from interruptions import LENGTH, Script, check_whole, difference, leftovers, moments

from tiny_audio.training import compose, train

pytestmark = pytest.mark.usefixtures("one_thread")
SIGNALS = [signal.SIGTERM, signal.SIGKILL]


@pytest.fixture(scope="module")
def whole(parts, tmp_path_factory) -> Path:
    """The run that nothing stops."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    train(compose(None, [*parts, *LENGTH], output_dir=folder))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("kill", SIGNALS, ids=lambda kill: kill.name)
def test_ten_interruptions(kill, workers, whole, parts, tmp_path):
    script = Script(tmp_path / "run", [*parts, *LENGTH, f"training.num_workers={workers}"], kill)
    early, found = 0, []
    for moment in moments(10, seed=workers):
        early += script.interrupted(moment)
        found.append(check_whole(script.folder) if script.folder.is_dir() else 0)
        print(moment, found[-1], script.ended[-1], leftovers(script.folder) if script.folder.is_dir() else "")
    script.finish()
    print(
        f"{early} of 10 before the end, exit codes {script.ended}, largest difference {difference(script.folder, whole)}"
    )
    assert early == 10
    assert difference(script.folder, whole) <= 1e-6
    assert not leftovers(script.folder)
