"""Whether a documented command exists: `ta` lines parse as the command line does, and trainings compose their settings."""

import shlex
from collections.abc import Iterator
from contextlib import redirect_stdout
from io import StringIO

import typer
from docs_blocks import Block, commands_of

TRAININGS = (["ta", "train"], ["ta", "remote", "train"])


def problems_of_commands(block: Block) -> Iterator[str]:
    """What of a bash block's `ta` lines cannot be parsed; of a block that no test runs, what cannot be composed either."""
    for words in commands_of(block):
        if words[0] == "ta":
            try:
                parse(words[1:])
                if not block.runs:
                    compose(words)
            except Exception as error:  # noqa: BLE001 - wrong usage, unknown settings, types that do not fit
                yield f"{block}: {shlex.join(words)}: {error}"


def parse(arguments: list[str]) -> None:
    """Raises what the command line would: an unknown command, option or argument, or one that is missing."""
    from tiny_audio.cli.main import COMMANDS, load_command

    if not arguments or arguments[0].startswith("-"):
        return
    if arguments[0] not in COMMANDS:
        raise ValueError(f"no command {arguments[0]!r}")
    if left := leftover(load_command(arguments[0]), arguments[0], arguments[1:]):
        raise ValueError(f"left over: {shlex.join(left)}")


def leftover(command, name: str, arguments: list[str]) -> list[str]:
    """What a command, or the one of its group that is named, cannot parse."""
    try:
        with redirect_stdout(StringIO()):  # of options that answer at once, such as --list
            context = command.make_context(name, list(arguments))
    except typer.Exit:  # --help, --version
        return []
    if hasattr(command, "resolve_command"):
        name, command, arguments = command.resolve_command(context, [*context._protected_args, *context.args])
        return leftover(command, name, arguments)
    return [] if context.allow_extra_args else context.args


def compose(words: list[str]) -> None:
    """The settings of a training, as `ta train --dry-run` and `ta remote train` begin with."""
    from tiny_audio.cli.remote_options import settings_of

    if words[:2] == ["ta", "train"]:
        arguments = words[2:]
    elif words[:3] == ["ta", "remote", "train"]:
        arguments = context_of_remote(words[3:]).args
    else:
        return
    if not any(word.split("=")[0] == "--resume" for word in words):  # those of the run that goes on
        settings_of([word for word in arguments if "$" not in word])  # a shell knows what those are


def context_of_remote(arguments: list[str]):
    from tiny_audio.cli.main import load_command

    remote = load_command("remote")
    return remote.get_command(remote.make_context("remote", ["train"]), "train").make_context("train", arguments)
