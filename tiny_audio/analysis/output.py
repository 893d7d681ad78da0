"""How every analysis is shown and stored: tables and sentences for people, the same values as JSON and CSV."""

import csv
import io
import json
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tiny_audio import console
from tiny_audio.console import printable
from tiny_audio.errors import TinyAudioError
from tiny_audio.evaluation.results import write_atomically

SHOWN_ROWS = 10  # of a long table, for people
SMALLEST_P = 0.001  # what lies below is written so
SUFFIXES = (".json", ".csv", ".txt", ".md")


@dataclass(frozen=True)
class Column:
    """A column by its name in JSON and CSV, its head in a table, and how a value is written there."""

    key: str
    head: str = ""
    show: Callable[[Any], str] | None = str  # None: not in tables

    @property
    def is_text(self) -> bool:
        return self.show is printable


@dataclass(frozen=True)
class Table:
    """Rows of plain values: fractions, seconds, counts, texts, pairs of bounds, None for what is not known."""

    key: str  # its name in JSON and CSV
    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Any]]
    whole: bool = False  # people see every row

    def shown(self, limit: int | None) -> tuple[list[str], list[list[str]], list[str]]:
        """Heads, rows of written cells, and the heads of the columns that are not text."""
        columns = [(i, column) for i, column in enumerate(self.columns) if column.show]
        rows = self.rows if self.whole and limit is None else self.rows[: limit or SHOWN_ROWS]
        cells = [["" if row[i] is None else column.show(row[i]) for i, column in columns] for row in rows]  # type: ignore[misc]
        return [column.head for _, column in columns], cells, [c.head for _, c in columns if not c.is_text]

    def records(self, limit: int | None) -> list[dict[str, Any]]:
        """The rows as JSON has them."""
        keys = [column.key for column in self.columns]
        return [dict(zip(keys, row, strict=True)) for row in self.rows[:limit]]


@dataclass(frozen=True)
class Report:
    """What an analysis found."""

    name: str  # of the analysis
    facts: dict[str, Any]  # single values, for JSON
    tables: Sequence[Table]
    findings: Sequence[str] = field(default_factory=tuple)  # sentences on what the tables mean


# ---- how values are written


def percent(fraction: float) -> str:
    return f"{fraction:.2%}"


def points(fraction: float) -> str:
    """A difference of two rates, in percentage points."""
    return f"{100 * fraction:+.2f}"


def interval(bounds: Sequence[float]) -> str:
    low, high = bounds
    return f"{100 * low:.2f}–{100 * high:.2f}"


def point_interval(bounds: Sequence[float]) -> str:
    """Bounds of a difference, in percentage points; signed, since they may lie on both sides of 0."""
    low, high = bounds
    return f"{100 * low:+.2f} to {100 * high:+.2f}"


def p_value(p: float) -> str:
    return f"< {SMALLEST_P}" if p < SMALLEST_P else f"{p:.3f}"


def signed(number: int) -> str:
    return f"{number:+d}"


def counted(number: int, thing: str) -> str:
    """`1 clip`, `2 clips`."""
    return f"{number:,} {thing}" if number == 1 else f"{number:,} {thing}s"


ID = Column("id", "clip", printable)
WER = Column("wer", "WER", percent)
INTERVAL = Column("wer_interval", "95 %", interval)
CLIPS = Column("clips", "clips")
WORDS = Column("words", "words")
ERRORS = Column("errors", "errors")
REFERENCE = Column("reference", "reference", printable)
PREDICTION = Column("prediction", "prediction", printable)


# ---- where they go


def present(report: Report, style: str = "text", output: Path | None = None, limit: int | None = None) -> None:
    """Print a report, and write it to `output` too, in the form that its suffix names.

    Args:
        style: `text`, `json` or `csv`, for stdout.
        limit: rows of each long table; None: 10 for people, all in JSON and CSV.
    """
    if output is not None:
        write(report, output, limit)
        console.say(f"Written: {output}")
    if style == "text":
        print_text(report, limit)
    else:
        console.out({"json": as_json, "csv": as_csv}[style](report, limit), end="")


def write(report: Report, file: Path, limit: int | None = None) -> None:
    """Write a report whole or not at all.

    Raises:
        TinyAudioError: the file's suffix is none of .json, .csv, .txt, .md.
    """
    forms = dict(zip(SUFFIXES, (as_json, as_csv, as_text, as_markdown), strict=True))
    if file.suffix.lower() not in forms:
        raise TinyAudioError(f"{file} does not say in which form to write; expected {', '.join(SUFFIXES)} at its end.")
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, forms[file.suffix.lower()](report, limit))


def print_text(report: Report, limit: int | None = None) -> None:
    """The tables, then the sentences."""
    for table in report.tables:
        heads, rows, right = table.shown(limit)
        console.out(_title(table, len(rows)))  # not as the table's own, which is folded to the table's width
        if rows:
            console.table(heads, rows, right=right)
        console.out()
    for sentence in report.findings:
        console.out(sentence)


def as_text(report: Report, limit: int | None = None) -> str:
    """What `print_text` prints, as wide as a file may be."""
    with redirect_stdout(io.StringIO()) as text:
        print_text(report, limit)
    return text.getvalue()


def as_markdown(report: Report, limit: int | None = None) -> str:
    parts = []
    for table in report.tables:
        heads, rows, right = table.shown(limit)
        safe = [[cell.replace("|", "\\|") for cell in row] for row in rows]
        parts += [f"## {_title(table, len(rows))}", console.markdown(heads, safe, right)][: 2 if rows else 1]
    return "\n\n".join([*parts, *report.findings]) + "\n"


def as_json(report: Report, limit: int | None = None) -> str:
    """One object: the facts, under `tables` each table as a list of objects, and the findings."""
    tables = {table.key: table.records(limit) for table in report.tables}
    value = {"analysis": report.name, **report.facts, "tables": tables, "findings": list(report.findings)}
    return _encodable(json.dumps(value, ensure_ascii=False, allow_nan=False, indent=2, default=str)) + "\n"


def as_csv(report: Report, limit: int | None = None) -> str:
    """All tables under one header, with their names in the column `table`; bounds in two columns, _low and _high."""
    rows = [{"table": t.key, **_flat(record)} for t in report.tables for record in t.records(limit)]
    columns = [{"table": None, **_flat(dict.fromkeys(c.key for c in t.columns))} for t in report.tables]
    header = list(dict.fromkeys(key for row in (*rows, *columns) for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, header, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return _encodable(text.getvalue())


def _encodable(text: str) -> str:
    """A model's bytes may end within a character: half of a pair of surrogates is written as JSON escapes it."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _flat(record: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in record.items():
        if key.endswith("interval"):
            flat[f"{key}_low"], flat[f"{key}_high"] = value or (None, None)
        else:
            flat[key] = value
    return flat


def _title(table: Table, shown: int) -> str:
    if not table.rows:
        return f"{table.title}: none"
    return table.title if shown == len(table.rows) else f"{table.title} ({shown} of {len(table.rows):,})"
