"""Training speed: tiny-audio's own beside the reference loop, on the same clips, in turns.

ta dev bench train                                    # mini, the 300 clips, three times each; takes long on a CPU
ta dev bench train --size nano --clips 60 --repeats 3 --json outputs/speed.jsonl
ta dev bench train --epochs 2 training.batch_seconds=120   # the second pass is timed; KEY=VALUE as of ta train
ta dev bench train --epochs 2 training.cache_features=true training.cache_dir=DIR   # filling the cache is not timed

Each loop runs in a process of its own, so that its peak memory is its own; the first steps are not timed.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from statistics import median

from tiny_audio import console

from .clips import LIST, dataset_of
from .commands import SIZES, run
from .measures import Moment, Speed, append_history, between

SIDES = ("reference", "ours")
HEADER = ("loop", "audio-s/s", "memory", "padding", "data wait")


@dataclass(frozen=True)
class Options:
    """What both loops have in common; `overrides` are those of `ta train`, for ours."""

    size: str
    data: str  # path of a dataset
    clips: int | None = None  # a random sample of so many, where all are not wanted
    epochs: int = 1  # the last one is timed
    warm_up: int = 5  # steps that are not timed
    threads: int = 2
    workers: int = 1  # processes that prepare batches
    device: str = "auto"
    overrides: Sequence[str] = field(default_factory=tuple)


def measure(side: str, options: Options) -> Speed:
    """Runs one of the loops, in this process."""
    import torch

    from tiny_audio.data import DataConfig, open_corpus
    from tiny_audio.evaluation.hardware import peak_memory_bytes, pick_device

    from .sizes import build

    torch.set_num_threads(options.threads)
    device = pick_device(options.device)
    corpus = open_corpus(DataConfig(path=options.data), "train", max_samples=options.clips)
    bf16 = device != "cpu"
    model = build(options.size, corpus.texts, device, torch.bfloat16 if bf16 else torch.float32)
    cached = False
    if side == "ours":
        begin, end, cached = ours(model, options, bf16)
    else:
        from .reference import BATCH_SIZE, train

        steps = -(-len(corpus) // BATCH_SIZE)
        moments = [*train(model, corpus, options.epochs, options.workers, bf16)]
        begin, end = moments[first_timed(steps * (options.epochs - 1), options)], moments[-1]
    return between(begin, end, peak_memory_bytes(device) or 0, cached)


def first_timed(before: int, options: Options) -> int:
    """Index of the step after which the clock runs: `before` steps belong to earlier passes."""
    return max(before, options.warm_up) - 1


def ours(model, options: Options, bf16: bool) -> tuple[Moment, Moment, bool]:
    """Trains with the real feed, collator and trainer; without validation and checkpoints. Also whether frames were cached."""
    from transformers import TrainerCallback

    from tiny_audio.training import compose
    from tiny_audio.training.budget import with_budget
    from tiny_audio.training.run import make_feed, training_corpora
    from tiny_audio.training.trainer import SpeechTrainer
    from tiny_audio.training.validation import Validation

    settings = compose(
        "quickstart",
        [
            "training.max_steps=null",
            f"training.num_epochs={options.epochs}",
            f"training.num_workers={options.workers}",
            f"training.dtype={'bf16' if bf16 else 'fp32'}",
            "training.batch_seconds=60",
            "training.logging_steps=1000000000",
            "training.report_to=none",
            f"data.max_train_samples={options.clips or 'null'}",
            *options.overrides,
        ],
        data=options.data,
    )
    corpora = training_corpora(settings)
    settings = with_budget(settings, model, corpora)
    feed = make_feed(settings, corpora, model)
    feed.fill(model)
    moments: list[Moment] = []

    class Watch(TrainerCallback):
        def on_step_end(self, *args, **kwargs) -> None:
            wait_for(model.device)
            meter = trainer.meter
            moments.append(
                Moment(
                    audio_seconds=meter.audio_seconds,
                    own_frames=meter.own_frames,
                    frames=meter.frames,
                    waited=meter.waited,
                )
            )

    with tempfile.TemporaryDirectory() as folder:
        validation = Validation(settings.data, model.processor, settings.training.batch_seconds)
        trainer = SpeechTrainer(model, settings, feed, validation, Path(folder), [Watch()])
        trainer.args.eval_strategy = trainer.args.save_strategy = "no"
        trainer.fit()
    before = sum(1 for step in range(1, feed.steps) if feed.epochs(step) <= options.epochs - 1)
    return moments[first_timed(before, options)], moments[-1], settings.training.cache_features


def wait_for(device) -> None:
    """A GPU finishes what it was given."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)


