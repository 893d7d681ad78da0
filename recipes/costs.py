"""What training costs: FLOPs of the experiments for an hour of audio, and time and price of some trainings, as Markdown tables.

python -m recipes.costs

Counted as `ta train --dry-run` counts streamed data, on a clip of 10 s; the share of a GPU's peak, the peaks and the prices
are those of configs/gpus.yaml, with what ~/.config/tiny-audio/gpus.yaml changes. docs/training-recipes.md holds the tables.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tiny_audio.console import out
from tiny_audio.debug.parameters import WITHOUT_CHECKPOINT
from tiny_audio.training import compose
from tiny_audio.training.build import outline
from tiny_audio.training.cost import NOMINAL_SECONDS, NOMINAL_TEXT, clip_lengths, duration, hours
from tiny_audio.training.flops import TrainingFlops
from tiny_audio.training.gpus import Gpu, GpuTable, gpu_table

TRAININGS = {
    "transcription": ("transcription",),
    "transcription, Qwen3-1.7B": ("transcription", "model=glm_asr_qwen3_1.7b"),
    "mlp_lora": ("mlp_lora",),
    "embedded": ("embedded",),
    "hubert_smollm3": ("hubert_smollm3",),
    "course": ("course",),
}
DATA = ((10, 10), (100, 5), (1_000, 2), (10_000, 1))  # hours of speech, epochs
PRICED = ("transcription", "transcription, cached", "course")  # LoRA on the encoder of `course` forbids a cache
EACH_GPUS, PRICED_GPUS = ("A40", "H100"), ("RTX 4090", "A40", "A100", "H100")


@dataclass(frozen=True)
class Work:
    """FLOPs for an hour of audio: of the encoder, and of all else, forward and backward."""

    encoder: float
    rest: float

    def of(self, data_hours: float, epochs: float, cached: bool = False) -> float:
        """FLOPs of a training; with cached features the encoder hears each clip once."""
        return data_hours * (self.encoder * (1 if cached else epochs) + self.rest * epochs)


def work(experiment: str, *overrides: str) -> Work:
    """What an experiment needs, from its model without weights."""
    model = outline(compose(experiment, [*WITHOUT_CHECKPOINT, *overrides]).model)
    lengths = clip_lengths(model, [NOMINAL_SECONDS], [NOMINAL_TEXT], None)
    parts = {name: 3600 / NOMINAL_SECONDS * part for name, part in TrainingFlops(model)(lengths).items()}
    return Work(parts["encoder"], sum(parts.values()) - parts["encoder"])


def all_work() -> dict[str, Work]:
    return {name: work(*settings) for name, settings in TRAININGS.items()}


def each_rows(works: dict[str, Work], table: GpuTable) -> Iterator[list[str]]:
    """For each experiment: TFLOP for an hour of audio, the encoder's share; hours of audio in a GPU hour, dollars."""
    speeds, prices = ([f"{what}, {gpu}" for gpu in EACH_GPUS] for what in ("audio h in 1 h", "USD for 1,000 h"))
    yield ["experiment", "TFLOP for 1 h", "of it encoder", *speeds, *prices]
    for name, needed in works.items():
        whole, gpus = needed.of(1, 1), [table.gpus[gpu] for gpu in EACH_GPUS]
        took = [hours(whole, gpu, table.utilisation) for gpu in gpus]
        dollars = [1000 * each * gpu.dollars for each, gpu in zip(took, gpus, strict=True)]
        shares = [f"{whole / 1e12:,.0f}", f"{100 * needed.encoder / whole:.0f} %"]
        yield [name, *shares, *(f"{1 / each:,.0f}" for each in took), *(f"{price:,.2f}" for price in dollars)]


def priced_rows(works: dict[str, Work], table: GpuTable) -> Iterator[list[str]]:
    """For each amount of data and each model: time and dollars on one GPU of each kind."""
    yield ["data", "epochs", "experiment", *PRICED_GPUS]
    for data_hours, epochs in DATA:
        for name in PRICED:
            experiment, _, cached = name.partition(", ")
            if not cached or epochs > 1:  # else nothing is heard twice
                flops = works[experiment].of(data_hours, epochs, bool(cached))
                prices = [priced(flops, table.gpus[gpu], table.utilisation) for gpu in PRICED_GPUS]
                yield [f"{data_hours:,} h", str(epochs), name, *prices]


def priced(flops: float, gpu: Gpu, utilisation: float) -> str:
    """Time and price on one GPU: `52 min, $0.43`."""
    took = hours(flops, gpu, utilisation)
    return f"{duration(3600 * took)}, ${took * gpu.dollars:,.2f}"


def markdown(rows: Iterator[list[str]], texts: int) -> str:
    """A Markdown table whose first `texts` columns are words, the rest numbers."""
    header, *body = rows
    ruler = ["---"] * texts + ["--:"] * (len(header) - texts)
    return "".join(f"| {' | '.join(row)} |\n" for row in (header, ruler, *body))


def tables() -> tuple[str, str]:
    """Both tables of docs/training-recipes.md."""
    works, known = all_work(), gpu_table()
    return markdown(each_rows(works, known), 1), markdown(priced_rows(works, known), 3)


def main() -> None:
    out("\n".join(tables()))


if __name__ == "__main__":
    main()
