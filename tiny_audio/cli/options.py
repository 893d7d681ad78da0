"""Options that several commands share, and the quiet that they want."""

import logging
from typing import Annotated

import typer

ModelOption = Annotated[
    str | None,
    typer.Option("--model", "-m", help="nano, a checkpoint's folder, or a Hub id (owner/name@revision). [nano]"),
]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps …")]
DtypeOption = Annotated[str, typer.Option(help="auto (what the checkpoint says), float32, float16 or bfloat16.")]
BeamsOption = Annotated[int | None, typer.Option(min=1, help="Beams of the search; 1 is greedy. [the checkpoint's]")]
NewTokensOption = Annotated[
    int | None, typer.Option(min=1, help="Longest text of a window of audio, in tokens. [the checkpoint's]")
]


def quiet_bitsandbytes() -> None:
    """When it is imported, it tells of kernels that nobody asked for."""
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
