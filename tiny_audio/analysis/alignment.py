"""Which word of the reference became which word of the prediction, for all clips in one call."""

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import jiwer

from tiny_audio.evaluation.results import ClipResult


@dataclass(frozen=True)
class Alignment:
    """A clip's words as they were scored, and how the two texts differ."""

    reference: list[str]
    prediction: list[str]
    chunks: list[jiwer.AlignmentChunk]  # runs of `equal`, `substitute`, `delete` and `insert`, in order

    def differences(self) -> Iterator[tuple[str, list[str], list[str]]]:
        """Runs of errors: kind, words of the reference, words of the prediction."""
        for chunk in self.chunks:
            if chunk.type != "equal":
                yield chunk.type, *self._words(chunk)

    def recognised(self) -> list[bool]:
        """For each word of the reference, whether it is in the prediction."""
        flags = [False] * len(self.reference)
        for chunk in self.chunks:
            if chunk.type == "equal":
                flags[chunk.ref_start_idx : chunk.ref_end_idx] = [True] * (chunk.ref_end_idx - chunk.ref_start_idx)
        return flags

    def marked(self) -> tuple[str, str]:
        """Both texts with the words that differ in [brackets]."""
        reference: list[str] = []
        prediction: list[str] = []
        for chunk in self.chunks:
            for words, side in zip(self._words(chunk), (reference, prediction), strict=True):
                if words:
                    side.append(" ".join(words) if chunk.type == "equal" else f"[{' '.join(words)}]")
        return " ".join(reference), " ".join(prediction)

    def _words(self, chunk: jiwer.AlignmentChunk) -> tuple[list[str], list[str]]:
        return (
            self.reference[chunk.ref_start_idx : chunk.ref_end_idx],
            self.prediction[chunk.hyp_start_idx : chunk.hyp_end_idx],
        )


def align(results: Sequence[ClipResult]) -> list[Alignment]:
    """Align the texts of clips that did not fail, as they were scored: with the fewest word errors."""
    if not results:
        return []
    references = [result.normalized_reference or "" for result in results]
    with no_garbage_collection():
        found = jiwer.process_words(references, [result.normalized_prediction or "" for result in results])
        sides = zip(found.references, found.hypotheses, found.alignments, strict=True)
        return [Alignment(reference, prediction, chunks) for reference, prediction, chunks in sides]


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """For many values without cycles: looking for cycles again and again takes more time than making them."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
