"""Diarization error rate: how much of the speech was missed, invented, or given to the wrong speaker."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from tiny_audio.evaluation.results import ClipResult


class Turn(NamedTuple):
    """One speaker's stretch of speech, in seconds."""

    speaker: str
    start: float
    end: float


class DiarizationError(NamedTuple):
    """Seconds of each kind of error, and of speech in the reference (overlap counted once a speaker)."""

    missed: float
    false_alarm: float
    confusion: float
    speech: float

    @property
    def rate(self) -> float:
        return (self.missed + self.false_alarm + self.confusion) / max(self.speech, 1e-9)


def diarization_error(results: Sequence[ClipResult]) -> dict[str, Any]:
    """The rate over all clips whose reference tells speakers and whose provider did too; {} where there is none.

    References tell them by the column `turns`, or by `words` with a speaker each; providers by their words' speakers.
    """
    pairs = [(_reference(result), _turns(result.words)) for result in results if result.words is not None]
    known = [(reference, heard) for reference, heard in pairs if reference is not None]
    if not any(heard for _, heard in known):  # no provider that tells speakers apart
        return {}
    errors = [clip_error(reference, heard) for reference, heard in known]
    total = DiarizationError(*(sum(values) for values in zip(*errors, strict=True)))
    return {"clips": len(errors), "der": round(total.rate, 6), **{k: round(v, 3) for k, v in total._asdict().items()}}


def _reference(result: ClipResult) -> list[Turn] | None:
    """Who speaks when, which may be nobody; None where the reference does not tell."""
    if result.reference_turns is not None:
        return _turns(result.reference_turns)
    tells = any(word.get("speaker") is not None for word in result.reference_times or ())
    return _turns(result.reference_times) if tells else None


def clip_error(reference: Sequence[Turn], heard: Sequence[Turn]) -> DiarizationError:
    """Errors of one recording under the best one-to-one assignment of speakers (NIST md-eval, no collar, overlap scored).

    In each stretch with r speakers in the reference and h heard, of whom c are the same: missed max(0, r - h),
    false alarm max(0, h - r), confusion min(r, h) - c.
    """
    from scipy.optimize import linear_sum_assignment

    edges = np.unique([time for turn in (*reference, *heard) for time in (turn.start, turn.end)])
    lengths = np.diff(edges)
    theirs, ours = _activity(reference, edges), _activity(heard, edges)  # (speakers, stretches)
    shared = theirs * lengths @ ours.T  # seconds that each pair of speakers talks at once
    correct = shared[linear_sum_assignment(shared, maximize=True)].sum()
    r, h = theirs.sum(axis=0), ours.sum(axis=0)
    return DiarizationError(
        missed=float((np.maximum(r - h, 0) * lengths).sum()),
        false_alarm=float((np.maximum(h - r, 0) * lengths).sum()),
        confusion=float((np.minimum(r, h) * lengths).sum() - correct),
        speech=float((r * lengths).sum()),
    )


def _activity(turns: Sequence[Turn], edges: np.ndarray) -> np.ndarray:
    """Who speaks when: 1 or 0, shape (speakers, stretches between edges)."""
    speakers = sorted({turn.speaker for turn in turns})
    active = np.zeros((len(speakers), len(edges) - 1))
    for turn in turns:
        active[speakers.index(turn.speaker), np.searchsorted(edges, turn.start) : np.searchsorted(edges, turn.end)] = 1
    return active


def _turns(stretches: Sequence[dict[str, Any]] | None) -> list[Turn]:
    """Turns of what carries a speaker; words of a speaker in a row are joined over the pauses between them."""
    turns: list[Turn] = []
    for stretch in stretches or ():
        if stretch.get("speaker") is None:
            continue
        turn = Turn(str(stretch["speaker"]), float(stretch["start"]), float(stretch["end"]))
        if "text" in stretch and turns and turns[-1].speaker == turn.speaker:
            turns[-1] = turns[-1]._replace(end=max(turn.end, turns[-1].end))
        else:
            turns.append(turn)
    return turns
