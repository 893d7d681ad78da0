"""Training batches from shards of log-mel: a mixture of sources, sorted by length, augmented in a background thread."""

from __future__ import annotations

import json
import multiprocessing
import queue
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
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


@cache
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


@dataclass(frozen=True)
class Curriculum:
    """Short clips with little augmentation first: CTC finds its alignment many times sooner."""

    first_seconds: float = 1.3  # the longest clip of the first batch
    length_batches: int = 900  # after these, clips of any length
    augmentation_batches: int = 1500  # after these, augmentation at full strength
    first_strength: float = 0.15  # of the augmentation

    def longest_frames(self, batch: int) -> float:
        """Frames of the longest clip allowed in a batch."""
        if batch >= self.length_batches:
            return float("inf")
        return FRAMES_PER_SECOND * self.first_seconds * 6 ** (batch / self.length_batches)

    def strength(self, batch: int) -> float:
        """Of the augmentation, up to 1."""
        return min(1.0, self.first_strength + (1 - self.first_strength) * batch / self.augmentation_batches)


NO_CURRICULUM = Curriculum(length_batches=0, augmentation_batches=1)
BUCKET_FRAMES = [80, 104, 128, 160, 192, 224, 256, 304, 352, 416, 512, 640, 800, 1000, 1250, 1600, 2000, 3000]


class Mixture:
    """Batches of planned utterances: each source has its share of the seconds.

    A batch holds clips of one bucket of lengths and always as many: the CPU's matrix kernels are compiled anew for
    every new shape, which cost a third of the time.
    """

    def __init__(
        self,
        decks: dict[Path, float],
        batch_seconds: float,
        settings: MelAugmentation,
        seed: int,
        curriculum: Curriculum = NO_CURRICULUM,
    ):
        self.rng = np.random.default_rng(seed)
        self.decks = [Deck(folder, self.rng) for folder in decks]
        self.shares = list(decks.values())
        self.batch_frames = int(batch_seconds * FRAMES_PER_SECOND)
        self.speeds, self.curriculum = settings.speed, curriculum

    def __iter__(self) -> Iterator[tuple[int, list[Planned]]]:
        """The frames to which a batch is padded, and its clips."""
        waiting: dict[tuple[bool, int], list[Planned]] = defaultdict(list)
        drawn = [0.0] * len(self.decks)  # frames, over the deck's share
        count = 0
        while True:
            deck = int(np.argmin(drawn))
            clip = Planned(self.decks[deck].draw(), self.rng.uniform(*self.speeds))
            drawn[deck] += clip.frames / self.shares[deck]
            if clip.frames > min(self.curriculum.longest_frames(count), BUCKET_FRAMES[-1]):
                continue
            size = next(frames for frames in BUCKET_FRAMES if clip.frames <= frames)
            batch = waiting[clip.utterance.ctc_only, size]
            batch.append(clip)
            if len(batch) * size >= self.batch_frames:
                count += 1
                yield size, waiting.pop((clip.utterance.ctc_only, size))


def collate(
    processor: ASRProcessor, mels: list[np.ndarray], texts: list[str], lm_rows: list[int], size: int | None = None
) -> dict:
    """Scaled log-mel (frames, 128) and texts → the tensors that JointModel takes; the prompt is the processor's.

    Args:
        lm_rows: the clips that the language model is trained on too.
        size: frames to which all are padded; None: the longest clip's.
    """
    lengths = torch.tensor([len(mel) for mel in mels])
    features = torch.zeros(len(mels), mels[0].shape[1], size or int(lengths.max()))
    for row, mel in enumerate(mels):
        features[row, :, : len(mel)] = torch.from_numpy(np.ascontiguousarray(mel.T))
    characters = [[CTC_INDEX[character] for character in text if character in CTC_INDEX] for text in texts]
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
    longest = max(len(prompt) + len(answer) for prompt, answer in rows)
    size = -(-longest // 16) * 16  # few different shapes
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

    def __init__(
        self, mixture: Mixture, processor: ASRProcessor, settings: MelAugmentation, seed: int, ahead: int = 12
    ):
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
    for count, (size, planned) in enumerate(mixture):
        strength, mels = mixture.curriculum.strength(count), []
        for clip in planned:
            raw = clip.utterance.mel()
            mels.append(augment(rng, raw, settings.weakened(strength), babble, clip.speed)[:size])
            if rng.random() < 0.1:
                babble = raw
        lm_rows = [] if planned[0].utterance.ctc_only else list(range(len(planned)))
        batch = collate(processor, mels, [clip.utterance.text for clip in planned], lm_rows, size)
        ready.put({name: tensor.numpy() for name, tensor in batch.items()})


def plain_batches(
    processor: ASRProcessor, utterances: list[Utterance], size: int = 50
) -> Iterator[tuple[dict, list[str]]]:
    """Unchanged utterances sorted by length, with their texts, to measure on."""
    ordered = sorted(utterances, key=lambda utterance: utterance.frames)
    for start in range(0, len(ordered), size):
        part = ordered[start : start + size]
        texts = [utterance.text for utterance in part]
        yield collate(processor, [scaled(u.mel()) for u in part], texts, list(range(len(part)))), texts
