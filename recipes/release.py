"""`ta dev release`: what must hold before a release, and then its upload, tag and push."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path

import yaml
from packaging.version import Version

from tiny_audio import console
from tiny_audio.console import Check
from tiny_audio.errors import TinyAudioError

CHECKOUT = Path(__file__).resolve().parents[1]
BRANCH = "main"
ENTRY = re.compile(r"^## (\S+) \((.+)\)$", re.MULTILINE)  # of the changelog: version, and date or "not yet released"
DATE = re.compile(r"\d{4}-\d{2}-\d{2}")


def release(dry_run: bool, checkout: Path = CHECKOUT) -> None:
    """Checks all and says what a release does; does it, unless `dry_run`, once it is agreed.

    Raises:
        TinyAudioError: a check failed, nobody is there to agree, or a command failed.
    """
    version = version_of(checkout)
    folder = checkout / "dist" / version
    shutil.rmtree(folder, ignore_errors=True)
    checks = []
    for check in (*source_checks(checkout), *package_checks(checkout, folder)):
        console.out(str(check))
        checks.append(check)
    commands = commands_of(version, [str(file.relative_to(checkout)) for file in packages(folder)])
    console.out("\n".join(["A release then runs:", *(f"    {shlex.join(command)}" for command in commands)]))
    refuse_unless_ready(checks, dry_run)
    if not dry_run and agreed():
        carry_out(commands, checkout)


def refuse_unless_ready(checks: list[Check], dry_run: bool) -> None:
    """Raises for failures; before a real release for warnings too."""
    bad = [check for check in checks if check.state == "failure" or (check.state == "warning" and not dry_run)]
    if bad:
        raise TinyAudioError(f"{len(bad)} of {len(checks)} checks failed; nothing was released.")


def agreed() -> bool:
    """Whether the person at the terminal wants the release."""
    answer = console.ask("Release this?")
    if answer is None:
        raise TinyAudioError("A release is agreed to on a terminal, and this is none: nothing was released.")
    return answer


def carry_out(commands: list[list[str]], checkout: Path) -> None:
    """Runs the commands up to one that fails, and then names those that are left."""
    for index, command in enumerate(commands):
        program = sys.executable if command[0] == "python" else command[0]
        if subprocess.run([program, *command[1:]], cwd=checkout, check=False).returncode:
            left = "; ".join(shlex.join(command) for command in commands[index:])
            raise TinyAudioError(f"`{shlex.join(command)}` failed; once it is mended, run: {left}")


def commands_of(version: str, files: list[str]) -> list[list[str]]:
    """What a release does, what cannot be undone first."""
    return [
        ["python", "-m", "twine", "upload", *files],
        ["git", "tag", "--annotate", f"v{version}", "--message", f"tiny-audio {version}"],
        ["git", "push", "--atomic", "origin", BRANCH, f"v{version}"],
    ]


def version_of(checkout: Path) -> str:
    """The version in pyproject.toml, from which all others follow."""
    return tomllib.loads((checkout / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]


def changelog_entry(checkout: Path) -> tuple[str, str | None]:
    """The version of the changelog's first entry, and its date, None where it is not yet released."""
    found = ENTRY.search((checkout / "CHANGELOG.md").read_text(encoding="utf-8"))
    if found is None:
        raise TinyAudioError("CHANGELOG.md has no entry; expected one like `## 1.2.3 (2026-01-31)`.")
    return found[1], found[2] if DATE.fullmatch(found[2]) else None


def source_checks(checkout: Path) -> Iterator[Check]:
    """The working tree, the branch, and the places that name version and date."""
    changed = git(checkout, "status", "--porcelain").splitlines()
    yield verdict(not changed, "no change is uncommitted", f"commit or remove: {', '.join(changed[:3])}")
    branch = git(checkout, "branch", "--show-current").strip()
    yield verdict(branch == BRANCH, f"branch {branch or 'none'}", f"git switch {BRANCH}")
    yield from version_checks(checkout)


