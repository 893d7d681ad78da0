"""Loss and word error rate on a fixed sample of the validation split, by greedy decoding."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from tiny_audio.data import (
    DataConfig,
    Example,
    Row,
    SecondsBatchSampler,
    Skipped,
    SpeechCollator,
    load_row,
    open_corpus,
    stream_corpus,
    usable_rows,
)
from tiny_audio.data.collator import load_or_drop
from tiny_audio.data.corpus import row_duration
from tiny_audio.data.filtering import UNREADABLE, unusable_length
from tiny_audio.errors import TinyAudioError
from tiny_audio.evaluation.scoring import score
from tiny_audio.model.modeling import ASRModel
from tiny_audio.model.processor import IGNORED_LABEL, ASRProcessor
from tiny_audio.text.normalizers import get_normalizer

from .ctc import audio_inputs, ctc_loss, ctc_texts, frame_lengths, trains_head_alone

NORMALIZER = "basic"
BATCH_FACTOR = 4  # without gradients, batches of so many times the training's seconds fit
STREAMED_SAMPLE = 200  # clips of a streamed split, where data.max_eval_samples sets no number


@dataclass(frozen=True)
class Measured:
    """Loss (mean over the label tokens), WER (a fraction) and the number of clips; of a CTC head trained alone, its own."""

    loss: float
    wer: float
    clips: int


class Validation:
    """A sample of the validation split whose clips are chosen once.

    Raises:
        TinyAudioError: no clip of the split can be used.
    """

    def __init__(self, data: DataConfig, processor: ASRProcessor, batch_seconds: float) -> None:
        self.processor, self.collator = processor, SpeechCollator(processor)
        self.limits = (processor.max_samples, data.min_seconds, data.max_seconds)
        rows, durations, self.skipped = _streamed(data, self.limits) if data.streaming else _opened(data, self.limits)
        if not len(rows):
            raise TinyAudioError(
                f"Nothing to validate on in the split `{data.eval_split}` of {data.path}: {self.skipped.summary()}."
            )
        self.rows = rows
        self.order = SecondsBatchSampler(durations, BATCH_FACTOR * batch_seconds, data.seed).epoch(0)

    def measure(self, model: ASRModel) -> Measured:
        """Runs the model, in inference mode, over the sample."""
        model.eval()
        measure = self._measure_head if trains_head_alone(model) else self._measure
        loss, tokens = 0.0, 0
        references: list[str] = []
        hypotheses: list[str] = []
        with torch.no_grad():
            for batch in self._batches():
                inputs = {name: tensor.to(model.device) for name, tensor in batch.items()}
                total, texts = measure(model, inputs)
                loss, tokens = loss + total, tokens + int((inputs["labels"] != IGNORED_LABEL).sum())
                references += self._texts(inputs["labels"])
                hypotheses += texts
        scores = score(references, hypotheses, get_normalizer(NORMALIZER))
        return Measured(loss / tokens, scores.wer, len(references))

    def speech(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Features and mask of one batch."""
        batch = next(self._batches())
        return batch[self.processor.adapter.input_name], batch["audio_attention_mask"]

    def _batches(self) -> Iterator[dict[str, torch.Tensor]]:
        for indices in self.order:
            rows = [self.rows[index] for index in indices]
            clips = [load_or_drop(lambda row=row: load_row(row), row.id, *self.limits) for row in rows]  # type: ignore[misc]
            if any(isinstance(clip, Example) for clip in clips):
                batch = self.collator(clips)
                self.skipped.update(batch.pop("skipped"))
                del batch["audio_seconds"]
                yield batch

    def _texts(self, labels: torch.Tensor) -> list[str]:
        pad = self.processor.tokenizer.pad_token_id
        return self.processor.batch_decode(labels.masked_fill(labels == IGNORED_LABEL, pad))

    def _measure(self, model: ASRModel, inputs: dict[str, Any]) -> tuple[float, list[str]]:
        """The sum of a batch's losses, and its texts."""
        output = model(**inputs)
        return float(output.loss) * int(output.num_label_tokens), self._transcripts(model, inputs)

    def _measure_head(self, model: ASRModel, inputs: dict[str, Any]) -> tuple[float, list[str]]:
        scores = model(**audio_inputs(inputs)).ctc_scores
        lengths = frame_lengths(model, inputs)
        loss = float(ctc_loss(scores, lengths, inputs["ctc_labels"]))
        return loss, ctc_texts(scores, lengths, model.config.ctc_vocabulary)

    def _transcripts(self, model: ASRModel, inputs: dict[str, Any]) -> list[str]:
        audio = {name: inputs[name] for name in (model.encoder.input_name, "audio_attention_mask")}
        longest = int((inputs["labels"] != IGNORED_LABEL).sum(-1).max())
        # An untrained model never ends its answer: what goes far beyond the reference counts as wrong either way.
        tokens = model.generate(**audio, max_new_tokens=2 * longest + 8, num_beams=1, do_sample=False)
        return self.processor.batch_decode(tokens)


Limits = tuple[int | None, float, float | None]


def _opened(data: DataConfig, limits: Limits) -> tuple[Sequence[Row], np.ndarray, Skipped]:
    corpus = open_corpus(data, data.eval_split, max_samples=data.max_eval_samples)
    window, shortest, longest = limits
    usable, skipped = usable_rows(corpus, max_samples_window=window, min_seconds=shortest, max_seconds=longest)
    chosen = corpus.select(usable)
    return chosen.rows, corpus.durations[usable], skipped


def _streamed(data: DataConfig, limits: Limits) -> tuple[Sequence[Row], np.ndarray, Skipped]:
    rows = list(stream_corpus(data, data.eval_split, max_samples=data.max_eval_samples or STREAMED_SAMPLE))
    seconds = [row_duration(row) for row in rows]
    skipped, usable = Skipped(total=len(rows)), []
    for index, (row, length) in enumerate(zip(rows, seconds, strict=True)):
        reason = UNREADABLE if length is None else unusable_length(length, *limits)
        if reason is None:
            usable.append(index)
        else:
            skipped.add(row.id, reason, duration=length)
    return [rows[index] for index in usable], np.array([seconds[index] for index in usable]), skipped
