"""The checks behind `ta remote check`: what the machine has for a training, what is missing, and what to do about it."""

import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from tiny_audio.console import Check
from tiny_audio.errors import TinyAudioError

from .connection import Connection
from .openssh import UNCLEAN_SHELL

MIN_DISK_GB = 10.0
MAX_CLOCK_SECONDS = 60.0
OLDEST_RSYNC = (3, 1)  # --delete-missing-args


def look(connection: Connection) -> dict[str, Any]:
    """What `probe.py` finds there; `clock` is how many seconds its clock is ahead of ours."""
    before = time.time()
    found = connection.lasting(lambda: connection.script("probe.py", "machine", connection.target.folder))
    return {**found, "clock": found["now"] - (before + time.time()) / 2}


def examine(connection: Connection, project: Path) -> Iterator[Check]:
    """Every check in turn."""
    found = look(connection)
    yield Check("ok", f"ssh: {connection.target} is {found['host']}, {found['system']}, {found['cores']} cores")
    if connection.lasting(lambda: connection.run(["true"])).stdout:
        yield Check("failure", "nothing can be sent", UNCLEAN_SHELL)
    yield python_check(found, Project(project))
    yield from gpu_checks(found)
    yield tool_check(found)
    tmux = "here" if found["tmux"] else "missing, and not needed: a job is then a session of its own"
    yield Check("ok", f"tmux is {tmux}")
    yield from disk_checks(found, connection.target.folder)
    ahead = found["clock"]
    if abs(ahead) > MAX_CLOCK_SECONDS:
        yield Check(
            "warning",
            f"its clock is {ahead:+.0f} s off",
            "set it (timedatectl set-ntp true), or downloads may be refused",
        )
    else:
        yield Check("ok", f"its clock agrees ({ahead:+.1f} s)")


class Project:
    """What the project's pyproject.toml asks for.

    Raises:
        TinyAudioError: it has none, or a damaged one.
    """

    def __init__(self, root: Path):
        file = root / "pyproject.toml"
        try:
            self.text = file.read_bytes()
            table = tomllib.loads(self.text.decode())["project"]
        except FileNotFoundError as error:
            raise TinyAudioError(
                f"{file} is not there; `ta remote` installs a project: a checkout of tiny-audio, or one of yours that needs it."
            ) from error
        except (ValueError, KeyError) as error:
            raise TinyAudioError(f"{file} is damaged ({error}); expected a [project] table.") from error
        self.pythons = SpecifierSet(table.get("requires-python", ">=3.11"))
        wanted = [Requirement(line) for line in table.get("dependencies", ())]
        self.torch = next((item.specifier for item in wanted if item.name == "torch"), SpecifierSet())
        self.extras = [name for name in ("train",) if name in table.get("optional-dependencies", {})]


def fits(python: dict[str, Any], project: Project) -> bool:
    """Whether it may run the project and can make environments."""
    return python["version"] in project.pythons and python["venv"]


def keeps_torch(python: dict[str, Any], project: Project, gpus: list[Any]) -> bool:
    """Whether the image's own torch is taken: of the wanted version, and with CUDA where there is a GPU."""
    return (
        python["torch"] is not None
        and project.torch.contains(python["torch"], prereleases=True)
        and bool(python["cuda"] or not gpus)
    )


def choose_python(found: dict[str, Any], project: Project) -> dict[str, Any]:
    """The interpreter for the environment: one whose torch can be kept, else the first that fits.

    Raises:
        TinyAudioError: none does.
    """
    usable = [python for python in found["pythons"] if fits(python, project)]
    if not usable:
        check = python_check(found, project)
        raise TinyAudioError(f"{check.what}: {check.todo}.")
    return next((python for python in usable if keeps_torch(python, project, found["gpus"])), usable[0])


def python_check(found: dict[str, Any], project: Project) -> Check:
    """Whether one fits, and what of torch is there."""
    shown = ", ".join(f"{python['name']} is {python['version']}" for python in found["pythons"]) or "there is no Python"
    if not any(python["version"] in project.pythons for python in found["pythons"]):
        todo = f"expected {project.pythons}: install one, e.g. apt-get install python3.12 python3.12-venv, or another image"
        return Check("failure", f"Python: {shown}", todo)
    if not any(fits(python, project) for python in found["pythons"]):
        return Check("failure", f"Python: {shown}, without venv", "apt-get install python3-venv")
    python = choose_python(found, project)
    kept = keeps_torch(python, project, found["gpus"])
    torch = (
        f"torch {python['torch']} of the image is {'kept' if kept else 'not kept'}"
        if python["torch"]
        else "torch comes with setup"
    )
    return Check("ok", f"Python {python['version']} ({python['name']}); {torch}")


def gpu_checks(found: dict[str, Any]) -> Iterator[Check]:
    """Each GPU, or that there is none."""
    for gpu in found["gpus"]:
        used = f"{float(gpu['memory_used']) / 1024:.1f} of {float(gpu['memory_total']) / 1024:.0f} GiB used"
        yield Check("ok", f"GPU: {gpu['name']}, {used}, driver {gpu['driver']}, CUDA {found['cuda']}")
    if not found["gpus"]:
        yield Check("warning", "no GPU that nvidia-smi knows", "rent another machine if you want one")


def tool_check(found: dict[str, Any]) -> Check:
    """rsync, without which nothing can be sent."""
    if found["rsync"] is None:
        return Check("failure", "rsync is missing", "apt-get install rsync")
    numbers = tuple(int(part) for part in found["rsync"].split(".")[:2] if part.isdigit())
    if numbers < OLDEST_RSYNC:
        return Check("failure", f"rsync {found['rsync']} is too old", "expected 3.1 or newer")
    return Check("ok", f"rsync {found['rsync']}")


def disk_checks(found: dict[str, Any], folder: str) -> Iterator[Check]:
    """Room at the project's folder."""
    free = found["disk_free"] / 1e9
    if not found["writable"]:
        yield Check("failure", f"{folder} may not be written", "name another --path")
    elif free < MIN_DISK_GB:
        yield Check(
            "warning", f"{free:.1f} GB free at {folder}", f"models and checkpoints want {MIN_DISK_GB:.0f} GB or more"
        )
    else:
        yield Check("ok", f"{free:.0f} GB free at {folder}")
