"""Scoring normalisers: what both sides of a comparison go through before words are counted, by name and version."""

import hashlib
import importlib.metadata
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tiny_audio.errors import TinyAudioError
from tiny_audio.text.labels import fold


@dataclass(frozen=True)
class Normalizer:
    """A named text function. `version` changes whenever a figure made with it could change."""

    name: str
    version: str
    function: Callable[[str], str]

    def __call__(self, text: str) -> str:
        return self.function(text)


def _whisper_en() -> Normalizer:
    from whisper_normalizer.english import EnglishTextNormalizer

    normalize = EnglishTextNormalizer()
    version = importlib.metadata.version("whisper-normalizer")
    return Normalizer("whisper-en", f"whisper-normalizer {version}", lambda text: normalize(text).strip())


def _basic() -> Normalizer:
    return Normalizer("basic", "1", lambda text: fold(unicodedata.normalize("NFKC", text)))


def _none() -> Normalizer:
    return Normalizer("none", "1", str)


NORMALIZERS: dict[str, Callable[[], Normalizer]] = {"whisper-en": _whisper_en, "basic": _basic, "none": _none}


@cache
def get_normalizer(name: str, replacements: Path | None = None) -> Normalizer:
    """The normaliser called `name`: `whisper-en`, `basic` or `none`, and after it the replacements of a file.

    `whisper-en` is Whisper's own English standardisation and needs no network; it turns "four two seven" into "427".
    `basic` is lower case without punctuation and marks, apostrophes inside words kept; `none` changes nothing.

    Args:
        replacements: a text file with lines such as `colour => color`; whole words of the normalised text are replaced,
            the longest match first. `#` begins a comment. Its hash becomes part of the version.

    Raises:
        TinyAudioError: for any other name, and for a line that is no replacement.
    """
    if name not in NORMALIZERS:
        raise TinyAudioError(f"Unknown normalizer {name!r}: expected one of {', '.join(NORMALIZERS)}.")
    plain = NORMALIZERS[name]()
    return plain if replacements is None else _with_replacements(plain, replacements)


def _with_replacements(plain: Normalizer, file: Path) -> Normalizer:
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise TinyAudioError(f"{file} is no UTF-8 text; expected lines such as `colour => color`.") from error
    pairs = {}
    for number, line in enumerate(text.splitlines(), start=1):
        line = line.split("#")[0].strip()
        source, arrow, target = line.partition("=>")
        if line and (not arrow or not plain(source).strip()):
            raise TinyAudioError(
                f"Line {number} of {file} is {line!r}; expected a replacement such as `colour => color`."
            )
        if line:
            pairs[plain(source).strip()] = plain(target).strip()
    longest_first = "|".join(re.escape(source) for source in sorted(pairs, key=len, reverse=True))
    pattern = re.compile(rf"(?<!\S)(?:{longest_first})(?!\S)") if pairs else None
    version = f"{plain.version}, replacements {hashlib.sha256(text.encode()).hexdigest()[:8]}"

    def normalize(spoken: str) -> str:
        spoken = " ".join(plain(spoken).split())
        replaced = pattern.sub(lambda match: pairs[match.group()], spoken) if pattern else spoken
        return " ".join(replaced.split())

    return Normalizer(plain.name, version, normalize)
