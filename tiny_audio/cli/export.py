"""`ta export`: a checkpoint in other forms."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(rich_markup_mode=None, add_completion=False, no_args_is_help=True)


@app.callback()
def export() -> None:
    """Write a checkpoint in another form."""


@app.command()
def merge(
    checkpoint: Annotated[
        str, typer.Argument(metavar="CHECKPOINT", help="Folder or Hub id of a checkpoint with LoRA.")
    ],
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="New folder of the merged checkpoint.")],
) -> None:
    """Work LoRA into the weights: a self-contained checkpoint that needs no PEFT."""
    from tiny_audio.console import say
    from tiny_audio.export.merge import merge_checkpoint

    merged = merge_checkpoint(checkpoint, folder)
    say(f"Merged {merged.layers} layers with LoRA into {merged.folder}; try it: ta transcribe -m {merged.folder} CLIP")
