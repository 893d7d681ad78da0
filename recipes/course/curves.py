"""The figures of the course's classes on projectors and on training, drawn from real runs and from nano itself.

python -m recipes.course.curves                       # all, into docs/course/images; trains what is missing in --runs
python -m recipes.course.curves --only cliff --only overfit
python -m recipes.course.curves --png look            # PNGs too, to look at

The runs lie in outputs/course and are made once: about 1,800 steps of nano in all. Delete a run's folder to make it anew.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("svg")
matplotlib.rcParams |= {
    "svg.fonttype": "none", "svg.hashsalt": "tiny-audio", "font.family": "sans-serif", "font.size": 10,
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": "#e5e5e5",
    "axes.axisbelow": True, "legend.frameon": False, "figure.constrained_layout.use": True, "figure.facecolor": "white",
}  # fmt: skip

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from tiny_audio import ASRModel, embedded, load_audio
from tiny_audio.data import DataConfig, open_corpus
from tiny_audio.training import compose, train

IMAGES = Path("docs/course/images")
PROJECTORS_TABLE = Path("docs/projectors.md")
CLIP, SPOKEN = "send-a-message-to-jack.ogg", "send a message to jack"
BLUE, ORANGE, GREEN, RED, GREY = "#1f6fb4", "#e08214", "#2a8a4a", "#c0392b", "#8a8a8a"  # readable on white
CACHED = "training.cache_features=true"  # the runs share the frozen encoder's frames
SHORT = ("training.max_steps=100", "training.logging_steps=5", "training.eval_steps=50", CACHED)
FEW = (
    "data.max_train_samples=30",
    "training.max_steps=200",
    "training.logging_steps=5",
    "training.eval_steps=20",
    CACHED,
)
NEAR = ("training.max_steps=60", "training.lr_scheduler=constant", "training.logging_steps=1", "training.eval_steps=2")
RUNS: dict[str, tuple[str, ...]] = {  # overrides of `ta train --experiment quickstart`
    "first": (),
    "cliff": NEAR,  # the first 50 steps of `first`, its warm-up, and 10 more at the full rate
    "mlp": SHORT,
    "moe": (*SHORT, "model.projector_type=moe"),
    "qformer": (*SHORT, "model.projector_type=qformer"),
    "unscaled": SHORT,  # these three as mlp, but for the scale at the start
    "large": SHORT,
    "small": SHORT,
    "rate-1e-5": (*SHORT, "training.learning_rate=1e-5"),
    "rate-1e-4": (*SHORT, "training.learning_rate=1e-4"),
    "rate-0.5": (*SHORT, "training.learning_rate=0.5"),
    "no-warm-up": (*SHORT, "training.learning_rate=0.5", "training.warmup_steps=1"),
    "few": FEW,
}
STARTS: dict[str, float | None] = {
    "unscaled": None,
    "large": 30,
    "small": 1 / 30,
}  # times the tokens' RMS; None: as made
Log = list[dict[str, Any]]


def logged(runs: Path, name: str) -> Log:
    """The log of a run, which is trained first where it is not complete."""
    folder, settings = runs / name, compose("quickstart", RUNS[name], output_dir=runs / name)
    file = folder / "log.jsonl"
    entries = _read(file)
    if not entries or entries[-1]["step"] < settings.training.max_steps:
        shutil.rmtree(folder, ignore_errors=True)
        with ProcessPoolExecutor(max_workers=1, mp_context=get_context("spawn")) as own:
            own.submit(_train, settings, STARTS.get(name, 1)).result()
        entries = _read(file)
    return entries


def _read(file: Path) -> Log:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def _train(settings: Any, start: float | None) -> None:
    """A run; with another scale of the first audio than that of the token embeddings, if one is given."""
    from tiny_audio.training import run

    matched = run.match_embedding_scale

    def scaled(model: Any, speech: Any = None) -> None:
        if start is not None:
            matched(model, speech)
            model.projector.norm_2.weight.data.mul_(start)

    if start != 1:
        run.match_embedding_scale = scaled
    train(settings)


def column(log: Log, key: str) -> tuple[list[int], list[float]]:
    """Steps and values of the entries that have the key."""
    entries = [entry for entry in log if key in entry]
    return [entry["step"] for entry in entries], [entry[key] for entry in entries]


def first_below(log: Log, wer: float) -> tuple[int, float]:
    """Step and WER of the first validation below a WER."""
    return next((step, value) for step, value in zip(*column(log, "eval_wer"), strict=True) if value < wer)


# Class 3


def prompt(runs: Path) -> Figure:
    """The rows of embeddings that the language model reads for one clip, and where the loss is taken."""
    processor = ASRModel.from_pretrained(embedded("nano")).processor
    batch = processor(load_audio(embedded("clips") / CLIP), text=SPOKEN)
    ids, labels = batch["input_ids"][0].tolist(), batch["labels"][0].tolist()
    figure, axes = plt.subplots(figsize=(11, 2.9))
    for place, (token, label) in enumerate(zip(ids, labels, strict=True)):
        heard, answer = token == processor.audio_token_id, label != -100
        colour = ORANGE if heard else GREEN if answer else GREY
        axes.add_patch(plt.Rectangle((place + 0.05, 0), 0.9, 1, color=colour, alpha=0.85))
        text = "" if heard else processor.tokenizer.decode([token]).replace("\n", "\\n").strip(" ")
        axes.text(place + 0.5, 1.12, text, rotation=90, ha="center", va="bottom", size=8)
    _span(
        axes,
        ids.index(processor.audio_token_id),
        ids.count(processor.audio_token_id),
        "audio tokens, made by the projector",
        ORANGE,
    )
    _span(axes, 0, ids.index(processor.audio_token_id), "marks", GREY)
    after = ids.index(processor.audio_token_id) + ids.count(processor.audio_token_id)
    start = next(place for place, label in enumerate(labels) if label != -100)
    _span(axes, after, start - after, "instruction and marks", GREY)
    _span(axes, start, len(ids) - start, "answer", GREEN)
    axes.set(xlim=(-0.5, len(ids) + 0.5), ylim=(-1.1, 3.6))
    axes.axis("off")
    return figure


def _span(axes, start: int, count: int, text: str, colour: str) -> None:
    axes.plot([start + 0.1, start + count - 0.1], [-0.25, -0.25], color=colour, lw=2.5)
    axes.text(
        start + count / 2, -0.45, f"{text} ({count})" if text else "", ha="center", va="top", color=colour, size=9.5
    )


def stacking(runs: Path) -> Figure:
    """Eleven frames, four at a time: two groups, and three frames that are dropped."""
    frames, k = 11, 4
    groups = (frames - k) // k + 1
    figure, axes = plt.subplots(figsize=(9, 2.9))
    shades = [BLUE, GREEN]
    for frame in range(frames):
        kept = frame // k < groups
        colour = shades[frame // k] if kept else "#cfcfcf"
        axes.add_patch(plt.Rectangle((frame + 0.08, 2), 0.84, 1, color=colour))
        axes.text(frame + 0.5, 2.5, str(frame), ha="center", va="center", color="white" if kept else "#555")
    for group in range(groups):
        left = 1 + 5.2 * group
        for part in range(k):
            axes.add_patch(plt.Rectangle((left + part, 0), 0.92, 0.8, color=shades[group]))
            axes.text(left + part + 0.46, 0.4, str(k * group + part), ha="center", va="center", color="white")
        axes.annotate("", (left + 2, 0.9), (k * group + 2, 1.9), arrowprops={"arrowstyle": "->", "color": "#555"})
        axes.text(left + 2, -0.15, f"group {group}: 4 × 192 = 768 numbers", ha="center", va="top", size=9)
    axes.text(9.5, 3.15, "dropped: no full group", ha="center", size=9, color="#555")
    axes.text(0, 3.15, "11 frames of 192 numbers, 20 ms each", size=9)
    axes.text(11.4, 0.4, "(11 − 4) // 4 + 1 = 2", va="center", size=10)
    axes.set(xlim=(-0.2, 15), ylim=(-0.7, 3.6))
    axes.axis("off")
    return figure


def scale(runs: Path) -> Figure:
    """The size of tokens, and what it costs to start at another."""
    figure, (sizes, losses) = plt.subplots(1, 2, figsize=(10, 3.6))
    table = ASRModel.from_pretrained(embedded("nano")).language_model.get_input_embeddings().weight.detach().numpy()
    sizes.hist(np.sqrt((table**2).mean(1)), bins=30, color=GREY)
    sizes.axvline(np.sqrt((table**2).mean()), color=BLUE, lw=2)
    sizes.axvline(1, color=RED, lw=2)
    sizes.text(np.sqrt((table**2).mean()) + 0.02, 0.92, "audio tokens, scaled", color=BLUE,
               transform=sizes.get_xaxis_transform())  # fmt: skip
    sizes.text(0.98, 0.8, "audio tokens,\nnot scaled", color=RED, ha="right", transform=sizes.get_xaxis_transform())
    sizes.set(xlabel="root mean square of an embedding", ylabel="tokens of the table", xlim=(0, 1.1))
    sizes.set_title("768 token embeddings of nano", size=10)
    starts = {"mlp": ("as the tokens", BLUE), "unscaled": ("5 times (not scaled)", RED), "large": ("30 times", GREEN),
              "small": ("a thirtieth", ORANGE)}  # fmt: skip
    for name, (label, colour) in starts.items():
        losses.plot(*column(logged(runs, name), "loss"), color=colour, label=label)
    losses.set(xlabel="step", ylabel="training loss", ylim=(0, None))
    losses.set_title("the same run, begun at other sizes", size=10)
    losses.legend()
    return figure


DIAGRAMS = {  # layers from the frames up, as nano has them; each kind of layer has a colour
    "mlp": ["stack 4 frames · 768", "linear · 512", "RMSNorm", "GELU", "linear · 192", "RMSNorm"],
    "swiglu": [
        "stack 5 frames · 960",
        "RMSNorm",
        "gate ‖ up, linear · 512",
        "SiLU(gate) × up",
        "linear · 192",
        "RMSNorm",
    ],
    "mosa": [
        "convolution, stride 2",
        "GELU",
        "convolution, stride 2",
        "GELU",
        "router: 4 weights",
        "sum of 4 adapters · 192",
    ],
    "moe": ["stack 4 frames · 768", "RMSNorm", "router: best 2 of 4", "shared + 2 experts · 192", "RMSNorm"],
    "qformer": ["windows of 15 frames", "3 learned queries", "attention ×2 layers", "linear · 192"],
}


def projectors(runs: Path) -> Figure:
    """What the projectors are made of."""
    figure, axes = plt.subplots(figsize=(11, 4.6))
    colours = {"linear": BLUE, "adapters": BLUE, "experts": BLUE, "convolution": BLUE, "attention": BLUE,
               "router": GREEN, "queries": GREEN, "stack": ORANGE, "windows": ORANGE}  # fmt: skip
    for place, (name, layers) in enumerate(DIAGRAMS.items()):
        left = 2.35 * place
        axes.text(left + 1, -0.35, "encoder frames", ha="center", va="top", size=9, color="#555")
        for height, layer in enumerate(layers):
            colour = next((colours[word] for word in colours if word in layer), GREY)
            axes.add_patch(plt.Rectangle((left, height), 2, 0.72, color=colour))
            axes.text(left + 1, height + 0.36, layer, ha="center", va="center", color="white", size=8.5)
            axes.annotate("", (left + 1, height), (left + 1, height - 0.28), arrowprops={"arrowstyle": "->"})
        top = len(layers)
        axes.annotate("", (left + 1, top), (left + 1, top - 0.28), arrowprops={"arrowstyle": "->"})
        axes.text(left + 1, top + 0.08, "audio tokens", ha="center", size=9, color="#555")
        axes.text(left + 1, 6.6, name, ha="center", size=12, weight="bold")
    axes.set(xlim=(-0.1, 11.6), ylim=(-0.8, 7))
    axes.axis("off")
    return figure


def measured_projectors(page: str) -> list[tuple[str, float, float]]:
    """Name, parameters in millions and test WER in per cent, of the table in docs/projectors.md."""
    table = page.split("## Compared on quickstart")[1].split("\n## ")[0]
    rows = re.findall(r"^\| ([^|]+?) \| ([\d.]+) M \|[^|]*\|[^|]*\| ([\d.]+) % \|", table, re.MULTILINE)
    return [(name, float(size), float(wer)) for name, size, wer in rows]


def projector_wer(runs: Path) -> Figure:
    """The measured table of docs/projectors.md."""
    rows = measured_projectors(PROJECTORS_TABLE.read_text(encoding="utf-8"))[::-1]
    figure, axes = plt.subplots(figsize=(8, 3.4))
    axes.barh([name for name, *_ in rows], [wer for *_, wer in rows], color=BLUE)
    for place, (_, size, wer) in enumerate(rows):
        axes.text(wer + 0.2, place, f"{wer} %, {size} M parameters", va="center", size=9)
    axes.set(xlabel="WER on quickstart's 150 test clips, per cent", xlim=(0, 20))
    axes.grid(axis="y", visible=False)
    return figure


def projector_losses(runs: Path) -> Figure:
    """A hundred steps of three projectors."""
    figure, axes = plt.subplots(figsize=(8, 3.6))
    for name, colour in (("mlp", BLUE), ("moe", GREEN), ("qformer", RED)):
        log = logged(runs, name)
        axes.plot(*column(log, "loss"), color=colour, label=f"{name}: {100 * column(log, 'eval_wer')[1][-1]:.1f} %")
    axes.set(xlabel="step", ylabel="training loss", ylim=(0, None))
    axes.legend(title="validation WER after 100 steps")
    return figure


# Class 4


def cliff(runs: Path) -> Figure:
    """Loss and WER of `ta train --experiment quickstart`: its first steps from near, and the whole."""
    near = logged(runs, "cliff")
    step, _ = first_below(near, 0.5)
    figure, panels = plt.subplots(2, 2, figsize=(10, 5), sharex="col", sharey="row", width_ratios=(3, 2))
    for (above, below), log in zip(panels.T, (near, logged(runs, "first")), strict=True):
        above.plot(*column(log, "loss"), color=BLUE, lw=1.2, label="training")
        above.plot(*column(log, "eval_loss"), color=ORANGE, label="validation")
        steps, wers = column(log, "eval_wer")
        below.plot(steps, [100 * wer for wer in wers], color=RED, marker=".")
        below.set(xlabel="step")
        for axes in (above, below):
            axes.axvline(step, color="#555", ls="--", lw=1)
    panels[0, 0].set(ylabel="loss", ylim=(0, 7))
    panels[0, 0].legend()
    panels[1, 0].set(ylabel="validation WER, per cent", ylim=(0, 130))
    panels[1, 0].text(step + 1, 105, f"step {step}: below 50 %", color="#333")
    panels[1, 0].axhline(50, color="#bbb", lw=1)
    return figure


def schedules(runs: Path) -> Figure:
    """The three schedules over 500 steps, with 50 of warm-up."""
    import torch
    from transformers import get_scheduler

    figure, axes = plt.subplots(figsize=(8, 3))
    for name, full, colour in (
        ("cosine", "cosine", BLUE),
        ("linear", "linear", GREEN),
        ("constant", "constant_with_warmup", ORANGE),
    ):
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=2e-3)
        scheduler = get_scheduler(full, optimizer, num_warmup_steps=50, num_training_steps=500)
        rates = []
        for _ in range(500):
            rates.append(scheduler.get_last_lr()[0])
            optimizer.step()
            scheduler.step()
        axes.plot(rates, color=colour, label=name)
    axes.axvspan(0, 50, color="#f1f1f1")
    axes.text(25, 0.0021, "warm-up", ha="center", size=9)
    axes.set(xlabel="step", ylabel="learning rate", ylim=(0, 0.0023))
    axes.legend()
    return figure


def learning_rates(runs: Path) -> Figure:
    """A hundred steps at four learning rates, the highest without a warm-up too."""
    figure, axes = plt.subplots(figsize=(8, 3.8))
    rates = {
        "rate-1e-5": ("1e-5", GREY), "rate-1e-4": ("1e-4", ORANGE), "mlp": ("2e-3", BLUE), "rate-0.5": ("0.5", RED),
        "no-warm-up": ("0.5, no warm-up", GREEN),
    }  # fmt: skip
    for name, (rate, colour) in rates.items():
        log = logged(runs, name)
        axes.plot(*column(log, "loss"), color=colour, label=f"{rate}: {100 * column(log, 'eval_wer')[1][-1]:.1f} %")
    axes.set(xlabel="step", ylabel="training loss", ylim=(0, None))
    axes.legend(title="learning rate: validation\nWER after 100 steps", loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def overfit(runs: Path) -> Figure:
    """Thirty clips again and again: the training loss falls to nothing, the validation loss stops."""
    log = logged(runs, "few")
    figure, axes = plt.subplots(figsize=(8, 3.6))
    axes.plot(*column(log, "loss"), color=BLUE, label="training: 30 clips")
    axes.plot(*column(log, "eval_loss"), color=ORANGE, label="validation: 60 other clips")
    axes.set(xlabel="step", ylabel="loss", ylim=(0, None))
    axes.legend()
    return figure


def batching(runs: Path) -> Figure:
    """Batches of eight clips, any and of like length: grey is padding."""
    seconds = open_corpus(DataConfig(path="quickstart"), "train").durations
    drawn = np.random.default_rng(0).choice(seconds, 24, replace=False)
    figure, panels = plt.subplots(1, 2, figsize=(10, 3.6), sharey=True)
    for axes, title, order in (
        (panels[0], "as they come", drawn),
        (panels[1], "like lengths together", np.sort(drawn)),
    ):
        longest = np.repeat([order[start : start + 8].max() for start in range(0, 24, 8)], 8)
        places = np.arange(24) + np.repeat([0, 1, 2], 8)
        axes.barh(places, longest, color="#d5d5d5")
        axes.barh(places, order, color=BLUE)
        axes.set_title(f"{title}: {100 * (1 - order.sum() / longest.sum()):.0f} % padding", size=10)
        axes.set(xlabel="seconds", yticks=[3.5, 12.5, 21.5], yticklabels=["batch 1", "batch 2", "batch 3"])
        axes.grid(axis="y", visible=False)
    panels[0].invert_yaxis()
    return figure


FIGURES: dict[str, Callable[[Path], Figure]] = {
    "prompt": prompt, "stacking": stacking, "scale": scale, "projectors": projectors, "projector-wer": projector_wer,
    "projector-losses": projector_losses, "cliff": cliff, "schedules": schedules, "learning-rates": learning_rates,
    "overfit": overfit, "batching": batching,
}  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("outputs/course"), help="where the runs lie")
    parser.add_argument("--only", action="append", choices=FIGURES, metavar="FIGURE", help=f"of {', '.join(FIGURES)}")
    parser.add_argument("--png", type=Path, help="a folder for PNGs too")
    options = parser.parse_args(arguments)
    IMAGES.mkdir(parents=True, exist_ok=True)
    for name in options.only or FIGURES:
        figure = FIGURES[name](options.runs)
        figure.savefig(IMAGES / f"{name}.svg", metadata={"Date": None})
        if options.png:
            options.png.mkdir(parents=True, exist_ok=True)
            figure.savefig(options.png / f"{name}.png", dpi=80)
        plt.close(figure)
        print(f"{IMAGES / name}.svg: {(IMAGES / f'{name}.svg').stat().st_size // 1000} kB", flush=True)


if __name__ == "__main__":
    main()
