"""Memory does not grow over 5,000 steps of a streamed dataset."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from interruptions import last_step

STREAMED = (
    "data.streaming=true", "data.max_eval_samples=10", "training.batch_seconds=4", "training.max_steps=5000",
    "training.logging_steps=10", "training.eval_steps=500", "training.save_steps=500", "training.report_to=none",
)  # fmt: skip
WARM_UP = 1_000  # steps, in which the allocator meets the lengths of the batches


def resident(process: int) -> int:
    """Memory of a process that is in RAM, in KiB; 0 of one that has ended."""
    return int(
        subprocess.run(["ps", "-o", "rss=", "-p", str(process)], check=False, capture_output=True, text=True).stdout
        or 0
    )


def samples(process: subprocess.Popen, log: Path) -> list[tuple[int, int]]:
    """Step and memory, each second of a run."""
    found = []
    while process.poll() is None:
        found.append((last_step(log) if log.exists() else 0, resident(process.pid)))
        time.sleep(1)
    return found


def spread(found: list[tuple[int, int]], first: int) -> float:
    """The most over the least memory from a step on."""
    memory = [kibibytes for step, kibibytes in found if step >= first and kibibytes]
    return max(memory) / min(memory)


@pytest.mark.slow
def test_memory_stays_flat(parts, tmp_path):
    folder = tmp_path / "run"
    command = [sys.executable, "-m", "tiny_audio.cli.main", "train", *parts, *STREAMED, "--output-dir", str(folder)]
    process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"})
    found = samples(process, folder / "log.jsonl")
    assert process.returncode == 0 and len(found) > 20
    mebibytes = {step // 500 * 500: kibibytes // 1024 for step, kibibytes in reversed(found) if kibibytes}
    print("MiB by step:", dict(sorted(mebibytes.items())))
    print(", ".join(f"most/least from step {first} on: {spread(found, first):.4f}" for first in (500, WARM_UP, 2_500)))
    assert spread(found, WARM_UP) <= 1.05
