"""Joint training of nano's encoder, projector and language model, with a CTC loss beside, for a given time.

python -m recipes.nano.train --work-dir build/nano --minutes 75
"""

from __future__ import annotations

import argparse
import math
import os
import random
import time
from copy import deepcopy
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import torch
from torch import distributed, nn

from recipes.nano.data import NO_CURRICULUM, Curriculum, Loader, Mixture, plain_batches, read_shards
from recipes.nano.features import MelAugmentation
from recipes.nano.model import JointModel, build_asr, train_tokenizer
from recipes.nano.sentences import sentences
from tiny_audio.model.modeling import ASRModel
from tiny_audio.training.ctc import CHARACTERS, ctc_texts

SHARES = {
    "train": 0.4,
    "listening": 0.3,
    "quickstart": 0.05,
    "digits": 0.17,
    "librispeech": 0.08,
}  # of each batch's seconds
AGAIN = Curriculum(first_seconds=2.0, length_batches=400, augmentation_batches=10**9, first_strength=0.5)
TOKENIZER_SENTENCES, TOKENIZER_LINES = 20_000, 2_000


@dataclass
class Options:
    """How long and how to train."""

    work_dir: Path = Path("build/nano")
    text: Path | None = None  # general text that the tokenizer sees too, a sentence a line
    minutes: float = 75.0
    batch_seconds: float = 64.0
    learning_rate: float = 1.5e-3
    warmup: float = 0.03  # share of the time
    ctc_weight: float = 1.0
    weight_decay: float = 0.02
    ema_decay: float = 0.999
    processes: int = 1  # each with one thread and its own batches; gradients are averaged
    seed: int = 0
    resume: bool = False
    start_from: Path | None = None  # an exported checkpoint whose weights are the first ones
    again: bool = False  # short clips first once more: the encoder is ready before the language model can listen
    report_steps: int = 100
    evaluate_seconds: float = 600.0
    save_seconds: float = 180.0
    max_steps: int | None = None
    encoder: dict = field(default_factory=dict)  # changed sizes, for tests
    decoder: dict = field(default_factory=dict)


def learning_rate_share(progress: float, warmup: float) -> float:
    """Warm-up, then cosine to zero; `progress` is the share of the time that has passed."""
    if progress < warmup:
        return progress / warmup
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (progress - warmup) / (1 - warmup))))


def tokenizer_texts(text: Path | None) -> list[str]:
    """What the tokenizer is trained on."""
    texts = list(islice(sentences("train", seed=2), TOKENIZER_SENTENCES))
    if text is not None:
        lines = text.read_text().lower().splitlines()
        texts += random.Random(0).sample(lines, min(TOKENIZER_LINES, len(lines)))
    return texts


