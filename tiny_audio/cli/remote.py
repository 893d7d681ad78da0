"""`ta remote`: trains, evaluates and runs commands on another machine over SSH, as if it were this one."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tiny_audio.cli import remote_launch, remote_pods
from tiny_audio.cli.remote_options import as_job, on_machine, on_machine_or_pod

if TYPE_CHECKING:
    from tiny_audio.remote.connection import Connection
    from tiny_audio.remote.work import Wishes

JobArgument = Annotated[str | None, typer.Argument(metavar="JOB", help="[the newest]")]
LinesOption = Annotated[int, typer.Option("--lines", "-n", min=0, help="Of the log's end.")]
THROUGH = {"allow_extra_args": True, "ignore_unknown_options": True}  # options of `ta train` go there as they are

app = typer.Typer(rich_markup_mode=None, add_completion=False, no_args_is_help=True)
app.add_typer(remote_pods.app, name="pods")
app.command("launch")(remote_launch.launch)


@app.callback()
def remote() -> None:
    """Train, evaluate and run commands on another machine over SSH, as if it were this one."""


@app.command()
def add(
    name: Annotated[str, typer.Argument(metavar="NAME")],
    address: Annotated[str, typer.Argument(metavar="[USER@]HOST")],
    port: Annotated[int | None, typer.Option("--port", "-p", help="Of ssh there.")] = None,
    identity: Annotated[str | None, typer.Option("--identity", "-i", metavar="FILE", help="Private key.")] = None,
    path: Annotated[str | None, typer.Option(help="The project's folder there. [tiny-audio, in the home]")] = None,
    ssh_config: Annotated[str | None, typer.Option(metavar="FILE", help="In place of ~/.ssh/config.")] = None,
    dollars_per_hour: Annotated[float | None, typer.Option(min=0, help="Its price, for `status`.")] = None,
) -> None:
    """Keep a machine under a name."""
    given = {key: value for key, value in locals().items() if key not in ("name", "address") and value is not None}
    from tiny_audio.console import say
    from tiny_audio.remote.targets import add_remote, parse_address, remotes_file

    add_remote(name, parse_address(address, given))
    say(f"{name} is kept in {remotes_file()}; see what it has: ta remote check --host {name}")


@app.command()
def remove(name: Annotated[str, typer.Argument(metavar="NAME")]) -> None:
    """Forget a machine's name; the machine stays as it is."""
    from tiny_audio.console import say
    from tiny_audio.remote.targets import remotes_file, remove_remote

    remove_remote(name)
    say(f"{name} is no longer in {remotes_file()}.")


@app.command()
@on_machine
def check(connection: "Connection") -> None:
    """What the machine has, and lacks: a line each."""
    from tiny_audio import console
    from tiny_audio.remote.machine import examine

    failures = 0
    for found in examine(connection, Path.cwd()):
        console.out(str(found))
        failures += found.state == "failure"
    if failures:
        raise typer.Exit(1)


@app.command()
@on_machine
def sync(
    connection: "Connection",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be sent.")] = False,
) -> None:
    """Send the project.

    Files that git tracks, and others that it does not ignore, without datasets and checkpoints. What is deleted here is
    deleted there if an earlier sync sent it.
    """
    from tiny_audio.console import out
    from tiny_audio.remote.sync import describe, listing
    from tiny_audio.remote.sync import sync as send

    listed = listing(Path.cwd())
    done = send(connection, listed, dry_run)
    if dry_run:
        out("\n".join(done.lines))
    out(describe(done, listed, dry_run))


@app.command()
@on_machine
def setup(
    connection: "Connection", anew: Annotated[bool, typer.Option("--anew", help="Even if nothing changed.")] = False
) -> None:
    """Make the environment there, unless it is there."""
    from tiny_audio.console import out
    from tiny_audio.remote.setup import setup
    from tiny_audio.remote.sync import listing

    made = setup(connection, listing(Path.cwd()).root, anew)
    out("The environment is made." if made else "The environment is as it should be.")


@app.command()
@on_machine
def deploy(connection: "Connection") -> None:
    """Sync, and setup."""
    from tiny_audio.remote.work import deploy

    deploy(connection, Path.cwd())


