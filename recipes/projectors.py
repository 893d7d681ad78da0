"""The projectors side by side: each trained between nano's frozen parts on the quickstart corpus, as a Markdown table.

python -m recipes.projectors --output-dir outputs/projectors
python -m recipes.projectors --only mlp --only moe training.max_steps=1000
python -m recipes.projectors --scale
python -m recipes.projectors --dispatch

Every projector trains in a process of its own, whose peak memory is its own. What follows the options are overrides of
`ta train`, for all of them. `--scale` shows instead what comes out of each before training, beside the token embeddings,
and `--dispatch` what `moe` loses or gains by computing all of its experts.
"""

from __future__ import annotations

import argparse
import resource
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from tiny_audio import console

KINDS: dict[str, tuple[str, ...]] = {
    "mlp": (),
    "mlp, relu": ("model.projector_variant=relu", "model.projector_pool_stride=5"),
    "mlp, glm": ("model.projector_variant=glm", "model.projector_hidden_dim=384"),
    "swiglu": ("model.projector_type=swiglu", "model.projector_pool_stride=5"),
    "mosa": ("model.projector_type=mosa",),
    "moe": ("model.projector_type=moe",),
    "qformer": ("model.projector_type=qformer",),
}
HEADER = ("projector", "parameters", "tokens / s", "validation WER", "test WER", "training", "memory")
SECOND = 16_000  # samples


@dataclass(frozen=True)
class Row:
    """What a projector came to; WERs are fractions."""

    kind: str
    parameters: int
    tokens: int  # of 10 s of audio
    validation_wer: float
    test_wer: float
    seconds: float  # of the training, validations included
    gigabytes: float  # at most: of the process, or of the GPU where there is one

    def cells(self) -> tuple[str, ...]:
        wers = (f"{100 * wer:.1f} %" for wer in (self.validation_wer, self.test_wer))
        size = f"{self.parameters / 1e6:.2f} M"
        return (
            self.kind, size, f"{self.tokens / 10:.1f}", *wers, f"{self.seconds:.0f} s", f"{self.gigabytes:.2f} GB"
        )  # fmt: skip


def measure(kind: str, overrides: Sequence[str], folder: Path, max_samples: int | None) -> Row:
    """Trains a projector for as many steps as the quickstart does, and measures it on the test split."""
    import torch

    from tiny_audio import ASRModel
    from tiny_audio.evaluation import evaluate_all
    from tiny_audio.evaluation.settings import EvalSettings
    from tiny_audio.training import compose, train

    result = train(compose("quickstart", [*KINDS[kind], *overrides], output_dir=folder))
    cuda = torch.cuda.is_available()
    memory = torch.cuda.max_memory_allocated() if cuda else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    settings = EvalSettings(
        model=str(result.model),
        dataset="quickstart",
        normalizer="basic",
        output_dir=folder / "test",
        max_samples=max_samples,
    )
    (metrics,) = evaluate_all(settings, ["quickstart"])
    model = ASRModel.from_pretrained(result.model)
    return Row(
        kind=kind,
        parameters=sum(parameter.numel() for parameter in model.projector.parameters()),
        tokens=model.processor.audio_token_count(10 * SECOND),
        validation_wer=result.best_wer,
        test_wer=metrics.wer,
        seconds=result.seconds,
        gigabytes=memory / 1e9,
    )


def markdown(rows: Sequence[Row]) -> str:
    """The table."""
    return _table(HEADER, [row.cells() for row in rows])


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return console.markdown(header, rows, right=header[1:])


