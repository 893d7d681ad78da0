"""The environment on the machine: made once, kept until what it was made from changes."""

import hashlib
import json
from pathlib import Path

from tiny_audio.console import say
from tiny_audio.errors import TinyAudioError

from .connection import Connection, Output
from .machine import Project, choose_python, keeps_torch, look
from .sync import OURS

ENVIRONMENT = f"{OURS}/env"
MADE_FROM = f"{OURS}/setup.json"
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
        TinyAudioError: no Python there fits, or pip fails.
    """
    project = Project(root)
    wanted = {"recipe": RECIPE, "hash": hashlib.sha256(project.text).hexdigest(), "extras": project.extras}
    if not anew and wanted == made_from(connection) and works(connection):
        return False
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


def done(connection: Connection, command: list[str], failed: str) -> Output:
    """Runs a step in the project's folder and shows what it says; again on a new link where the link drops."""
    folder, lines = connection.target.folder, []

    def show(text: str) -> None:
        lines.append(text)
        say(text.rstrip("\n"))

    output = connection.lasting(lambda: connection.run(command, folder=folder, on_output=show))
    if output.exit_code:
        said = [line for line in "".join(lines).splitlines() if line.strip()]
        told = next((line for line in said if line.startswith("ERROR")), said[-1] if said else "it said nothing")
        raise TinyAudioError(f"{failed} on {connection.target}: {told.strip()}")
    return output
