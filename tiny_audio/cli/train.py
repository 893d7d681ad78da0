"""`ta train`: trains a recogniser, or says what it would train."""

import os
from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import Annotated

import typer

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
    num_processes: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Processes on this machine, each with a GPU of its own.")
    ] = None,
    num_nodes: Annotated[int, typer.Option(min=1, metavar="M", help="Machines, on each of which this is called.")] = 1,
    node_rank: Annotated[int, typer.Option(metavar="R", help="Of this machine, 0 to M - 1.")] = 0,
    rendezvous: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Where several machines meet: at number 0.")
    ] = None,
) -> int:
    """Train a recogniser: settings of an experiment, your data, and KEY=VALUE for everything else."""
    from tiny_audio.training.config import compose

    several = check_launch(num_processes, num_nodes)
    if resume is not None and experiment is None:
        from tiny_audio.training.run import settings_to_resume

        settings, checkpoint = settings_to_resume(resume, overrides or (), data=data, output_dir=output_dir)
        resume, output_dir = str(checkpoint), checkpoint.parent
    else:
        settings = compose(experiment, overrides or (), data=data, config_dir=config_dir, output_dir=output_dir)
    if dry_run:
        from tiny_audio.training.plan import show_plan

        show_plan(replace(settings, processes=(num_processes or 1) * num_nodes))
        return 0
    if several:
        from tiny_audio.training.launch import Launch, launch

        own = {
            "experiment": experiment,
            "data": data,
            "output-dir": output_dir,
            "resume": resume,
            "config-dir": config_dir,
        }
        options = [f"--{name}={value}" for name, value in own.items() if value is not None]
        wanted = Launch(num_processes or 1, num_nodes, node_rank, rendezvous)
        return launch([*options, "--", *(overrides or ())], wanted, f"--resume {quote(str(output_dir or 'auto'))}")
    from tiny_audio.console import out
    from tiny_audio.training.run import train

    out(train(settings, resume=resume).summary())
    return 0


def check_launch(num_processes: int | None, num_nodes: int) -> bool:
    """Whether processes are to be started; not in one that a launcher has started."""
    from tiny_audio.errors import TinyAudioError

    several = (num_processes or 1) * num_nodes > 1
    if several and "WORLD_SIZE" in os.environ:
        raise TinyAudioError(
            f"A launcher has started {os.environ['WORLD_SIZE']} processes already; leave out --num-processes and --num-nodes."
        )
    return several
