"""Text that nobody said: loops, words on empty references, bursts of insertions, predictions that are far too long."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from tiny_audio.analysis.alignment import Alignment, align
from tiny_audio.analysis.output import CLIPS, ID, PREDICTION, REFERENCE, WER, Column, Report, Table, counted
from tiny_audio.analysis.runs import Run
from tiny_audio.console import printable
from tiny_audio.evaluation.results import ClipResult

REPEATS = 3  # of an n-gram in a row make a loop
LONGEST_NGRAM = 30  # words
BURST_WORDS = 4  # inserted in a row
BLOW_UP, BLOW_UP_WORDS = 2, 5  # times the reference's words, and so many more

KINDS = {
    "loop": f"an n-gram {REPEATS} times or more in a row, and not so in the reference",
    "empty": "text where the reference is empty",
    "burst": f"{BURST_WORDS} or more inserted words in a row",
    "length": f"{BLOW_UP} times the reference's words or more, and at least {BLOW_UP_WORDS} more",
}
SUMMARY_COLUMNS = (
    Column("kind", "kind", printable),
    Column("what", "what", printable),
    CLIPS,
    Column("share", "of all clips", "{:.2%}".format),
)
COLUMNS = (
    Column("kind", "kind", printable),
    ID,
    Column("text", "what", printable),
    Column("words", "words"),
    WER,
    REFERENCE,
    PREDICTION,
)


@dataclass(frozen=True)
class Hallucination:
    """One finding in one clip."""

    kind: str  # of KINDS
    text: str  # the part of the prediction, or a word on it
    words: int  # of the prediction that are too many


def hallucinations(run: Run) -> Report:
    """All findings; a clip may have several. Most words first, kind by kind."""
    found = [(r, h) for r, a in zip(run.scored, align(run.scored), strict=True) for h in hallucinated(a)]
    order = list(KINDS)
    found.sort(key=lambda pair: (order.index(pair[1].kind), -pair[1].words, pair[0].id))
    clips = {kind: len({r.id for r, h in found if h.kind == kind}) for kind in KINDS}
    share = 1 / max(len(run.scored), 1)
    summary = [(kind, what, clips[kind], clips[kind] * share) for kind, what in KINDS.items()]
    tables = [
        Table("kinds", f"{run.title}: text that nobody said", SUMMARY_COLUMNS, summary, whole=True),
        Table("found", "Found", COLUMNS, [_row(result, finding) for result, finding in found]),
    ]
    any_kind = len({result.id for result, _ in found})
    facts = {"run": str(run.folder), "clips": len(run.scored), "clips_found": any_kind}
    sentence = f"{any_kind:,} of {counted(len(run.scored), 'clip')} hold text that nobody said."
    return Report("hallucinations", facts, tables, [sentence])


def _row(result: ClipResult, found: Hallucination) -> tuple:
    return found.kind, result.id, found.text, found.words, result.wer, result.reference, result.prediction


def hallucinated(alignment: Alignment) -> Iterator[Hallucination]:
    """What a clip's prediction holds that nobody said."""
    reference, prediction = alignment.reference, alignment.prediction
    if loop := find_loop(reference, prediction):
        yield Hallucination("loop", f"{' '.join(loop[0])} x {loop[1]}", len(loop[0]) * (loop[1] - 1))
    if not reference:
        if prediction:
            yield Hallucination("empty", " ".join(prediction), len(prediction))
        return
    for kind, _, words in alignment.differences():
        if kind == "insert" and len(words) >= BURST_WORDS:
            yield Hallucination("burst", " ".join(words), len(words))
    more = len(prediction) - len(reference)
    if more >= BLOW_UP_WORDS and len(prediction) >= BLOW_UP * len(reference):
        yield Hallucination("length", f"{len(prediction)} words for {len(reference)}", more)


def find_loop(reference: list[str], prediction: list[str]) -> tuple[tuple[str, ...], int] | None:
    """The n-gram that repeats over most words of the prediction, and how often.

    None where there is none, or where the reference repeats it as well: three times, and more than half as often.
    """
    if max(Counter(prediction).values(), default=0) < REPEATS:
        return None
    repeated = list(_repeats(reference))
    longest: tuple[tuple[str, ...], int] | None = None
    for ngram, repeats in _repeats(prediction):
        if longest and len(ngram) * repeats <= len(longest[0]) * longest[1]:
            continue
        said = max((times for other, times in repeated if sorted(other) == sorted(ngram)), default=0)
        if said < REPEATS or repeats >= 2 * said:
            longest = ngram, repeats
    return longest


def _repeats(words: list[str]) -> Iterator[tuple[tuple[str, ...], int]]:
    """The n-grams that stand `REPEATS` times or more in a row, the short ones first, with how often."""
    numbers: dict[str, int] = {}
    coded = np.array([numbers.setdefault(word, len(numbers)) for word in words])
    for size in range(1, min(LONGEST_NGRAM, len(words) // REPEATS) + 1):
        same = np.concatenate([[False], coded[size:] == coded[:-size], [False]])  # as the word `size` places on
        starts, ends = np.flatnonzero(same[1:] != same[:-1]).reshape(-1, 2).T
        for start, length in zip(starts.tolist(), (ends - starts).tolist(), strict=True):
            if length >= (REPEATS - 1) * size:
                yield tuple(words[start : start + size]), length // size + 1
