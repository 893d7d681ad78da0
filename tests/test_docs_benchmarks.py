"""docs/benchmarks.md states no figure that the page which owns it does not have."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DATE = r"2026-\d\d-\d\d"


def rows() -> list[tuple[str, str, Path]]:
    """What, value, and the file that has the figure: the linked page, or the README."""
    found = []
    for line in (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line[1:-1].split("|")]
        if not line.startswith("| ") or line.startswith(("| what", "| ---")):
            continue
        page = re.fullmatch(r"\[[^]]+\]\(([\w-]+\.md)(#[\w-]+)?\)", cells[-1])
        assert page or not cells[-1], line
        assert re.search(DATE, line) or "| the same |" in line, f"no date: {line}"
        found.append((cells[0], cells[1], ROOT / "docs" / page[1] if page else ROOT / "README.md"))
    return found


@pytest.mark.parametrize(("what", "value", "page"), rows(), ids=lambda value: None)
def test_the_page_of_a_row_has_its_figures(what, value, page):
    text = page.read_text(encoding="utf-8")
    missing = [
        n for n in re.findall(r"\d+(?:\.\d+)?", value) if not re.search(rf"(?<![\d.]){re.escape(n)}(?![\d])", text)
    ]
    assert not missing, f"{what}: {page.name} lacks {', '.join(missing)}"
