"""Sections of a text that are ours, between marks; no byte of the rest, which is the user's, is ever changed."""

import re
from collections.abc import Mapping

from tiny_audio.errors import TinyAudioError

_MARK = re.compile(r"^<!-- (?P<end>end of )?tiny-audio: (?P<name>[\w-]+) -->[ \t]*\r?(?:\n|\Z)", re.MULTILINE)


def marked(name: str, body: str) -> str:
    """A section with its marks, which stand there too where it is empty: so one that was deleted can be told."""
    return f"<!-- tiny-audio: {name} -->\n{body}\n<!-- end of tiny-audio: {name} -->\n"


def has_marks(text: str) -> bool:
    """Whether any section of a text is ours."""
    return _MARK.search(text) is not None


def refreshed(text: str, sections: Mapping[str, str]) -> str:
    """The text with these bodies between their marks. One whose marks are not there is left out: the user took it out.

    Raises:
        TinyAudioError: a mark stands without its other half.
    """
    line_end = "\r\n" if "\r\n" in text else "\n"
    pieces, place, opened = [], 0, None
    for mark in _MARK.finditer(text):
        _check(mark, opened)
        if not mark["end"]:
            opened = mark
        elif mark["name"] in sections:
            section = marked(mark["name"], sections[mark["name"]])
            pieces += [text[place : opened.start()], section.replace("\n", line_end)]  # type: ignore[union-attr]
            place, opened = mark.end(), None
        else:
            opened = None
    if opened is not None:
        raise TinyAudioError(f"The card's mark `{opened[0].strip()}` has no end; {_advice(opened['name'])}")
    return "".join([*pieces, text[place:]])


def _check(mark: re.Match[str], opened: re.Match[str] | None) -> None:
    fits = opened is not None and opened["name"] == mark["name"] if mark["end"] else opened is None
    if not fits:
        inside = f" within `{opened[0].strip()}`" if opened else ""
        raise TinyAudioError(f"The card's mark `{mark[0].strip()}` stands alone{inside}; {_advice(mark['name'])}")


def _advice(name: str) -> str:
    return f"a section begins with `<!-- tiny-audio: {name} -->` and ends with `<!-- end of tiny-audio: {name} -->`."
