"""The code blocks of the documents: where they are, what their markers say, and what breaks the convention they are written by.

A `bash` or `python` block runs as it stands, unless a comment alone on the line before its fence says otherwise:
`slow`, `gpu`, `network`, `serves`, `fails`, `checkout`. CONTRIBUTING.md says what each means.
"""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

REPOSITORY = Path(__file__).resolve().parents[1]
RUNNABLE = ("bash", "python")
LANGUAGES = (*RUNNABLE, "yaml", "json", "toml", "markdown", "text")
MARKERS = ("slow", "gpu", "network", "serves", "fails", "checkout")
NOT_RUN = {"gpu", "network", "checkout"}
COMBINATIONS = ({"slow", "serves"}, {"slow", "fails"}, {"gpu", "network"})
TOOLS = ("make", "git", "pre-commit", ".", "cd")  # beside `ta dev`, in a block marked `checkout`
OF_CHECKOUT = ("format", "precommit", "test", "check", "docs", "nano", "release")  # of `ta dev`: what tests do not run
KEYWORDS = ("if", "then", "else", "while", "do", "time", "!")
COMMENT = re.compile(r"<!--\s*(.*?)\s*-->", re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block: its page relative to the checkout, the line of its first line of code, and what it says."""

    page: str
    line: int
    language: str
    markers: frozenset[str]
    code: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def runs(self) -> bool:
        return self.language in RUNNABLE and not self.markers & NOT_RUN

    @property
    def slow(self) -> bool:
        return "slow" in self.markers


def pages() -> list[str]:
    """Every document whose blocks are tested, relative to the checkout."""
    files = [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
    return [file.relative_to(REPOSITORY).as_posix() for file in files]


def tokens_of(text: str) -> list[Token]:
    """CommonMark with tables, block by block."""
    return MarkdownIt("commonmark").enable("table").parse(text)


@cache
def read_page(page: str) -> str:
    return (REPOSITORY / page).read_text(encoding="utf-8")


def blocks_of(page: str, text: str | None = None) -> list[Block]:
    """The fenced blocks of a page in their order, those in lists and in `<details>` too."""
    tokens = tokens_of(read_page(page) if text is None else text)
    found = []
    for before, token in zip([None, *tokens], tokens, strict=False):
        if token.type == "fence":
            words = marker_words(before) if is_directly_before(before, token) else []
            language = token.info.split(maxsplit=1)[0] if token.info.strip() else ""
            found.append(Block(page, token.map[0] + 2, language, frozenset(words), token.content))
    return found


def is_directly_before(before: Token | None, fence: Token) -> bool:
    return before is not None and before.type == "html_block" and before.map[1] == fence.map[0]


def marker_words(token: Token) -> list[str]:
    """The words of a comment that stands alone; nothing else has any."""
    comment = COMMENT.fullmatch(token.content.strip()) if token.type == "html_block" else None
    return comment[1].split() if comment else []


def problems_of(page: str, text: str | None = None) -> Iterator[str]:
    """What of a page breaks the convention, a line each with the place."""
    text = read_page(page) if text is None else text
    tokens = tokens_of(text)
    for token, after in zip(tokens, [*tokens[1:], None], strict=False):
        where = f"{page}:{token.map[0] + 1}" if token.map else page
        if token.type == "code_block":
            yield f"{where}: code is fenced, with its language, never indented: {token.content.splitlines()[0]}"
        if token.type == "html_block" and re.search(r"^\s*(```|~~~)", token.content, re.MULTILINE):
            yield f"{where}: a fence inside HTML is no fence; an empty line must stand before it"
        if set(marker_words(token)) & set(MARKERS):
            fenced = after is not None and after.type == "fence" and is_directly_before(token, after)
            if not fenced or after.info.strip() not in RUNNABLE:
                yield f"{where}: this marker stands before no bash or python block"
    for block in blocks_of(page, text):
        yield from (f"{block}: {problem}" for problem in problems_of_block(block))


def problems_of_block(block: Block) -> Iterator[str]:
    if block.language not in LANGUAGES:
        yield f"language {block.language!r}; expected one of {', '.join(LANGUAGES)}"
    if block.language not in RUNNABLE:
        return
    if unknown := block.markers - set(MARKERS):
        yield f"unknown marker {' '.join(sorted(unknown))}; known: {', '.join(MARKERS)}"
    if len(block.markers) > 1 and block.markers not in COMBINATIONS:
        yield f"the markers {' '.join(sorted(block.markers))} do not go together"
    if block.language == "bash":
        yield from problems_of_checkout(block)


def problems_of_checkout(block: Block) -> Iterator[str]:
    """Tools of development are not run by the tests that they run; nothing else hides behind their marker."""
    for words in commands_of(block):
        ours = words[:2] == ["ta", "dev"]
        if "checkout" in block.markers and not ours and words[0] not in TOOLS:
            yield f"`checkout` is for `ta dev`, {', '.join(TOOLS)} alone: {shlex.join(words)}"
        if block.runs and (words[0] == "make" or (ours and words[2:3] and words[2] in OF_CHECKOUT)):
            yield f"mark it `checkout`: {shlex.join(words)}"


def commands_of(block: Block) -> list[list[str]]:
    """The simple commands of a bash block, each as its words; what stands between `|`, `&&`, `;` and redirections."""
    return [words for line in logical_lines(block.code) for words in simple_commands(line)]


def logical_lines(code: str) -> list[str]:
    """Lines of bash, those that a backslash continues joined, without empty ones and comments."""
    lines = re.sub(r"\\\n\s*", " ", code).splitlines()
    return [line for line in lines if line.strip() and not line.lstrip().startswith("#")]


def simple_commands(line: str) -> Iterator[list[str]]:
    """The commands of one line: `A=1 ta eval | head` has `ta eval` and `head`."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words: list[str] = []
    for word in [*lexer, ";"]:
        if set(word) <= set("();<>|&"):
            if words:
                yield words
            words = []
        elif words or not re.match(r"\w+=", word) and word not in KEYWORDS:
            words.append(word)
