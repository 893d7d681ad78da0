"""Training batches from shards of log-mel: a mixture of sources, sorted by length, augmented in a background thread."""

from __future__ import annotations

import json
import multiprocessing
import queue
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from recipes.nano.features import MelAugmentation, augment, scaled
from recipes.nano.model import CTC_INDEX
from tiny_audio.model.processor import IGNORED_LABEL, ASRProcessor

FRAMES_PER_SECOND = 100


@dataclass(frozen=True)
class Utterance:
    """A clip in a shard."""

    shard: Path
    start: int  # frame
    frames: int
    text: str
    speaker: str
    ctc_only: bool = False

    def mel(self) -> np.ndarray:
        """(frames, 128) raw log-mel, float32."""
        return _shard(self.shard)[self.start : self.start + self.frames].astype(np.float32)


@lru_cache(maxsize=None)
def _shard(path: Path) -> np.ndarray:
    """(frames, 128) float16; kept, since every round reads every shard."""
    return np.load(path)


def read_shards(folder: Path) -> list[Utterance]:
    """All utterances of the whole shards in a folder."""
    found = []
    for index in sorted(folder.glob("*.jsonl")):
        start = 0
        for row in map(json.loads, index.read_text().splitlines()):
            shard, only = index.with_suffix(".npy"), row.get("ctc_only", False)
            found.append(Utterance(shard, start, row["frames"], row["text"], row["speaker"], only))
            start += row["frames"]
    return found


class Deck:
    """Endless utterances of one folder in random order, each once a round; a new round sees new shards."""

    def __init__(self, folder: Path, rng: np.random.Generator):
        self.folder, self.rng = folder, rng
        self.left: list[Utterance] = []

    def draw(self) -> Utterance:
        """The next utterance."""
        if not self.left:
            utterances = read_shards(self.folder)
            if not utterances:
                raise FileNotFoundError(f"{self.folder} holds no shard; run the recipe's earlier steps first.")
            self.left = [utterances[i] for i in self.rng.permutation(len(utterances))]
        return self.left.pop()


@dataclass(frozen=True)
class Planned:
    """An utterance and the speed at which it will be heard."""

    utterance: Utterance
    speed: float

    @property
    def frames(self) -> int:
        return int(self.utterance.frames / self.speed)


class Mixture:
    """Batches of planned utterances: each source has its share of the seconds."""

    def __init__(self, decks: dict[Path, float], batch_seconds: float, settings: MelAugmentation, seed: int):
        self.rng = np.random.default_rng(seed)
        self.decks = [(Deck(folder, self.rng), share) for folder, share in decks.items()]
        self.batch_frames = int(batch_seconds * FRAMES_PER_SECOND)
        self.speeds = settings.speed

    def pool(self, batches: int = 24) -> list[list[Planned]]:
        """About `batches` batches, each of clips of similar length, in random order."""
        planned = []
        for deck, share in self.decks:
            budget = batches * self.batch_frames * share
            while budget > 0:
                planned.append(Planned(deck.draw(), self.rng.uniform(*self.speeds)))
                budget -= planned[-1].frames
        planned.sort(key=lambda clip: clip.frames)
        cut: list[list[Planned]] = [[]]
        for clip in planned:
            if cut[-1] and (len(cut[-1]) + 1) * clip.frames > self.batch_frames:
                cut.append([])
            cut[-1].append(clip)
        return [cut[i] for i in self.rng.permutation(len(cut))]

    def __iter__(self) -> Iterator[list[Planned]]:
        while True:
            yield from self.pool()


