"""docs/troubleshooting.md, faq.md and extending.md: the errors they quote are the code's, and each command and setting in a line exists."""

import ast
import re
import shlex
from contextlib import suppress
from functools import cache
from pathlib import Path

import pytest
import typer
from typer.main import get_command

from tiny_audio.cli.main import app
from tiny_audio.training.config import compose
from tiny_audio.training.run import flat
from tiny_audio.training.schema import to_tree

REPOSITORY = Path(__file__).resolve().parents[1]
PAGES = [REPOSITORY / "docs" / f"{name}.md" for name in ("troubleshooting", "faq", "extending")]
OTHERS = ("ta: command not found", "✓", "!", "✗")  # what the shell says, and signs
PLACEHOLDERS = {"ID": "x", "HOST": "x", "N": "5", "OLD": "x", "NEW": "x"}


def spans(page: Path) -> list[str]:
    """The code inside of lines, without fenced blocks."""
    prose = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    return re.findall(r"`([^`\n]+)`", prose)


@cache
def messages() -> list[str]:
    """All texts of the package, what is filled in as …"""
    found = []
    for file in (REPOSITORY / "tiny_audio").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = (part.value if isinstance(part, ast.Constant) else "…" for part in node.values)
                found.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return found


def is_said(quote: str) -> bool:
    """Whether the fixed parts of a quote stand in one text of the code, in their order."""
    fixed = [part.strip() for part in quote.split("…") if part.strip()]
    pattern = re.compile(".*".join(re.escape(part).replace(r"\ ", "[ _]") for part in fixed), re.DOTALL)
    return any(pattern.search(message) for message in messages())


def symptoms() -> list[str]:
    """Code in the first cells of the tables: what the user sees."""
    rows = re.findall(r"^\| ([^|]*) \|", PAGES[0].read_text("utf-8"), flags=re.MULTILINE)
    quotes = [quote for row in rows for quote in re.findall(r"`([^`]+)`", row)]
    return [quote for quote in quotes if quote not in OTHERS and (" " in quote) and not quote.startswith("ta ")]


def test_quoted_errors_are_the_codes_own():
    quotes = symptoms()
    assert len(quotes) > 40
    assert [quote for quote in quotes if not is_said(quote)] == []
    assert not is_said("The dataset … has wandered off")


def commands() -> list[str]:
    lines = (span for page in PAGES for span in spans(page))
    return sorted({line for line in lines if line.startswith("ta ") and "…" not in line})


@pytest.mark.parametrize("line", commands())
def test_commands_in_a_line_parse(line, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    words = [PLACEHOLDERS.get(word, word) for word in shlex.split(line)[1:]]
    command, context = get_command(app), typer.Context(get_command(app), info_name="ta")
    while words and hasattr(command, "get_command"):
        name, *words = words
        command = command.get_command(context, name)
        assert command is not None, f"{line}: there is no {name}"
        context = typer.Context(command, info_name=name, parent=context)
    if words:  # a bare `ta serve` names the command
        with suppress(typer.Exit):  # of an option that prints and ends, such as --list
            command.make_context(command.name, words)


def test_settings_in_a_line_exist():
    known = set(flat(to_tree(compose())))
    keys = {
        key for page in PAGES for key in re.findall(r"\b((?:data|model|training)\.[a-z_.]+)=", page.read_text("utf-8"))
    }
    named = {span for page in PAGES for span in spans(page) if re.fullmatch(r"(data|model|training)\.[a-z_.]+", span)}
    assert len(keys) > 15
    assert sorted((keys | named) - known) == []
