"""What an analysis of 10,000 clips costs, as a whole process: under 3 s and 500 MB each on a quiet machine."""

import subprocess
import sys
from pathlib import Path

import pytest
from analysis_helpers import write_large_runs

CPU_SECONDS = 6.0  # twice what is asked for, so that a busy machine does not fail it
MEGABYTES = 500

# The peak of this process alone: what the kernel says of a child counts the memory of the one that started it.
MEASURED = """
import sys, time
from tiny_audio.cli.main import run
assert run(sys.argv[1:]) == 0
peak = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")] if sys.platform == "linux" else [0]
print(time.process_time(), *peak, file=sys.stderr)
"""


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> Path:
    return write_large_runs(tmp_path_factory.mktemp("large"))


COMMANDS = [
    "high-wer a",
    "compare a b",
    "errors a",
    "entities a",
    "slices a",
    "hallucinations a",
    "history a b",
    "report a b",
]


@pytest.mark.parametrize("command", COMMANDS)
def test_ten_thousand_clips_are_soon_analysed(command, large):
    process = [sys.executable, "-c", MEASURED, "analysis", *command.split()]
    result = subprocess.run(process, cwd=large, capture_output=True, text=True, check=True)
    seconds, kilobytes = map(float, result.stderr.split()[-2:])
    assert seconds < CPU_SECONDS
    assert kilobytes / 1024 < MEGABYTES
