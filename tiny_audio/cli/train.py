"""`ta train`: trains a recogniser, or says what it would train."""

from pathlib import Path
from typing import Annotated

import typer

from tiny_audio.cli.options import quiet_bitsandbytes

app = typer.Typer(rich_markup_mode=None, add_completion=False)

DATA_HELP = "Data: a name from configs/data, or a folder, file or Hub id."


@app.command()
def train(
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Settings, e.g. training.max_steps=100.")
    ] = None,
    experiment: Annotated[str | None, typer.Option(help="Name of an experiment; quickstart if none is named.")] = None,
    data: Annotated[str | None, typer.Option("--data", "-d", metavar="PATH|NAME", help=DATA_HELP)] = None,
    output_dir: Annotated[Path | None, typer.Option(help="Folder of the run; outputs/EXPERIMENT-DATE-TIME.")] = None,
    resume: Annotated[
        str | None, typer.Option(metavar="auto|PATH", help="Go on with the newest run, or with a folder's.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show settings, parameters and steps only.")] = False,
    config_dir: Annotated[Path | None, typer.Option(help="A folder with configs of your own.")] = None,
) -> None:
    """Train a recogniser: settings of an experiment, your data, and KEY=VALUE for everything else."""
    from tiny_audio.training.config import compose

    quiet_bitsandbytes()
    if resume is not None and experiment is None:
        from tiny_audio.training.run import settings_to_resume

        settings, checkpoint = settings_to_resume(resume, overrides or (), data=data, output_dir=output_dir)
        resume = str(checkpoint)
    else:
        settings = compose(experiment, overrides or (), data=data, config_dir=config_dir, output_dir=output_dir)
    if dry_run:
        from tiny_audio.training.plan import show_plan

        show_plan(settings)
        return
    from tiny_audio.console import out
    from tiny_audio.training.run import train

    out(train(settings, resume=resume).summary())
