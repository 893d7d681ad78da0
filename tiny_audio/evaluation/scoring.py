"""Scores: word and character errors of each clip, pooled error rates, and the bootstrap interval of the WER."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jiwer
import numpy as np

from tiny_audio.evaluation.results import ClipResult

INTERVAL_LEVEL = 0.95


@dataclass(frozen=True)
class ClipScore:
    """Error counts of one clip, after normalisation."""

    substitutions: int
    deletions: int
    insertions: int
    words: int  # of the reference
    character_errors: int
    characters: int  # of the reference

    @property
    def errors(self) -> int:
        """Word errors."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def hits(self) -> int:
        """Reference words that were recognised."""
        return self.words - self.substitutions - self.deletions

    @property
    def hypothesis_words(self) -> int:
        return self.hits + self.substitutions + self.insertions

    @property
    def wer(self) -> float:
        """Word error rate as a fraction; words invented on an empty reference count one whole error each."""
        return error_rate(self.errors, self.words)


@dataclass(frozen=True)
class Scores:
    """Error counts of a set of clips, and the rates pooled over it (fractions: 0.08 is 8 %)."""

    clips: tuple[ClipScore, ...]

    @property
    def substitutions(self) -> int:
        return sum(clip.substitutions for clip in self.clips)

    @property
    def deletions(self) -> int:
        return sum(clip.deletions for clip in self.clips)

    @property
    def insertions(self) -> int:
        return sum(clip.insertions for clip in self.clips)

    @property
    def words(self) -> int:
        """Reference words."""
        return sum(clip.words for clip in self.clips)

    @property
    def wer(self) -> float:
        """All word errors over all reference words."""
        return error_rate(sum(clip.errors for clip in self.clips), self.words)

    @property
    def cer(self) -> float:
        """All character errors over all reference characters, spaces between words included."""
        return error_rate(
            sum(clip.character_errors for clip in self.clips), sum(clip.characters for clip in self.clips)
        )

    @property
    def sentence_error_rate(self) -> float:
        """Share of the clips with any word error."""
        return sum(clip.errors > 0 for clip in self.clips) / len(self.clips)

    @property
    def mer(self) -> float:
        """Match error rate: word errors over all aligned positions (Morris et al. 2004); never above 1."""
        errors = sum(clip.errors for clip in self.clips)
        return error_rate(errors, errors + self.hits)

    @property
    def wil(self) -> float:
        """Word information lost: 1 - hits² / (reference words x hypothesis words) (Morris et al. 2004)."""
        hypothesis_words = sum(clip.hypothesis_words for clip in self.clips)
        if not self.words and not hypothesis_words:
            return 0.0
        return 1 - self.hits**2 / max(self.words * hypothesis_words, 1)

    @property
    def hits(self) -> int:
        """Reference words that were recognised."""
        return sum(clip.hits for clip in self.clips)

    def wer_interval(self, groups: Sequence[str] | None = None) -> tuple[float, float]:
        """The 95 % bootstrap interval of `wer`.

        Args:
            groups: of each clip its speaker; whole groups are then drawn, since clips of a speaker fail alike.
        """
        errors, words = [clip.errors for clip in self.clips], [clip.words for clip in self.clips]
        if groups is not None:
            errors, words = _summed(errors, groups), _summed(words, groups)
        return bootstrap_interval(errors, words)


def counts_of(result: ClipResult) -> ClipScore:
    """What was counted when a clip was decoded: no text is normalised twice."""
    return ClipScore(
        substitutions=result.substitutions or 0,
        deletions=result.deletions or 0,
        insertions=result.insertions or 0,
        words=result.reference_words or 0,
        character_errors=result.character_errors or 0,
        characters=result.reference_characters or 0,
    )


def _summed(values: Sequence[int], groups: Sequence[str]) -> list[int]:
    totals: dict[str, int] = {}
    for value, group in zip(values, groups, strict=True):
        totals[group] = totals.get(group, 0) + value
    return list(totals.values())


def error_rate(errors: int, units: int) -> float:
    """`errors / units`; without any reference unit every error counts as a whole one, so inventions never score 0."""
    return errors / max(units, 1)


def score(references: Sequence[str], hypotheses: Sequence[str], normalizer: Callable[[str], str]) -> Scores:
    """Compare each hypothesis with its reference, both normalised once.

    Empty references are scored: their hypothesis' words are insertions. Runs in time linear in the number of clips.

    Raises:
        ValueError: if there is not one hypothesis for each reference, or no reference at all.
    """
    if len(references) != len(hypotheses):
        raise ValueError(f"Found {len(references)} references and {len(hypotheses)} hypotheses, expected as many.")
    if not references:
        raise ValueError("Nothing to score: expected at least one reference.")
    pairs = [normalized_pair(r, h, normalizer) for r, h in zip(references, hypotheses, strict=True)]
    return Scores(tuple(score_pair(reference, hypothesis) for reference, hypothesis in pairs))


def normalized_pair(reference: str, hypothesis: str, normalizer: Callable[[str], str]) -> tuple[str, str]:
    """Both texts as they are compared: normalised, words apart by single spaces."""
    return " ".join(normalizer(reference).split()), " ".join(normalizer(hypothesis).split())


def bootstrap_interval(
    errors: Sequence[int], words: Sequence[int], resamples: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """The 95 % interval of pooled errors / words when clips are drawn anew with replacement (percentile bootstrap).

    Args:
        errors: word errors of each clip, shape (clips,).
        words: reference words of each clip, shape (clips,).
    """
    errors_of, words_of = np.asarray(errors, np.float64), np.asarray(words, np.float64)
    rng = np.random.default_rng(seed)
    rates = np.empty(resamples)
    block = max(1, 4_000_000 // max(len(errors_of), 1))  # bounds the memory of the draws to about 32 MB
    for start in range(0, resamples, block):
        draws = rng.integers(len(errors_of), size=(min(block, resamples - start), len(errors_of)))
        rates[start : start + len(draws)] = _rates(errors_of[draws], words_of[draws])
    tail = 100 * (1 - INTERVAL_LEVEL) / 2
    low, high = np.percentile(rates, [tail, 100 - tail])
    return float(low), float(high)


def _rates(errors: np.ndarray, words: np.ndarray) -> np.ndarray:
    return errors.sum(axis=1) / words.sum(axis=1).clip(min=1)


def score_pair(reference: str, hypothesis: str) -> ClipScore:
    """Count the errors between two normalised texts."""
    words = jiwer.process_words(reference, hypothesis)
    letters = jiwer.process_characters(reference, hypothesis)
    return ClipScore(
        substitutions=words.substitutions,
        deletions=words.deletions,
        insertions=words.insertions,
        words=words.hits + words.substitutions + words.deletions,
        character_errors=letters.substitutions + letters.deletions + letters.insertions,
        characters=letters.hits + letters.substitutions + letters.deletions,
    )
