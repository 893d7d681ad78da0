"""`ta data`: looks at a dataset before money is spent on it, and writes a filtered copy of it."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(rich_markup_mode=None, add_completion=False, no_args_is_help=True)

DatasetArgument = Annotated[str, typer.Argument(metavar="DATASET", help="As of `ta train -d`: a name, path or Hub id.")]
OverridesArgument = Annotated[
    list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Settings, e.g. data.text_column=sentence.")
]


@app.callback()
def data() -> None:
    """Look at a dataset, or write a filtered copy of it."""


@app.command()
def inspect(
    dataset: DatasetArgument,
    overrides: OverridesArgument = None,
    split: Annotated[str | None, typer.Option(help="Split to look at. [that of the training]")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Everything as JSON, with the ids of every clip named.")
    ] = False,
) -> None:
    """Hours, lengths, speaking rates, labels, speakers.

    Reads headers and texts, and decodes no audio; of a mixture, each part.
    """
    import json

    from tiny_audio.console import out
    from tiny_audio.data import parts_of
    from tiny_audio.data.inspect import inspect_dataset
    from tiny_audio.training.config import compose

    found = [inspect_dataset(part, split) for part in parts_of(compose(None, overrides or (), data=dataset).data)]
    if as_json:
        out(json.dumps([inspection.as_json() for inspection in found], indent=2, ensure_ascii=False))
    else:
        out("\n\n".join(inspection.report() for inspection in found))


@app.command()
def prepare(
    dataset: DatasetArgument,
    folder: Annotated[Path, typer.Argument(metavar="OUT_FOLDER", help="Gets data/, README.md and skipped.jsonl.")],
    overrides: OverridesArgument = None,
    split: Annotated[list[str] | None, typer.Option(help="train, validation or test; may be repeated. [all]")] = None,
    shard_mb: Annotated[float, typer.Option(min=0.001, help="Megabytes of audio in a shard.")] = 400.0,
    shard_seconds: Annotated[float | None, typer.Option(min=0.001, help="Seconds of audio in a shard.")] = None,
    as_is: Annotated[bool, typer.Option("--as-is", help="Keep the audio's own bytes, not 16 kHz FLAC.")] = False,
    workers: Annotated[int, typer.Option(min=1, help="Threads that decode and encode.")] = 2,
) -> None:
    """Write a filtered, sharded copy.

    The same command again goes on with a copy that was broken off. `ta train -d OUT_FOLDER` reads it.
    """
    from tiny_audio.console import out, progress
    from tiny_audio.data.prepare import Form, prepare
    from tiny_audio.training.config import compose

    config = compose(None, overrides or (), data=dataset).data
    with progress("Clips") as bar:
        copies = prepare(config, folder, split or (), Form(shard_mb, shard_seconds, as_is, workers), bar.advance)
    for copy in copies:
        out(str(copy))
    out(f"Train on it: ta train -d {folder}")
