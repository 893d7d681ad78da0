"""What `ta remote train`, `eval` and `run` do: send the project, start the job, show its log, fetch its results."""

import glob
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from shlex import join

from tiny_audio.console import out, say
from tiny_audio.errors import TinyAudioError

from .connection import Connection
from .costs import bill
from .follow import exit_code, follow, log_tail, show_text
from .jobs import (
    NEVER_STARTED,
    SHUTDOWN,
    UNDER_WAY,
    UNWATCHED,
    Job,
    Seen,
    ask_to_stop,
    check_inside,
    find_job,
    holding,
    launch,
    make_way,
    new_name,
    read_secrets,
    remove_secrets,
    start,
)
from .pull import pull
from .runpod import stop_command
from .setup import setup
from .status import describe
from .sync import describe as describe_sync
from .sync import listing, size, sync

TA = ("python", "-m", "tiny_audio.cli.main")  # not `ta`, whose first line could not hold every path
OUTPUTS = "outputs"


@dataclass(frozen=True)
class Wishes:
    """What is asked of a job besides its command.

    Args:
        env: variables of this machine that it gets.
        detach: come back as soon as it runs.
        deploy: sync and setup first.
        pull: fetch its results, when it was followed to its end.
    """

    name: str | None = None
    env: Sequence[str] = ()
    then: str = "nothing"
    max_hours: float | None = None
    idle_minutes: float | None = None
    restarts: int = 3
    dollars_per_hour: float | None = None
    detach: bool = False
    deploy: bool = True
    pull: bool = True


def deploy(connection: Connection, project: Path) -> None:
    """Sync, and setup where something of it changed."""
    listed = listing(project)
    say(describe_sync(sync(connection, listed), listed, dry_run=False))
    say("The environment is made." if setup(connection, listed.root) else "The environment is as it should be.")


def train(connection: Connection, arguments: Sequence[str], wishes: Wishes, resume: str | None = None) -> int:
    """`ta train ARGUMENTS` there.

    Args:
        resume: a job whose run goes on; "auto" for the newest.

    Returns:
        The exit code: the job's, or 0 where it goes on without us.
    """
    name = wishes.name or new_name("train")
    if resume is None:
        output = option(arguments, "--output-dir") or f"{OUTPUTS}/{name}"
        job = Job(
            name,
            [*TA, "train", f"--output-dir={output}", *arguments],
            output=output,
            resume_arguments=["--resume", "auto"],
        )
        return submit(connection, replace(job, resume_needs=f"{glob.escape(output)}/checkpoint-*"), wishes)
    before = find_job(connection, None if resume == "auto" else resume, is_training)
    if before.word in UNDER_WAY:
        raise TinyAudioError(f"{before.name} is running; `ta remote stop {before.name}` it first, or `attach` to it.")
    output = output_of(before)
    return submit(connection, Job(name, [*TA, "train", "--resume", output, *arguments], output=output), wishes)


def is_training(seen: Seen) -> bool:
    """Whether it is a job of `train` that has begun."""
    return seen.word != NEVER_STARTED and tuple(seen.job["command"][: len(TA) + 1]) == (*TA, "train")


def has_results(seen: Seen) -> bool:
    """Whether it has a folder of results."""
    return seen.job.get("output") is not None


def evaluate(connection: Connection, arguments: Sequence[str], wishes: Wishes) -> int:
    """`ta eval ARGUMENTS` there; the same command again goes on, where its --output-dir is named."""
    name = wishes.name or new_name("eval")
    output = option(arguments, "--output-dir") or f"{OUTPUTS}/eval/{name}"
    return submit(connection, Job(name, [*TA, "eval", f"--output-dir={output}", *arguments], output=output), wishes)


def run(connection: Connection, command: Sequence[str], wishes: Wishes) -> int:
    """Any command, in the project's folder and its environment."""
    return submit(connection, Job(wishes.name or new_name("run"), list(command)), wishes)


def option(arguments: Sequence[str], name: str) -> str | None:
    """The value of an option among arguments of another command, `--name value` or `--name=value`; the last counts."""
    found = None
    for text, after in zip(arguments, [*arguments[1:], ""], strict=False):
        if text == name:
            found = after
        elif text.startswith(f"{name}="):
            found = text.removeprefix(f"{name}=")
    return found


def submit(connection: Connection, job: Job, wishes: Wishes) -> int:
    """Starts a job as wished, and follows it unless that is not wished."""
    values = read_secrets(wishes.env)
    if job.output is not None:
        check_inside(job.output)
    job = with_wishes(connection, job, wishes)
    if wishes.deploy:
        make_way(connection, job)  # here too: a name in use is told before minutes of setup
        deploy(connection, Path.cwd())
    start(connection, job, values, hold=wishes.pull and not wishes.detach)
    say(f"{job.name} runs on {connection.target}, with or without this link.")
    if wishes.detach:
        say(come_back(connection, job.name))
        return 0
    return watch(connection, job.name, None, wishes.pull)