@app.command(context_settings=THROUGH)
@on_machine_or_pod
@as_job
def train(
    wishes: "Wishes",
    connection: "Connection",
    context: typer.Context,
    resume: Annotated[
        str | None, typer.Option(metavar="auto|JOB", help="Go on with the newest run there, or a job's.")
    ] = None,
) -> int:
    """Train there: sync, setup if needed, start, follow, pull.

    All other options and KEY=VALUE are those of `ta train`. Ctrl-C detaches; the job goes on.
    """
    from tiny_audio.remote.work import train

    return train(connection, context.args, wishes, resume)


@app.command("eval", context_settings=THROUGH)
@on_machine
@as_job
def evaluate(wishes: "Wishes", connection: "Connection", context: typer.Context) -> int:
    """Evaluate there, as `train` trains.

    All other options are those of `ta eval`.
    """
    from tiny_audio.cli.main import load_command
    from tiny_audio.remote.work import evaluate

    load_command("eval").make_context("eval", [*context.args])  # wrong usage is said before anything is sent
    return evaluate(connection, context.args, wishes)


@app.command()
@on_machine
@as_job
def run(
    wishes: "Wishes",
    connection: "Connection",
    command: Annotated[list[str], typer.Argument(metavar="-- COMMAND", help="The program and its arguments.")],
) -> int:
    """Run a command there, as a job.

    In the project's folder and its environment; no shell reads it.
    """
    from tiny_audio.remote.work import run

    return run(connection, command, wishes)


@app.command()
@on_machine
def attach(
    connection: "Connection",
    job: JobArgument = None,
    lines: LinesOption = 20,
    pull: Annotated[bool, typer.Option("--pull/--no-pull", help="Fetch the results at the end.")] = True,
) -> int:
    """Come back to a job: its log until it ends, then its results."""
    from tiny_audio.remote.work import watch

    return watch(connection, job, lines, pull)


@app.command()
@on_machine
def logs(
    connection: "Connection",
    job: JobArgument = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job ends.")] = False,
    lines: LinesOption = 50,
) -> int:
    """The end of a job's log."""
    from tiny_audio.remote.follow import log_tail, show_text
    from tiny_audio.remote.jobs import find_job
    from tiny_audio.remote.work import watch

    if follow:
        return watch(connection, job, lines, fetch=False)
    text, _ = log_tail(connection, find_job(connection, job).name, lines)
    show_text(text.decode("utf-8", "replace"))
    return 0


@app.command()
@on_machine
def status(connection: "Connection", job: JobArgument = None) -> None:
    """What a job is at: step, loss, time left, cost; and how busy the GPU is."""
    from tiny_audio.remote.status import show_status

    show_status(connection, job)


@app.command("list")
@on_machine
def list_jobs(connection: "Connection") -> None:
    """All jobs there."""
    from tiny_audio.remote.status import show_jobs

    show_jobs(connection)


@app.command()
@on_machine
def stop(
    connection: "Connection",
    job: JobArgument = None,
    kill: Annotated[bool, typer.Option("--kill", help="At once, without a checkpoint.")] = False,
) -> None:
    """End a job: a training writes a checkpoint first."""
    from tiny_audio.console import out
    from tiny_audio.remote.status import describe
    from tiny_audio.remote.work import stop

    out(describe(stop(connection, job, kill)))


@app.command()
@on_machine
def pull(
    connection: "Connection",
    paths: Annotated[
        list[str] | None, typer.Argument(metavar="PATH…", help="Below the project. [the job's results]")
    ] = None,
    job: Annotated[str | None, typer.Option(help="Whose results. [the newest that has some]")] = None,
    into: Annotated[Path, typer.Option(help="Folder here.")] = Path("."),
) -> None:
    """Fetch results: checkpoints, curves, evaluations.

    Goes on where it was broken off, and compares the hash of every file.
    """
    from tiny_audio.remote.jobs import find_job
    from tiny_audio.remote.work import fetch_paths, fetch_results, has_results

    if paths:
        fetch_paths(connection, paths, into)
    else:
        fetch_results(connection, find_job(connection, job, has_results), into)


@app.command()
@on_machine
def tensorboard(
    connection: "Connection",
    job: JobArgument = None,
    local_port: Annotated[int, typer.Option(min=0, max=65_535, help="Of this machine; 0 for any.")] = 6006,
) -> None:
    """TensorBoard of the machine in the browser here, until Ctrl-C."""
    from tiny_audio.remote.jobs import find_job
    from tiny_audio.remote.tunnel import tensorboard
    from tiny_audio.remote.work import OUTPUTS, output_of

    tensorboard(connection, OUTPUTS if job is None else output_of(find_job(connection, job)), local_port)
