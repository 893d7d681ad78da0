"""Labels and scoring normalisers: what is stripped, what stays, and that nothing is rewritten."""

import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiny_audio.errors import TinyAudioError
from tiny_audio.text.labels import clean_label
from tiny_audio.text.normalizers import get_normalizer

LABELS = [
    ("Hello, World!", "hello world"),
    ("IT'S O'CLOCK", "it's o'clock"),
    ("it’s the dogs’ ‘home’", "it's the dogs home"),
    ("rock 'n' roll", "rock n roll"),
    ("'tis the twins'", "tis the twins"),
    ("WELL <COMMA> YES <PERIOD>", "well yes"),
    ("<unk> so [noise] and {laugh} then", "so and then"),
    ("[VOCNOISE]", ""),
    ("", ""),
    ("... -- !?", ""),
    ("ill-disposed — men", "ill disposed men"),
    ("call 555, not 5", "call 555 not 5"),
    ("10,000 people, 2000 dogs", "10000 people 2000 dogs"),
    ("50% of A&B", "50% of a&b"),
    ("no no no no", "no no no no"),
    ("four  two\tseven\n", "four two seven"),
    ("Café Ångström", "café ångström"),
    ("overall right", "overall right"),
    ("five < six and seven > six", "five six and seven six"),
    ("snake_case", "snake case"),
]


@pytest.mark.parametrize("text, label", LABELS)
def test_clean_label(text: str, label: str) -> None:
    assert clean_label(text) == label


@given(st.text(max_size=80))
def test_clean_label_is_stable_and_plain(text: str) -> None:
    label = clean_label(text)
    assert clean_label(label) == label
    assert label == label.strip() and "  " not in label
    assert not re.search(r"[.,!?;:()\"_\-]", label)


@given(st.lists(st.sampled_from(["zero", "one", "seven", "o'clock", "don't", "no", "42", "2000"]), max_size=12))
def test_words_are_kept_as_they_are(words: list[str]) -> None:
    assert clean_label(" ".join(words).upper() + ".").split() == words


def test_basic_keeps_words_apart() -> None:
    basic = get_normalizer("basic")
    assert basic("Four, two SEVEN!") == "four two seven"
    assert basic("I don’t know [noise]") == "i don't know"
    assert basic("fifty % ＡＢＣ") == "fifty abc"
    assert (basic.name, basic.version) == ("basic", "1")


def test_whisper_en_is_whispers_own() -> None:
    whisper = get_normalizer("whisper-en")
    assert whisper("four two seven") == "427"
    assert whisper("I don't like the colour, Mr. Smith!") == "i do not like the color mister smith"
    assert whisper("overall right") == "overall right"
    assert whisper.version.startswith("whisper-normalizer 0.")


def test_none_changes_nothing() -> None:
    assert get_normalizer("none")(" A, b ") == " A, b "


def test_unknown_normalizer_names_the_known() -> None:
    with pytest.raises(TinyAudioError, match="'whisper_en'.*whisper-en, basic, none"):
        get_normalizer("whisper_en")


def test_whisper_en_needs_no_network() -> None:
    script = (
        "import socket\n"
        "def refuse(*_): raise OSError('no network')\n"
        "socket.socket.connect = refuse; socket.getaddrinfo = refuse\n"
        "from tiny_audio.text.normalizers import get_normalizer\n"
        "print(get_normalizer('whisper-en')('Twenty-one colours'))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "21 colors"


def test_replacements_are_whole_words_on_both_sides(tmp_path) -> None:
    file = tmp_path / "words.txt"
    file.write_text("# names\nColour => color\nall right => alright  # joined\n\nokay =>\n")
    normalize = get_normalizer("basic", file)
    assert normalize("Overall right, all right!") == "overall right alright"  # never inside a word
    assert normalize("okay the COLOUR okay") == "the color"
    plain = get_normalizer("basic")
    assert normalize.version.startswith(f"{plain.version}, replacements ") and normalize.name == "basic"
    file.write_text("colour => hue\n")
    get_normalizer.cache_clear()
    assert get_normalizer("basic", file).version != normalize.version
    assert get_normalizer("whisper-en", file)("the color") == "the hue"  # both sides of a line are normalised too


def test_a_line_that_is_no_replacement_is_named(tmp_path) -> None:
    file = tmp_path / "words.txt"
    file.write_text("a => b\nc d\n")
    with pytest.raises(TinyAudioError, match=r"Line 2 of .* is 'c d'"):
        get_normalizer("none", file)
