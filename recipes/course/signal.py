"""The figures of classes 1 and 2 of the course: one clip from its waveform to its tokens, as nano hears it.

python -m recipes.course.signal              # writes docs/course/images/*.svg
python -m recipes.course.signal journey ctc  # only these
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from scipy.signal import resample_poly

from tiny_audio.assets import embedded
from tiny_audio.audio.mel import HOP_LENGTH, N_FFT
from tiny_audio.audio.reading import SAMPLING_RATE, load_audio
from tiny_audio.audio.segment import Window
from tiny_audio.data.effects import add_noise, coloured_noise, limit_band
from tiny_audio.debug.parameters import model_sizes
from tiny_audio.model.alignment import Word
from tiny_audio.model.modeling import ASRModel

IMAGES = Path("docs/course/images")
CLIP = "send-a-message-to-jack"
REPEATING = "eight-one-eight-oh-seven-three-three-three"
VOWEL = 0.44  # seconds: within the vowel of "send"
BLUE, ORANGE, GREEN, GREY, LIGHT = "#2563a8", "#c2560a", "#2f7d4f", "#5c6470", "#e8ebef"
LEVELS = 16  # of colour in the images: many more are not seen, and double the file
WIDE = 200  # pixels at least in an image: renderers that blend pixels then blur their edges only
POWER, SIGNED, SHARE, SCALE = (
    matplotlib.colormaps[name].resampled(LEVELS) for name in ("magma", "RdBu_r", "Blues", "viridis")
)
STYLE = {
    "svg.hashsalt": "tiny-audio",  # the same ids, so the same file, each time
    "figure.facecolor": "white",
    "font.size": 10,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.labelcolor": GREY,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "image.aspect": "auto",
    "image.origin": "lower",
    "image.interpolation": "none",  # the SVG holds the array's own pixels
}
DRAWINGS: dict[str, Callable[[], Figure]] = {}  # by the name of the figure's file


def drawing(function: Callable[[], Figure]) -> Callable[[], Figure]:
    """Registers a figure under its function's name."""
    DRAWINGS[function.__name__.replace("_", "-")] = function
    return function


@dataclass
class Heard:
    """A clip at every stage of the model; time is the first axis everywhere."""

    waveform: np.ndarray  # (samples,)
    mel: np.ndarray  # (mel frames, 128)
    frames: np.ndarray  # (frames, 192)
    stacked: np.ndarray  # (tokens, 4 × 192)
    embeddings: np.ndarray  # (tokens, 192)
    ctc: np.ndarray  # (frames, classes), probabilities
    pieces: list[str]  # the tokens that the language model writes
    words: list[Word]

    @property
    def seconds(self) -> float:
        return len(self.waveform) / SAMPLING_RATE


@cache
def nano() -> ASRModel:
    return ASRModel.from_pretrained(embedded("nano"))


@cache
def clip(name: str = CLIP) -> np.ndarray:
    return load_audio(embedded("clips") / f"{name}.ogg")


