"""The one output helper: results to stdout, messages and progress to stderr, plain text when not on a terminal."""

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TextIO

if TYPE_CHECKING:
    from rich.console import Console

State = Literal["ok", "warning", "failure"]
MARKS: dict[State, str] = {"ok": "✓", "warning": "!", "failure": "✗"}
PLAIN_WIDTH = 200  # columns of a table that goes into a file or a pipe
PLAIN_PROGRESS_SECONDS = 10.0

_silent = False


def silence() -> None:
    """From now on nothing is shown: of several processes that do the same, one speaks."""
    global _silent
    _silent = True


def out(text: str = "", end: str = "\n") -> None:
    """A result, on stdout, at once."""
    if not _silent:
        print(text, end=end, flush=True)


def say(text: str = "") -> None:
    """A message for people, on stderr."""
    if not _silent:
        print(text, file=sys.stderr, flush=True)


def warn(text: str) -> None:
    """`Warning: …` on stderr."""
    say(f"Warning: {text}")


def error(text: str) -> None:
    """`Error: …` on stderr, for one bad item among many; what ends the command is raised instead."""
    say(f"Error: {text}")


def ask(question: str) -> bool | None:
    """Yes or no, asked on the terminal; None where there is none to ask on."""
    if not sys.stdin.isatty():
        return None
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def rich_console(stream: TextIO | None = None) -> "Console":
    """A Rich console on `stream` (stderr), without markup; wide and colourless when it is no terminal."""
    from rich.console import Console

    stream = stream or sys.stderr
    width = None if stream.isatty() else PLAIN_WIDTH
    return Console(file=stream, width=width, markup=False, highlight=False, emoji=False, quiet=_silent)


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]], title: str = "", right: Sequence[str] = ()) -> None:
    """Prints a table on stdout; the columns named in `right` are aligned to the right, a None is an empty cell."""
    from rich import box
    from rich.table import Table

    terminal = sys.stdout.isatty()
    drawn = Table(title=title or None, title_justify="left", box=box.SIMPLE if terminal else None, pad_edge=False)
    for column in columns:
        drawn.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        drawn.add_row(*("" if cell is None else str(cell) for cell in row))
    sys.stdout.flush()
    rich_console(sys.stdout).print(drawn)


def markdown(columns: Sequence[str], rows: Sequence[Sequence[Any]], right: Sequence[str] = ()) -> str:
    """The same table as Markdown, for docs."""
    rules = ["--:" if column in right else "---" for column in columns]
    return "\n".join(f"| {' | '.join(map(str, cells))} |" for cells in (columns, rules, *rows))


def printable(text: str) -> str:
    """One line, without the control characters that a model may write and a terminal would act on."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


@dataclass(frozen=True)
class Check:
    """One finding: a state, what was found and, unless all is well, what to do."""

    state: State
    what: str
    todo: str = ""

    def __str__(self) -> str:
        return f"{MARKS[self.state]} {self.what}" + (f" — {self.todo}" if self.todo else "")


class Progress:
    """A bar on a terminal, a line now and then elsewhere; made by `progress`."""

    def __init__(self, description: str, total: float | None):
        self.description, self.total = description, total
        self.done = 0.0
        self._bar: Any = None
        self._task: Any = None
        self._said = time.monotonic()

    def advance(self, amount: float = 1, note: str = "") -> None:
        """Counts `amount` as done and shows `note` beside it."""
        self.done += amount
        if self._bar is not None:
            self._bar.update(self._task, advance=amount, note=note)
        elif time.monotonic() - self._said >= PLAIN_PROGRESS_SECONDS:
            self._said = time.monotonic()
            of = "" if self.total is None else f"/{self.total:g}"
            say(f"{self.description} {self.done:g}{of} {note}".rstrip())


@contextmanager
def progress(description: str, total: float | None = None) -> Iterator[Progress]:
    """Shows how far a loop is, on stderr: `with progress("Decoding", 40) as bar: … bar.advance()`."""
    shown = Progress(description, total)
    if not sys.stderr.isatty():
        yield shown
        return
    from rich import progress as rich_progress

    columns = (
        rich_progress.TextColumn("{task.description}"),
        rich_progress.BarColumn(),
        rich_progress.MofNCompleteColumn(),
        rich_progress.TimeRemainingColumn(),
        rich_progress.TextColumn("{task.fields[note]}"),
    )
    # Lines printed meanwhile go above the bar, unless stdout is a file or a pipe of its own.
    with rich_progress.Progress(
        *columns, console=rich_console(), transient=True, redirect_stdout=sys.stdout.isatty()
    ) as bar:
        shown._bar, shown._task = bar, bar.add_task(description, total=total, note="")
        yield shown
