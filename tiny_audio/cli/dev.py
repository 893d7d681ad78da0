"""`ta dev`: lint, format, type-check, test and time a checkout; the checks are the commands that CI runs."""

import importlib.util
import os
import subprocess
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from tiny_audio import console
from tiny_audio.errors import TinyAudioError

CHECKOUT = Path(__file__).resolve().parents[2]

LINT = ("ruff", ["-m", "ruff", "check", "."])
FORMATTED = ("ruff", ["-m", "ruff", "format", "--check", "."])
FORMAT = ("ruff", ["-m", "ruff", "format", "."])
FIX = ("ruff", ["-m", "ruff", "check", "--fix", "."])
TYPES = ("mypy", ["-m", "mypy"])
IMPORTS = (
    "importlinter",
    ["-c", "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_logo=True))"],
)
TESTS = ("pytest", ["-m", "pytest", "-n", "auto", "--maxprocesses", "4", "--dist", "loadfile"])

PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True}

app = typer.Typer(rich_markup_mode=None, add_completion=False, no_args_is_help=True)


@app.callback()
def dev() -> None:
    """Lint, type-check, test and time a checkout of tiny-audio."""
    if not (CHECKOUT / "pyproject.toml").is_file() or not (CHECKOUT / "tests").is_dir():
        raise TinyAudioError(
            f"`ta dev` works on a checkout of tiny-audio, and this one is installed in {CHECKOUT}: "
            "clone the repository and run `pip install -e '.[dev]'` there."
        )


@app.command()
def lint() -> None:
    """Look for mistakes (ruff check)."""
    run_all([LINT])


@app.command()
def format() -> None:
    """Format the code and mend what can be mended by itself (ruff)."""
    run_all([FIX, FORMAT])


@app.command()
def type_check() -> None:
    """Check the types (mypy) and that imports go downward only (import-linter)."""
    run_all([TYPES, IMPORTS])


@app.command(context_settings=PASS_ON)
def test(context: typer.Context) -> None:
    """Run the test suite; further arguments go to pytest."""
    tool, arguments = TESTS
    run_all([(tool, [*arguments, *context.args])])


@app.command()
def check() -> None:
    """All that CI runs: lint, format, types, imports, tests."""
    run_all([LINT, FORMATTED, TYPES, IMPORTS, TESTS])


SITE_PACKAGES = ("mkdocs", "material", "mkdocstrings_handlers")
SITE_ADDRESS = "127.0.0.1:8000"


@app.command()
def docs(
    serve: Annotated[
        bool, typer.Option("--serve", help=f"Show the site at http://{SITE_ADDRESS}, anew when a page changes.")
    ] = False,
    reference: Annotated[
        bool, typer.Option("--reference", help="First write the pages that follow from the code: docs/reference.")
    ] = False,
) -> None:
    """Build the site of the documentation into site/; a link that leads nowhere is an error."""
    for package in SITE_PACKAGES:
        if importlib.util.find_spec(package) is None:
            raise TinyAudioError(f"{package} is not installed: run `pip install -e '.[docs]'` in the checkout.")
    what = ["serve", "--livereload", "--dev-addr", SITE_ADDRESS] if serve else ["build"]
    steps = [["recipes.reference"]] if reference else []
    for step in [*steps, ["mkdocs", *what, "--strict"]]:
        quiet = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
        if code := subprocess.run([sys.executable, "-m", *step], cwd=CHECKOUT, env=quiet, check=False).returncode:
            raise typer.Exit(code)


class Benchmark(StrEnum):
    """The files of benchmarks/ that are commands."""

    TRAIN = "train"
    INFER = "infer"
    SCALING = "scaling"
    STARTUP = "startup"


@app.command(context_settings=PASS_ON)
def bench(
    context: typer.Context,
    what: Annotated[Benchmark, typer.Argument(help="`python -m benchmarks.WHAT --help` has its options.")],
) -> None:
    """Time training beside a plain loop, several processes, decoding, or start-up; further arguments go to the benchmark."""
    command = [sys.executable, "-m", f"benchmarks.{what.value}", *context.args]
    path = os.pathsep.join(filter(None, (str(CHECKOUT), os.environ.get("PYTHONPATH"))))
    code = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, check=False).returncode
    if code:
        raise typer.Exit(code)


def run_all(steps: list[tuple[str, list[str]]]) -> None:
    """Runs every step, also after a failed one, names the failed ones, and exits 1 if there are any."""
    failed = []
    for tool, arguments in steps:
        if importlib.util.find_spec(tool) is None:
            raise TinyAudioError(f"{tool} is not installed: run `pip install -e '.[dev]'` in the checkout.")
        name = f"{tool} {' '.join(arguments[2:])}" if arguments[0] == "-m" else tool
        console.say(f"== {name.strip()}")
        if subprocess.run([sys.executable, *arguments], cwd=CHECKOUT, check=False).returncode:
            failed.append(name.strip())
    if failed:
        console.say(f"Failed: {', '.join(failed)}")
        raise typer.Exit(1)
