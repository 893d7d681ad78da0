"""The tests of significance: against NIST's sc_stats, by hand, a slow plain version, and scipy's bootstrap."""

import math
import random

import numpy as np
import pytest
from analysis_helpers import clips_of
from scipy import stats

from tiny_audio.analysis.alignment import Alignment, align
from tiny_audio.analysis.significance import bootstrap_rates, holm, matched_pairs, segment_errors, two_sided_p


def aligned(texts: list[tuple[str, str]]) -> list[Alignment]:
    return align(clips_of(texts))


def both(reference: str, a: str, b: str) -> list[list[int]]:
    return segment_errors(aligned([(reference, a)]), aligned([(reference, b)])).tolist()


# ---- segments


@pytest.mark.parametrize(
    ("reference", "a", "b", "segments"),
    [
        (
            "it was the best of times it was the worst of times it was",
            "its the best of times it is the worst of times or it was",
            "it was the best times it won the test of times it was",
            [[2, 0], [0, 1], [1, 2], [1, 0]],
        ),
        ("a b c d e f", "x b c d e y", "a b c d e f", [[1, 0], [1, 0]]),
        ("a b c d", "x b c y", "a b c d", [[1, 0], [1, 0]]),
        ("a b c", "x b y", "a b c", [[2, 0]]),
        ("a b c", "x b c", "a b y", [[1, 1]]),  # the words between must be right in both
        ("a b c d", "a b x c d", "a b c d", [[1, 0]]),
        ("a b c d e", "x a b y c d e", "a b c d e", [[1, 0], [1, 0]]),
        ("a b c d e", "x a y b c d e", "a b c d e", [[2, 0]]),  # an insertion parts the two right words
        ("a b", "a b x", "x a b", [[0, 1], [1, 0]]),
        ("a b c", "a b c", "a b c", []),
        ("a b", "", "a b", [[2, 0]]),
        ("", "x y", "", [[2, 0]]),
        ("", "", "", []),
    ],
)
def test_segments_by_hand(reference, a, b, segments):
    assert both(reference, a, b) == segments


def test_clips_are_never_one_segment():
    a, b = aligned([("a b", "a x"), ("c d", "y d")]), aligned([("a b", "a b"), ("c d", "c d")])
    assert segment_errors(a, b).tolist() == [[1, 0], [1, 0]]


def plain_segments(a: Alignment, b: Alignment) -> list[list[int]]:
    """The definition word by word: errors belong together until two words in a row are right in both."""
    insertions, wrong = np.zeros((2, len(a.reference) + 1), int), np.zeros((2, len(a.reference)), int)
    for side, alignment in enumerate((a, b)):
        for chunk in alignment.chunks:
            if chunk.type == "insert":
                insertions[side, chunk.ref_start_idx] += chunk.hyp_end_idx - chunk.hyp_start_idx
            elif chunk.type != "equal":
                wrong[side, chunk.ref_start_idx : chunk.ref_end_idx] = 1
    segments, right = [], 2
    for place in range(len(a.reference) + 1):
        for errors in (insertions[:, place], wrong[:, place] if place < len(a.reference) else np.zeros(2, int)):
            if errors.any():
                if right >= 2:
                    segments.append([0, 0])
                segments[-1] = [segments[-1][0] + int(errors[0]), segments[-1][1] + int(errors[1])]
                right = 0
        right += 1 if place < len(a.reference) and not wrong[:, place].any() else 0
    return segments


def corrupt(words: list[str], rng: random.Random, rate: float) -> list[str]:
    """Half of the errors are substitutions, a quarter each deletions and insertions."""
    said = []
    for word in words:
        chance = rng.random()
        if chance < rate * 0.5:
            said.append(f"x{rng.randrange(10**6)}")
        elif chance < rate * 0.75:
            continue
        elif chance < rate:
            said += [word, f"y{rng.randrange(10**6)}"]
        else:
            said.append(word)
    return said


def random_pairs(seed: int, clips: int, rates: tuple[float, float]) -> tuple[list[Alignment], list[Alignment]]:
    """Two recognisers on references of 3 to 14 words that are all different, so that an alignment is hardly in doubt."""
    rng = random.Random(seed)
    texts = []
    for clip in range(clips):
        reference = [f"w{clip}x{i}" for i in range(rng.randint(3, 14))]
        texts.append([" ".join(t) for t in (reference, *(corrupt(reference, rng, rate) for rate in rates))])
    return aligned([(t[0], t[1]) for t in texts]), aligned([(t[0], t[2]) for t in texts])


@pytest.mark.parametrize("seed", range(3))
def test_segments_are_those_of_the_plain_definition(seed):
    a, b = random_pairs(seed, 300, (0.4, 0.2))
    expected = [segment for pair in zip(a, b, strict=True) for segment in plain_segments(*pair)]
    assert segment_errors(a, b).tolist() == expected


# ---- the matched-pairs test

# What `sc_stats -t mapsswe` of NIST's SCTK 2.4.10 prints for `random_pairs` (aligned by its `sclite -i swb`): segments,
# errors of A and of B, Z of A less B, and p, where it rounds Z to two digits first.
SC_STATS = [
    (0, 60, (0.15, 0.10), 82, (69, 59), 0.971, 0.332),
    (1, 60, (0.15, 0.10), 77, (71, 53), 1.676, 0.095),
    (2, 60, (0.15, 0.10), 76, (66, 50), 1.498, 0.136),
    (3, 60, (0.15, 0.10), 78, (69, 49), 1.823, 0.069),
    (0, 400, (0.30, 0.25), 710, (994, 824), 4.618, 0.000),
    (2, 400, (0.30, 0.25), 688, (933, 820), 3.163, 0.002),
]


