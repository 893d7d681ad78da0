"""How far the times of recognised words are from the reference's, where both sides carry times."""

from collections.abc import Sequence
from typing import Any

import jiwer
import numpy as np

from tiny_audio.evaluation.results import ClipResult
from tiny_audio.text.labels import clean_label


def word_time_error(results: Sequence[ClipResult]) -> dict[str, Any]:
    """Absolute differences in seconds between the starts and ends of words that were recognised right.

    Words are matched by the alignment of the two texts, case and punctuation aside.

    Returns:
        `words` (matched), `reference_words`, `median`, `p95`, `mean`; {} where no clip has times on both sides.
    """
    timed = [result for result in results if result.reference_times and result.words is not None]
    if not timed:
        return {}
    differences = [difference for result in timed for difference in _differences(result)]
    total = sum(len(result.reference_times or ()) for result in timed)
    found: dict[str, Any] = {"words": len(differences) // 2, "reference_words": total}
    if differences:
        median, p95 = np.percentile(differences, [50, 95])
        found |= {
            "median": round(float(median), 4),
            "p95": round(float(p95), 4),
            "mean": round(float(np.mean(differences)), 4),
        }
    return found


def _differences(result: ClipResult) -> list[float]:
    reference, heard = _spelt(result.reference_times or []), _spelt(result.words or [])
    if not reference or not heard:
        return []
    aligned = jiwer.process_words(" ".join(name for name, _ in reference), " ".join(name for name, _ in heard))
    pairs = [
        (reference[chunk.ref_start_idx + i][1], heard[chunk.hyp_start_idx + i][1])
        for chunk in aligned.alignments[0]
        if chunk.type == "equal"
        for i in range(chunk.ref_end_idx - chunk.ref_start_idx)
    ]
    return [abs(float(one[edge]) - float(other[edge])) for one, other in pairs for edge in ("start", "end")]


def _spelt(words: Sequence[dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    """Each word as one token; what holds no letter is left out."""
    named = ((clean_label(str(word.get("text", word.get("word", "")))).replace(" ", ""), word) for word in words)
    return [(name, word) for name, word in named if name]
