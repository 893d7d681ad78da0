"""`ta remote`: trains, evaluates and runs commands on another machine over SSH, as if it were this one."""

from collections.abc import Callable
from functools import wraps
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from tiny_audio.cli import remote_launch, remote_pods

if TYPE_CHECKING:
    from tiny_audio.remote.connection import Connection
    from tiny_audio.remote.work import Wishes

TARGET_OPTIONS = {
    "host": Annotated[
        str | None,
        typer.Option(
            "--host", "-H", metavar="NAME|HOST", help="Of `ta remote add`, ~/.ssh/config, or any. [the only one]"
        ),
    ],
    "port": Annotated[int | None, typer.Option(help="Of ssh there.")],
    "user": Annotated[str | None, typer.Option(help="There.")],
    "identity": Annotated[str | None, typer.Option(metavar="FILE", help="Private key.")],
    "path": Annotated[str | None, typer.Option(help="The project's folder there. [tiny-audio, in the home]")],
    "ssh_config": Annotated[str | None, typer.Option(metavar="FILE", help="In place of ~/.ssh/config.")],
}
AcceptOption = Annotated[bool, typer.Option("--accept-new", help="Trust the host key of a machine never met before.")]
MACHINE_OPTIONS = {name: (kind, None) for name, kind in TARGET_OPTIONS.items()} | {"accept_new": (AcceptOption, False)}
POD_OPTIONS = {
    "pod": (
        Annotated[Literal["new"] | None, typer.Option(help="Rent a pod of RunPod for it, and stop it after.")],
        None,
    ),
    "gpu": (Annotated[str | None, typer.Option(help="Of the new pod, e.g. A40.")], None),
    "cloud": (remote_pods.CloudOption, "secure"),
    "spot": (Annotated[bool, typer.Option("--spot", help="A pod that may be taken back at any moment.")], False),
    "volume": (Annotated[int, typer.Option(min=10, help="GB of the pod's /workspace.")], 50),
    "yes": (remote_pods.YesOption, False),
}
SETUP_HOURS = 1.0  # of a rented pod before and after the job
JOB_OPTIONS = {
    "name": (Annotated[str | None, typer.Option(help="Of the job. [kind, date and time]")], None),
    "env": (
        Annotated[list[str] | None, typer.Option(metavar="NAME", help="Variable to send, e.g. HF_TOKEN; never shown; may be repeated.")],
        None,
    ),
    "then": (
        Annotated[Literal["nothing", "stop-pod", "shutdown"], typer.Option(help="What to do when the job is over, however it ends.")],
        "nothing",
    ),
    "max_hours": (Annotated[float | None, typer.Option(min=0, help="End the job after them.")], None),
    "idle_minutes": (Annotated[float | None, typer.Option(min=0, help="End it when nothing happened so long.")], None),
    "restarts": (Annotated[int, typer.Option(min=0, help="Of a machine that was taken back and came again.")], 3),
    "dollars_per_hour": (Annotated[float | None, typer.Option(min=0, help="Price of the machine, for `status`.")], None),
    "detach": (Annotated[bool, typer.Option("--detach", help="Come back as soon as it runs.")], False),
    "deploy": (Annotated[bool, typer.Option("--deploy/--no-deploy", help="Sync and setup before.")], True),
    "pull": (Annotated[bool, typer.Option("--pull/--no-pull", help="Fetch the results at the end.")], True),
}  # fmt: skip
JobArgument = Annotated[str | None, typer.Argument(metavar="JOB", help="[the newest]")]
LinesOption = Annotated[int, typer.Option("--lines", "-n", min=0, help="Of the log's end.")]
THROUGH = {"allow_extra_args": True, "ignore_unknown_options": True}  # options of `ta train` go there as they are

app = typer.Typer(rich_markup_mode=None, add_completion=False, no_args_is_help=True)
app.add_typer(remote_pods.app, name="pods")
app.command("launch")(remote_launch.launch)


@app.callback()
def remote() -> None:
    """Train, evaluate and run commands on another machine over SSH, as if it were this one."""


def replaced(
    function: Callable[..., Any], options: dict[str, tuple[Any, Any]], command: Callable[..., Any]
) -> Callable[..., Any]:
    """`command` as Typer shall see it: `function` with these options in place of its first parameter."""
    own = list(signature(function).parameters.values())[1:]
    more = [
        Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=kind)
        for name, (kind, default) in options.items()
    ]
    command = wraps(function)(command)
    del command.__wrapped__  # type: ignore[attr-defined]
    command.__annotations__ = {}
    command.__signature__ = Signature([*own, *more])  # type: ignore[attr-defined]
    return command


