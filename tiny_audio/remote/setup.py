"""The environment on the machine: made once, kept until what it was made from changes."""

import hashlib
import json
from pathlib import Path

from tiny_audio.console import say
from tiny_audio.errors import TinyAudioError

from .connection import Connection
from .jobs import look_at_jobs
from .machine import Project, choose_python, keeps_torch, look
from .openssh import last_line
from .sync import OURS

ENVIRONMENT = f"{OURS}/env"
# Waits for the lock in its first argument, and becomes the command after it, which holds the lock: two at once would mix.
LOCKED = """
import fcntl, os, sys
file = open(sys.argv[1], "a")
fcntl.flock(file, fcntl.LOCK_EX)
os.set_inheritable(file.fileno(), True)
os.execvp(sys.argv[2], sys.argv[2:])
"""
LOCK = ["python3", "-c", LOCKED, f"{OURS}/setup.lock"]
MADE_FROM = f"{OURS}/setup.json"
NEWS = ("Collecting", "Downloading", "Installing", "Successfully")  # first words of pip's lines that people wait for
RECIPE = 1  # of this file: another number makes every environment anew
# The command that follows, with the environment's programs first; it is data to this script, as its arguments are.
IN_ENVIRONMENT = ["sh", "-c", f'PATH="$PWD/{ENVIRONMENT}/bin:$PATH" VIRTUAL_ENV="$PWD/{ENVIRONMENT}" exec "$@"', "sh"]


def setup(connection: Connection, root: Path, anew: bool = False) -> bool:
    """Makes the environment and installs the project into it, unless that was done from the same pyproject.toml.

    Args:
        root: the project here, as it was synced.
        anew: even so.

    Returns:
        Whether something had to be done.

    Raises:
        TinyAudioError: no Python there fits, a job uses the environment that is to be replaced, or pip fails.
    """
    project = Project(root)
    wanted = {"recipe": RECIPE, "hash": hashlib.sha256(project.text).hexdigest(), "extras": project.extras}
    if not anew and wanted == made_from(connection) and works(connection):
        return False
    if busy := [job.name for job in look_at_jobs(connection)[0] if job.alive]:
        raise TinyAudioError(
            f"The environment on {connection.target} is to be made anew, and {', '.join(busy)} runs in it; wait, `ta remote stop` it, "
            "or add --no-deploy."
        )
    found = look(connection)
    python = choose_python(found, project)
    kept = keeps_torch(python, project, found["gpus"])
    say(
        f"Making the environment with Python {python['version']}"
        + (f"; torch {python['torch']} of the image is kept" if kept else "")
    )
    options = ["--clear", *(["--system-site-packages"] if kept else [])]
    done(
        connection, [python["name"], "-m", "venv", *options, "--", f"./{ENVIRONMENT}"], "The environment cannot be made"
    )
    extras = f"[{','.join(project.extras)}]" if project.extras else ""
    install = ["-m", "pip", "install", "--progress-bar=off", "--editable", f".{extras}"]
    done(connection, [*IN_ENVIRONMENT, "python", *install], "pip cannot install the project")
    folder = connection.target.folder
    connection.lasting(lambda: connection.write(f"{folder}/{MADE_FROM}", json.dumps(wanted).encode()))
    return True


def made_from(connection: Connection) -> dict[str, object] | None:
    """What the environment there was made from."""
    content = connection.lasting(lambda: connection.read(f"{connection.target.folder}/{MADE_FROM}"))
    try:
        return json.loads(content or b"null")
    except ValueError:
        return None


def works(connection: Connection) -> bool:
    """Whether the environment starts: the image below it may be another by now."""
    folder = connection.target.folder
    command = [*IN_ENVIRONMENT, "python", "-c", "import tiny_audio"]
    return connection.lasting(lambda: connection.run(command, folder=folder)).exit_code == 0


def done(connection: Connection, command: list[str], failed: str) -> None:
    """Runs a step in the project's folder, and shows what pip fetches; again where the link drops."""
    lines: list[str] = []

    def show(line: str) -> None:
        lines.append(line)
        if line.startswith(NEWS):
            say(line)

    output = connection.lasting(
        lambda: connection.run([*LOCK, *command], folder=connection.target.folder, on_line=show)
    )
    if output.exit_code:
        told = next((line for line in lines if line.startswith(("ERROR", "Error"))), last_line("\n".join(lines)))
        raise TinyAudioError(f"{failed} on {connection.target}: {told.strip()}")
