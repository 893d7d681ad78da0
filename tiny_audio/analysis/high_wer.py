"""The clips at or over a word error rate, with the words that differ marked."""

from tiny_audio.analysis.alignment import align
from tiny_audio.analysis.output import ERRORS, ID, PREDICTION, REFERENCE, WER, WORDS, Column, Report, Table, counted
from tiny_audio.analysis.runs import Run
from tiny_audio.console import printable
from tiny_audio.evaluation.results import ClipResult, worst_first

COLUMNS = (
    ID,
    WER,
    ERRORS,
    WORDS,
    Column("duration", "s", "{:.2f}".format),
    REFERENCE,
    PREDICTION,
    Column("raw_reference", show=None),
    Column("raw_prediction", show=None),
)


def high_wer(run: Run, threshold: float) -> Report:
    """The clips whose WER is at or over `threshold` (per cent), the worst first; words on empty references count."""
    found = [result for result in worst_first(run.results) if 100 * (result.wer or 0) >= threshold - 1e-9]
    pairs = [alignment.marked() for alignment in align(found)]
    rows = [(*_figures(r), *pair, r.reference, r.prediction) for r, pair in zip(found, pairs, strict=True)]
    facts = {"run": str(run.folder), "threshold": threshold, "clips_found": len(found), "clips": len(run.scored)}
    facts["failed"] = len(run.results) - len(run.scored)
    title = f"{run.title}: clips of {threshold:g} % WER and more"
    return Report("high-wer", facts, [Table("worst", title, COLUMNS, rows)], _findings(run, found, threshold))


def _figures(result: ClipResult) -> tuple:
    return result.id, result.wer, result.word_errors, result.reference_words, result.duration


def _findings(run: Run, found: list[ClipResult], threshold: float) -> list[str]:
    clips, failed = len(run.scored), len(run.results) - len(run.scored)
    errors = sum(result.word_errors for result in run.scored)
    theirs = sum(result.word_errors for result in found)
    share = f"{len(found):,} of {counted(clips, 'clip')} ({len(found) / max(clips, 1):.1%})"
    sentences = [f"{share} have {threshold:g} % WER or more: {theirs:,} of the {counted(errors, 'word error')}."]
    if failed:
        first = next(result for result in run.results if result.failed)
        sentences.append(f"Besides, {counted(failed, 'clip')} failed; {first.id}: {printable(first.error or '')}")
    return sentences