def version_checks(checkout: Path) -> Iterator[Check]:
    """That pyproject.toml, changelog, CITATION.cff and tags agree."""
    version, (latest, date) = version_of(checkout), changelog_entry(checkout)
    last = last_tag(checkout)
    higher = last is None or Version(version) > last
    yield verdict(higher, f"version {version}, after {last or 'none'}", "raise it in pyproject.toml and __init__.py")
    yield verdict(latest == version, f"CHANGELOG.md begins with {latest}", f"write an entry of {version}")
    if latest == version and date is None:
        yield Check(
            "warning", "CHANGELOG.md has no date yet", f"write `## {version} (YEAR-MONTH-DAY)`, also in CITATION.cff"
        )
    citation = yaml.safe_load((checkout / "CITATION.cff").read_text(encoding="utf-8"))
    cited = str(citation["version"]), citation.get("date-released") and str(citation["date-released"])
    wanted = f"write version {version} and " + (f"date-released {date}" if date else "no date-released")
    yield verdict(cited == (version, date), f"CITATION.cff: {cited[0]}, {cited[1] or 'no date'}", wanted)


def last_tag(checkout: Path) -> Version | None:
    """The highest version that has a tag."""
    tags = git(checkout, "tag", "--list", "v[0-9]*").split()
    return max((Version(tag) for tag in tags), default=None)


def package_checks(checkout: Path, folder: Path) -> Iterator[Check]:
    """That wheel and sdist can be built into the folder, that PyPI would take them, and that the wheel starts."""
    build = python("build", "--no-isolation", f"--outdir={folder}", str(checkout))
    names = ", ".join(file.name for file in packages(folder))
    yield verdict(build.returncode == 0, f"built {names or 'nothing'}", last_line(build))
    if build.returncode:
        return
    twine = python("twine", "check", "--strict", *map(str, packages(folder)))
    yield verdict(twine.returncode == 0, "twine check", last_line(twine))
    with tempfile.TemporaryDirectory() as elsewhere:
        (wheel,) = folder.glob("*.whl")
        shown = call(installed_alone(wheel, Path(elsewhere)) / "ta", "--version", cwd=Path(elsewhere))
    right = shown.stdout.strip() == f"tiny-audio {version_of(checkout)}"
    yield verdict(right, f"the wheel, installed alone: {last_line(shown)}", "look at what `ta --version` prints")


def packages(folder: Path) -> list[Path]:
    """Wheel and sdist in a folder."""
    return sorted(folder.glob("tiny_audio-*"))


def installed_alone(wheel: Path, folder: Path) -> Path:
    """The `bin` folder of a fresh environment with the wheel in it, which borrows the other packages of this one."""
    environment = folder / "env"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    executable = environment / "bin" / "python"
    borrow = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = Path(subprocess.run([executable, "-c", borrow], capture_output=True, text=True, check=True).stdout.strip())
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    install = ["--python", str(executable), "install", "--quiet", "--no-deps", "--no-index", "--ignore-installed"]
    subprocess.run([sys.executable, "-m", "pip", *install, str(wheel)], check=True)
    return environment / "bin"


def call(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Runs a command without this checkout's modules."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


def python(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs `python -m MODULE`."""
    return subprocess.run([sys.executable, "-m", module, *arguments], capture_output=True, text=True, check=False)


def git(checkout: Path, *arguments: str) -> str:
    """What git says.

    Raises:
        TinyAudioError: git is missing, or this is no repository.
    """
    try:
        found = subprocess.run(["git", *arguments], cwd=checkout, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise TinyAudioError(f"A release needs git, and a clone: {getattr(error, 'stderr', None) or error}") from error
    return found.stdout


def last_line(result: subprocess.CompletedProcess[str]) -> str:
    """The last thing that a command said."""
    return (result.stdout + result.stderr).strip().rpartition("\n")[2]


def verdict(good: bool, what: str, todo: str) -> Check:
    """A check that is passed or failed."""
    return Check("ok", what) if good else Check("failure", what, todo)