def on_machine(function: Callable[..., Any]) -> Callable[..., Any]:
    """Gives a command the options that say which machine is meant, and hands it the connection."""

    def command(*arguments: Any, **given: Any) -> Any:
        with connection_to(given) as connection:
            return function(connection, *arguments, **given)

    return replaced(function, MACHINE_OPTIONS, command)


def connection_to(given: dict[str, Any]) -> "Connection":
    """To the machine that the options mean, which it takes out of them."""
    from tiny_audio.remote.connection import connect
    from tiny_audio.remote.targets import find_target

    return connect(find_target(**{name: given.pop(name) for name in TARGET_OPTIONS}), given.pop("accept_new"))


def on_machine_or_pod(function: Callable[..., Any]) -> Callable[..., Any]:
    """As `on_machine`, or with a pod that is rented for it; the function's first argument after that is the context."""

    def command(context: typer.Context, *arguments: Any, **given: Any) -> Any:
        pod = {name: given.pop(name) for name in POD_OPTIONS}
        with rented(pod, given, context.args) if pod["pod"] else connection_to(given) as connection:
            return function(connection, context, *arguments, **given)

    return replaced(function, MACHINE_OPTIONS | POD_OPTIONS, command)


def rented(pod: dict[str, Any], given: dict[str, Any], arguments: list[str]) -> Any:
    """A connection to a new pod; its job stops it, whatever becomes of this machine."""
    from tiny_audio.cli.remote_pods import agree
    from tiny_audio.remote.jobs import read_secrets
    from tiny_audio.remote.rent import HOURS, Wish
    from tiny_audio.remote.rented import new_pod

    if pod["gpu"] is None:
        raise typer.BadParameter("--pod new needs --gpu; `ta remote pods gpus` shows them.")
    machine = {name: given.pop(name) for name in TARGET_OPTIONS}
    if named := [name for name in ("host", "port", "user") if machine.pop(name)]:
        raise typer.BadParameter(f"--pod new and --{named[0]} name two machines; give one.")
    read_secrets(given["env"] or ())  # what is missing is said before money is spent
    given["then"] = "stop-pod"
    hours = HOURS if given["max_hours"] is None else given["max_hours"] + SETUP_HOURS
    wish = Wish(pod["gpu"], cloud=pod["cloud"], spot=pod["spot"], volume=pod["volume"], hours=hours)

    def ask(quote: Any) -> None:
        say_estimate(arguments, quote)
        agree(quote.describe(), "Rent it?", pod["yes"])

    return new_pod(wish, ask, given.pop("accept_new"), **machine)


def say_estimate(arguments: list[str], quote: Any) -> None:
    """What the training will cost, where that can be known here: the data and the GPU's peak."""
    from tiny_audio.cli.main import load_command
    from tiny_audio.console import say
    from tiny_audio.errors import TinyAudioError
    from tiny_audio.remote.costs import estimate
    from tiny_audio.training.config import compose

    options = load_command("train").make_context("train", [*arguments]).params
    try:
        settings = compose(
            options["experiment"], options["overrides"] or (), data=options["data"], config_dir=options["config_dir"]
        )
        found = estimate(settings, quote.gpu.id, quote.wish.count, quote.dollars)
        say(found.describe() if found else f"No estimate: the peak of {quote.gpu.name} is not known.")
    except (TinyAudioError, ValueError, OSError) as error:
        say(f"No estimate: {error}")


def as_job(function: Callable[..., Any]) -> Callable[..., Any]:
    """Gives a command the options of a job, and hands it the wishes."""

    def command(*arguments: Any, **given: Any) -> Any:
        from tiny_audio.remote.work import Wishes

        wished = {name: given.pop(name) for name in JOB_OPTIONS}
        wishes = Wishes(**{**wished, "env": wished["env"] or ()})
        return function(wishes, *arguments, **given)

    return replaced(function, JOB_OPTIONS, command)


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
    from tiny_audio.remote.work import evaluate

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
    from tiny_audio.remote.work import attach

    return attach(connection, job, lines, pull)


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
    from tiny_audio.remote.work import attach

    if follow:
        return attach(connection, job, lines, fetch=False)
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
