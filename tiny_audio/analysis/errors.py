"""Which words are taken for which, left out and put in, by how often, and how often they could have been."""

from collections import Counter
from collections.abc import Iterable, Sequence

from tiny_audio.analysis.alignment import Alignment, align
from tiny_audio.analysis.output import Column, Report, Table, counted
from tiny_audio.analysis.runs import Run
from tiny_audio.console import printable

COUNT = Column("count", "times")
OCCURRENCES = Column("occurrences", "in references")
RATE = Column("rate", "rate", "{:.1%}".format)
WORD = Column("word", "word", printable)
PAIR = (Column("reference", "reference", printable), Column("prediction", "prediction", printable))


def errors(run: Run) -> Report:
    """Substitutions, deletions and insertions by word; a rate is a count over the word's occurrences in references."""
    alignments = align(run.scored)
    occurrences = Counter(word for alignment in alignments for word in alignment.reference)
    swapped, left_out, put_in = _counts(alignments)
    tables = [
        Table("substitutions", "Taken for another", (*PAIR, COUNT, OCCURRENCES, RATE), _rows(swapped, occurrences)),
        Table("deletions", "Left out", (WORD, COUNT, OCCURRENCES, RATE), _rows(left_out, occurrences)),
        Table("insertions", "Put in", (WORD, COUNT, OCCURRENCES, RATE), _rows(put_in, occurrences)),
    ]
    totals = [sum(counts.values()) for counts in (swapped, left_out, put_in)]
    words = sum(occurrences.values())
    facts = {"run": str(run.folder), "words": words}
    return Report("errors", facts, tables, [_finding(run, totals, words)])


def _counts(alignments: Iterable[Alignment]) -> tuple[Counter, Counter, Counter]:
    """How often each pair (reference, prediction) and each (word,) stands in an error."""
    swapped: Counter[tuple[str, ...]] = Counter()
    left_out: Counter[tuple[str, ...]] = Counter()
    put_in: Counter[tuple[str, ...]] = Counter()
    for alignment in alignments:
        for kind, reference, prediction in alignment.differences():
            if kind == "substitute":
                swapped.update(zip(reference, prediction, strict=True))
            else:
                left_out.update((word,) for word in reference)
                put_in.update((word,) for word in prediction)
    return swapped, left_out, put_in


def _rows(counts: Counter, occurrences: Counter) -> list[tuple]:
    """The most frequent first; the first word of a key is the one that a rate is of."""
    rows = [
        (*key, count, occurrences[key[0]], count / occurrences[key[0]] if occurrences[key[0]] else None)
        for key, count in counts.items()
    ]
    return sorted(rows, key=lambda row: (-row[-3], -(row[-1] or 0), row))


def _finding(run: Run, totals: Sequence[int], words: int) -> str:
    parts = [counted(n, kind) for n, kind in zip(totals, ("substitution", "deletion", "insertion"), strict=True)]
    return f"{run.title}: {parts[0]}, {parts[1]} and {parts[2]} in {counted(words, 'reference word')}."