def collate(processor: ASRProcessor, mels: list[np.ndarray], texts: list[str], ctc_only: list[bool]) -> dict:
    """Scaled log-mel (frames, 128) and texts → the tensors that JointModel takes; the prompt is the processor's."""
    lengths = torch.tensor([len(mel) for mel in mels])
    features = torch.zeros(len(mels), mels[0].shape[1], int(lengths.max()))
    for row, mel in enumerate(mels):
        features[row, :, : len(mel)] = torch.from_numpy(np.ascontiguousarray(mel.T))
    characters = [[CTC_INDEX[character] for character in text if character in CTC_INDEX] for text in texts]
    lm_rows = [row for row, only in enumerate(ctc_only) if not only]
    batch = {
        "features": features,
        "lengths": lengths,
        "characters": torch.tensor([index for row in characters for index in row]),
        "num_characters": torch.tensor([len(row) for row in characters]),
        "lm_rows": torch.tensor(lm_rows, dtype=torch.long),
    }
    if lm_rows:
        counts = [processor.tokens_of_features(len(mels[row])) for row in lm_rows]
        batch.update(_answers(processor, counts, [texts[row] for row in lm_rows]))
    return batch


def _answers(processor: ASRProcessor, counts: list[int], texts: list[str]) -> dict[str, torch.Tensor]:
    """Prompts with answers, right-padded, and labels on answer and end token only."""
    tokenizer = processor.tokenizer
    rows = []
    for count, text in zip(counts, texts, strict=True):
        prompt = processor.prompts([count])["input_ids"][0].tolist()
        answer = [*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
        rows.append((prompt, answer))
    size = max(len(prompt) + len(answer) for prompt, answer in rows)
    ids = torch.full((len(rows), size), tokenizer.pad_token_id)
    labels, mask = torch.full_like(ids, IGNORED_LABEL), torch.zeros_like(ids)
    for index, (prompt, answer) in enumerate(rows):
        end = len(prompt) + len(answer)
        ids[index, :end] = torch.tensor(prompt + answer)
        labels[index, len(prompt) : end] = torch.tensor(answer)
        mask[index, :end] = 1
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


class Loader:
    """Augmented batches, made ahead by a process of their own (a thread would fight for the interpreter's lock)."""

    def __init__(self, mixture: Mixture, processor: ASRProcessor, settings: MelAugmentation, seed: int, ahead: int = 12):
        context = multiprocessing.get_context("spawn")
        self.ready = context.Queue(ahead)
        arguments = (self.ready, mixture, processor, settings, seed)
        self.process = context.Process(target=_make_batches, args=arguments, daemon=True)
        self.process.start()

    def __next__(self) -> dict:
        while True:
            try:
                batch = self.ready.get(timeout=5)
                break
            except queue.Empty:
                if not self.process.is_alive():
                    raise RuntimeError("The process that makes the batches has died; its error stands above.") from None
        return {name: torch.from_numpy(array) for name, array in batch.items()}

    def close(self) -> None:
        """Ends the process."""
        self.process.terminate()


def _make_batches(ready, mixture: Mixture, processor: ASRProcessor, settings: MelAugmentation, seed: int) -> None:
    torch.set_num_threads(1)
    rng = np.random.default_rng(seed)
    babble: np.ndarray | None = None
    for planned in mixture:
        mels = []
        for clip in planned:
            raw = clip.utterance.mel()
            mels.append(augment(rng, raw, settings, babble, clip.speed))
            if rng.random() < 0.1:
                babble = raw
        texts = [clip.utterance.text for clip in planned]
        batch = collate(processor, mels, texts, [clip.utterance.ctc_only for clip in planned])
        ready.put({name: tensor.numpy() for name, tensor in batch.items()})


def plain_batches(processor: ASRProcessor, utterances: list[Utterance], size: int = 50) -> Iterator[tuple[dict, list[str]]]:
    """Unchanged utterances sorted by length, with their texts, to measure on."""
    ordered = sorted(utterances, key=lambda utterance: utterance.frames)
    for start in range(0, len(ordered), size):
        part = ordered[start : start + size]
        texts = [utterance.text for utterance in part]
        yield collate(processor, [scaled(u.mel()) for u in part], texts, [False] * len(part)), texts
