"""Speed of several processes that train nano together beside one that has as many batches in a step, in turns.

ta dev bench scaling                                  # two processes on this CPU, a thread each, against one with one thread
ta dev bench scaling --processes 8 --threads 12 training.dtype=bf16   # KEY=VALUE as of ta train

Both are `ta train` itself; the steps of the first entry of the log are not timed.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from tiny_audio import console

from .commands import run
from .measures import append_history

ENTRY_STEPS = 20  # of the log


def speed(processes: int, accumulation: int, steps: int, threads: int, overrides: Sequence[str]) -> float:
    """Audio seconds a second of a run's steps, validation and checkpoints left out."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable, "-m", "tiny_audio.cli.main", "train", "--num-processes", str(processes),
            f"training.gradient_accumulation_steps={accumulation}", f"training.max_steps={ENTRY_STEPS + steps}",
            f"training.logging_steps={ENTRY_STEPS}", "training.eval_steps=null", "training.save_steps=null",
            "training.report_to=none", "data.max_eval_samples=4", *overrides, "--output-dir", folder,
        ]  # fmt: skip
        subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": str(threads)}, capture_output=True, check=True)
        entries = [json.loads(line) for line in (Path(folder) / "log.jsonl").read_text().splitlines()]
    timed = [entry for entry in entries if "loss" in entry][1:]
    audio = sum(entry["audio_seconds"] for entry in timed)
    return audio / sum(entry["audio_seconds"] / entry["audio_seconds_per_s"] for entry in timed)


def main() -> None:
    """Measures, prints and, if asked, keeps the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--steps", type=int, default=40, help="timed ones of each run, a multiple of 20")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1, help="of each process")
    parser.add_argument("--json", type=Path, help="a file to which a line with the figures is added")
    options, overrides = parser.parse_known_args()
    pairs = []
    for repeat in range(options.repeats):
        one = speed(1, options.processes, options.steps, options.threads, overrides)
        several = speed(options.processes, 1, options.steps, options.threads, overrides)
        pairs.append((one, several))
        console.say(f"{repeat + 1}/{options.repeats}: {one:.1f} and {several:.1f} audio-s/s")
    ratio = median(several / one for one, several in pairs)
    console.out(f"{options.processes} processes: {ratio:.2f} × one, medians {_medians(pairs)} audio-s/s")
    if options.json is not None:
        append_history(options.json, "scaling", {"processes": options.processes, "ratio": ratio, "pairs": pairs})


def _medians(pairs: Sequence[tuple[float, float]]) -> str:
    return " and ".join(f"{median(side):.1f}" for side in zip(*pairs, strict=True))


if __name__ == "__main__":
    run(main)
