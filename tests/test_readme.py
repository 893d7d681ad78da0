"""The README: its tree is the files' own sentences. Its commands and its Python are run by test_docs_blocks.py."""

import ast
import re
from pathlib import Path

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


if __name__ == "__main__":
    README.write_text(with_tree(README.read_text(encoding="utf-8")), encoding="utf-8")
