"""What a training loop has done at a moment, what it did between two, and figures kept as a line of JSON."""

import json
import subprocess
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .clips import CHECKOUT


@dataclass(frozen=True)
class Moment:
    """Seconds on the clock, and since the beginning: audio, its mel frames, all mel frames, waiting for data."""

    clock: float = field(default_factory=time.perf_counter)
    audio_seconds: float = 0.0
    own_frames: int = 0
    frames: int = 0
    waited: float = 0.0

    def later(self, audio_seconds: float, own_frames: int, frames: int, waited: float) -> "Moment":
        """A step later."""
        return Moment(
            audio_seconds=self.audio_seconds + audio_seconds,
            own_frames=self.own_frames + own_frames,
            frames=self.frames + frames,
            waited=self.waited + waited,
        )


@dataclass(frozen=True)
class Speed:
    """Of the timed steps; ratios are fractions."""

    audio_seconds_per_s: float
    padding_ratio: float
    data_wait_ratio: float
    seconds: float
    peak_bytes: int = 0
    cached: int = 0  # 1 where the encoder's frames came from the feature cache


def between(begin: Moment, end: Moment, peak_bytes: int = 0, cached: bool = False) -> Speed:
    """What was done from one moment to the other."""
    seconds, frames = end.clock - begin.clock, end.frames - begin.frames
    return Speed(
        audio_seconds_per_s=(end.audio_seconds - begin.audio_seconds) / seconds,
        padding_ratio=1 - (end.own_frames - begin.own_frames) / frames,
        data_wait_ratio=(end.waited - begin.waited) / seconds,
        seconds=seconds,
        peak_bytes=peak_bytes,
        cached=int(cached),
    )


def append_history(file: Path, benchmark: str, figures: dict[str, Any]) -> None:
    """A line with the figures, the commit, the date and the machine."""
    from tiny_audio.evaluation.hardware import hardware, library_versions, pick_device

    line = {
        "benchmark": benchmark,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "machine": hardware(pick_device("auto")),
        "versions": library_versions(),
        **figures,
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    with open(file, "a", encoding="utf-8") as lines:
        lines.write(json.dumps(line) + "\n")


def commit() -> str:
    """Of the checkout; `+` where something is not committed."""
    described = ["git", "describe", "--always", "--exclude=*", "--dirty=+"]
    return (
        subprocess.run(described, cwd=CHECKOUT, capture_output=True, text=True, check=False).stdout.strip() or "unknown"
    )
