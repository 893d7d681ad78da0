"""Scores against hand-counted cases and NIST's alignment: words, characters, empty references, intervals, speakers, times."""

import time

import jiwer
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
    ("it's john's", "its johns", (2, 0, 0, 2), (2, 11)),
    ("rock 'n' roll", "rock n roll", (0, 0, 0, 3), (0, 11)),
    ("the the the end", "the the end", (0, 1, 0, 4), (4, 15)),
    ("yes yes", "yes yes yes yes", (0, 0, 2, 2), (8, 7)),
    ("10,000 men", "10000 men", (0, 0, 0, 2), (0, 9)),
    ("3.5 percent", "3 5 percent", (0, 0, 0, 3), (0, 11)),
    ("well-known fact", "well known fact", (0, 0, 0, 3), (0, 15)),
    ("wellknown fact", "well known fact", (1, 0, 1, 2), (1, 14)),
    ("[noise] hello", "hello", (0, 0, 0, 1), (0, 5)),
    ("naïve café", "naive cafe", (2, 0, 0, 2), (2, 10)),
    ("STRASSE", "strasse", (0, 0, 0, 1), (0, 7)),
    ("to be or not to be", "to be or to be", (0, 1, 0, 6), (4, 18)),
    ("a b", "b a", (0, 1, 1, 2), (2, 3)),
]


@pytest.mark.parametrize("reference, hypothesis, words, characters", CASES)
def test_hand_counted_clips(reference: str, hypothesis: str, words: tuple, characters: tuple) -> None:
    clip = score([reference], [hypothesis], BASIC).clips[0]
    assert (clip.substitutions, clip.deletions, clip.insertions, clip.words) == words
    assert (clip.character_errors, clip.characters) == characters


def nist_counts(reference: list[str], hypothesis: list[str]) -> tuple[int, int, int]:
    """Substitutions, deletions, insertions of the alignment that sclite takes: the cheapest with 4, 3 and 3 for them."""
    best = {
        (0, 0): (0, 0, 0, 0)
    }  # (reference words, hypothesis words) done → cost, substitutions, deletions, insertions
    for i in range(len(reference) + 1):
        for j in range(len(hypothesis) + 1):
            ways = []
            if i and j:
                cost, s, d, n = best[i - 1, j - 1]
                wrong = reference[i - 1] != hypothesis[j - 1]
                ways.append((cost + 4 * wrong, s + wrong, d, n))
            if i:
                cost, s, d, n = best[i - 1, j]
                ways.append((cost + 3, s, d + 1, n))
            if j:
                cost, s, d, n = best[i, j - 1]
                ways.append((cost + 3, s, d, n + 1))
            if ways:
                best[i, j] = min(ways)
    return best[len(reference), len(hypothesis)][1:]


@pytest.mark.parametrize("reference, hypothesis, words, _", CASES)
def test_nists_alignment_counts_the_same(reference: str, hypothesis: str, words: tuple, _: tuple) -> None:
    assert nist_counts(BASIC(reference).split(), BASIC(hypothesis).split()) == words[:3]


def test_there_are_thirty_pairs() -> None:
    assert len(CASES) == 30


def test_the_other_rates_are_jiwers() -> None:
    references, hypotheses = zip(*((BASIC(r), BASIC(h)) for r, h, words, _ in CASES if words[3]), strict=True)
    ours, theirs = score(references, hypotheses, NONE), jiwer.process_words(list(references), list(hypotheses))
    assert (ours.wer, ours.mer, ours.wil) == pytest.approx((theirs.wer, theirs.mer, theirs.wil))
    wrong = sum(r.split() != h.split() for r, h in zip(references, hypotheses, strict=True))
    assert ours.sentence_error_rate == wrong / len(references)


def test_speakers_widen_the_interval() -> None:
    """Four speakers make the same errors in all their clips: clips of a speaker are not independent."""
    clips = score(["a b c d"] * 400, ["a b c d"] * 200 + ["a b x y"] * 200, NONE)
    speakers = [f"s{i // 100}" for i in range(400)]
    by_clip, by_speaker = clips.wer_interval(), clips.wer_interval(speakers)
    assert by_speaker[1] - by_speaker[0] > 5 * (by_clip[1] - by_clip[0])
    assert clips.wer_interval([str(i) for i in range(400)]) == by_clip


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
