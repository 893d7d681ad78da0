"""`ta remote launch`: writes a job file of a training, for SkyPilot or Slurm."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer


def launch(
    arguments: Annotated[list[str] | None, typer.Argument(metavar="-- TRAIN…", help="What `ta train` takes.")] = None,
    form: Annotated[Literal["sky", "slurm"], typer.Option("--format", help="For whom.")] = "slurm",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write. [NAME.yaml or NAME.sbatch]")
    ] = None,
    name: Annotated[str, typer.Option(help="Of the job.")] = "ta-train",
    nodes: Annotated[int, typer.Option(min=1, help="Machines.")] = 1,
    gpus: Annotated[int, typer.Option(min=1, help="GPUs of each machine.")] = 1,
    gpu: Annotated[str | None, typer.Option(help="Their type, e.g. A100.")] = None,
    hours: Annotated[float, typer.Option(min=0.1, help="Slurm's limit of time.")] = 24.0,
    partition: Annotated[str | None, typer.Option(help="Slurm's.")] = None,
    spot: Annotated[bool, typer.Option("--spot", help="SkyPilot: machines that may be taken back.")] = False,
    bucket: Annotated[str | None, typer.Option(metavar="s3://NAME", help="SkyPilot: keeps the checkpoints.")] = None,
    output_dir: Annotated[str | None, typer.Option(help="The run's folder there. [outputs/NAME]")] = None,
    env: Annotated[list[str] | None, typer.Option("--env", metavar="NAME", help="Variable that the job needs.")] = None,
) -> None:
    """Write a job file for SkyPilot or Slurm; nothing is started.

    ta remote launch --format slurm --nodes 2 --gpus 8 -- --experiment transcription -d my_data
    """
    from tiny_audio.cli.remote_options import settings_of
    from tiny_audio.console import out
    from tiny_audio.errors import TinyAudioError
    from tiny_audio.remote.launch import LaunchFile, sky, slurm

    given = arguments or []
    job = LaunchFile(given, name, nodes, gpus, gpu, hours, spot, output_dir, env or (), bucket, partition)
    text = {"sky": sky, "slurm": slurm}[form](job)
    settings_of(given)  # what is wrong with them is said now, not when the job begins
    file = output or Path(f"{name}.{'yaml' if form == 'sky' else 'sbatch'}")
    if file.exists():
        raise TinyAudioError(f"{file} is there already; name another file with --output, or remove it.")
    file.write_text(text, encoding="utf-8")
    out(start_command(form, file, job.secrets, spot))


def start_command(form: str, file: Path, secrets: Sequence[str], spot: bool) -> str:
    """What starts the job."""
    from shlex import join

    if form == "slurm":
        return join(["sbatch", str(file)])
    named = [word for secret in secrets for word in ("--secret", secret)]
    return join(["sky", *(["jobs"] if spot else []), "launch", str(file), *named])
