"""The entry point of `ta`: finds a command's file when it is called, and words every error once."""

import importlib
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from tiny_audio.errors import TinyAudioError

# name → what it does. Each command is a Typer `app` in the file of its name, imported when it is called.
COMMANDS = {
    "train": "Train a recogniser on your data (with no arguments: the shipped corpus).",
    "eval": "Measure a model's word error rate and speed on a dataset.",
    "analysis": "Show where evaluations go wrong: worst clips, errors, slices, history; and compare them.",
    "transcribe": "Print the text of audio files.",
    "debug": "Show why a model does not learn: gradients, weights, routing, LoRA, parameters.",
    "data": "Look at a dataset: inspect; write a filtered copy of it: prepare.",
    "export": "Write a checkpoint in another form: merge.",
    "push": "Push a checkpoint to the Hugging Face Hub, with code, card and endpoint handler.",
    "deploy": "Put the demo on the Hub as a Space, or a model behind an Inference Endpoint.",
    "demo": "Serve a page that turns speech into text: microphone, files, word times.",
    "serve": "Serve a model over HTTP.",
    "remote": "Train, evaluate and run commands on another machine over SSH, e.g. a rented GPU.",
    "doctor": "Check this machine: one line each, with what to do.",
    "dev": "Lint, type-check, test and time a checkout of tiny-audio.",
}

PACKAGE_FOLDER = Path(__file__).resolve().parents[1]


class LazyGroup(TyperGroup):
    """Lists the commands from the table above and imports only the one that is called."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = dict.fromkeys(COMMANDS)  # type: ignore[assignment]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            return None
        if self.commands[cmd_name] is None:
            self.commands[cmd_name] = load_command(cmd_name)
        return self.commands[cmd_name]

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


def load_command(name: str) -> Any:
    """Imports `tiny_audio.cli.NAME` and returns its `app` as a command."""
    command_app: typer.Typer = importlib.import_module(f"tiny_audio.cli.{name}").app
    command_app.rich_markup_mode = None
    command = typer.main.get_command(command_app)
    command.name = name
    return command


app = typer.Typer(cls=LazyGroup, rich_markup_mode=None, add_completion=False, no_args_is_help=True)


def print_version(wanted: bool) -> None:
    if wanted:
        from tiny_audio import __version__

        typer.echo(f"tiny-audio {__version__}")
        raise typer.Exit


@app.callback()
def ta(
    version: Annotated[bool, typer.Option("--version", callback=print_version, is_eager=True, help="Version.")] = False,
) -> None:
    """Train, measure and use your own speech recogniser."""
    import logging

    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # imported, it tells of kernels that nobody asked for


def is_for_the_user(error: BaseException) -> bool:
    """Whether the error was worded for the user; what else comes up is a bug and keeps its traceback.

    That is a TinyAudioError; a ValueError or OSError that a `raise` in this package made; and what the operating
    system refused (it carries an errno: no such file, no permission, disk full).
    """
    if isinstance(error, TinyAudioError):
        return True
    if isinstance(error, OSError) and error.errno is not None:
        return True
    if not isinstance(error, ValueError | OSError):
        return False
    import traceback

    frame = traceback.extract_tb(error.__traceback__)[-1]
    ours = Path(frame.filename).resolve().is_relative_to(PACKAGE_FOLDER)
    return ours and (frame.line or "").startswith("raise ")


def describe(error: BaseException) -> str:
    """The error in one line."""
    if isinstance(error, OSError) and error.errno is not None and error.strerror:
        text = f"{error.filename}: {error.strerror}." if error.filename else f"{error.strerror}."
    else:
        text = str(error)
    return " ".join(text.split())


def run(arguments: list[str] | None = None) -> int:
    """Runs `ta ARGUMENTS` and returns the exit code: 0 done, 1 failed, 2 wrong usage, 130 interrupted."""
    try:
        result = typer.main.get_command(app).main(args=arguments, prog_name="ta", standalone_mode=False)
        sys.stdout.flush()
    except typer.TyperException as error:  # wrong usage
        error.show()  # type: ignore[attr-defined]
        return getattr(error, "exit_code", 2)
    except (typer.Abort, KeyboardInterrupt):
        result = 130
    except BrokenPipeError:
        # The reader (`| head`) went away; Python would complain once more when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if os.environ.get("TA_DEBUG") == "1" or not is_for_the_user(error):
            raise
        print(f"Error: {describe(error)}", file=sys.stderr)
        return 1
    if result == 130:
        print("\nInterrupted.", file=sys.stderr)
    return result if isinstance(result, int) else 0


def main() -> None:
    """What the installed commands `ta` and `tiny-audio` call."""
    sys.exit(run())


if __name__ == "__main__":
    main()
