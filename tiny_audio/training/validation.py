"""Loss and word error rate on a fixed sample of the validation split, by greedy decoding."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from typing import Any

import torch

from tiny_audio.console import warn
from tiny_audio.data import (
    Corpus,
    DataConfig,
    Example,
    Part,
    Row,
    SecondsBatchSampler,
    Skipped,
    SpeechCollator,
    evaluated,
    load_row,
    open_corpus,
    parts_of,
    usable_rows,
)
from tiny_audio.data.collator import Dropped, load_or_drop
from tiny_audio.data.filtering import Limits, default_clean
from tiny_audio.data.mixture import even_quotas
from tiny_audio.data.sources import NoSuchSplit
from tiny_audio.data.stream_batches import UsableRows, place_among_ranks
from tiny_audio.errors import TinyAudioError
from tiny_audio.evaluation.scoring import score
from tiny_audio.model.modeling import ASRModel
from tiny_audio.model.processor import IGNORED_LABEL, ASRProcessor
from tiny_audio.text.normalizers import get_normalizer

from .ctc import audio_inputs, ctc_loss, ctc_texts, frame_lengths, trains_head_alone
from .processes import gathered, summed

NORMALIZER = "basic"
BATCH_FACTOR = 4  # without gradients, batches of so many times the training's seconds fit
STREAMED_SAMPLE = 200  # clips of a streamed split, where data.max_eval_samples sets no number


@dataclass(frozen=True)
class Measured:
    """Loss (mean over the label tokens), WER (a fraction) and the number of clips; of a CTC head trained alone, its own."""

    loss: float
    wer: float
    clips: int
    part_wers: dict[str, float]  # of each part of a mixture


class Validation:
    """A sample of the validation split, of each part of a mixture that has one, whose clips are chosen once.

    Raises:
        TinyAudioError: no clip of the split can be used.
    """

    def __init__(self, data: DataConfig, processor: ASRProcessor, batch_seconds: float) -> None:
        self.processor, self.collator = processor, SpeechCollator(processor)
        parts = parts_of(data)
        self.limits = {part.name: Limits.of(part, processor.max_samples) for part in parts}
        self.skipped, self.counts = Skipped(), dict[str, int]()
        self.places: list[
            tuple[Sequence[Row], int]
        ] = []  # each clip's part, which reads it when asked, and place in it
        durations: list[float] = []
        for part, rows, seconds, skipped in (_streamed if data.streaming else _opened)(data, self.limits):
            self.skipped.merge(skipped)
            self.counts[part.name] = len(rows)
            self.places += [(rows, index) for index in range(len(rows))]
            durations += seconds
        if not self.places:
            splits = ", ".join(f"`{part.eval_split}` of {part.path}" for part in parts)
            raise TinyAudioError(f"Nothing to validate on in the split {splits}: {self.skipped.summary()}.")
        self.order = SecondsBatchSampler(durations, BATCH_FACTOR * batch_seconds, data.seed).epoch(0)

    def describe(self) -> str:
        """One line: clips, of each part too, and what is skipped."""
        parts = ", ".join(f"{name} {number:,}" for name, number in self.counts.items() if name)
        skipped = f"; {self.skipped.summary()}" if len(self.skipped) else ""
        return f"{len(self.places):,} clips{f' ({parts})' if parts else ''}{skipped}"

    def measure(self, model: ASRModel) -> Measured:
        """Runs the model, in inference mode, over the sample; of several processes each takes a share of its batches."""
        model.eval()
        measure = self._measure_head if trains_head_alone(model) else self._measure
        loss = tokens = 0.0
        references: list[str] = []
        hypotheses: list[str] = []
        parts: list[str] = []
        with torch.no_grad():
            for batch in self._batches(*place_among_ranks()):
                parts += batch.pop("parts", ())
                inputs = {name: tensor.to(model.device) for name, tensor in batch.items()}
                total, texts = measure(model, inputs)
                loss, tokens = loss + total, tokens + int((inputs["labels"] != IGNORED_LABEL).sum())
                references += self._texts(inputs["labels"])
                hypotheses += texts
        loss, tokens = summed((loss, tokens))
        shares = zip(*gathered((references, hypotheses, parts)), strict=True)
        references, hypotheses, parts = (list(chain.from_iterable(each)) for each in shares)
        wer = score(references, hypotheses, get_normalizer(NORMALIZER)).wer
        return Measured(loss / tokens, wer, len(references), _wers_by_part(parts, references, hypotheses))

    def speech(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Features and mask of one batch."""
        batch = next(self._batches())
        return batch[self.processor.adapter.input_name], batch["audio_attention_mask"]

    def _batches(self, rank: int = 0, ranks: int = 1) -> Iterator[dict[str, Any]]:
        for indices in self.order[rank::ranks]:
            rows = [part[place] for part, place in (self.places[index] for index in indices)]
            clips = [load_or_drop(lambda row=row: load_row(row), row.id, self.limits[row.part]) for row in rows]  # type: ignore[misc]
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
        greedy = {"num_beams": 1, "do_sample": False, "synced_gpus": False}  # processes decode clips of their own
        tokens = model.generate(**audio, max_new_tokens=2 * longest + 8, **greedy)
        return self.processor.batch_decode(tokens)


