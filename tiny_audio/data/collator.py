"""Decoded clips, and batches of them as the model's tensors; clips that cannot be read are dropped, counted and listed."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from tiny_audio.errors import TinyAudioError

from .corpus import Corpus, Example
from .filtering import UNREADABLE, Limits, default_clean


@dataclass(frozen=True)
class Dropped:
    """A clip that stands in a batch's place but cannot be used."""

    id: str
    reason: str
    detail: str
    duration: float | None = None  # seconds


class ClipDataset:
    """Map-style dataset for a torch DataLoader: position → decoded clip, or why it was dropped.

    A batch always holds at least one clip: where all of its members are unreadable, the next readable clip by position
    replaces them, which is the same in every run.

    Args:
        corpus: where the clips are.
        indices: positions in the corpus, as `usable_rows` gives them; all by default.
        cache_bytes: decoded waveforms kept in memory, in each worker, so that small corpora are decoded once.
        limits: those of `Limits`; those of length are held against the decoded one, whatever the metadata say.
    """

    def __init__(
        self,
        corpus: Corpus,
        indices: Sequence[int] | np.ndarray | None = None,
        *,
        cache_bytes: int = 0,
        **limits: Any,
    ) -> None:
        self.corpus = corpus
        self.indices = np.arange(len(corpus)) if indices is None else np.asarray(indices, dtype=np.int64)
        self.limits = Limits(**limits)
        self.cache_bytes = cache_bytes
        self._cache: dict[int, Example] = {}
        self._cached_bytes = 0

    def __len__(self) -> int:
        return len(self.indices)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_cache": {}, "_cached_bytes": 0}

    def __getitem__(self, position: int) -> Example | Dropped:
        if position in self._cache:
            return self._cache[position]
        clip = load_or_drop(lambda: self.corpus.load(int(self.indices[position])), self._id(position), self.limits)
        if isinstance(clip, Example) and self._cached_bytes + clip.waveform.nbytes <= self.cache_bytes:
            self._cache[position] = clip
            self._cached_bytes += clip.waveform.nbytes
        return clip

    def __getitems__(self, positions: Sequence[int]) -> list[Example | Dropped]:
        clips = [self[position] for position in positions]
        if not any(isinstance(clip, Example) for clip in clips):
            clips += self.replacement(max(positions))
        return clips

    def replacement(self, after: int) -> Iterator[Example | Dropped]:
        """The clips up to the next readable one, those dropped on the way included."""
        for step in range(1, len(self) + 1):
            clip = self[(after + step) % len(self)]
            yield clip
            if isinstance(clip, Example):
                return
        first = self[0]
        reason = first.detail if isinstance(first, Dropped) else ""
        raise TinyAudioError(f"None of the {len(self)} clips of {self.corpus.name} can be read; the first: {reason}")

    def text(self, position: int) -> str:
        """The transcript as written, without touching the audio."""
        return self.corpus.texts[int(self.indices[position])]

    def _id(self, position: int) -> str:
        return self.corpus.id(int(self.indices[position]))


def load_or_drop(load: Callable[[], Example], id: str, limits: Limits) -> Example | Dropped:
    """The decoded clip, or why it cannot be used."""
    try:
        clip = load()
    except (ValueError, OSError) as error:
        return Dropped(id, UNREADABLE, str(error))
    reason = limits.unusable_length(clip.duration)
    if reason is None:
        return clip
    return Dropped(id, reason, f"decoded {clip.duration:.3f} s", round(clip.duration, 3))


class SpeechCollator:
    """Clips → the model's tensors, through the processor: the log-mel is made here, once per clip, in the workers.

    Args:
        processor: an ASRProcessor.
        clean: makes the label of a text; `tiny_audio.text.labels.clean_label` by default.
        draw_instructions: gives as many instructions as a batch has clips; the published one by default.
        teacher: whether batches hold, as `teacher`, what a language model reads that teaches from the transcripts.
        augment: changes a batch's clips, and may add some.
    """

    def __init__(
        self,
        processor: Any,
        clean: Callable[[str], str] | None = None,
        draw_instructions: Callable[[int], list[str]] | None = None,
        teacher: bool = False,
        augment: Callable[[Sequence[Example]], list[Example]] | None = None,
    ) -> None:
        self.processor, self.draw_instructions, self.teacher = processor, draw_instructions, teacher
        self.augment = augment
        self.clean = clean or default_clean()

    def __call__(self, clips: Sequence[Example | Dropped]) -> dict[str, Any]:
        """Makes a batch.

        Returns:
            what the processor returns for audio and text, `ctc_labels` for a model with a CTC head and `teacher` where
            asked for, plus `audio_seconds`, float32 (batch,), `skipped`, the list of entries that `Skipped.update` takes,
            and of a mixture `parts`, the clips' parts by name; these are to be taken out before the model's forward.

        Raises:
            TinyAudioError: no clip is readable (a ClipDataset never lets that happen).
        """
        import torch

        examples = [clip for clip in clips if isinstance(clip, Example)]
        if not examples:
            raise TinyAudioError(f"No clip of a batch of {len(clips)} can be read; expected at least one.")
        if self.augment is not None:
            examples = self.augment(examples)
        texts = [self.clean(example.text) for example in examples]
        instructions = None if self.draw_instructions is None else self.draw_instructions(len(examples))
        batch = self.inputs(examples, texts, instructions)
        if self.teacher:
            batch["teacher"] = self.processor.training_tokens(texts, instructions=instructions)
        if vocabulary := self.processor.config.ctc_vocabulary:
            batch["ctc_labels"] = ctc_labels(texts, vocabulary)
        if any(example.part for example in examples):
            batch["parts"] = [example.part for example in examples]
        return {
            **batch,
            "audio_seconds": torch.tensor([example.duration for example in examples], dtype=torch.float32),
            "skipped": [asdict(clip) for clip in clips if isinstance(clip, Dropped)],
        }

    def inputs(self, examples: Sequence[Example], texts: list[str], instructions: list[str] | None) -> dict[str, Any]:
        """What the model reads of the clips and their labels."""
        return self.processor(
            audio=[example.waveform for example in examples],
            text=texts,
            sampling_rate=16_000,
            return_tensors="pt",
            instructions=instructions,
        )


def ctc_labels(texts: Sequence[str], vocabulary: Sequence[str]) -> Any:
    """Texts → a CTC head's classes (batch, characters), -100 in the padding and for a text that it cannot spell whole."""
    import torch
    from torch.nn.utils.rnn import pad_sequence

    from tiny_audio.model.alignment import ANY, SEPARATORS, spell
    from tiny_audio.model.processor import IGNORED_LABEL

    between = [index for index, character in enumerate(vocabulary) if character in SEPARATORS][:1]
    rows = []
    for text in texts:
        row = [index for word in spell(text, vocabulary)[1] for index in (*between, *word)][len(between) :]
        rows.append(torch.tensor([IGNORED_LABEL] if ANY in row or not row else row))
    return pad_sequence(rows, batch_first=True, padding_value=IGNORED_LABEL)
