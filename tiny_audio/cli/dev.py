"""`ta dev`: check, test, time and release a checkout, and make nano anew; the checks are the commands that CI runs."""

import importlib
import importlib.util
import os
import subprocess
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from tiny_audio import console
from tiny_audio.errors import TinyAudioError

CHECKOUT = Path(__file__).resolve().parents[2]
WORK_DIR = Path("build/nano")  # of `ta dev nano`

# name → the module of the tool, and what Python is called with
STEPS = {
    "lint": ("ruff", ["-m", "ruff", "check", "."]),
    "formatted": ("ruff", ["-m", "ruff", "format", "--check", "."]),
    "fix": ("ruff", ["-m", "ruff", "check", "--fix", "."]),
    "format": ("ruff", ["-m", "ruff", "format", "."]),
    "types": ("mypy", ["-m", "mypy"]),
    "imports": (
        "importlinter",
        ["-c", "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_logo=True))"],
    ),
    "tests": ("pytest", ["-m", "pytest", "-n", "auto", "--maxprocesses", "4", "--dist", "loadfile"]),
}
COMMIT = ("lint", "formatted", "types", "imports")
CI = (*COMMIT, "tests")

PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True}

app = typer.Typer(rich_markup_mode=None, add_completion=False, no_args_is_help=True)


@app.callback()
def dev() -> None:
    """Check, test, time and release a checkout of tiny-audio; make nano anew."""
    if not (CHECKOUT / "pyproject.toml").is_file() or not (CHECKOUT / "tests").is_dir():
        raise TinyAudioError(
            f"`ta dev` works on a checkout of tiny-audio, and this one is installed in {CHECKOUT}: "
            "clone the repository and run `pip install -e '.[dev]'` there."
        )


@app.command()
def lint() -> None:
    """Look for mistakes (ruff check)."""
    run_all("lint")


@app.command()
def format() -> None:
    """Format the code and mend what can be mended by itself (ruff)."""
    run_all("fix", "format")


@app.command()
def type_check() -> None:
    """Check the types (mypy) and that imports go downward only (import-linter)."""
    run_all("types", "imports")


@app.command(context_settings=PASS_ON)
def test(context: typer.Context) -> None:
    """Run the test suite; further arguments go to pytest, e.g. -k version."""
    run_all("tests", arguments=context.args)


@app.command()
def precommit() -> None:
    """What a commit must pass, in seconds: lint, format, types, imports. The hook of .pre-commit-config.yaml runs it."""
    run_all(*COMMIT)


@app.command()
def check() -> None:
    """All that CI runs: lint, format, types, imports, tests."""
    run_all(*CI)


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
    code = run_module(f"benchmarks.{what.value}", context.args)
    if code:
        raise typer.Exit(code)


@app.command()
def nano(
    minutes: Annotated[float, typer.Option(min=0, help="Minutes of training.")] = 120,
    work_dir: Annotated[
        Path, typer.Option(help="Folder for speech, features and the state of the training.")
    ] = WORK_DIR,
    output_dir: Annotated[Path | None, typer.Option(help="Folder for what is made. [WORK_DIR/made]")] = None,
    speech: Annotated[
        Path | None, typer.Option(help="Folder of human recordings; without: synthesised ones alone.")
    ] = None,
    share: Annotated[float, typer.Option(min=0, max=1, help="Share of the recipe's utterances, for a trial.")] = 1.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the commands and do nothing.")] = False,
) -> None:
    """Make the shipped model `nano` and corpus `quickstart` anew, step by step; steps that are done are skipped.

    Writes over the shipped ones only where --output-dir names their folder, tiny_audio/assets.
    """
    recipe = from_checkout("recipes.nano.make")
    recipe.make(recipe.Options(work_dir, output_dir or work_dir / "made", minutes, speech, share), dry_run)


@app.command()
def release(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check all, say what would be done, and do nothing.")
    ] = False,
) -> None:
    """Check that this commit can be released; then, once you agree, upload it to PyPI and push its tag."""
    from_checkout("recipes.release").release(dry_run)


def from_checkout(module: str) -> Any:
    """A module of the checkout that no wheel holds."""
    if str(CHECKOUT) not in sys.path:
        sys.path.insert(0, str(CHECKOUT))
    return importlib.import_module(module)


def run_module(module: str, arguments: list[str]) -> int:
    """The exit code of `python -m MODULE ARGUMENTS`, run here, of a module that no wheel holds."""
    path = os.pathsep.join(filter(None, (str(CHECKOUT), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "PYTHONPATH": path}
    return subprocess.run([sys.executable, "-m", module, *arguments], env=environment, check=False).returncode


def run_all(*names: str, arguments: list[str] | None = None) -> None:
    """Runs every step, also after a failed one, names the failed ones, and exits 1 if there are any.

    Args:
        arguments: further ones, of the last step.
    """
    failed = [name for name in names if run_step(name, arguments if name == names[-1] else None)]
    if failed:
        console.say(f"Failed: {', '.join(failed)}")
        raise typer.Exit(1)


def run_step(name: str, arguments: list[str] | None = None) -> int:
    """The exit code of a step."""
    tool, command = STEPS[name]
    if importlib.util.find_spec(tool) is None:
        raise TinyAudioError(f"{tool} is not installed: run `pip install -e '.[dev]'` in the checkout.")
    console.say(f"== {name}: {' '.join(command[1:]) if command[0] == '-m' else tool}")
    return subprocess.run([sys.executable, *command, *(arguments or [])], cwd=CHECKOUT, check=False).returncode
