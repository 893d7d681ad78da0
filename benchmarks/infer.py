"""Decoding speed: audio seconds a second (RTFx), in batches of 16 and one by one.

ta dev bench infer                        # nano on the 182 clips of librispeech-small/test
ta dev bench infer --size mini --clips 32 --json outputs/speed.jsonl
ta dev bench infer --size full --data my_recordings --batch-size 64

Timed: log-mel, encoder, projector, language model, detokenising, after a batch of warm-up; not the reading of files. Models
of random weights never end their answers: they write as many tokens as the longest transcript of each batch has.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from tiny_audio import console

from .clips import SPEECH
from .commands import SIZES, run
from .measures import append_history

DATA = SPEECH / "librispeech-small"
WARM_UP = 1  # batches


def batches(model, corpus, batch_size: int) -> list[list[tuple]]:
    """(window, tokens of its transcript) of the clips, longest first, in batches; a long clip is several windows."""
    from tiny_audio.text.labels import clean_label

    pairs = []
    for clip in map(corpus.load, range(len(corpus))):
        windows = [*model.windows(clip.waveform)]
        tokens = len(model.processor.tokenizer(clean_label(clip.text))["input_ids"]) + 1
        pairs += [(window, -(-tokens // len(windows))) for window in windows]
    pairs.sort(key=lambda pair: -len(pair[0].waveform))
    return [pairs[start : start + batch_size] for start in range(0, len(pairs), batch_size)]


def decode(model, batch: list[tuple], ends: bool) -> int:
    """Decodes a batch; returns its samples."""
    count = max(tokens for _, tokens in batch)
    windows = [window for window, _ in batch]
    model.decode(windows, {} if ends else {"min_new_tokens": count, "max_new_tokens": count})
    return sum(len(window.waveform) for window in windows)


def rtfx(model, corpus, batch_size: int, ends: bool) -> float:
    """Audio seconds a second; the texts are strings, so a GPU is done."""
    made = batches(model, corpus, batch_size)
    for batch in made[:WARM_UP]:
        decode(model, batch, ends)
    started = time.perf_counter()
    samples = sum(decode(model, batch, ends) for batch in made)
    return samples / 16_000 / (time.perf_counter() - started)


def measure(size: str, data: str, split: str, clips: int | None, batch_size: int, threads: int, device: str) -> dict:
    """RTFx of a size in batches and one by one."""
    import torch

    from tiny_audio import ASRModel, embedded
    from tiny_audio.data import DataConfig, open_corpus
    from tiny_audio.evaluation.hardware import pick_device

    from .sizes import build

    torch.set_num_threads(threads)
    device = pick_device(device)
    corpus = open_corpus(DataConfig(path=data), split, max_samples=clips)
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    shipped = size == "nano"
    model = ASRModel.from_pretrained(embedded("nano")) if shipped else build(size, corpus.texts, device, dtype)
    model = model.to(device).eval()
    rates = {f"rtfx_{number}": round(rtfx(model, corpus, number, shipped), 2) for number in (batch_size, 1)}
    return {"clips": len(corpus), "audio_seconds": round(float(corpus.durations.sum()), 1), **rates}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="nano")
    parser.add_argument("--data", default=str(DATA), help="a dataset, as of ta eval")
    parser.add_argument("--split", default="test")
    parser.add_argument("--clips", type=int, help="a random sample of so many; all without it")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", type=Path, help="append the figures, the commit and the machine to this file")
    options = vars(parser.parse_args(arguments))
    file = options.pop("json")
    found = measure(**options)
    rows = [(name.removeprefix("rtfx_"), f"{value:.1f}") for name, value in found.items() if name.startswith("rtfx_")]
    console.table(("batch", "RTFx"), rows, right=("batch", "RTFx"))
    console.out(f"\n{options['size']}: {found['clips']} clips, {found['audio_seconds']:.0f} s of audio")
    if file:
        append_history(file, "infer", {**options, **found})


if __name__ == "__main__":
    run(main)
