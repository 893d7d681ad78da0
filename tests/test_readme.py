"""The README: its tree is the files' own sentences, its commands parse, and its Python runs."""

import ast
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
README = REPOSITORY / "README.md"
TREE = re.compile(r"(<!-- tree: [^\n]* -->\n).*?(<!-- end of tree -->)", re.DOTALL)
FOLDERS = ("tiny_audio", "recipes", "benchmarks", "examples")


def sentence(path: Path) -> str:
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert docstring, f"{path} needs a docstring of one sentence"
    return docstring.splitlines()[0]


def tree_lines(folder: Path, depth: int = 0) -> list[str]:
    """A folder's line is its `__init__.py`'s sentence; files come before folders."""
    init = folder / "__init__.py"
    text = f"  {sentence(init)}" if init.is_file() else ""
    lines = [f"{'    ' * depth}{folder.name}/{text}"]
    for file in sorted(folder.glob("*.py")):
        if file != init:
            lines.append(f"{'    ' * (depth + 1)}{file.name}  {sentence(file)}")
    for package in sorted(folder.glob("*/__init__.py")):
        lines += tree_lines(package.parent, depth + 1)
    return lines


def with_tree(readme: str) -> str:
    lines = [line for folder in FOLDERS for line in tree_lines(REPOSITORY / folder)]
    block = "```text\n" + "\n".join(lines) + "\n```\n"
    return TREE.sub(lambda match: match[1] + block + match[2], readme)


def test_the_tree_is_the_files_own_sentences():
    assert with_tree(README.read_text(encoding="utf-8")) == README.read_text(encoding="utf-8"), (
        "run: python tests/test_readme.py"
    )


def code_blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


def ta_commands() -> list[list[str]]:
    lines = [line for block in code_blocks("bash") for line in block.splitlines() if line.startswith("ta ")]
    return [shlex.split(line, comments=True)[1:] for line in lines]


@pytest.mark.parametrize("command", ta_commands(), ids=" ".join)
def test_each_command_parses(command):
    from tiny_audio.cli.main import load_command

    assert not leftover(load_command(command[0]), command[0], command[1:])


def leftover(command, name: str, arguments: list[str]) -> list[str]:
    """What a command, or the one of its group that is named, cannot parse."""
    context = command.make_context(name, arguments)
    if hasattr(command, "resolve_command"):
        name, command, arguments = command.resolve_command(context, [*context._protected_args, *context.args])
        return leftover(command, name, arguments)
    return context.args


def test_the_python_runs(nano):
    for block in code_blocks("python"):
        result = subprocess.run([sys.executable, "-c", block], capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
        assert result.stdout.strip()


if __name__ == "__main__":
    README.write_text(with_tree(README.read_text(encoding="utf-8")), encoding="utf-8")
