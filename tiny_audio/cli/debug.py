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


def png(file: Path | None) -> Path | None:
    """Only files named so are written: another name may be that of a checkpoint's or a run's own file."""
    if file is not None and file.suffix.lower() != ".png":
        raise typer.BadParameter(f"{file} is no name of a figure; expected one that ends in .png.")
    return file


OutputOption = Annotated[
    Path | None,
    typer.Option("--output", metavar="FILE.png", callback=png, help="The figure. [outputs/debug/WHAT-CHECKPOINT.png]"),
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
    """Gradient norms by tensor, and the loss.

    Over the first batches of a training that goes on from the checkpoint, frozen as its config says.
    """
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
    """Weights by tensor, and the scale of the audio.

    By part for the whole model, by tensor for the projector; what it makes of speech, beside the token embeddings.
    """
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
    """Routing of a `moe` projector.

    Tokens and mean gate of each expert, dead experts, and the entropy of the routing.
    """
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
    """Routing of a `mosa` projector.

    First choices and mean gate of each expert, dead experts, and the entropy of the routing.
    """
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
    """What LoRA has learned.

    Size and effective rank of each ΔW = scale · B·A, beside the weight that it changes.
    """
    from tiny_audio.debug.lora import measure_lora
    from tiny_audio.debug.report import present

    present(measure_lora(checkpoint, device, dtype), output, "lora", checkpoint)


@app.command()
def parameters(
    experiments: Annotated[list[str] | None, typer.Argument(metavar="[EXPERIMENT]…", help="All, if none.")] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="The table as docs/parameters.md has it.")] = False,
    config_dir: Annotated[Path | None, typer.Option(help="A folder with configs of your own.")] = None,
) -> None:
    """Parameters of each experiment's model.

    Counted without weights, from the shipped sizes of the named models.
    """
    from tiny_audio import console
    from tiny_audio.debug.parameters import COLUMNS, NUMBERS, model_sizes

    rows = [size.cells() for size in model_sizes(experiments or (), config_dir)]
    if markdown:
        console.out(console.markdown(COLUMNS, rows, right=NUMBERS))
    else:
        console.table(COLUMNS, rows, right=NUMBERS)
