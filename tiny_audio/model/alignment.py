"""Word times: a text aligned to a CTC head's scores by Viterbi, and its words fitted to the sound around them."""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from tiny_audio.audio.reading import SAMPLING_RATE
from tiny_audio.audio.segment import Window

SEPARATORS = (" ", "|")  # what stands between words in the vocabularies of CTC heads
ANY = -1  # a run of characters that the head lacks
_STEP = 80  # samples, 5 ms, between two values of the loudness
_DROP_DB = 35.0  # below its loudest moment a word is no longer heard


@dataclass
class Word:
    """A word, its seconds in the recording, and the head's mean probability of its characters, None where it has none."""

    text: str
    start: float
    end: float
    confidence: float | None


def spell(text: str, vocabulary: Sequence[str]) -> tuple[list[str], list[list[int]]]:
    """Words and the classes of their characters, case, accents and punctuation aside: ANY for digits, symbols, other scripts.

    What is not said, like a dash between words, is joined to the word before it.
    """
    index = {c.casefold(): n for n, c in enumerate(vocabulary) if len(c) == 1 and c not in SEPARATORS}
    words: list[str] = []
    spelled: list[list[int]] = []
    for word in text.split():
        classes: list[int] = []
        for character in unicodedata.normalize("NFKD", word.replace("’", "'")).casefold():
            said = unicodedata.category(character)[0] in "LNS" or character in "%&@"
            if character in index or (said and classes[-1:] != [ANY]):
                classes.append(index.get(character, ANY))
        if classes or not words:
            words.append(word)
            spelled.append(classes or [ANY])
        else:
            words[-1] += f" {word}"
    return words, spelled


def align(scores: np.ndarray, text: str, vocabulary: Sequence[str], frame_seconds: float, window: Window) -> list[Word]:
    """The words of a window's text, timed from the recording's start.

    Scores are a CTC head's log-probabilities (frames, classes), class 0 the blank. ANY matches every sound, so that the
    words beside it keep their times.
    """
    words, spelled = spell(text, vocabulary)
    classes, bounds = np.array([n for word in spelled for n in word], int), np.cumsum([0, *map(len, spelled)])
    repeats = max(1, -(-2 * len(classes) // len(scores)))  # of each frame, where they are too few for the text
    emissions = _emissions(scores.repeat(repeats, axis=0), classes, vocabulary)
    states, path = 2 * np.arange(len(classes)) + 1, viterbi(emissions, classes)
    first, last = np.searchsorted(path, states), np.searchsorted(path, states, "right")
    spans = np.stack([first[bounds[:-1]], last[bounds[1:] - 1]], axis=1) * (frame_seconds / repeats)
    spans, timed = _fit_to_sound(spans, window.waveform) + window.start / SAMPLING_RATE, []
    for word, (a, b), (start, end) in zip(words, pairwise(bounds), spans.tolist(), strict=True):
        known = [emissions[first[n] : last[n], states[n]].max() for n in range(a, b) if classes[n] != ANY]
        timed.append(Word(word, start, end, float(np.exp(known).mean()) if known else None))
    return timed


def _emissions(scores: np.ndarray, classes: np.ndarray, vocabulary: Sequence[str]) -> np.ndarray:
    """(frames, 2 · characters + 1): a gap (blank or separator), the first character, a gap, …; ANY is the best class."""
    gaps = [index for index, character in enumerate(vocabulary) if index == 0 or character in SEPARATORS]
    best = scores.max(1, keepdims=True) - 0.5  # a frame costs: neighbours' own frames and silence are not worth it
    emissions = np.empty((len(scores), 2 * len(classes) + 1), np.float32)
    emissions[:, ::2] = np.logaddexp.reduce(scores[:, gaps], axis=1)[:, None]  # type: ignore[call-overload]
    emissions[:, 1::2] = np.concatenate([scores, best], axis=1)[:, classes]
    return emissions


def viterbi(emissions: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """CTC's best path (Graves et al., 2006): the state at each frame, 2 n for the gap before character n, 2 n + 1 for it."""
    frames, states = emissions.shape
    skippable = np.full(states, -np.inf, np.float32)  # the gap between two characters is, unless they are the same
    skippable[3::2][classes[1:] != classes[:-1]] = 0.0
    scores = np.full(states + 2, -np.inf, np.float32)
    scores[2:4] = emissions[0, :2]
    moves = np.zeros((frames, states), np.int8)
    for frame in range(1, frames):
        stay, step, skip = scores[2:], scores[1:-1], scores[:-2] + skippable
        best = np.maximum(stay, step)
        moves[frame] = np.where(skip > best, 2, step > stay)
        scores[2:] = np.maximum(best, skip) + emissions[frame]
    path = np.full(frames, states - 1 - (scores[-2] > scores[-1]))
    for frame in range(frames - 1, 0, -1):
        path[frame - 1] = path[frame] - moves[frame, path[frame]]
    return path


def _fit_to_sound(spans: np.ndarray, waveform: np.ndarray) -> np.ndarray:
    """(words, 2) seconds, widened: a CTC head marks where characters are, not how long they last.

    The quietest moment between two words parts them; each reaches towards it as far as it sounds, and gives up silence
    at its own edges, which ANY may have taken.
    """
    sums = np.concatenate([[0.0], np.cumsum(np.pad(waveform.astype(np.float64), _STEP) ** 2)])
    loudness = 10 * np.log10((sums[2 * _STEP :: _STEP] - sums[: -2 * _STEP : _STEP]) / (2 * _STEP) + 1e-12)  # dB
    steps = np.rint(spans * (SAMPLING_RATE / _STEP)).astype(int).clip(0, len(loudness) - 1)
    peaks, fitted = [loudness[a : b + 1].max() for a, b in steps], steps.copy()
    for n, (low, high) in enumerate(np.array([0, *steps.flat, len(loudness) - 1]).reshape(-1, 2)):
        cut = low + int(loudness[low : high + 1].argmin())
        if n > 0:
            fitted[n - 1, 1] += _reach(loudness[low : cut + 1], peaks[n - 1])
        if n < len(peaks):
            fitted[n, 0] -= _reach(loudness[cut : high + 1][::-1], peaks[n])
    for n, (start, end) in enumerate(fitted.copy()):
        sounding = start + np.flatnonzero(loudness[start : end + 1] >= peaks[n] - _DROP_DB)
        fitted[n] = sounding[0], min(sounding[-1] + 1, end)
    return fitted * (_STEP / SAMPLING_RATE)


def _reach(loudness: np.ndarray, peak: float) -> int:
    """Steps from a word's letters, at most 0.3 s, until it is no longer heard or near the quietest, the last value."""
    quiet = max(peak - _DROP_DB, loudness[-1] + 0.2 * (peak - loudness[-1]))
    return min(int(np.argmax(loudness < quiet)), 60)
