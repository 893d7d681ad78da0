"""What the page shows, as plain values: the score table, and each clip with what every run made of it, word by word."""

import string
from collections.abc import Sequence
from typing import Any

from tiny_audio.analysis.alignment import Alignment, align
from tiny_audio.analysis.output import interval, percent
from tiny_audio.analysis.runs import Run
from tiny_audio.errors import TinyAudioError
from tiny_audio.evaluation.results import ClipResult

LETTERS = string.ascii_uppercase  # a run's short name on the page
COLUMNS = ("run", "model", "dataset", "normalizer", "WER", "95 %", "CER", "S/D/I", "SER", "RTFx", "clips", "failed")

Takes = list[ClipResult | None]  # of one clip: what each run made of it, None where a run does not have it


def score_rows(runs: Sequence[Run]) -> list[list[str]]:
    """The cells of the score table: a row a run.

    Raises:
        TinyAudioError: there are more runs than letters.
    """
    if len(runs) > len(LETTERS):
        raise TinyAudioError(f"{len(runs)} runs were given; a report holds {len(LETTERS)} at most.")
    return [_score_row(letter, run) for letter, run in zip(LETTERS, runs, strict=False)]


def _score_row(letter: str, run: Run) -> list[str]:
    metrics = run.metrics
    wrong = metrics.sentence_error_rate
    return [
        f"{letter}: {run.folder.resolve().name}",
        metrics.model,
        metrics.dataset_name,
        metrics.normalizer["name"],
        percent(metrics.wer),
        interval(metrics.wer_interval),
        percent(metrics.cer),
        f"{metrics.substitutions}/{metrics.deletions}/{metrics.insertions}",
        "" if wrong is None else percent(wrong),
        f"{metrics.rtfx:.1f}",
        str(metrics.num_samples),
        str(metrics.num_failed),
    ]


def takes_by_clip(runs: Sequence[Run]) -> list[Takes]:
    """The runs' results side by side; two are of the same clip when id and reference are the same."""
    clips: dict[tuple[str, str], Takes] = {}
    for number, run in enumerate(runs):
        for result in run.results:
            takes = clips.setdefault((result.id, result.reference), [None] * len(runs))
            takes[number] = result
    return list(clips.values())


def clip_values(clips: Sequence[Takes]) -> list[dict[str, Any]]:
    """Each clip as the page's script reads it; what is not known, or the same as above it, is left out."""
    alignments = _alignments([take for takes in clips for take in takes if take is not None])
    return [_clip(takes, alignments) for takes in clips]


def _clip(takes: Takes, alignments: dict[int, str]) -> dict[str, Any]:
    known = [take for take in takes if take is not None]
    first = next((take for take in known if not take.failed), known[0])
    scored = first.normalized_reference
    values = {
        "id": first.id,
        "duration": first.duration,
        "snr": first.snr,
        "speaker": first.speaker,
        "metadata": first.metadata or None,
        "reference": first.reference,
        "scored": scored if scored != first.reference else None,
        "takes": [take and _take(take, scored, alignments) for take in takes],
    }
    return _without_none(values)


def _take(take: ClipResult, scored: str | None, alignments: dict[int, str]) -> dict[str, Any]:
    if take.failed:
        return {"error": take.error}
    values = {
        "prediction": take.prediction,
        "scored": take.normalized_prediction if take.normalized_prediction != take.prediction else None,
        "reference": take.normalized_reference if take.normalized_reference != scored else None,
        "wer": round(take.wer or 0.0, 5),
        "errors": take.word_errors,
        "alignment": alignments[id(take)] if take.word_errors else None,
    }
    return _without_none(values)


def _alignments(takes: Sequence[ClipResult]) -> dict[int, str]:
    """Of each wrong take, by `id(take)`, its runs of equal, substituted, deleted and inserted words, as `e5s1d2`."""
    wrong = [take for take in takes if take.word_errors]
    return {id(take): _short(alignment) for take, alignment in zip(wrong, align(wrong), strict=True)}


def _short(alignment: Alignment) -> str:
    words = (max(c.ref_end_idx - c.ref_start_idx, c.hyp_end_idx - c.hyp_start_idx) for c in alignment.chunks)
    return "".join(f"{chunk.type[0]}{count}" for chunk, count in zip(alignment.chunks, words, strict=True))


def _without_none(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}
