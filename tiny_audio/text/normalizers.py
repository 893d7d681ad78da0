"""Scoring normalisers: what both sides of a comparison go through before words are counted, by name and version."""

import importlib.metadata
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

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
def get_normalizer(name: str) -> Normalizer:
    """The normaliser called `name`: `whisper-en`, `basic` or `none`.

    `whisper-en` is Whisper's own English standardisation and needs no network; it turns "four two seven" into "427".
    `basic` is lower case without punctuation and marks, apostrophes inside words kept; `none` changes nothing.

    Raises:
        TinyAudioError: for any other name.
    """
    if name not in NORMALIZERS:
        raise TinyAudioError(f"Unknown normalizer {name!r}: expected one of {', '.join(NORMALIZERS)}.")
    return NORMALIZERS[name]()
