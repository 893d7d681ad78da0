"""Options that the commands of `ta remote` share: which machine, what of a job, which pod; and what they become."""

from collections.abc import Callable
from functools import wraps
from inspect import Parameter, Signature, signature
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from tiny_audio.cli import remote_pods

if TYPE_CHECKING:
    from tiny_audio.remote.connection import Connection

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
        if given["deploy"] and given["resume"] is None:  # else the settings are those of a project or run there
            settings_of(context.args)
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
    from tiny_audio.console import say
    from tiny_audio.errors import TinyAudioError
    from tiny_audio.remote.costs import estimate

    try:
        found = estimate(settings_of(arguments), quote.gpu.id, quote.wish.count, quote.dollars)
        say(found.describe() if found else f"No estimate: the peak of {quote.gpu.name} is not known.")
    except (TinyAudioError, ValueError, OSError) as error:
        say(f"No estimate: {error}")


def settings_of(arguments: list[str]) -> Any:
    """What `ta train ARGUMENTS` would train with: wrong usage is said here, before anything is sent or rented."""
    from tiny_audio.cli.main import load_command
    from tiny_audio.training.config import compose

    options = load_command("train").make_context("train", [*arguments]).params
    named = {name: options[name] for name in ("data", "config_dir")}
    return compose(options["experiment"], options["overrides"] or (), **named)


def as_job(function: Callable[..., Any]) -> Callable[..., Any]:
    """Gives a command the options of a job, and hands it the wishes."""

    def command(*arguments: Any, **given: Any) -> Any:
        from tiny_audio.remote.work import Wishes

        wished = {name: given.pop(name) for name in JOB_OPTIONS}
        wishes = Wishes(**{**wished, "env": wished["env"] or ()})
        return function(wishes, *arguments, **given)

    return replaced(function, JOB_OPTIONS, command)
