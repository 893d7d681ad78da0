"""Diarization error rate against a slow reference, word-time errors, and the estimate of noise."""

from itertools import permutations

import numpy as np
import pytest

from tiny_audio.evaluation.diarization import Turn, clip_error, diarization_error
from tiny_audio.evaluation.noise import estimate_snr
from tiny_audio.evaluation.results import ClipResult
from tiny_audio.evaluation.word_times import word_time_error

STEP = 0.01  # seconds


def slow_rate(reference: list[Turn], heard: list[Turn]) -> float:
    """On a grid of 10 ms, every assignment of speakers tried."""
    times = np.arange(0, max(turn.end for turn in (*reference, *heard)), STEP) + STEP / 2
    theirs = [{t.speaker for t in reference if t.start < time < t.end} for time in times]
    ours = [{t.speaker for t in heard if t.start < time < t.end} for time in times]
    names, slots = sorted({t.speaker for t in heard}), sorted({t.speaker for t in reference})
    slots += [f"nobody {i}" for i in range(len(names))]
    errors = []
    for chosen in permutations(slots, len(names)):
        named = dict(zip(names, chosen, strict=True))
        errors.append(
            sum(max(len(r), len(h)) - len(r & {named[name] for name in h}) for r, h in zip(theirs, ours, strict=True))
        )
    return min(errors) / sum(map(len, theirs))


@pytest.mark.parametrize("seed", range(12))
def test_diarization_error_is_the_slow_ones(seed: int) -> None:
    rng = np.random.default_rng(seed)

    def turns(speakers: str, count: int) -> list[Turn]:
        starts = rng.integers(0, 400, count) * STEP
        return [Turn(str(rng.choice(list(speakers))), s, s + rng.integers(5, 200) * STEP) for s in starts]

    reference, heard = turns("ABC", 6), turns("xyz" if seed % 2 else "xy", 5)
    reference, heard = ([*dict.fromkeys(t)] for t in (reference, heard))
    assert clip_error(reference, heard).rate == pytest.approx(slow_rate(reference, heard), abs=1e-6)


def test_kinds_of_diarization_errors_by_hand() -> None:
    reference = [Turn("A", 0, 10), Turn("B", 10, 20)]
    error = clip_error(reference, [Turn("1", 0, 12), Turn("2", 12, 18), Turn("2", 20, 21)])
    assert error == pytest.approx((2, 1, 2, 20)) and error.rate == pytest.approx(0.25)
    assert clip_error(reference, [Turn("9", 0, 10), Turn("1", 10, 20)]).rate == 0


def words(*items: tuple[str, float, float, str | None]) -> list[dict]:
    return [{"text": text, "start": start, "end": end, "speaker": speaker} for text, start, end, speaker in items]


def test_speakers_of_words_become_turns() -> None:
    heard = words(("a", 0.0, 1.0, "0"), ("b", 1.5, 2.0, "0"), ("c", 2.0, 3.0, "1"))
    turns = [{"speaker": "x", "start": 0.0, "end": 2.0}, {"speaker": "y", "start": 2.0, "end": 3.0}]
    result = ClipResult("a", 3.0, "a b c", "a b c", words=heard, reference_turns=turns)
    assert diarization_error([result])["der"] == 0.0  # the pause inside a speaker's turn is no error
    assert diarization_error([ClipResult("a", 3.0, "a", "a", words=heard)]) == {}


def test_word_times_of_matched_words() -> None:
    reference = words(
        ("Hello,", 0.0, 0.5, None), ("big", 0.5, 0.8, None), ("world", 0.8, 1.2, None), ("42", 1.2, 2.0, None)
    )
    heard = words(("hello", 0.1, 0.5, None), ("world!", 0.8, 1.0, None), ("forty", 1.2, 2.0, None))
    found = word_time_error([ClipResult("a", 2.0, "", "", words=heard, reference_times=reference)])
    assert (found["words"], found["reference_words"]) == (2, 4)
    assert found["mean"] == pytest.approx((0.1 + 0.0 + 0.0 + 0.2) / 4)
    assert word_time_error([ClipResult("a", 2.0, "", "", words=heard)]) == {}


@pytest.mark.parametrize("level", [0, 10, 20, 30])
def test_the_estimate_follows_the_noise(level: float) -> None:
    """Half a clip of tone and half of pauses, in white noise of a known ratio to the tone."""
    rng = np.random.default_rng(0)
    times = np.arange(64_000) / 16_000
    tone = np.sin(2 * np.pi * 300 * times) * (np.floor(times * 4) % 2)
    noise = rng.standard_normal(len(times)) * np.sqrt(0.5 / 10 ** (level / 10))
    estimate = estimate_snr((0.1 * (tone + noise)).astype(np.float32))
    assert estimate == pytest.approx(level, abs=2.5)


def test_what_has_no_ratio() -> None:
    assert estimate_snr(np.zeros(16_000, np.float32)) is None
    assert estimate_snr(np.ones(500, np.float32)) is None


def test_a_provider_that_hears_nobody_has_missed_all() -> None:
    turns = [{"speaker": "x", "start": 0.0, "end": 2.0}]
    heard = ClipResult("a", 2.0, "a", "a", words=words(("a", 0.0, 2.0, "0")), reference_turns=turns)
    deaf = ClipResult("b", 2.0, "a", "", words=[], reference_turns=turns)
    silent = ClipResult("c", 2.0, "", "a", words=words(("a", 0.0, 1.0, "0")), reference_turns=[])
    assert diarization_error([heard, deaf]) == {
        "clips": 2, "der": 0.5, "missed": 2.0, "false_alarm": 0.0, "confusion": 0.0, "speech": 4.0,
    }  # fmt: skip
    assert diarization_error([heard, silent])["false_alarm"] == 1.0