def scales(clips: int = 8) -> str:
    """RMS and percentiles of what untrained projectors make of nano's encoder frames of quickstart clips."""
    import torch

    from tiny_audio.data import DataConfig, load_row, open_corpus
    from tiny_audio.debug.measures import SPREAD, spread
    from tiny_audio.training import compose
    from tiny_audio.training.build import build_model
    from tiny_audio.training.initialization import match_embedding_scale

    corpus = open_corpus(DataConfig(path="quickstart"), "validation", max_samples=clips)
    waveforms = [load_row(row).waveform for row in corpus.rows]
    others = [load_row(row).waveform for row in open_corpus(DataConfig(), "train", max_samples=clips).rows]
    lines = []
    for kind, overrides in KINDS.items():
        torch.manual_seed(0)
        model = build_model(compose("quickstart", overrides).model).eval()
        measured_by, inputs = model.processor(others), model.processor(waveforms)
        match_embedding_scale(model, lambda by=measured_by: (by["input_features"], by["audio_attention_mask"]))
        with torch.no_grad():
            audio, counts = model.encode_audio(inputs["input_features"], inputs["audio_attention_mask"])
        tokens = torch.cat([row[:count] for row, count in zip(audio, counts.tolist(), strict=True)])
        lines.append((kind, *spread(tokens)))
    tokens = model.language_model.get_input_embeddings().weight.detach()
    lines.append(("token embeddings", *spread(tokens)))
    return _table(("projector", *SPREAD), lines)


def dispatch(repeats: int = 3) -> str:
    """Forward and backward of `moe`'s experts, all computed at once, beside a loop that gathers each expert's tokens.

    The time is that of the process on the CPU, so that other work on the machine does not count.
    """
    import time

    import torch
    from torch.nn import functional as F

    from tiny_audio.projectors.experts import Experts

    def gathered(experts: Experts, x: torch.Tensor, gates: torch.Tensor) -> torch.Tensor:
        count, output = gates.shape[-1], 0
        weights = zip(experts.linear_1.weight.chunk(count), experts.linear_2.weight.chunk(count, 1), strict=True)
        for gate, (first, second) in zip(gates.T, weights, strict=True):
            chosen = gate.nonzero()[:, 0]
            found = F.linear(F.relu(F.linear(x[chosen], first)) * gate[chosen, None], second)
            output = output + torch.zeros(len(x), found.shape[-1]).index_add(0, chosen, found)
        return output

    def milliseconds(method, *inputs) -> float:
        started = time.process_time()
        for _ in range(repeats):
            method(*inputs).sum().backward()
        return 1000 * (time.process_time() - started) / repeats

    lines = []
    for name, tokens, dim, hidden, out_dim in (("nano", 375, 768, 512, 192), ("default", 375, 5120, 768, 1024)):
        torch.manual_seed(0)
        experts, x, scores = Experts(5, dim, hidden, out_dim), torch.randn(tokens, dim), torch.randn(tokens, 4)
        best = scores.topk(2)
        gates = F.pad(torch.zeros_like(scores).scatter(-1, best.indices, best.values.softmax(-1)), (1, 0), value=1.0)
        times = [milliseconds(method, *inputs) for method, *inputs in
                 ((experts, x, gates), (gathered, experts, x, gates)) for _ in range(2)][1::2]  # fmt: skip
        lines.append(
            (f"{name}: {tokens} tokens, {dim} → {hidden} → {out_dim}", *(f"{value:.0f} ms" for value in times))
        )
    return _table(("experts", "all computed", "gathered in a loop"), lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--output-dir", type=Path, default=Path("outputs/projectors"), help="a folder a projector in it"
    )
    parser.add_argument("--only", action="append", choices=KINDS, metavar="KIND", help=f"of {'; '.join(KINDS)}")
    parser.add_argument("--max-samples", type=int, help="test clips; all without it")
    parser.add_argument("--scale", action="store_true", help="show the untrained projectors' outputs instead")
    parser.add_argument("--dispatch", action="store_true", help="time the experts of moe instead")
    parser.add_argument("overrides", nargs="*", help="KEY=VALUE, as of ta train")
    options = parser.parse_args(arguments)
    if options.scale or options.dispatch:
        print(scales() if options.scale else dispatch())
        return
    rows = []
    for kind in options.only or KINDS:
        folder = options.output_dir / kind.replace(", ", "-")
        with ProcessPoolExecutor(max_workers=1, mp_context=get_context("spawn")) as own:
            rows.append(own.submit(measure, kind, options.overrides, folder, options.max_samples).result())
        print(markdown(rows), flush=True)


if __name__ == "__main__":
    main()
