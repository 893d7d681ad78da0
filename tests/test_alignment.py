"""Forced alignment: Viterbi against a slow reference, spelling, words that cannot be spelled, and the fit to the sound."""

import time
from itertools import pairwise

import numpy as np
import pytest

from tiny_audio.audio.segment import Window
from tiny_audio.model.alignment import ANY, align, spell, viterbi

CHARACTERS = ["", *"abcdefghijklmnopqrstuvwxyz'", " "]
UPPER = ["<pad>", "<s>", "</s>", "<unk>", "|", *"ETAONIHSRDLUMWCFGYPBVK'XJQZ"]
FRAME = 0.02  # seconds
RATE = 16_000  # Hz


def slow_best_score(emissions: np.ndarray, classes: np.ndarray) -> float:
    """The best score of all paths, each taken by itself."""
    frames, states = emissions.shape

    def best(frame: int, state: int) -> float:
        if frame == frames:
            return 0.0 if state >= states - 2 else -np.inf
        nexts = [state, state + 1]
        if state % 2 and state + 2 < states and classes[state // 2] != classes[state // 2 + 1]:
            nexts.append(state + 2)
        return max(emissions[frame, n] + best(frame + 1, n) for n in nexts if n < states)

    return max(emissions[0, start] + best(1, start) for start in (0, 1))


@pytest.mark.parametrize("classes", [[1], [1, 2], [1, 1], [2, 1, 1, 2]])
def test_viterbi_finds_the_best_of_all_paths(classes):
    for seed in range(5):
        emissions = np.random.default_rng(seed).normal(0, 3, (8, 2 * len(classes) + 1)).astype(np.float32)
        path = viterbi(emissions, np.array(classes))
        assert path[0] in (0, 1) and path[-1] >= 2 * len(classes) - 1 and (np.diff(path) >= 0).all()
        for before, after in pairwise(path):
            skips = before % 2 and classes[before // 2] != classes[before // 2 + 1 : before // 2 + 2]
            assert after - before <= (2 if skips else 1)
        score = emissions[np.arange(8), path].sum()
        assert score == pytest.approx(slow_best_score(emissions, np.array(classes)), abs=1e-4)


def test_spelling_leaves_aside_case_accents_and_punctuation():
    assert spell("Café, don’t!", CHARACTERS) == (["Café,", "don’t!"], [[3, 1, 6, 5], [4, 15, 14, 27, 20]])
    assert spell("yes - no", CHARACTERS)[0] == ["yes -", "no"]
    assert spell("— a", CHARACTERS) == (["—", "a"], [[ANY], [1]])
    assert spell("42 mp3 5% 日本", CHARACTERS)[1] == [[ANY], [13, 16, ANY], [ANY], [ANY]]
    assert spell("to|", UPPER)[1] == [[UPPER.index("T"), UPPER.index("O"), ANY]]


def scores_of(text: str, vocabulary: list[str], start: int = 5, step: int = 4) -> tuple[np.ndarray, list[int]]:
    """Log-probabilities (frames, classes) of a head that marks a character every `step` frames, and where each stands."""
    places = [start + step * n for n in range(len(text))]
    logits = np.zeros((places[-1] + 10, len(vocabulary)), np.float32)
    logits[:, 0] = 6.0
    for place, character in zip(places, text, strict=True):
        logits[place, vocabulary.index(character)] = 12.0
    return logits - np.log(np.exp(logits).sum(1, keepdims=True)), places


def marks(places: dict[int, int], frames: int = 100) -> np.ndarray:
    """Log-probabilities (frames, classes) of a head that marks a class at some frames, and hears nothing elsewhere."""
    logits = np.zeros((frames, len(CHARACTERS)), np.float32)
    logits[:, 0] = 6.0
    for frame, index in places.items():
        logits[frame, index] = 12.0
    return logits - np.log(np.exp(logits).sum(1, keepdims=True))


def silence(frames: int, start: int = 0) -> Window:
    """No sound to fit words to: they stand where their characters do."""
    return Window(np.zeros(round(frames * FRAME * RATE), np.float32), start)


def test_words_stand_at_their_characters_whatever_the_case_and_the_separator():
    scores, places = scores_of("HI|YOU", UPPER)
    hi, you = align(scores, "Hi, you", UPPER, FRAME, silence(len(scores), start=RATE))
    assert (hi.text, you.text) == ("Hi,", "you")
    assert hi.start == pytest.approx(1 + places[0] * FRAME, abs=0.011)
    assert you.end == pytest.approx(1 + (places[-1] + 1) * FRAME, abs=0.011)
    assert hi.end <= you.start and hi.confidence > 0.9 and you.confidence > 0.9


@pytest.mark.parametrize("unknown", ["42", "日本", "$5"])
def test_a_word_that_cannot_be_spelled_moves_no_neighbour(unknown):
    said = "i have forty two apples now"
    scores, _ = scores_of(said, CHARACTERS)
    whole = align(scores, said, CHARACTERS, FRAME, silence(len(scores)))
    holed = align(scores, said.replace("forty two", unknown), CHARACTERS, FRAME, silence(len(scores)))
    assert [word.text for word in holed] == ["i", "have", unknown, "apples", "now"]
    for expected, word in zip([*whole[:2], *whole[4:]], [*holed[:2], *holed[3:]], strict=True):
        assert (word.start, word.end) == pytest.approx((expected.start, expected.end), abs=0.021)
        assert word.confidence == pytest.approx(expected.confidence)
    assert (holed[2].start, holed[2].end) == pytest.approx((whole[2].start, whole[3].end), abs=0.021)
    assert holed[2].confidence is None


def test_a_wrong_word_has_a_low_confidence():
    scores, _ = scores_of("one two six", CHARACTERS)
    words = align(scores, "one ten six", CHARACTERS, FRAME, silence(len(scores)))
    assert words[0].confidence > 0.9 and words[1].confidence < 0.5


def test_a_text_that_is_too_long_for_the_frames_stays_within_them():
    scores, _ = scores_of("a", CHARACTERS)
    words = align(
        scores, "many more words than these frames could ever hold " * 4, CHARACTERS, FRAME, silence(len(scores))
    )
    edges = [edge for word in words for edge in (word.start, word.end)]
    assert len(words) == 36 and edges == sorted(edges) and edges[0] >= 0 and edges[-1] <= len(scores) * FRAME + 0.01
    assert all(word.confidence < 0.5 for word in words)
    assert align(scores, "", CHARACTERS, FRAME, silence(len(scores))) == []


@pytest.mark.parametrize("floor", [0.0, 1e-3, 1e-2])
def test_words_reach_as_far_as_their_sound(floor):
    """Two bursts of noise, over faint noise; the head marks a place inside each."""
    rng = np.random.default_rng(0)
    waveform = floor * rng.standard_normal(RATE * 2)
    for start, end in [(0.3, 0.8), (1.2, 1.6)]:
        waveform[int(start * RATE) : int(end * RATE)] += 0.3 * rng.standard_normal(int(end * RATE) - int(start * RATE))
    scores = marks({25: 1, 70: 2})  # 0.5 s and 1.4 s
    a, b = align(scores, "a b", CHARACTERS, FRAME, Window(waveform.astype(np.float32), 0))
    assert (a.start, a.end, b.start, b.end) == pytest.approx((0.3, 0.8, 1.2, 1.6), abs=0.02)


def test_thirty_seconds_are_aligned_in_a_tenth_of_a_second():
    rng = np.random.default_rng(0)
    scores = np.log(rng.dirichlet(np.ones(len(CHARACTERS)), 1500)).astype(np.float32)
    text, window = "hello there " * 40, Window(rng.normal(0, 0.1, 30 * RATE).astype(np.float32), 0)
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        assert len(align(scores, text, CHARACTERS, FRAME, window)) == 80
        seconds.append(time.perf_counter() - started)
    assert min(seconds) <= 0.1


def test_a_word_reaches_three_tenths_of_a_second_at_most():
    """A noise that goes on is not all of it the word."""
    waveform = np.zeros(RATE * 2, np.float32)
    waveform[int(0.2 * RATE) : int(1.8 * RATE)] = np.random.default_rng(0).normal(0, 0.3, int(1.6 * RATE))
    (word,) = align(marks({50: 1}), "a", CHARACTERS, FRAME, Window(waveform, 0))  # 1.0 s
    assert (word.start, word.end) == pytest.approx((1.0 - 0.3, 1.02 + 0.3), abs=0.02)


def test_silence_that_an_unknown_word_has_taken_is_given_up():
    rng, waveform = np.random.default_rng(0), np.zeros(RATE * 2, np.float32)
    for start, end in [(0.2, 0.4), (0.9, 1.2), (1.5, 1.8)]:
        waveform[int(start * RATE) : int(end * RATE)] = rng.normal(0, 0.3, int(end * RATE) - int(start * RATE))
    scores = marks({15: 1, 40: 5, 46: 6, 80: 2})  # the second one, at 0.8 s, in silence
    unknown = align(scores, "a 42 b", CHARACTERS, FRAME, Window(waveform, 0))[1]
    assert (unknown.start, unknown.end) == pytest.approx((0.9, 1.2), abs=0.02)


def test_an_unknown_word_takes_no_silence_for_what_is_heard_far_away():
    """A click half a second before the word costs more frames than it is worth."""
    unknown = align(marks({15: 1, 30: 5, 50: 6, 52: 7, 80: 2}), "a 42 b", CHARACTERS, FRAME, silence(100))[1]
    assert (unknown.start, unknown.end) == pytest.approx((1.0, 1.06), abs=0.011)


def test_the_confidence_of_a_character_is_that_of_its_best_frame():
    scores = marks({50: 1})
    scores[51, [0, 1]] = np.log([0.4, 0.6])  # still the same character, hardly heard
    (word,) = align(scores, "a", CHARACTERS, FRAME, silence(100))
    assert word.confidence == pytest.approx(np.exp(scores[50, 1]), rel=1e-4)


def test_the_same_character_again_and_again_fits_into_as_many_frames():
    """Gaps between them need frames too."""
    words = align(marks({}, frames=6), "aaa aaa", CHARACTERS, FRAME, silence(6))
    edges = [edge for word in words for edge in (word.start, word.end)]
    assert edges == sorted(edges) and all(word.end > word.start for word in words) and edges[-1] <= 6 * FRAME + 0.01
