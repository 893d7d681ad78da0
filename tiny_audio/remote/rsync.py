"""rsync over ssh: its arguments, what it transferred, and what its complaints mean."""

import os
import re
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from tiny_audio.errors import TinyAudioError

from .connection import Connection, Dropped
from .openssh import UNCLEAN_SHELL, last_line, rsync_shell

# never -o and -g: who owns a file here means nothing there; -s (secluded arguments) keeps paths from the shell there
ALWAYS = ("-rlpts", "--compress", "--stats", "--no-human-readable", "--timeout=60")
FILE_ERROR = 11  # it could not write, and what it said of that may be lost
CLEAN_UP_SECONDS = 10
VANISHED = 24  # files that were there when it listed them
LINK_ERRORS = (10, 12, 20, 30, 35, 255)
FULL = r"No space left|[Qq]uota exceeded"
MEANINGS = {
    r"rsync: (command )?not found|rsync: No such file": "rsync is not installed there: apt-get install rsync",
    FULL: "the disk is full: make space, or name another --path",
    r"could not make way for": "a folder there, with what was made in it, has the place of a file from here: move it away",
    r"is your shell clean": UNCLEAN_SHELL,
    r"unknown option|unrecognized option": "one rsync is too old, or another program; expected rsync 3.1 or newer on both sides",
    r"Permission denied \(|Host key verification failed|Load key": "ssh is refused where paramiko was not: try `ssh` by hand",
}


@dataclass(frozen=True)
class Transfer:
    """What rsync did, or would do."""

    files: int
    bytes: int  # of those files
    deleted: int
    lines: tuple[str, ...]  # one a file, as `--itemize-changes` has them


def rsync(
    connection: Connection, options: Sequence[str], source: str, destination: str, stdin: bytes = b""
) -> Transfer:
    """Runs rsync, again where the link drops: what is there already is not sent twice.

    Args:
        source, destination: a path here, or `remote(...)`.

    Raises:
        TinyAudioError: rsync is missing on a side, or a file cannot be read or written.
    """
    command = ["rsync", *ALWAYS, "--itemize-changes", f"--rsh={rsync_shell(connection.target)}", *options, "--"]
    return connection.lasting(lambda: _once(connection, [*command, source, destination], stdin))


def remote(connection: Connection, path: str) -> str:
    """A path there, as rsync wants it."""
    host = connection.target.host
    return f"{f'[{host}]' if ':' in host else host}:{path}"


def _once(connection: Connection, command: list[str], stdin: bytes) -> Transfer:
    code, said, complaint = _run(command, stdin)
    if code in (0, VANISHED):
        return transfer(said)
    for pattern, meaning in MEANINGS.items():
        if re.search(pattern, complaint):
            raise TinyAudioError(f"rsync with {connection.target} failed: {meaning}.")
    if code == FILE_ERROR and not complaint.strip():
        raise TinyAudioError(f"rsync with {connection.target} failed: {MEANINGS[FULL]}.")
    if code in LINK_ERRORS:
        raise Dropped(f"The link to {connection.target} dropped while rsync used it.")
    raise TinyAudioError(f"rsync with {connection.target} failed: {last_line(first_part(complaint))}")


def _run(command: list[str], stdin: bytes) -> tuple[int, str, str]:
    """Its exit code, output and complaints; on Ctrl-C it gets the time to put half a file aside."""
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "LC_ALL": "C"},
        )
    except FileNotFoundError as error:
        raise TinyAudioError(
            "rsync is not installed here; install it (apt-get install rsync, brew install rsync)."
        ) from error
    try:
        said, complaint = process.communicate(stdin)
    except BaseException:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(CLEAN_UP_SECONDS)
        process.kill()
        raise
    return process.returncode, said.decode("utf-8", "replace"), complaint.decode("utf-8", "replace")


def first_part(complaint: str) -> str:
    """The first line: the later ones say that there was one."""
    return (complaint.strip().splitlines() or [""])[0]


def transfer(said: str) -> Transfer:
    """Reads `--stats`."""

    def number(name: str) -> int:
        found = re.search(rf"^{name}: (\d+)", said, re.MULTILINE)
        return int(found[1]) if found else 0

    lines = tuple(line for line in said.splitlines() if re.match(r"[<>c.h][fdLDS]|\*deleting", line))
    return Transfer(
        files=number("Number of regular files transferred"),
        bytes=number("Total transferred file size"),
        deleted=sum(line.startswith("*deleting") for line in lines),
        lines=lines,
    )
