"""Start-up: wall time of whole processes, the median of ten after one warm-up; nothing else may be running.

ta dev bench startup --json outputs/speed.jsonl
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from tiny_audio import console, embedded

from .clips import CHECKOUT
from .commands import run
from .measures import append_history

TA = ("-m", "tiny_audio.cli.main")


def commands() -> dict[str, tuple[str, ...]]:
    """What is started, by name; the first is what Python itself costs."""
    clip = next(embedded("clips").glob("*.ogg"))
    return {
        "python": ("-c", "pass"),
        "import tiny_audio": ("-c", "import tiny_audio"),
        "ta --help": (*TA, "--help"),
        "ta transcribe, one clip": (*TA, "transcribe", str(clip)),
    }


def seconds(command: Sequence[str], repeats: int) -> float:
    """Wall time of the process, its end included."""
    times = []
    for _ in range(1 + repeats):
        started = time.perf_counter()
        subprocess.run([sys.executable, *command], cwd=CHECKOUT, capture_output=True, check=True)
        times.append(time.perf_counter() - started)
    return median(times[1:])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--json", type=Path, help="append the figures, the commit and the machine to this file")
    options = parser.parse_args(arguments)
    found = {name: round(seconds(command, options.repeats), 4) for name, command in commands().items()}
    console.table(("command", "ms"), [(name, f"{1000 * value:.0f}") for name, value in found.items()], right=("ms",))
    if options.json:
        append_history(options.json, "startup", {"repeats": options.repeats, "seconds": found})


if __name__ == "__main__":
    run(main)
