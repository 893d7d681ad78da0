"""`ta dev nano`: the steps in order, each in a process of its own; done ones are skipped, cut-off ones go on."""

from __future__ import annotations

import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path

from tiny_audio import console
from tiny_audio.cli.dev import run_module
from tiny_audio.errors import TinyAudioError

SPEAKERS = ("espeak-ng", "flite")  # programs, and Debian packages of these names
CORPUS = {"train": 1000, "validation": 60, "test": 150}  # utterances that ship
SPOKEN = {"train": 28_000, "listening": 14_000, "validation": 400}  # utterances for the training
FIRST_SHARE = 0.1  # of the training's time, before short clips come first once more
GENERAL_TEXT = Path("text") / "librispeech-train-clean-100.txt"  # in the folder of human recordings


@dataclass(frozen=True)
class Options:
    """What is made, of how much, and where."""

    work_dir: Path
    output_dir: Path
    minutes: float  # of training
    speech: Path | None = None  # human recordings, laid out as recipes/nano/README.md says
    share: float = 1.0  # of the recipe's utterances

    def count(self, full: int) -> int:
        """So many of `full` utterances, and not too few to be of use."""
        return max(min(full, 10), round(full * self.share))


@dataclass(frozen=True)
class Step:
    """One command of the recipe."""

    name: str  # of its file
    arguments: list[str]
    programs: tuple[str, ...] = ()  # that it calls
    state: Path | None = None  # what a cut-off run leaves behind: then it is called with --resume

    @property
    def module(self) -> str:
        return f"recipes.nano.{self.name}"

    def command(self) -> list[str]:
        """What the module is called with."""
        resume = ["--resume"] if self.state is not None and self.state.exists() else []
        return [*self.arguments, *resume]

    def __str__(self) -> str:
        return shlex.join(["python", "-m", self.module, *self.command()])


def steps(options: Options) -> list[Step]:
    """The recipe, in order."""
    count, state = options.count, options.work_dir / "training.pt"
    work, corpus = [f"--work-dir={options.work_dir}"], options.output_dir / "quickstart"
    checkpoint = [f"--output={options.output_dir / 'nano'}"]
    speech = [f"--speech={options.speech}"] if options.speech else []
    text = [f"--text={options.speech / GENERAL_TEXT}"] if options.speech else []
    clips = [f"--{split}={count(full)}" for split, full in CORPUS.items()]
    spoken = [f"--{split}={count(full)}" for split, full in SPOKEN.items()]
    head = [f"--count={count(2000)}", f"--steps={max(2, round(350 * options.share))}"]
    training = [*work, "--batch-seconds=28", *text]
    first = f"--minutes={FIRST_SHARE * options.minutes:g}"
    plan = [
        Step("corpus", [*work, f"--output={corpus}", *clips], SPEAKERS),
        Step("synthesize", [*work, *spoken], SPEAKERS),
        Step("human", [*work, *speech, f"--strings={count(6000)}"]),
        Step("train", [*training, first], state=state),
        Step("train", [*training, f"--minutes={options.minutes:g}", "--resume", "--again"]),
        Step("export", [*work, *text, *speech, *checkpoint, f"--corpus={corpus}"]),
        Step("ctc", [*work, *speech, *checkpoint, *head], SPEAKERS),
    ]
    return [step for step in plan if speech or step.name != "human"]


def make(options: Options, dry_run: bool = False) -> None:
    """Runs what is not done yet.

    Raises:
        TinyAudioError: a program is missing, a folder of recordings is not there, or a step failed.
    """
    plan = pending(steps(options), options.work_dir)
    if dry_run:
        for step, done in plan:
            console.out(f"{step}  # done" if done else str(step))
        return
    refuse_what_cannot_work(options, [step for step, done in plan if not done])
    for number, (step, done) in enumerate(plan, 1):
        console.say(f"== {number} of {len(plan)}: {step.name}{', done before' if done else ''}")
        if not done:
            run(step, number, options.work_dir)
    console.out(f"{options.output_dir / 'nano'}\n{options.output_dir / 'quickstart'}")


def pending(plan: list[Step], work_dir: Path) -> list[tuple[Step, bool]]:
    """Each step, and whether it is done: by this very command, and so are those before it."""
    found, done = [], True
    for number, step in enumerate(plan, 1):
        stamp = stamp_of(step, number, work_dir)
        done = done and stamp.is_file() and stamp.read_text() == shlex.join(step.arguments)
        found.append((step, done))
    return found


def stamp_of(step: Step, number: int, work_dir: Path) -> Path:
    """The file that says with which arguments a step was done."""
    return work_dir / "done" / f"{number}-{step.name}"


def refuse_what_cannot_work(options: Options, plan: list[Step]) -> None:
    """Raises for programs and recordings that the steps need and that are not there."""
    missing = sorted({name for step in plan for name in step.programs if shutil.which(name) is None})
    if missing:
        raise TinyAudioError(
            f"Not installed: {', '.join(missing)}, with which the speech of nano is made: "
            f"run `apt-get install {' '.join(missing)}` (Debian, Ubuntu)."
        )
    for path in (options.speech / "spoken-digits", options.speech / GENERAL_TEXT) if options.speech else ():
        if not path.exists():
            raise TinyAudioError(
                f"{path} does not exist; expected human recordings as recipes/nano/README.md has them."
            )


def run(step: Step, number: int, work_dir: Path) -> None:
    """Runs a step and writes down that it is done."""
    stamp = stamp_of(step, number, work_dir)
    stamp.unlink(missing_ok=True)
    if code := run_module(step.module, step.command()):
        raise TinyAudioError(f"{step.name} ended with {code}; the same command goes on from there: {step}")
    stamp.parent.mkdir(parents=True, exist_ok=True)
    stamp.write_text(shlex.join(step.arguments))