class Trainer:
    """One run: a bf16 model that computes, its float32 weights, their moving average, the optimizer and the clock."""

    def __init__(self, options: Options):
        self.options = options
        torch.manual_seed(options.seed)
        if options.start_from is None:
            asr = build_asr(train_tokenizer(tokenizer_texts(options.text)), options.encoder, options.decoder)
        else:
            trained = ASRModel.from_pretrained(options.start_from)
            asr = build_asr(trained.processor.tokenizer, options.encoder, options.decoder)
            asr.load_state_dict(trained.state_dict())
        self.averaged = JointModel(asr)
        self.average = list(self.averaged.parameters())
        self.weights = [nn.Parameter(parameter.detach().clone()) for parameter in self.average]
        self.model = deepcopy(self.averaged).to(torch.bfloat16)
        self.computing = list(self.model.parameters())
        self.optimizer = torch.optim.AdamW(self._groups(), lr=0.0, betas=(0.9, 0.98), fused=True)
        self.step, self.elapsed = 0, 0.0  # seconds

    def _groups(self) -> list[dict]:
        matrices = [p for p in self.weights if p.ndim > 1]
        vectors = [p for p in self.weights if p.ndim <= 1]
        return [
            {"params": matrices, "weight_decay": self.options.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ]

    def learn(self, batch: dict, now: float = 0.0) -> tuple[float, float]:
        """One optimizer step; the CTC and the language model's loss. `now` becomes the time elapsed, in seconds."""
        share = learning_rate_share(self.elapsed / (60 * self.options.minutes), self.options.warmup)
        for group in self.optimizer.param_groups:
            group["lr"] = self.options.learning_rate * share
        self.model.train()
        ctc, lm = self.model({**batch, "features": batch["features"].bfloat16()})
        (lm + self.options.ctc_weight * ctc).backward()
        self.elapsed = self._share_gradients(now)
        self._update()
        return ctc.item(), lm.item()

    @torch.no_grad()
    def _share_gradients(self, now: float) -> float:
        """Float32 gradients of the bf16 ones, averaged over the processes; so is the clock, which they all follow."""
        parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in self.computing]
        flat = torch.cat([*(part.flatten().float() for part in parts), torch.tensor([now])])
        if distributed.is_initialized():
            distributed.all_reduce(flat)
            flat /= distributed.get_world_size()
        pieces = flat[:-1].split([p.numel() for p in self.weights])
        for weight, computing, piece in zip(self.weights, self.computing, pieces, strict=True):
            weight.grad, computing.grad = piece.view_as(weight), None
        return float(flat[-1])

    @torch.no_grad()
    def _update(self) -> None:
        """The float32 weights follow the gradients, their average follows them, the bf16 model gets them back."""
        if not torch.isfinite(nn.utils.clip_grad_norm_(self.weights, 1.0)):
            return
        self.optimizer.step()
        self.step += 1
        decay = min(self.options.ema_decay, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(self.average, self.weights, 1 - decay)
        torch._foreach_copy_(self.computing, self.weights)

    def save(self) -> None:
        """The whole state, written beside and renamed."""
        state = {
            "weights": self.weights,
            "average": self.averaged.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        path = self.options.work_dir / "training.pt"
        torch.save({**state, "step": self.step, "elapsed": self.elapsed}, path.with_suffix(".tmp"))
        os.replace(path.with_suffix(".tmp"), path)

    @torch.no_grad()
    def load(self) -> None:
        """Continue where `save` was called."""
        state = torch.load(self.options.work_dir / "training.pt", weights_only=True)
        self.averaged.load_state_dict(state["average"])
        torch._foreach_copy_(self.weights, state["weights"])
        torch._foreach_copy_(self.computing, self.weights)
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.elapsed = state["step"], state["elapsed"]

    @torch.no_grad()
    def word_error_rates(self, folder: Path, count: int) -> tuple[float, float]:
        """WER of the language model (greedy) and of CTC's best path on `count` utterances of a folder."""
        import jiwer

        model = self.averaged.eval()
        asr, references, spoken, spelled = model.asr, [], [], []
        utterances = read_shards(folder)
        for batch, texts in plain_batches(asr.processor, utterances[:: max(1, len(utterances) // count)][:count]):
            features, lengths = batch["features"], batch["lengths"]
            mask = (torch.arange(features.shape[-1]) < lengths[:, None]).long()
            spoken += asr.processor.batch_decode(asr.generate(features, mask, max_new_tokens=48))
            _, frame_lengths, logits = model.ctc_logits(features, lengths)
            spelled += ctc_texts(logits, frame_lengths, CHARACTERS)
            references += texts
        return jiwer.wer(references, spoken), jiwer.wer(references, spelled)

    def evaluate(self) -> None:
        """Prints the WER of the averaged weights on held-out voices, and on other takes of the known human speakers."""
        sets = [("validation", 100), ("digits-validation", 200)]
        for name, count in sets[rank() :: processes()]:  # each process takes its share
            folder = self.options.work_dir / name
            if folder.is_dir():
                lm, ctc = self.word_error_rates(folder, count)
                print(f"step {self.step} {name}: WER {lm:.3f}, CTC {ctc:.3f}", flush=True)


def rank() -> int:
    """This process's number among those that train together."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def processes() -> int:
    """How many processes train together."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def batches(options: Options, processor, seed: int) -> Loader:
    """The mixture of all sources that the work folder holds."""
    settings = MelAugmentation()
    decks = {options.work_dir / name: share for name, share in SHARES.items() if (options.work_dir / name).is_dir()}
    curriculum = AGAIN if options.again else NO_CURRICULUM if options.resume or options.start_from else Curriculum()
    return Loader(Mixture(decks, options.batch_seconds, settings, seed, curriculum), processor, settings, seed + 1)


def run(options: Options) -> Trainer:
    """Trains until the time is over."""
    trainer = Trainer(options)
    if options.resume:
        trainer.load()
    torch.manual_seed(options.seed + rank())
    loader = batches(options, trainer.model.asr.processor, 1000 * (options.seed + rank()) + trainer.step)
    log, evaluations, saves = Log(trainer), Every(options.evaluate_seconds), Every(options.save_seconds)
    begun = time.monotonic() - trainer.elapsed
    while trainer.elapsed < 60 * options.minutes and trainer.step != options.max_steps:
        batch = next(loader)
        losses = trainer.learn(batch, time.monotonic() - begun)
        if rank() == 0:
            log.add(losses, batch)
        if evaluations.due(trainer.elapsed):
            trainer.evaluate()
        if saves.due(trainer.elapsed) and rank() == 0:
            trainer.save()
    loader.close()
    if rank() == 0:
        trainer.save()
    trainer.evaluate()
    return trainer


class Every:
    """Says once every so many seconds that something is due."""

    def __init__(self, seconds: float):
        self.seconds, self.last = seconds, 0.0

    def due(self, now: float) -> bool:
        """Whether `seconds` have passed since it last was."""
        if now - self.last < self.seconds:
            return False
        self.last = now
        return True


class Log:
    """A line with the mean losses and the speed every so many steps."""

    def __init__(self, trainer: Trainer):
        self.trainer, self.losses, self.seconds, self.since = trainer, [], 0.0, time.monotonic()

    def add(self, losses: tuple[float, float], batch: dict) -> None:
        """Counts a step of this process and prints if a line is due."""
        self.losses.append(losses)
        self.seconds += processes() * batch["lengths"].sum().item() / 100
        if len(self.losses) < self.trainer.options.report_steps:
            return
        ctc, lm = (sum(column) / len(column) for column in zip(*self.losses, strict=True))
        rate, now = self.trainer.optimizer.param_groups[0]["lr"], time.monotonic()
        speed = f"{self.seconds / (now - self.since):.0f} audio-s/s, lr {rate:.2e}, {self.trainer.elapsed / 60:.1f} min"
        print(f"step {self.trainer.step}: ctc {ctc:.3f}, lm {lm:.3f}, {speed}", flush=True)
        self.losses, self.seconds, self.since = [], 0.0, now


def _run_one(index: int, options: Options, store: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{store}", rank=index, world_size=options.processes)
    run(options)


def run_all(options: Options) -> None:
    """As `run`, in `options.processes` processes: on a shared machine two threads of one would wait for each other."""
    store = (options.work_dir / "processes").resolve()
    store.unlink(missing_ok=True)
    torch.multiprocessing.spawn(_run_one, (options, str(store)), nprocs=options.processes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work-dir", type=Path, default=Options.work_dir)
    parser.add_argument("--text", type=Path, help="general text for the tokenizer, a sentence a line")
    parser.add_argument("--minutes", type=float, default=Options.minutes)
    parser.add_argument("--batch-seconds", type=float, default=Options.batch_seconds)
    parser.add_argument("--learning-rate", type=float, default=Options.learning_rate)
    parser.add_argument("--ctc-weight", type=float, default=Options.ctc_weight)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--start-from", type=Path, help="exported checkpoint to train on, e.g. the shipped nano")
    parser.add_argument("--again", action="store_true", help="short clips first once more")
    parser.add_argument("--max-steps", type=int, default=None)
    run_all(Options(**vars(parser.parse_args())))


if __name__ == "__main__":
    main()
