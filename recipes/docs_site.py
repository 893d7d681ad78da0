"""What MkDocs needs to read our documents as GitHub does: lists, anchors, hidden solutions, and links to files of the repository."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, InclusionLevel

REPOSITORY = Path(__file__).resolve().parents[1]
LISTED = "files"  # folder of the site with a page for each file outside docs/ that a document links to
FENCE = re.compile(r"\s*(```+|~~~+)")
ITEM = re.compile(r"(\s*)([-*+]|\d+[.)])(\s+)\S")
BLOCK = re.compile(r"\s*(#{1,6} |>|\||</?(details|summary|div|figure|figcaption|p|table|img)\b)")
LINK = re.compile(r"(\]\()([^)\s#]*)(#[^)\s]*)?")
COMMENT = re.compile(r"\s*<!--.*-->\s*")
LANGUAGES = {".py": "python", ".yaml": "yaml", ".yml": "yaml", ".toml": "toml", ".json": "json", ".sh": "bash"}


# ---- MkDocs calls these


def on_config(config: Any) -> None:
    config.mdx_configs["toc"]["slugify"] = slug


def on_files(files: Any, config: Any) -> None:
    """A page for each file outside docs/ that is linked to; what those link to follows, as they are now in the list."""
    for page in (listed := list(files.documentation_pages())):
        for path in linked_files(page.content_string, source_of(page.src_uri)):
            uri = uri_of(path)
            if files.get_file_from_path(uri) is None:
                file = File.generated(config, uri, content=shown(path), inclusion=InclusionLevel.NOT_IN_NAV)
                files.append(file)
                listed.append(file)


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    source = source_of(page.file.src_uri)
    return as_python_markdown("\n".join(relinked(line, source, page.file.src_uri) for line in markdown.splitlines()))


# ---- links


def slug(heading: str, separator: str = "-") -> str:
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", separator)


def source_of(uri: str) -> str:
    """The path in the repository of a page of the site."""
    return uri.removeprefix(f"{LISTED}/").removesuffix(".page.md") if uri.startswith(f"{LISTED}/") else f"docs/{uri}"


def uri_of(path: str) -> str:
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    return f"{LISTED}/{path}" if path.endswith(".md") else f"{LISTED}/{path}.page.md"


def target_of(link: str, source: str) -> str | None:
    """The path in the repository that a relative link of a document means; None for any other link."""
    if not link or "://" in link or link.startswith(("mailto:", "/")):
        return None
    return posixpath.normpath(posixpath.join(posixpath.dirname(source), link))


def linked_files(markdown: str, source: str) -> Iterator[str]:
    for line in outside_fences(markdown):
        for match in LINK.finditer(line):
            path = target_of(match[2], source)
            if path and not path.startswith("docs/") and (REPOSITORY / path).is_file():
                yield path


def relinked(line: str, source: str, uri: str) -> str:
    """A line of a document with its links as they are in the site."""

    def link(match: re.Match[str]) -> str:
        path = target_of(match[2], source)
        if path is None or not (REPOSITORY / path).is_file():
            return match[0]
        return match[1] + posixpath.relpath(uri_of(path), posixpath.dirname(uri) or ".") + (match[3] or "")

    return LINK.sub(link, line)


def shown(path: str) -> str:
    """A file of the repository as a page."""
    content = (REPOSITORY / path).read_text(encoding="utf-8")
    if path.endswith(".md"):
        return content
    fence = "`" * max(3, *(len(run) + 1 for run in re.findall("`+", content)), 3)
    return f"# {posixpath.basename(path)}\n\n`{path}`\n\n{fence}{LANGUAGES.get(Path(path).suffix, 'text')}\n{content}\n{fence}\n"


def outside_fences(markdown: str) -> Iterator[str]:
    fence = ""
    for line in markdown.splitlines():
        fence, inside = after(line, fence)
        if not inside:
            yield line


def after(line: str, fence: str) -> tuple[str, bool]:
    """The fence that is open after a line, and whether the line belongs to a fenced block."""
    match = FENCE.match(line)
    if fence:
        closes = match and match[1].startswith(fence) and not line.strip().strip(fence[0])
        return "" if closes else fence, True
    return (match[1], True) if match else ("", False)


# ---- Markdown


def as_python_markdown(markdown: str) -> str:
    """GitHub's Markdown as Python-Markdown wants it.

    What belongs to an item of a list is indented by four spaces a level; blocks have an empty line between them, but for
    the items of a list without any; <details> holds Markdown; comments, which mark blocks for the tests, are left out.
    """
    lines: list[str] = [""]
    items: list[int] = []  # where the text of each open item begins, outermost first
    fence, shift, closed, tight = "", 0, False, False
    for line in markdown.splitlines():
        within, (fence, inside) = bool(fence), after(line, fence)
        if not within and COMMENT.fullmatch(line):
            continue
        if not within and line.strip():
            item = None if inside else ITEM.match(line)
            begins = bool(item or inside or closed or BLOCK.match(line))
            if begins or not lines[-1]:  # any other line may go on with a paragraph, wherever it begins
                close(items, len(line) - len(line.lstrip()))
            shift = 4 * len(items) - (items[-1] if items else 0)
            if begins and lines[-1] and not (item and tight) and not in_table(lines[-1], line):
                lines.append("")
            tight = bool(lines[-1] and tight or item and not items)
            if item:
                items.append(len(item[1]) + len(item[2]) + min(len(item[3]), 4))
        closed = within and not fence
        lines.append(indented(line, shift))
    return "\n".join(lines[1:]) + "\n"


def close(items: list[int], indent: int) -> None:
    """Ends the items that a line indented so does not belong to."""
    while items and indent < items[-1]:
        items.pop()


def in_table(before: str, line: str) -> bool:
    return before.lstrip().startswith("|") and line.lstrip().startswith("|")


def indented(line: str, shift: int) -> str:
    if not line.strip():
        return ""
    for tag, value in (("details", "1"), ("summary", "span")):
        line = line.replace(f"<{tag}>", f'<{tag} markdown="{value}">')
    return " " * max(0, len(line) - len(line.lstrip()) + shift) + line.lstrip()
