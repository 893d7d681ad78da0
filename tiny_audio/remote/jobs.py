"""Jobs on the machine, from here: sent, started, listed, stopped; their files are what both sides know of them."""

import json
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import resources
from pathlib import PurePosixPath
from threading import Event, Thread
from typing import Any

from tiny_audio.errors import TinyAudioError

from .connection import Connection
from .sync import OURS
from .targets import NAME, check

JOBS = f"{OURS}/jobs"
RUNNER = f"{OURS}/runner.py"
UNWATCHED = "unwatched"  # its runner was killed, its command runs on
UNDER_WAY = ("starting", "running", UNWATCHED)
NEVER_STARTED = "never-started"  # the client was cut off before it could
HOLD_SECONDS = 30.0  # of the runner's 120
THEN = ("nothing", "stop-pod", "shutdown")
SHUTDOWN = ["sh", "-c", "if [ $(id -u) = 0 ]; then shutdown -h now; else sudo -n shutdown -h now; fi"]


@dataclass(frozen=True)
class Job:
    """What job.json says; docs/remote.md describes it.

    Args:
        command: the program and its arguments.
        folder: where it runs, below the project's.
        secrets: names of the variables that are sent apart.
        then: what comes after it, by `then_command`.
        resume_arguments: added to the command when the machine was taken back and came again.
        resume_needs: only if that pattern, below the project's folder, finds something.
        output: the folder of its results, below the project's; for `status` and `pull`.
    """

    name: str
    command: Sequence[str]
    folder: str = "."
    secrets: Sequence[str] = ()
    then: str = "nothing"
    then_command: Sequence[str] | None = None
    max_hours: float | None = None
    idle_minutes: float | None = None
    restarts: int = 0
    resume_arguments: Sequence[str] = ()
    resume_needs: str | None = None
    dollars_per_hour: float | None = None
    output: str | None = None
    created: str = ""


@dataclass(frozen=True)
class Seen:
    """A job as it is there now.

    Args:
        job: job.json.
        state: state.json; empty before the runner has started.
        alive: whether its runner or its command is.
        word: the state; also `lost` where both were killed, `unwatched`, `never-started` and `unreadable`.
        progress: last values of the run's log, and `eta`.
    """

    job: dict[str, Any]
    state: dict[str, Any]
    alive: bool
    word: str
    progress: dict[str, Any]

    @property
    def name(self) -> str:
        """The job's."""
        return self.job["name"]

    @property
    def output(self) -> str | None:
        """Its folder of results, below the project's."""
        return self.job.get("output")

    @property
    def seconds(self) -> float:
        """How long it has run, over all its starts."""
        return float(self.state.get("seconds") or 0.0)

    @property
    def dollars(self) -> float | None:
        """What that cost, where the price is known."""
        price = self.job.get("dollars_per_hour")
        return None if price is None else price * self.seconds / 3600


def new_name(kind: str) -> str:
    """KIND-DATE-TIME and a few letters, so that two at once differ."""
    return f"{kind}-{datetime.now():%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def read_secrets(names: Sequence[str]) -> dict[str, str]:
    """The values of variables here.

    Raises:
        TinyAudioError: one is not set.
    """
    missing = [name for name in names if not os.environ.get(name)]
    if missing:
        raise TinyAudioError(
            f"{', '.join(missing)} is not set here; --env sends the value of a variable: export it first."
        )
    return {name: os.environ[name] for name in names}


def job_folder(connection: Connection, name: str) -> str:
    """Where a job's files lie."""
    check(NAME, name, "a job's name", "letters, digits, '.', '_' and '-', 64 at most")
    return f"{connection.target.folder}/{JOBS}/{name}"


def start(connection: Connection, job: Job, values: dict[str, str], hold: bool = False) -> None:
    """Sends a job and starts it; it goes on without the link.

    Args:
        values: of its secrets; they go into a file that its runner deletes, never onto a command line.
        hold: what comes after it waits at first, however soon it ends; see `holding`.

    Raises:
        TinyAudioError: as `make_way`; or it cannot be started.
    """
    check_inside(job.folder)
    make_way(connection, job)
    folder = job_folder(connection, job.name)
    content = asdict(job) | {"secrets": list(values), "created": datetime.now(UTC).isoformat(timespec="milliseconds")}
    connection.lasting(lambda: connection.make_folder(folder, 0o700))
    files = {f"{folder}/job.json": json.dumps(content, indent=1).encode(), **runner_file(connection)}
    files |= {f"{folder}/secrets": json.dumps(values).encode()} if values else {}
    files |= {f"{folder}/hold": b""} if hold else {}
    for path, text in files.items():
        connection.lasting(lambda path=path, text=text: connection.write(path, text, 0o600))  # type: ignore[misc]
    try:
        connection.lasting(lambda: launch(connection, job.name))
    except TinyAudioError:
        remove_secrets(connection, job.name)
        raise


