"""The figures of the course's class on evaluation, drawn from results folders of `ta eval` on the quickstart corpus.

python -m recipes.course.scores                                     # nano, runs/first/best, runs/second/best
python -m recipes.course.scores nano runs/first/best --png /tmp/look   # other runs; PNGs too, to look at
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("svg")
matplotlib.rcParams |= {
    "svg.fonttype": "none", "svg.hashsalt": "tiny-audio", "font.family": "sans-serif", "font.size": 10,
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": "#e5e5e5",
    "axes.axisbelow": True, "legend.framealpha": 1, "legend.edgecolor": "white", "figure.constrained_layout.use": True, "figure.facecolor": "white",
}  # fmt: skip

import itertools

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tiny_audio.analysis.runs import Run, open_runs
from tiny_audio.analysis.significance import bootstrap_rates, rate_interval
from tiny_audio.data import DataConfig, open_corpus
from tiny_audio.errors import TinyAudioError
from tiny_audio.evaluation.results import ClipResult

IMAGES = Path("docs/course/images")
RUNS = ("nano", "runs/first/best", "runs/second/best")
COLOURS = ("#2a8a4a", "#1f6fb4", "#e08214", "#8a4fb0")  # readable on white
RESAMPLES = 10_000
BIN = 0.2  # percentage points of a histogram's bar
TAILS = (2.5, 97.5)  # per cent: the 95 % interval
KNOWN_HALF = 0.5  # of the word pairs of a reference


def bootstrap(runs: Sequence[Run]) -> Figure:
    """Each run's WER on resampled clips, and how it differs from the run before it on the same draws."""
    names, errors, words = _same_clips(runs)
    rates = 100 * bootstrap_rates(errors, words, RESAMPLES)  # (resamples, runs), per cent
    drawn, (alone, paired) = plt.subplots(1, 2, figsize=(9, 3.4))
    for name, column, measured, colour in zip(names, rates.T, errors.sum(1) / words.sum(), COLOURS, strict=False):
        low, high = np.percentile(column, TAILS)
        _histogram(alone, column, colour, f"{name}: {100 * measured:.2f} % ({low:.2f} to {high:.2f})")
        alone.axvline(100 * measured, color=colour, linewidth=1.5)
    alone.set_ylim(top=1.6 * alone.get_ylim()[1])  # room for the legend
    alone.set(xlabel="WER of 150 clips drawn anew, %", ylabel="draws", title="Each run alone")
    alone.legend(loc="upper left", fontsize=8)
    _differences(paired, names, rates)
    return drawn


def _differences(axes: Axes, names: Sequence[str], rates: np.ndarray) -> None:
    """Each run less the one before it, in its own colour."""
    for b, column in enumerate(np.diff(rates).T, start=1):
        low, high = np.percentile(column, TAILS)
        _histogram(axes, column, COLOURS[b], f"{names[b]} less {names[b - 1]}:\n{low:+.2f} to {high:+.2f}")
    axes.axvline(0, color="black", linewidth=1.5)
    axes.set_ylim(top=1.6 * axes.get_ylim()[1])
    axes.set(xlabel="difference on the same draw, percentage points", ylabel="draws", title="In pairs")
    axes.legend(loc="upper left", fontsize=8)


def _histogram(axes: Axes, values: np.ndarray, colour: str, label: str) -> None:
    bins = np.arange(np.floor(values.min()), np.ceil(values.max()) + 2 * BIN, BIN)
    axes.hist(values, bins=bins.tolist(), color=colour, alpha=0.5, label=label)


def word_order(runs: Sequence[Run]) -> Figure:
    """WER of clips whose word pairs mostly occur in the training texts, and of the others, with 95 % intervals."""
    known = known_pairs()
    drawn, axes = plt.subplots(figsize=(6.5, 3.2))
    for number, (run, colour) in enumerate(zip(runs, COLOURS, strict=False)):
        for group, familiar in enumerate((True, False)):
            clips = [clip for clip in run.scored if is_familiar(clip, known) is familiar]
            errors, words = [clip.word_errors for clip in clips], [clip.reference_words or 0 for clip in clips]
            rate, (low, high) = 100 * sum(errors) / sum(words), (100 * end for end in rate_interval(errors, words))
            place = group + (number - (len(runs) - 1) / 2) * 0.25
            label = None if group else run.metrics.model
            axes.bar(place, rate, 0.22, color=colour, label=label, yerr=[[rate - low], [high - rate]], capsize=3)
            axes.annotate(f"{rate:.1f}", (place, rate), (6, 3), textcoords="offset points", fontsize=8)
    counts = [sum(is_familiar(clip, known) is familiar for clip in runs[0].scored) for familiar in (True, False)]
    axes.set_xticks(
        (0, 1), [f"half or more of the word pairs\nare known ({counts[0]} clips)", f"fewer ({counts[1]} clips)"]
    )
    axes.grid(visible=False, axis="x")
    axes.set(ylabel="WER, %")
    axes.legend(loc="upper left")
    return drawn


def known_pairs() -> set[tuple[str, str]]:
    """Every two neighbouring words of the training texts."""
    texts = [row.text.lower().split() for row in open_corpus(DataConfig(), "train").rows]
    return {pair for words in texts for pair in itertools.pairwise(words)}


def is_familiar(clip: ClipResult, known: set[tuple[str, str]]) -> bool:
    """Whether half of a reference's word pairs, or more, occur in the training texts; a single word has none."""
    words = (clip.normalized_reference or "").split()
    pairs = list(itertools.pairwise(words))
    return sum(pair in known for pair in pairs) >= KNOWN_HALF * len(pairs)


def _same_clips(runs: Sequence[Run]) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Names, word errors (runs, clips) and reference words (clips,) of the clips that all runs scored."""
    clips = [{clip.id: clip for clip in run.scored} for run in runs]
    ids = sorted(set.intersection(*map(set, clips)))
    errors = np.array([[each[id].word_errors for id in ids] for each in clips])
    return [run.metrics.model for run in runs], errors, np.array([clips[0][id].reference_words for id in ids])


FIGURES = {"bootstrap": bootstrap, "word-order": word_order}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", default=RUNS, help="two to four, as of ta analysis")
    parser.add_argument("--png", type=Path, help="a folder for PNGs, too")
    options = parser.parse_args(arguments)
    try:
        runs = open_runs(options.runs, "quickstart")
    except TinyAudioError as error:
        parser.exit(1, f"{error}\n")
    IMAGES.mkdir(parents=True, exist_ok=True)
    for name, draw in FIGURES.items():
        figure = draw(runs)
        figure.savefig(IMAGES / f"{name}.svg", metadata={"Date": None})
        print(IMAGES / f"{name}.svg")
        if options.png:
            options.png.mkdir(parents=True, exist_ok=True)
            figure.savefig(options.png / f"{name}.png", dpi=120)


if __name__ == "__main__":
    main()
