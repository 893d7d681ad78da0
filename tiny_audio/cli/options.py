"""Options that several commands share."""

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