def make_way(connection: Connection, job: Job) -> None:
    """Looks whether a job may be started, and removes the secrets of those that never were.

    Raises:
        TinyAudioError: one of its name is there, or one that is under way writes into the same folder of results.
    """
    path = f"{job_folder(connection, job.name)}/job.json"
    if connection.lasting(lambda: connection.exists(path)):
        raise TinyAudioError(f"There is a job {job.name} on {connection.target} already; give another --name.")
    for other in look_at_jobs(connection)[0]:
        if other.word == NEVER_STARTED:
            remove_secrets(connection, other.name)
        if other.word in UNDER_WAY and job.output and PurePosixPath(job.output) == PurePosixPath(other.output or ""):
            raise TinyAudioError(
                f"{other.name} is writing into {job.output}; `ta remote stop {other.name}` it first, or give another --output-dir."
            )


def remove_secrets(connection: Connection, name: str) -> None:
    """Of a job that no runner has taken them from."""
    path = f"{job_folder(connection, name)}/secrets"
    connection.lasting(lambda: connection.remove(path))


def runner_file(connection: Connection) -> dict[str, bytes]:
    """The runner, by its path there."""
    code = resources.files("tiny_audio.remote").joinpath("runner.py").read_bytes()
    return {f"{connection.target.folder}/{RUNNER}": code}


def launch(connection: Connection, name: str) -> None:
    """Starts a job's runner, or another for a command that was left alone; not where a dropped link only hid that it was."""
    if read_state(connection, name) and find_job(connection, name).word != UNWATCHED:
        return
    output = connection.run(["python3", RUNNER, f"{JOBS}/{name}", "--tmux"], folder=connection.target.folder)
    if output.exit_code:
        raise TinyAudioError(f"{name} cannot be started on {connection.target}: {output.last}")


def read_state(connection: Connection, name: str) -> dict[str, Any]:
    """state.json; empty before the runner has started.

    Raises:
        TinyAudioError: it is no state.
    """
    path = f"{job_folder(connection, name)}/state.json"
    text = connection.read(path)
    try:
        state = {} if text is None else json.loads(text)
    except ValueError:
        state = None
    if not isinstance(state, dict) or (text is not None and "state" not in state):
        raise TinyAudioError(f"{path} on {connection.target} is not a job's state; delete that job's folder there.")
    return state


def look_at_jobs(connection: Connection) -> tuple[list[Seen], list[dict[str, str]]]:
    """All jobs there, the oldest first, and the GPUs."""
    found = connection.lasting(lambda: connection.script("probe.py", "jobs", connection.target.folder))
    jobs = [Seen(job, job["state"], job["alive"], job["word"], job["progress"]) for job in found["jobs"]]
    return jobs, found["gpus"]


def find_job(connection: Connection, name: str | None, suits: Callable[[Seen], bool] = lambda seen: True) -> Seen:
    """A job by its name; for None the newest that suits.

    Raises:
        TinyAudioError: there is none.
    """
    jobs, _ = look_at_jobs(connection)
    found = [seen for seen in jobs if (suits(seen) if name is None else seen.name == name)]
    if not found:
        names = ", ".join(seen.name for seen in jobs[-5:]) or "there is none yet"
        raise TinyAudioError(f"No {f'job {name}' if name else 'such job'} on {connection.target} (jobs: {names}).")
    return found[-1]


def ask_to_stop(connection: Connection, name: str, kill: bool) -> None:
    """Asks a job's runner to end it: SIGTERM, so that a training writes a checkpoint first, or at once SIGKILL."""
    path = f"{job_folder(connection, name)}/stop"
    connection.lasting(lambda: connection.write(path, b"kill" if kill else b""))


@contextmanager
def holding(connection: Connection, name: str) -> Iterator[None]:
    """Inside, what comes after the job waits: its results are being fetched. A link of its own says so again and again."""
    path, done = f"{job_folder(connection, name)}/hold", Event()

    def keep() -> None:
        with suppress(TinyAudioError), Connection(connection.target) as own:
            while not done.wait(HOLD_SECONDS):
                own.lasting(lambda: own.write(path, b""))

    connection.lasting(lambda: connection.write(path, b""))
    thread = Thread(target=keep, daemon=True)
    thread.start()
    try:
        yield
    except KeyboardInterrupt:
        connection.close()  # perhaps in the middle of an answer
        raise
    finally:
        done.set()
        with suppress(TinyAudioError):  # where it is not reached, the runner waits no longer than a hold is fresh
            connection.lasting(lambda: connection.remove(path))


def check_inside(path: str) -> str:
    """A path below the project's folder, as it is.

    Raises:
        TinyAudioError: it leads out of it.
    """
    parts = PurePosixPath(path)
    if not path or parts.is_absolute() or ".." in parts.parts or "\0" in path:
        raise TinyAudioError(f"{path!r} is not inside the project; expected a path relative to it, without .. in it.")
    return path