Sample = tuple[Part, Sequence[Row], list[float], Skipped]  # usable rows of a part, their seconds, what was left out


def evaluation_corpora(data: DataConfig) -> list[tuple[Part, Corpus]]:
    """The validation clips of each part that has such a split, sampled if the settings say so."""
    opened = [(part, corpus) for part in parts_of(data) if (corpus := _evaluation_corpus(part)) is not None]
    quotas = even_quotas(data.max_eval_samples, [len(corpus) for _, corpus in opened])
    return [(part, corpus.sample(quota, data.seed)) for (part, corpus), quota in zip(opened, quotas, strict=True)]


def _evaluation_corpus(part: Part) -> Corpus | None:
    try:
        return open_corpus(evaluated(part), part.eval_split)
    except NoSuchSplit as error:
        _only_in_mixture(part, error)
        return None


def _only_in_mixture(part: Part, error: NoSuchSplit) -> None:
    if not part.name:
        raise error
    warn(f"Nothing of {part.name} is measured during training: {error}")


def _opened(data: DataConfig, limits: dict[str, Limits]) -> Iterator[Sample]:
    for part, corpus in evaluation_corpora(data):
        usable, skipped = usable_rows(corpus, **asdict(limits[part.name]))
        yield part, corpus.select(usable).rows, corpus.durations[usable].tolist(), skipped


def _streamed(data: DataConfig, limits: dict[str, Limits]) -> Iterator[Sample]:
    parts = parts_of(data)
    quota = max(1, (data.max_eval_samples or STREAMED_SAMPLE) // len(parts))
    for part in parts:
        source = UsableRows(evaluated(part), part.eval_split, quota, limits[part.name], default_clean())
        try:
            checked = list(source.epoch(None))
        except NoSuchSplit as error:
            _only_in_mixture(part, error)
            continue
        skipped = Skipped(total=len(checked))
        skipped.update(asdict(row) for row in checked if isinstance(row, Dropped))
        rows = [row for row in checked if isinstance(row, Row)]
        yield part, rows, [row.duration or 0.0 for row in rows], skipped


def _wers_by_part(parts: Sequence[str], references: Sequence[str], hypotheses: Sequence[str]) -> dict[str, float]:
    normalizer = get_normalizer(NORMALIZER)
    wers = {}
    for name in sorted(set(parts)):
        own = [index for index, part in enumerate(parts) if part == name]
        wers[name] = score([references[i] for i in own], [hypotheses[i] for i in own], normalizer).wer
    return wers