def in_turns(arguments: Sequence[str], repeats: int) -> dict[str, list[Speed]]:
    """Both loops one after the other, again and again, each time in a process of its own."""
    speeds: dict[str, list[Speed]] = {side: [] for side in SIDES}
    for repeat in range(repeats):
        for side in SIDES:
            command = [sys.executable, "-m", "benchmarks.train", "--only", side, *arguments]
            printed = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
            speeds[side].append(Speed(**json.loads(printed.splitlines()[-1])))
            console.say(f"{repeat + 1}/{repeats} {side}: {speeds[side][-1].audio_seconds_per_s:.1f} audio-s/s")
    return speeds


def figures(speeds: dict[str, list[Speed]]) -> dict:
    """Medians, and ours / reference as the median over the repeats."""

    def ratio(name: str) -> float:
        pairs = zip(speeds["ours"], speeds["reference"], strict=True)
        return round(median(getattr(our, name) / getattr(their, name) for our, their in pairs), 3)

    middle = {
        side: {item.name: round(median(getattr(run, item.name) for run in runs), 5) for item in fields(Speed)}
        for side, runs in speeds.items()
    }
    rates = {side: [round(run.audio_seconds_per_s, 2) for run in runs] for side, runs in speeds.items()}
    return {**middle, "ratio": ratio("audio_seconds_per_s"), "memory_ratio": ratio("peak_bytes"), "repeats": rates}


def show(result: dict) -> None:
    """The table and the ratio."""
    rows = [
        (
            f"{side}, cached" if result[side]["cached"] else side,
            f"{result[side]['audio_seconds_per_s']:.1f}",
            f"{result[side]['peak_bytes'] / 1e9:.2f} GB",
            f"{result[side]['padding_ratio']:.1%}",
            f"{result[side]['data_wait_ratio']:.1%}",
        )
        for side in SIDES
    ]
    console.table(HEADER, rows, right=HEADER[1:])
    if result["ours"]["cached"]:
        console.out("\nOur timed pass read the encoder's frames from the feature cache.")
    console.out(f"\nours / reference: {result['ratio']:.2f} × the speed, {result['memory_ratio']:.2f} × the memory")


def main(arguments: Sequence[str] | None = None) -> None:
    chosen = parser().parse_args(arguments)
    names = ("size", "clips", "epochs", "warm_up", "threads", "workers", "device")
    shared = {name: getattr(chosen, name) for name in names if getattr(chosen, name) is not None}
    if chosen.only:
        options = Options(data=chosen.data, overrides=tuple(chosen.overrides), **shared)
        print(json.dumps(asdict(measure(chosen.only, options))))
        return
    with tempfile.TemporaryDirectory() as folder:
        data = chosen.data or str(dataset_of(chosen.list, Path(folder)))
        common = [f"--{name.replace('_', '-')}={value}" for name, value in {**shared, "data": data}.items()]
        result = figures(in_turns([*common, *chosen.overrides], chosen.repeats))
    show(result)
    if chosen.json:
        append_history(chosen.json, "train", {**shared, "overrides": chosen.overrides, **result})


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--size", choices=SIZES, default="mini")
    made.add_argument("--list", type=Path, default=LIST, help="clips; a path a line")
    made.add_argument("--data", help="a dataset instead, as of ta train")
    made.add_argument("--clips", type=int, help="a random sample of so many; all without it")
    made.add_argument("--repeats", type=int, default=3)
    made.add_argument("--epochs", type=int, default=1, help="passes; the last one is timed")
    made.add_argument("--warm-up", type=int, default=5, help="steps that are not timed")
    made.add_argument("--threads", type=int, default=2)
    made.add_argument("--workers", type=int, default=1, help="processes that prepare batches")
    made.add_argument("--device", default="auto")
    made.add_argument("--only", choices=SIDES, help="run this loop once, and print its figures as JSON")
    made.add_argument("--json", type=Path, help="append the figures, the commit and the machine to this file")
    made.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="of ta train, for ours")
    return made


if __name__ == "__main__":
    run(main)