@cache
@torch.no_grad()
def heard(name: str = CLIP) -> Heard:
    model, waveform = nano(), clip(name)
    batch = model.processor(waveform)
    mel, mask = batch["input_features"], batch["audio_attention_mask"]
    frames, _ = model.encoder(mel, mask.sum(-1))
    embeddings, _ = model.encode_audio(mel, mask)
    stride = model.config.projector_pool_stride
    stacked = frames[0, : frames.shape[1] // stride * stride].reshape(-1, stride * frames.shape[-1])
    written = model.generate(**batch)[0].tolist()
    (_, words), *_ = model.decode([Window(waveform, 0)], {}, word_times=True)
    arrays = [tensor.numpy() for tensor in (mel[0].T, frames[0], stacked, embeddings[0])]
    ctc = model.ctc_scores(frames)[0].exp().numpy()
    return Heard(waveform, *arrays, ctc, [readable(piece) for piece in pieces_of(written)], words)


def pieces_of(ids: list[int]) -> list[str]:
    return nano().processor.tokenizer.convert_ids_to_tokens(ids)


def readable(piece: str) -> str:
    """A token as people read it: Ġ stands for the space before a word."""
    return piece.replace("Ġ", "␣").replace("<|im_end|>", "(end)")


def spread(values: np.ndarray) -> np.ndarray:
    """Each column with mean 0 and deviation 1, so that small dimensions can be seen beside large ones."""
    return (values - values.mean(0)) / (values.std(0) + 1e-6)


def map_of(ax: Axes, values: np.ndarray, seconds: float, signed: bool = True) -> None:
    """Values (time, dimensions) as an image over seconds."""
    extent = (0, seconds, 0, values.shape[1])
    if signed:
        wide = np.repeat(spread(values), -(-WIDE // len(values)), axis=0)
        ax.imshow(wide.T, extent=extent, cmap=SIGNED, vmin=-2.5, vmax=2.5)
    else:
        ax.imshow(values.T, extent=extent, cmap=POWER)


def draw_waveform(ax: Axes, waveform: np.ndarray, columns: int = 1000) -> None:
    """The lowest and highest sample of each column: looks as all samples do, in a hundredth of the file."""
    parts = np.array_split(waveform, columns)
    times = np.linspace(0, len(waveform) / SAMPLING_RATE, columns)
    ax.fill_between(times, [part.min() for part in parts], [part.max() for part in parts], color=BLUE, lw=0.4)


def mark_words(ax: Axes, words: list[Word], height: float) -> None:
    for word in words:
        ax.axvspan(word.start, word.end, color=LIGHT, lw=0, zorder=0)
        ax.text((word.start + word.end) / 2, height, word.text, ha="center", va="bottom", color="black")


@drawing
def architecture() -> Figure:
    fig, ax = plt.subplots(figsize=(9.6, 2.7), layout="constrained")
    ax.set(xlim=(0, 100), ylim=(3, 32))
    ax.axis("off")
    parts = [("audio encoder", "hears", BLUE), ("projector", "translates", ORANGE), ("language model", "writes", GREEN)]
    sizes = model_sizes(["quickstart"])[0].parts
    for index, ((name, verb, colour), size) in enumerate(zip(parts, sizes, strict=True)):
        left = 15 + index * 26.5
        trained = name == "projector"
        style = {"fc": "white", "ec": colour, "lw": 2.5 if trained else 1.5, "ls": "-" if trained else (0, (5, 3))}
        ax.add_patch(FancyBboxPatch((left, 12), 17, 13, boxstyle="round,pad=0.6", **style))
        ax.text(left + 8.5, 21.5, name, ha="center", va="center", weight="bold", color=colour)
        ax.text(left + 8.5, 18.2, verb, ha="center", va="center")
        ax.text(left + 8.5, 14.6, f"{size / 1e6:.2f} M, {'trained' if trained else 'frozen'}", ha="center", va="center")
    labels = ["16,000\nsamples", "50 frames\n192 wide", "12.5 embeddings\n192 wide", "text"]
    for index, label in enumerate(labels):
        x = 10.8 + index * 26.5
        ax.annotate("", (x + 3.2, 18.5), (x - 4.6, 18.5), arrowprops={"arrowstyle": "-|>", "color": GREY, "lw": 1.4})
        ax.text(x - 0.8, 6.5, label, ha="center", va="center", color=GREY, fontsize=9.5)
    ax.text(50, 29.5, "one second of speech in nano", ha="center", color=GREY)
    return fig


@drawing
def trained_share() -> Figure:
    names = {"quickstart": "nano", "transcription": "the default model", "course": "the large course model"}
    fig, ax = plt.subplots(figsize=(9, 2.9), layout="constrained")
    for row, size in enumerate(model_sizes(list(names))):
        shares = [100 * part / (sum(size.parts) + size.lora) for part in (*size.parts, size.lora)]
        left = 0.0
        for share, colour in zip(shares, (BLUE, ORANGE, GREEN, ORANGE), strict=True):
            ax.barh(row, share, left=left, color=colour, height=0.52, ec="white", lw=0.6)
            left += share
        total = (sum(size.parts) + size.lora) / 1e6
        text = f"{total:,.1f} M parameters, {size.trained / 1e6:,.1f} M trained ({size.trained / total / 1e4:.1f} %)"
        ax.text(0, row - 0.31, f"{names[size.experiment]}: {text}", va="bottom")
    ax.set(xlim=(0, 100), ylim=(2.45, -0.75), yticks=[], xlabel="per cent of the parameters")
    ax.spines["left"].set_visible(False)
    for colour, part in ((BLUE, "encoder"), (ORANGE, "projector (and LoRA)"), (GREEN, "language model")):
        ax.bar(0, 0, color=colour, label=part)
    ax.legend(ncols=3, frameon=False, loc="upper center", bbox_to_anchor=(0.5, 1.17))
    return fig


@torch.no_grad()
def next_tokens(waveform: np.ndarray) -> list[list[tuple[str, float]]]:
    """At each step of greedy decoding, the three likeliest tokens and their probabilities."""
    model = nano()
    options = {"output_logits": True, "return_dict_in_generate": True}
    result = model.generate(**model.processor(waveform), **options)
    steps = []
    for logits in result.logits:
        best = logits[0].float().softmax(-1).topk(3)
        steps.append(list(zip(map(readable, pieces_of(best.indices.tolist())), best.values.tolist(), strict=True)))
    return steps


@drawing
def decoding() -> Figure:
    cut = 1.0
    fig, axes = plt.subplots(2, 1, figsize=(9, 4.6), layout="constrained")
    titles = ("The whole clip", f"Its first {cut:.0f} s, which ends within “message”: what was not said is guessed")
    runs = [next_tokens(waveform) for waveform in (clip(), clip()[: int(cut * SAMPLING_RATE)])]
    steps = max(map(len, runs))
    for ax, run, title in zip(axes, runs, titles, strict=True):
        for step, ranked in enumerate(run):
            for rank, (piece, probability) in enumerate(ranked):
                candidate(ax, step, rank, piece, probability)
        ax.set(xlim=(0, steps), ylim=(-3, 0), title=title, yticks=[-0.5, -1.5, -2.5], yticklabels=["1st", "2nd", "3rd"])
        ax.set_xticks(np.arange(steps) + 0.5, [f"step {step + 1}" for step in range(steps)])
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
    return fig


def candidate(ax: Axes, step: int, rank: int, piece: str, probability: float) -> None:
    colour = SHARE(0.08 + 0.75 * probability)
    edge = GREY if rank == 0 else "none"
    ax.add_patch(plt.Rectangle((step + 0.04, -rank - 0.92), 0.92, 0.84, fc=colour, ec=edge, lw=0.8))
    style = {"ha": "center", "va": "center", "color": "white" if probability > 0.6 else "black"}
    ax.text(step + 0.5, -rank - 0.4, piece, **style)
    ax.text(step + 0.5, -rank - 0.72, f"{100 * probability:.1f} %", **style, size=7.5)


@drawing
def samples() -> Figure:
    waveform, sound = clip(), heard()
    fig, axes = plt.subplots(3, 1, figsize=(9, 6.2), layout="constrained")
    times = np.arange(len(waveform)) / SAMPLING_RATE
    draw_waveform(axes[0], waveform)
    mark_words(axes[0], sound.words, 0.62)
    axes[0].set(
        title=f"The whole clip: {len(waveform):,} samples", xlabel="seconds", ylabel="amplitude", ylim=(-0.7, 0.8)
    )
    vowel, length = VOWEL, 0.030
    shown = slice(int(vowel * SAMPLING_RATE), int((vowel + length) * SAMPLING_RATE))
    axes[1].plot(1000 * times[shown], waveform[shown], lw=1.1, color=BLUE)
    axes[1].set(title="30 ms of the vowel in “send”: a pattern that repeats", xlabel="milliseconds", ylabel="amplitude")
    few = slice(shown.start, shown.start + 48)
    axes[2].plot(1000 * times[few], waveform[few], lw=0.7, color=GREY)
    axes[2].plot(1000 * times[few], waveform[few], "o", ms=4, color=BLUE)
    axes[2].set(title="3 ms of it: 48 samples, the numbers in the file", xlabel="milliseconds", ylabel="amplitude")
    for ax in axes[:2]:
        start, end = (vowel, vowel + length) if ax is axes[0] else (1000 * vowel, 1000 * vowel + 3)
        ax.axvspan(start, end, color=ORANGE, alpha=0.35, lw=0)
    for ax in axes:
        ax.margins(x=0)
    return fig


@drawing
def aliasing() -> Figure:
    tone, low_rate, shown = 5000, 8000, 0.002
    fine, every = np.arange(0, shown, 1e-6), np.arange(0, shown, 1 / SAMPLING_RATE)
    few = np.arange(0, shown, 1 / low_rate)
    fig, axes = plt.subplots(2, 1, figsize=(9, 4), layout="constrained", sharex=True)
    for ax, times in zip(axes, (every, few), strict=True):
        ax.plot(1000 * fine, np.sin(2 * np.pi * tone * fine), color=LIGHT if ax is axes[1] else BLUE, lw=1.3)
        ax.plot(1000 * times, np.sin(2 * np.pi * tone * times), "o", color="black", ms=5)
        ax.set(ylim=(-1.3, 1.3), yticks=[])
        ax.margins(x=0.01)
    axes[1].plot(1000 * fine, np.sin(2 * np.pi * (tone - low_rate) * fine), color=ORANGE, lw=1.5)
    axes[0].set_title("A tone of 5,000 Hz, 16,000 samples a second: only this tone goes through the dots")
    axes[1].set_title("8,000 samples a second: the dots lie on a tone of 3,000 Hz, which nobody played")
    axes[1].set_xlabel("milliseconds")
    return fig


@drawing
def one_frame() -> Figure:
    start = int(VOWEL * SAMPLING_RATE)
    piece, window = clip()[start : start + N_FFT], torch.hann_window(N_FFT).numpy()
    power = np.abs(np.fft.rfft(piece * window)) ** 2
    filters = np.asarray(nano().processor.feature_extractor.mel_filters)  # (201, 128)
    hertz, ms = np.fft.rfftfreq(N_FFT, 1 / SAMPLING_RATE), 1000 * np.arange(N_FFT) / SAMPLING_RATE
    fig, axes = plt.subplots(2, 2, figsize=(9, 5.4), layout="constrained")
    (first, second), (third, fourth) = axes
    first.plot(ms, piece, color=GREY, lw=0.8, label="samples")
    first.plot(ms, piece * window, color=BLUE, lw=1.3, label="times the window")
    first.set(title="1. 400 samples (25 ms), faded at both ends", xlabel="milliseconds")
    first.legend(frameon=False, loc="upper right", fontsize=8.5)
    second.plot(hertz, 10 * np.log10(power + 1e-10), color=BLUE, lw=1)
    second.set(title="2. power at 201 frequencies", xlabel="Hz", ylabel="dB")
    for band in range(0, filters.shape[1], 6):
        triangle = np.flatnonzero(filters[:, band])
        shown = slice(max(0, triangle[0] - 1), triangle[-1] + 2)
        third.plot(
            hertz[shown], filters[shown, band] / filters[:, band].max(), ".-", ms=3, lw=1, color=SCALE(band / 140)
        )
    third.set(title="3. mel bands: narrow below, wide above (every 6th)", xlabel="Hz", yticks=[])
    fourth.bar(np.arange(filters.shape[1]), np.log10(power @ filters + 1e-10) + 10, width=1, color=ORANGE)
    fourth.set(title="4. logarithm of each band’s power: a frame", xlabel="mel band", yticks=[])
    for ax in axes.flat:
        ax.margins(x=0)
    return fig


@drawing
def log_mel() -> Figure:
    sound = heard()
    spectrum = torch.stft(
        torch.from_numpy(sound.waveform), N_FFT, HOP_LENGTH, window=torch.hann_window(N_FFT), return_complex=True
    )
    power = (spectrum.abs() ** 2).numpy()
    fig, axes = plt.subplots(3, 1, figsize=(9, 7), layout="constrained", sharex=True)
    extent = (0, sound.seconds, 0, 8)
    axes[0].imshow(power, extent=extent, cmap=POWER)
    axes[0].set(title="Power over time and frequency: a few bright dots, the rest is lost", ylabel="kHz")
    axes[1].imshow(np.log10(power + 1e-7), extent=extent, cmap=POWER)
    axes[1].set(title="The same, as a logarithm: the spectrogram", ylabel="kHz")
    map_of(axes[2], sound.mel, sound.seconds, signed=False)
    axes[2].set(title="Log-mel, which the encoder gets: 128 bands", ylabel="mel band", xlabel="seconds")
    for ax in axes:
        for word in sound.words:
            ax.axvline(word.start, color="white", lw=0.5, ls=":")
            ax.text(word.start + 0.015, ax.get_ylim()[1] * 0.97, word.text, color="white", va="top", fontsize=9)
    return fig


@drawing
def journey() -> Figure:
    sound = heard()
    ratios = [1, 1.5, 1.5, 1.5, 1.5, 0.75]
    fig, axes = plt.subplots(6, 1, figsize=(9, 12), layout="constrained", height_ratios=ratios)
    draw_waveform(axes[0], sound.waveform)
    mark_words(axes[0], sound.words, 0.62)
    axes[0].set(ylim=(-0.7, 0.9), ylabel="amplitude", title=f"Waveform: {len(sound.waveform):,} samples")
    map_of(axes[1], sound.mel, sound.seconds, signed=False)
    axes[1].set(title=f"Log-mel: {len(sound.mel)} frames of 128 bands, one every 10 ms", ylabel="band")
    maps = {
        "Encoder frames: {} of {} numbers, one every 20 ms": sound.frames,
        "Stacked frames: {} of {} numbers, four side by side, one every 80 ms": sound.stacked,
        "Embeddings, after the projector: {} of {} numbers, what the language model reads": sound.embeddings,
    }
    for ax, (title, values) in zip(axes[2:5], maps.items(), strict=True):
        map_of(ax, values, sound.seconds)
        ax.set(title=title.format(*values.shape), ylabel="number")
    axes[4].set_xlabel("seconds")
    for ax in axes[:5]:
        ax.set_xlim(0, sound.seconds)
    token_row(axes[5], sound.pieces)
    return fig


def token_row(ax: Axes, pieces: list[str]) -> None:
    ax.set(xlim=(0, len(pieces)), ylim=(0, 1), xticks=[], yticks=[])
    ax.set_title(f"Tokens that it writes: {len(pieces)}, one after another; they have no times")
    ax.spines[:].set_visible(False)
    for place, piece in enumerate(pieces):
        ax.add_patch(
            FancyBboxPatch((place + 0.1, 0.25), 0.8, 0.5, boxstyle="round,pad=0.05", fc="white", ec=GREEN, lw=1.5)
        )
        ax.text(place + 0.5, 0.5, piece, ha="center", va="center")


def similarity_of(values: np.ndarray) -> np.ndarray:
    """Cosine of each two moments, after the mean of all is taken away."""
    centred = values - values.mean(0)
    unit = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    return unit @ unit.T


@drawing
def similarity() -> Figure:
    sound = heard(REPEATING)
    paired = sound.mel[: 2 * len(sound.frames)].reshape(-1, 2 * sound.mel.shape[1])
    fig, axes = plt.subplots(1, 2, figsize=(9, 4.4), layout="constrained")
    titles = ("Log-mel: what sounds alike", "Encoder frames: what is said alike")
    middles = [(word.start + word.end) / 2 for word in sound.words]
    for ax, values, title in zip(axes, (paired, sound.frames), titles, strict=True):
        extent = (0, sound.seconds, 0, sound.seconds)
        image = ax.imshow(similarity_of(values), extent=extent, cmap=SCALE, vmin=-0.1, vmax=1, aspect="equal")
        ax.set_title(title)
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_ticks(middles, [word.text for word in sound.words])
        ax.tick_params(axis="x", rotation=60, length=2)
    fig.colorbar(image, ax=axes, shrink=0.7, label="similarity of two moments")
    return fig


@drawing
def ctc() -> Figure:
    sound, characters = heard(), nano().config.ctc_vocabulary
    used = [0, *[n for n, c in enumerate(characters) if c and (sound.ctc.argmax(-1) == n).any()]]
    fig, axes = plt.subplots(2, 1, figsize=(9, 5.2), layout="constrained", height_ratios=[1, 3], sharex=True)
    draw_waveform(axes[0], sound.waveform)
    mark_words(axes[0], sound.words, 0.62)
    axes[0].set(ylim=(-0.7, 1.0), yticks=[], title="The words’ times, found with the help of the scores below")
    extent = (0, sound.seconds, len(used) - 0.5, -0.5)
    scores = sound.ctc[:, used].repeat(4, axis=0).repeat(8, axis=1)
    axes[1].imshow(scores.T, extent=extent, cmap=SHARE, origin="upper", vmin=0, vmax=1)
    labels = {0: "blank", characters.index(" "): "space"}
    axes[1].set_yticks(range(len(used)), [labels.get(n, characters[n]) for n in used])
    axes[1].set(
        xlabel="seconds", title="Probability of each character at each frame of 20 ms (characters that win somewhere)"
    )
    axes[1].set_xlim(0, sound.seconds)
    return fig


def spoilt() -> list[tuple[str, np.ndarray]]:
    """The clip in ways that recordings go wrong."""
    waveform, random = clip(), np.random.default_rng(0)
    noises = [coloured_noise(len(waveform), "pink", random) for _ in range(2)]
    slow = resample_poly(
        waveform, 2, 1
    )  # what is heard when 16 kHz is written where 8 kHz was meant, and is read as 16
    return [
        ("as it is", waveform),
        ("telephone band, 300 to 3,400 Hz", limit_band(waveform, 300, 3400)),
        ("pink noise, as loud as the speech (0 dB)", add_noise(waveform, noises[0], 0)),
        ("pink noise, ten times its power (−10 dB)", add_noise(waveform, noises[1], -10)),
        ("half speed: 16 kHz samples labelled 8 kHz", slow),
        ("nothing above 1,000 Hz", limit_band(waveform, None, 1000)),
    ]


@drawing
def spoilt_clips() -> Figure:
    model = nano()
    fig, axes = plt.subplots(3, 2, figsize=(9, 7), layout="constrained")
    for ax, (name, waveform) in zip(axes.flat, spoilt(), strict=True):
        mel = model.processor.features([waveform])["input_features"][0]
        pairs = mel.reshape(len(mel) // 2, 2, -1).mean(1)  # half the bands: enough at this size
        ax.imshow(pairs, extent=(0, len(waveform) / SAMPLING_RATE, 0, len(mel)), cmap=POWER)
        ax.set(title=name, yticks=[])
        ax.set_xlabel(f"“{model.transcribe(waveform)}”", color="black", fontsize=10)
    return fig


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="FIGURE", help=", ".join(DRAWINGS))
    names = parser.parse_args().names or list(DRAWINGS)
    if unknown := [name for name in names if name not in DRAWINGS]:
        parser.error(f"no figure {unknown[0]}; there are {', '.join(DRAWINGS)}")
    IMAGES.mkdir(parents=True, exist_ok=True)
    for name in names:
        with matplotlib.rc_context(STYLE):
            figure = DRAWINGS[name]()
            figure.savefig(IMAGES / f"{name}.svg", metadata={"Date": None}, dpi=150)
            plt.close(figure)
        print(f"{IMAGES / name}.svg  {(IMAGES / f'{name}.svg').stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
