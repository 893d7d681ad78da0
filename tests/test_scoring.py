"""Scores against hand-counted cases: words, characters, empty references, intervals, and speed."""

import time

import pytest

from tiny_audio.evaluation.scoring import bootstrap_interval, score
from tiny_audio.text.normalizers import get_normalizer

BASIC = get_normalizer("basic")
NONE = get_normalizer("none")

# reference, hypothesis, (substitutions, deletions, insertions, reference words), (character errors, characters)
CASES = [
    ("the cat sat", "the cat sat", (0, 0, 0, 3), (0, 11)),
    ("the cat sat", "the bat sat", (1, 0, 0, 3), (1, 11)),
    ("the cat sat", "the sat", (0, 1, 0, 3), (4, 11)),
    ("the cat sat", "the big cat sat", (0, 0, 1, 3), (4, 11)),
    ("the cat sat", "", (0, 3, 0, 3), (11, 11)),
    ("", "ghost words here", (0, 0, 3, 0), (16, 0)),
    ("", "", (0, 0, 0, 0), (0, 0)),
    ("...", "hm", (0, 0, 1, 0), (2, 0)),
    ("hello", "...", (0, 1, 0, 1), (5, 5)),
    ("don't stop", "dont stop", (1, 0, 0, 2), (1, 10)),
    ("don’t stop", "Don't stop!", (0, 0, 0, 2), (0, 10)),
    ("four two seven", "427", (1, 2, 0, 3), (14, 14)),
    ("no no no", "no", (0, 2, 0, 3), (6, 8)),
    ("call 555", "call 5", (1, 0, 0, 2), (2, 8)),
    ("a b c d", "b c d e", (0, 1, 1, 4), (4, 7)),
    ("one", "two three four", (1, 0, 2, 1), (12, 3)),
    ("overall right", "over all right", (1, 0, 1, 2), (1, 13)),
]


@pytest.mark.parametrize("reference, hypothesis, words, characters", CASES)
def test_hand_counted_clips(reference: str, hypothesis: str, words: tuple, characters: tuple) -> None:
    clip = score([reference], [hypothesis], BASIC).clips[0]
    assert (clip.substitutions, clip.deletions, clip.insertions, clip.words) == words
    assert (clip.character_errors, clip.characters) == characters


def test_rates_are_pooled_not_averaged() -> None:
    scores = score(["a b c d e f g h i", "x"], ["a b c d e f g h i", "y"], BASIC)
    assert scores.wer == pytest.approx(1 / 10)
    assert [clip.wer for clip in scores.clips] == [0.0, 1.0]


def test_words_on_an_empty_reference_count() -> None:
    scores = score(["", "one two three four"], ["oh no", "one two three four"], BASIC)
    assert scores.wer == pytest.approx(2 / 4)
    assert scores.clips[0].wer == 2.0


def test_only_empty_references() -> None:
    assert score(["", ""], ["", ""], BASIC).wer == 0.0
    assert score(["", ""], ["", "one two"], BASIC).wer == 2.0


def test_wer_may_exceed_one() -> None:
    assert score(["one"], ["two three four"], BASIC).wer == 3.0


def test_the_normalizer_decides() -> None:
    reference, hypothesis = ["Four two seven."], ["427"]
    assert score(reference, hypothesis, get_normalizer("whisper-en")).wer == 0.0
    assert score(reference, hypothesis, BASIC).wer == 1.0
    assert score(["A,  b"], ["A, b"], NONE).wer == 0.0
    assert score(["A, b"], ["a b"], NONE).wer == 0.5


def test_each_text_is_normalised_once() -> None:
    calls: list[str] = []
    score(["a"] * 50, ["b"] * 50, lambda text: calls.append(text) or text)
    assert len(calls) == 100


def test_lengths_must_agree_and_nothing_is_no_score() -> None:
    with pytest.raises(ValueError, match="2 references and 1 hypotheses"):
        score(["a", "b"], ["a"], BASIC)
    with pytest.raises(ValueError, match="at least one reference"):
        score([], [], BASIC)


def test_interval_is_seeded_and_holds_the_rate() -> None:
    errors, words = [0, 1, 3, 0, 2, 0, 0, 5] * 20, [10, 8, 12, 9, 7, 11, 10, 13] * 20
    low, high = bootstrap_interval(errors, words)
    assert (low, high) == bootstrap_interval(errors, words)
    assert low < sum(errors) / sum(words) < high
    assert bootstrap_interval(errors, words, seed=1) != (low, high)


def test_interval_of_equal_clips_is_a_point() -> None:
    assert bootstrap_interval([1] * 30, [10] * 30) == pytest.approx((0.1, 0.1))


def test_interval_matches_the_normal_approximation() -> None:
    low, high = bootstrap_interval([1] * 100 + [0] * 900, [1] * 1000)
    assert (low, high) == pytest.approx((0.1 - 0.0186, 0.1 + 0.0186), abs=0.004)


def test_ten_thousand_clips_take_seconds() -> None:
    started = time.perf_counter()
    scores = score(["the quick brown fox jumps over the lazy dog"] * 10_000, ["the quick fox"] * 10_000, BASIC)
    scores.wer_interval()
    assert scores.wer == pytest.approx(6 / 9)
    assert time.perf_counter() - started < 20
