"""What an analysis of 10,000 clips costs, as a whole process: under 3 s and 500 MB each on a quiet machine."""

import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from analysis_helpers import clips_of, write_run

from tiny_audio.analysis.alignment import align
from tiny_audio.evaluation.results import METRICS, ClipResult, ResultsFolder

CLIPS, WORDS, WRONG = 10_000, 20, 0.1
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


def random_clips(seed: int) -> list[ClipResult]:
    """The same references for every seed, with errors of its own; names, numbers, speakers, noise."""
    same, own = random.Random(0), random.Random(seed)
    words = [f"{a}{b}{c}" for a in "bdfglmnprst" for b in "aeiou" for c in ("n", "r", "st", "ck", "la", "mo", "den")]
    words += ["twenty", "five", "1998", "July", "Monday"] + [f"{word.capitalize()}i" for word in words]
    clips = []
    for number in range(CLIPS):
        reference = [same.choice(words) for _ in range(WORDS)]
        said = [own.choice((f"{word}s", "", f"{word} uh")) if own.random() < WRONG else word for word in reference]
        texts = " ".join(reference), " ".join(" ".join(said).split())
        columns = {"speaker": f"s{same.randrange(60)}", "accent": same.choice("abc")}
        clip = ClipResult(f"clip-{number:05d}", same.uniform(3, 12), *texts, snr=same.gauss(20, 8), metadata=columns)
        clip.normalized_reference, clip.normalized_prediction = texts
        clips.append(clip)
    for clip, alignment in zip(clips, align(clips), strict=True):
        count_errors(clip, [kind for kind, *words in alignment.differences() for _ in max(words, key=len)])
    return clips


def count_errors(clip: ClipResult, kinds: list[str]) -> None:
    clip.substitutions, clip.deletions, clip.insertions = map(kinds.count, ("substitute", "delete", "insert"))
    clip.reference_words, clip.wer = WORDS, len(kinds) / WORDS


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> Path:
    """Two evaluations of 10,000 clips; what metrics.json says of them is that of one clip."""
    folder = tmp_path_factory.mktemp("large")
    for seed, model in enumerate("ab"):
        write_run(folder / "one", clips_of([("Bari", "bari")], "none"), model, normalizer="none")
        with ResultsFolder(folder / "outputs/eval" / model, {}) as results:
            results.append(random_clips(seed))
        shutil.move(folder / "one" / METRICS, folder / "outputs/eval" / model / METRICS)
        shutil.rmtree(folder / "one")
    return folder


COMMANDS = ["high-wer a", "compare a b", "errors a", "entities a", "slices a", "hallucinations a", "history a b"]


@pytest.mark.parametrize("command", COMMANDS)
def test_ten_thousand_clips_are_soon_analysed(command, large):
    process = [sys.executable, "-c", MEASURED, "analysis", *command.split()]
    result = subprocess.run(process, cwd=large, capture_output=True, text=True, check=True)
    seconds, kilobytes = map(float, result.stderr.split()[-2:])
    assert seconds < CPU_SECONDS
    assert kilobytes / 1024 < MEGABYTES
