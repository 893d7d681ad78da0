"""Rules that find names, numbers and dates in English text: each word gets a tag, and patterns over tags do the rest."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

TOKEN = re.compile(r"\d+(?:[.,:/]\d+)*[^\W\d_]*|[^\W\d_][^\W_]*(?:['’-][^\W_]+)*|[.!?]")

DIGITS = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen"
TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
SCALES = "hundred thousand million billion trillion"
ORDINALS = (
    "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth fifteenth sixteenth "
    "seventeenth eighteenth nineteenth twentieth thirtieth fortieth fiftieth sixtieth seventieth eightieth ninetieth hundredth thousandth millionth"
)
MONTHS = "january february april june july august september october november december"
WEEKDAYS = "monday tuesday wednesday thursday friday saturday sunday"
TAGS = {
    **dict.fromkeys(f"{DIGITS} {TENS}".split(), "N"),
    **dict.fromkeys(SCALES.split(), "S"),
    **dict.fromkeys(ORDINALS.split(), "O"),
    **dict.fromkeys(MONTHS.split(), "M"),
    **dict.fromkeys(("march", "may"), "m"),  # verbs as well
    **dict.fromkeys(WEEKDAYS.split(), "W"),
    "oh": "z",
    "and": "a",
    "of": "f",
    "the": "t",
}
ABBREVIATIONS = frozenset("mr mrs ms dr st prof jr sr".split())  # a full stop after them ends no sentence
PRONOUN = re.compile(r"i(?:['’]\w+)?", re.IGNORECASE)

_NUMBER = "[NSY](?:[NSYz]|(?<=S)a(?=N))*O?"  # two hundred and five; two oh four; twenty first
_YEAR = "(?:t?[NSOYz]+)?"
PATTERN = re.compile(
    f"(?P<date>W?(?:t?(?:{_NUMBER}|O)f?t?)?M{_YEAR}|W?t?N?Of?m{_YEAR}|W?mt?N?O{_YEAR}|W|D|Y(?![NSYzO]))"
    f"|(?P<number>{_NUMBER}|O)"
    f"|(?P<name>C+)"
)


@dataclass(frozen=True)
class Entity:
    """A part of a text."""

    kind: str  # name, number or date
    text: str


def has_case(texts: Sequence[str]) -> bool:
    """Whether capitals tell anything: there are some, and not only some."""
    return any(word.islower() for text in texts for word in text.split()) and any(
        word[0].isupper() for text in texts for word in text.split()[1:]
    )


def find_entities(text: str, cased: bool) -> list[Entity]:
    """The names, numbers and dates of a text, from left to right.

    Args:
        cased: a capital within a sentence makes a name.
    """
    tokens = list(TOKEN.finditer(text))
    words = [token[0] for token in tokens]
    capitals = cased and any(word.islower() for word in words)  # a shouted text has no names
    tags = "".join(_tag(word, capitals, _starts_sentence(words, i)) for i, word in enumerate(words))
    return [
        Entity(match.lastgroup or "", text[tokens[match.start()].start() : tokens[match.end() - 1].end()])
        for match in PATTERN.finditer(tags)
    ]


def _starts_sentence(words: list[str], index: int) -> bool:
    if index == 0:
        return True
    return words[index - 1] in (".", "!", "?") and not (index > 1 and words[index - 2].lower() in ABBREVIATIONS)


def _tag(word: str, capitals: bool, start: bool) -> str:
    """One letter: N number, S scale, O ordinal, Y year, D date, M month, m May or March, W weekday, C capitalised …"""
    tag = _plain_tag(word.lower())
    capitalised = capitals and not start and word[0].isupper()
    if tag == "m" and capitals and not start:
        return "M" if capitalised else "x"
    if tag == "x" and capitalised and word.lower() not in ABBREVIATIONS and not PRONOUN.fullmatch(word):
        return "C"
    return tag


@cache
def _plain_tag(word: str) -> str:
    if word[0].isdigit():
        return _digits_tag(word)
    if word in TAGS:
        return TAGS[word]
    parts = [TAGS.get(part, "x") for part in word.split("-")]  # twenty-one, twenty-first
    if len(parts) > 1 and set(parts[:-1]) <= {"N", "S"} and parts[-1] in "NSO":
        return parts[-1]
    return "." if word in (".", "!", "?") else "x"


def _digits_tag(word: str) -> str:
    if re.fullmatch(r"\d+(?:st|nd|rd|th)", word):
        return "O"
    if re.fullmatch(r"\d+/\d+/\d+", word):
        return "D"
    return "Y" if re.fullmatch(r"1[1-9]\d\d|20\d\d", word) else "N"
