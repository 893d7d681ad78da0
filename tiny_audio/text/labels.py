"""Training labels: lower case, no punctuation, corpus marks stripped, no word rewritten."""

import re
import unicodedata

_MARK = re.compile(r"<[^<>\s][^<>]{0,40}>|\[[^\[\]]{0,40}\]|\{[^{}]{0,40}\}")  # <unk>, <COMMA>, [noise], {laugh}
_APOSTROPHES = str.maketrans(dict.fromkeys("’‘ʼ＇´`", "'"))
_DIGIT_GROUPS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")  # 10,000 is one number
_LOOSE_APOSTROPHE = re.compile(r"(?<!\w)'|'(?!\w)")
_SPOKEN_SYMBOLS = frozenset("%&@$€£¢+°")  # each stands for a word that was said

IGNORED_SEGMENT = "ignore time segment in scoring"  # TED-LIUM's mark of speech without a transcript, folded
PLACEHOLDERS = frozenset({IGNORED_SEGMENT, "inaudible", "unintelligible", "indiscernible"})  # folded


def clean_label(text: str) -> str:
    """The label of a clip: words and digits in lower case, apostrophes only inside words, single spaces.

    Marks such as `<unk>` or `[noise]` go, symbols that are spoken (`%`, `$`, `&` …) stay, and no word is rewritten.
    May return "" when nothing that was said is left.
    """
    return fold(text, keep=_SPOKEN_SYMBOLS)


def is_placeholder(text: str) -> bool:
    """Whether a text, in any case and spelling, stands where a transcript is missing."""
    return fold(text) in PLACEHOLDERS


def fold(text: str, keep: frozenset[str] = frozenset()) -> str:
    """Lower case without corpus marks and without the punctuation and symbols that are not in `keep`."""
    text = unicodedata.normalize("NFC", _MARK.sub(" ", text)).translate(_APOSTROPHES).lower()
    text = _DIGIT_GROUPS.sub("", text)
    text = "".join(_visible(character, keep) for character in text)
    return " ".join(_LOOSE_APOSTROPHE.sub(" ", text).split())


def _visible(character: str, keep: frozenset[str]) -> str:
    if character.isalnum() or character == "'" or character in keep:
        return character
    category = unicodedata.category(character)
    if category in ("Mn", "Mc"):
        return character  # combining vowel signs belong to their word
    return "" if category == "Cf" else " "  # zero-width characters do not split words