@pytest.mark.parametrize(("seed", "clips", "rates", "segments", "errors", "z", "p"), SC_STATS)
def test_the_matched_pairs_test_is_nists(seed, clips, rates, segments, errors, z, p):
    a, b = random_pairs(seed, clips, rates)
    found = matched_pairs(a, b)
    assert found.segments == segments
    assert tuple(segment_errors(a, b).sum(axis=0)) == errors
    assert found.z == pytest.approx(-z, abs=0.0005)
    assert found.p == pytest.approx(p, abs=0.003)


def test_the_matched_pairs_test_by_hand():
    """Differences of B less A in four segments: -1, -1, +1, -2; mean -0.75, deviation 1.2583, Z -1.192."""
    reference = "a b c d e f g h"
    a = aligned([(reference, "x b c d e f g h")] * 2 + [(reference, reference), (reference, "x y c d e f g h")])
    b = aligned([(reference, reference)] * 2 + [(reference, "a b c d x f g h"), (reference, reference)])
    found = matched_pairs(a, b)
    assert (found.segments, found.mean) == (4, -0.75)
    assert found.z == pytest.approx(-0.75 / (math.sqrt(19 / 12) / 2))
    assert found.p == pytest.approx(2 * stats.norm.cdf(found.z))


def test_swapping_the_runs_flips_the_sign():
    a, b = random_pairs(5, 80, (0.3, 0.1))
    there, back = matched_pairs(a, b), matched_pairs(b, a)
    assert (there.mean, there.z, there.p) == (-back.mean, -back.z, back.p)
    assert there.mean < 0 and there.p < 0.001


def test_a_run_does_not_differ_from_itself():
    a, _ = random_pairs(6, 80, (0.3, 0.1))
    found = matched_pairs(a, a)
    assert (found.mean, found.z, found.p) == (0.0, 0.0, 1.0)
    assert matched_pairs(a[:0], a[:0]).p == 1.0


def test_errors_in_every_segment_against_none_are_told_by_signs():
    """Without any spread Z has no value, though ten errors against none are no chance."""
    a, b = aligned([("a b c", "a x c")] * 10), aligned([("a b c", "a b c")] * 10)
    found = matched_pairs(a, b)
    assert (found.segments, found.mean, found.z) == (10, -1.0, None)
    assert found.p == pytest.approx(stats.binomtest(0, 10).pvalue)
    assert matched_pairs(a[:1], b[:1]).p == 1.0


def test_the_matched_pairs_test_errs_as_often_as_it_says():
    """Of two recognisers that are alike, one in twenty comparisons calls them different."""
    claims = [matched_pairs(*random_pairs(seed, 60, (0.2, 0.2))).p < 0.05 for seed in range(1000, 1120)]
    assert 0 < np.mean(claims) < 0.12


# ---- the paired bootstrap


@pytest.fixture(scope="module")
def counts() -> tuple[np.ndarray, np.ndarray]:
    """Word errors of two recognisers, (2, clips), and words of 400 clips."""
    rng = np.random.default_rng(0)
    words = rng.integers(3, 25, 400)
    hard = rng.beta(1, 5, 400)
    return np.array([rng.binomial(words, hard), rng.binomial(words, 0.7 * hard)]), words


def test_the_paired_bootstrap_is_scipys(counts):
    errors, words = counts
    rates = bootstrap_rates(errors, words, resamples=4000)
    found = np.percentile(rates[:, 1] - rates[:, 0], [2.5, 97.5])

    def difference(a, b, w, axis):
        return (b.sum(axis=axis) - a.sum(axis=axis)) / w.sum(axis=axis)

    theirs = stats.bootstrap(
        (*errors, words), difference, paired=True, vectorized=True, n_resamples=4000, method="percentile", rng=1
    )
    assert found == pytest.approx(theirs.confidence_interval, abs=0.0015)
    assert rates[:, 0].std() == pytest.approx(_standard_error(errors[0], words), rel=0.05)


def _standard_error(errors: np.ndarray, words: np.ndarray) -> float:
    """Of a ratio of sums, by the delta method."""
    residuals = errors - errors.sum() / words.sum() * words
    return math.sqrt(len(words) * residuals.var(ddof=1)) / words.sum()


def test_the_bootstraps_p(counts):
    errors, words = counts
    rates = bootstrap_rates(errors, words)
    assert two_sided_p(rates[:, 1] - rates[:, 0]) < 0.01
    assert two_sided_p(rates[:, 0] - rates[:, 0]) == 1.0
    half = np.r_[np.full(25, -0.1), np.full(1975, 0.1)]
    assert two_sided_p(half) == two_sided_p(-half) == pytest.approx(0.026, abs=0.001)


def test_clips_without_words_do_no_harm():
    rates = bootstrap_rates(np.array([[2, 0], [0, 0]]), np.array([0, 0]), resamples=50)
    assert np.isfinite(rates).all() and rates[:, 0].max() == 4.0


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([0.2]) == [0.2]
