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

    What belongs to an item of a list is indented by four spaces a level; a list and a table have an empty line before
    them; the content of <details> is read as Markdown; comments, which mark blocks for the tests, are left out.
    """
    lines: list[str] = []
    items: list[int] = []  # where the text of each open item begins, outermost first
    fence, blank, shift = "", True, 0
    for line in markdown.splitlines():
        was_open = fence
        fence, inside = after(line, fence)
        indent = len(line) - len(line.lstrip())
        if not line.strip():
            lines.append("")
            blank = True
            continue
        if not was_open:
            if not inside and COMMENT.fullmatch(line):
                continue
            item = None if inside else ITEM.match(line)
            if blank or item or inside:  # otherwise it may be the lazy next line of a paragraph
                while items and indent < items[-1]:
                    items.pop()
            shift = 4 * len(items) - (items[-1] if items else 0)
            starts = item or (not inside and line.lstrip().startswith("|"))
            if starts and not blank and not same_block(lines[-1], line):
                lines.append("")
            if item:
                items.append(len(item[1]) + len(item[2]) + min(len(item[3]), 4))
        lines.append(readable(" " * max(0, indent + shift) + line.lstrip()))
        blank = False
    return "\n".join(lines) + "\n"


def same_block(before: str, line: str) -> bool:
    """Whether a list or a table goes on, rather than begins, with this line."""
    if line.lstrip().startswith("|"):
        return before.lstrip().startswith("|")
    return bool(ITEM.match(before)) or before.startswith("    ")


def readable(line: str) -> str:
    return line.replace("<details>", '<details markdown="1">').replace("<summary>", '<summary markdown="span">')
