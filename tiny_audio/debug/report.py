"""What every examination has in common: tables, sentences on what stands out, and a figure, written as a PNG."""

import importlib.util
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from tiny_audio.console import out, say, table, warn
from tiny_audio.errors import require_extra

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FIGURES = Path("outputs/debug")
INCHES, DOTS_PER_INCH = (11, 5), 120


@dataclass(frozen=True)
class Table:
    """A table as `console.table` prints it; all columns but the first `left` hold numbers."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    left: int = 1


class Report(Protocol):
    """What an examination found."""

    def tables(self) -> list[Table]:
        """The figures."""
        ...

    def findings(self) -> list[str]:
        """Sentences on what stands out, the worst first."""
        ...

    def draw(self, figure: "Figure") -> None:
        """The same in pictures."""
        ...


def present(report: Report, output: Path | None, what: str, checkpoint: str) -> None:
    """Prints the tables and findings, and writes the figure to `output`, or to outputs/debug/WHAT-CHECKPOINT.png.

    Raises:
        TinyAudioError: `output` is given and matplotlib is not installed; the tables are printed all the same.
    """
    for drawn in report.tables():
        table(drawn.columns, drawn.rows, title=drawn.title, right=drawn.columns[drawn.left :])
        out()
    for sentence in report.findings():
        out(sentence)
    if output is None and importlib.util.find_spec("matplotlib") is None:
        warn("No PNG was written: that needs matplotlib; run `pip install 'tiny-audio[debug]'`.")
        return
    name = "-".join(Path(checkpoint).parts[-2:]).strip("/")
    write_png(report, output or FIGURES / f"{what}-{name}.png")


def write_png(report: Report, file: Path) -> None:
    """Draws without a display, whatever matplotlib is set to."""
    figure = require_extra("matplotlib.figure", "debug").Figure(INCHES, DOTS_PER_INCH, layout="constrained")
    report.draw(figure)
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        figure.savefig(draft, format="png")
        draft.replace(file)
    finally:
        draft.unlink(missing_ok=True)
    say(f"Figure: {file}")