def with_wishes(connection: Connection, job: Job, wishes: Wishes) -> Job:
    """The job with its limits and what comes after it."""
    price = wishes.dollars_per_hour
    return replace(
        job,
        then=wishes.then,
        then_command=then_command(connection, wishes.then),
        max_hours=wishes.max_hours,
        idle_minutes=wishes.idle_minutes,
        restarts=wishes.restarts,
        dollars_per_hour=connection.target.dollars_per_hour if price is None else price,
    )


def then_command(connection: Connection, then: str) -> list[str] | None:
    """What the runner calls when the job is over, however it ended.

    Raises:
        TinyAudioError: a pod is to be stopped, and the machine is none.
    """
    if then != "stop-pod":
        return SHUTDOWN if then == "shutdown" else None
    pod = connection.target.pod or connection.lasting(lambda: connection.script("probe.py", "pod"))
    if pod is None:
        raise TinyAudioError(f"{connection.target} is no pod of RunPod (it has no RUNPOD_POD_ID); use --then shutdown.")
    return stop_command(pod)


def watch(connection: Connection, name: str | None, lines: int | None, fetch: bool) -> int:
    """Shows a job's log until it ends, and fetches its results; Ctrl-C leaves it running.

    Args:
        name: None for the newest job.
        lines: of what the log holds already; None for all.
        fetch: also its results, if it has some.
    """
    name = name or find_job(connection, None).name
    try:
        seen = _watch(connection, name, lines, fetch)
    except KeyboardInterrupt:
        say(f"\nDetached; {name} goes on. {come_back(connection, name)}")
        return 0
    return exit_code(seen.state)


def _watch(connection: Connection, name: str, lines: int | None, fetch: bool) -> Seen:
    seen, offset = find_job(connection, name), 0
    if lines is not None:
        text, offset = log_tail(connection, name, lines)
        show_text(text.decode("utf-8", "replace"))
    held = fetch and seen.job.get("then_command")  # also without results: `submit` has held it
    fetch = fetch and has_results(seen)
    with holding(connection, name) if held else nullcontext():
        seen = follow(connection, name, show_text, offset)
        out(describe(seen))
        if (price := seen.job.get("dollars_per_hour")) is not None:
            out(bill(seen.state, price))
        output = f"{connection.target.folder}/{seen.job.get('output')}"
        if fetch and connection.lasting(lambda: connection.exists(output)):
            fetch_results(connection, seen, Path.cwd())
    return seen


def fetch_results(connection: Connection, seen: Seen, into: Path) -> None:
    """A job's folder of results, to the same place here."""
    fetch_paths(connection, [output_of(seen)], into, growing=seen.word in UNDER_WAY)


def output_of(seen: Seen) -> str:
    """A job's folder of results, below the project's."""
    if not has_results(seen):
        raise TinyAudioError(
            f"{seen.name} has no folder of results that is known; name paths: `ta remote pull PATH …`."
        )
    return seen.job["output"]


def fetch_paths(connection: Connection, paths: Sequence[str], into: Path, growing: bool = False) -> None:
    """Files and folders below the project's, to the same places here; says what came."""
    pulled = pull(connection, paths, into, growing)
    hashes = "; their hashes agree" if pulled.whole else ""
    say(f"Pulled {', '.join(paths)}: {pulled.files} files, {pulled.fetched} fetched, {size(pulled.bytes)}{hashes}.")


def stop(connection: Connection, name: str | None, kill: bool) -> Seen:
    """Ends a job and waits until it has ended; of one that never started it removes the secrets.

    Raises:
        TinyAudioError: it is over already.
    """
    seen = find_job(connection, name)
    if seen.word == NEVER_STARTED:
        remove_secrets(connection, seen.name)
        return seen
    if seen.word not in UNDER_WAY:
        raise TinyAudioError(f"{seen.name} is over: {seen.word}.")
    ask_to_stop(connection, seen.name, kill)
    if seen.word == UNWATCHED:
        connection.lasting(lambda: launch(connection, seen.name))
    say(f"{seen.name} was {'killed' if kill else 'told to end; a training writes a checkpoint first'} …")
    return follow(connection, seen.name, lambda text: None, log_tail(connection, seen.name, 0)[1])


def come_back(connection: Connection, name: str) -> str:
    """How to see it again."""
    return f"Come back with: {join(['ta', 'remote', 'attach', name, *connection.target.options()])}"
