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
WARM_UP = 500  # steps, in which allocators and caches fill


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


@pytest.mark.slow
def test_memory_stays_flat(parts, tmp_path):
    folder = tmp_path / "run"
    command = [sys.executable, "-m", "tiny_audio.cli.main", "train", *parts, *STREAMED, "--output-dir", str(folder)]
    process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"})
    warm = [(step, memory) for step, memory in samples(process, folder / "log.jsonl") if step >= WARM_UP and memory]
    assert process.returncode == 0 and len(warm) > 20
    least, most = (choose(memory for _, memory in warm) for choose in (min, max))
    print(
        f"{len(warm)} samples from step {WARM_UP} on: {least / 1024:.1f} to {most / 1024:.1f} MiB, ratio {most / least:.4f}"
    )
    assert most / least <= 1.05
