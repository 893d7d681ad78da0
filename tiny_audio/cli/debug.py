"""`ta debug`: why a model does not learn, as tables and a PNG, and how large the models of the experiments are."""

from pathlib import Path
from typing import Annotated

import typer

from tiny_audio.cli.options import DeviceOption, DtypeOption

CheckpointArgument = Annotated[
    str, typer.Argument(metavar="CHECKPOINT", help="nano, a checkpoint's or a run's folder, or a Hub id.")
]
DataOption = Annotated[str, typer.Option("--data", "-d", help="Speech: as of `ta train`.")]
BatchesOption = Annotated[int, typer.Option("--batches", "-n", min=1, help="Batches of about 30 s of speech.")]
OutputOption = Annotated[
    Path | None, typer.Option("--output", metavar="FILE.png", help="The figure. [outputs/debug/WHAT-CHECKPOINT.png]")
]

app = typer.Typer(rich_markup_mode=None, add_completion=False, no_args_is_help=True)


@app.callback()
def debug() -> None:
    """Show why a model does not learn: gradients, weights, routing, LoRA; and the parameters of each experiment."""


@app.command()
def gradients(
    checkpoint: CheckpointArgument = "nano",
    data: DataOption = "quickstart",
    batches: BatchesOption = 4,
    output: OutputOption = None,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
) -> None:
    """Gradient norms of each trained tensor, and the loss, over a few training batches."""
    from tiny_audio.debug.gradients import measure_gradients
    from tiny_audio.debug.report import present

    present(measure_gradients(checkpoint, data, batches, device, dtype), output, "gradients", checkpoint)


@app.command()
def weights(
    checkpoint: CheckpointArgument = "nano",
    data: DataOption = "quickstart",
    batches: BatchesOption = 1,
    output: OutputOption = None,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
) -> None:
    """Size of the weights, ranks of the projector, and its scale beside the token embeddings."""
    from tiny_audio.debug.report import present
    from tiny_audio.debug.weights import measure_weights

    present(measure_weights(checkpoint, data, batches, device, dtype), output, "weights", checkpoint)


@app.command()
def moe(
    checkpoint: CheckpointArgument,
    data: DataOption = "quickstart",
    batches: BatchesOption = 4,
    output: OutputOption = None,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
) -> None:
    """Routing of a `moe` projector: tokens per expert, mean gates, dead experts, entropy."""
    from tiny_audio.debug.report import present
    from tiny_audio.debug.routing import measure_routing

    present(measure_routing("moe", checkpoint, data, batches, device, dtype), output, "moe", checkpoint)


@app.command()
def mosa(
    checkpoint: CheckpointArgument,
    data: DataOption = "quickstart",
    batches: BatchesOption = 4,
    output: OutputOption = None,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
) -> None:
    """Routing of a `mosa` projector: first choices, mean gates, dead experts, entropy."""
    from tiny_audio.debug.report import present
    from tiny_audio.debug.routing import measure_routing

    present(measure_routing("mosa", checkpoint, data, batches, device, dtype), output, "mosa", checkpoint)


@app.command()
def lora(
    checkpoint: CheckpointArgument,
    output: OutputOption = None,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
) -> None:
    """What LoRA has learned: size and effective rank of each ΔW."""
    from tiny_audio.debug.lora import measure_lora
    from tiny_audio.debug.report import present

    present(measure_lora(checkpoint, device, dtype), output, "lora", checkpoint)


@app.command()
def parameters(
    experiments: Annotated[list[str] | None, typer.Argument(metavar="[EXPERIMENT]…", help="All, if none.")] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="The table as docs/parameters.md has it.")] = False,
    config_dir: Annotated[Path | None, typer.Option(help="A folder with configs of your own.")] = None,
) -> None:
    """Parameters of each experiment's model, counted without its weights."""
    from tiny_audio import console
    from tiny_audio.debug.parameters import COLUMNS, NUMBERS, model_sizes

    rows = [size.cells() for size in model_sizes(experiments or (), config_dir)]
    if markdown:
        console.out(console.markdown(COLUMNS, rows, right=NUMBERS))
    else:
        console.table(COLUMNS, rows, right=NUMBERS)
