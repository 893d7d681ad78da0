"""A job's log as it grows, over links that drop, until the job has ended."""

import codecs
import math
import sys
import time
from collections.abc import Callable
from typing import Any

from .connection import Connection
from .jobs import UNDER_WAY, Seen, find_job, job_folder, read_state

POLL_SECONDS = 0.3
SILENT_SECONDS = 30.0  # without a heartbeat: is the runner still there?
PIECE = 2**20  # bytes


def follow(connection: Connection, name: str, show: Callable[[str], None], offset: int = 0) -> Seen:
    """Shows the log from a place on, as it is written, until the job has ended or was lost.

    Args:
        offset: in bytes.

    Raises:
        TinyAudioError: the machine stays away.
    """
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    heartbeat, beaten = connection.lasting(lambda: read_state(connection, name)).get("heartbeat"), -math.inf
    over = False
    while True:
        state = connection.lasting(lambda: read_state(connection, name))
        while piece := read_log(connection, name, offset, PIECE):
            offset += len(piece)
            show(decoder.decode(piece))
        if over or (state and state["state"] not in UNDER_WAY):
            return find_job(connection, name)
        if heartbeat != (heartbeat := state.get("heartbeat")):
            beaten = time.monotonic()
        elif time.monotonic() - beaten > SILENT_SECONDS:
            beaten = time.monotonic()
            over = find_job(connection, name).word not in UNDER_WAY  # what it wrote until now is still to be shown
        time.sleep(POLL_SECONDS)


def read_log(connection: Connection, name: str, offset: int, limit: int) -> bytes:
    """A piece of log.txt; empty at its end."""
    path = f"{job_folder(connection, name)}/log.txt"
    return connection.lasting(lambda: connection.read(path, offset, limit)) or b""


def log_tail(connection: Connection, name: str, lines: int) -> tuple[bytes, int]:
    """The last lines of the log, and the place in bytes behind them."""
    path = f"{job_folder(connection, name)}/log.txt"
    end, length = connection.lasting(lambda: connection.size(path)), 2**14
    while True:
        first = max(0, end - length)
        text = read_log(connection, name, first, end - first)
        if first == 0 or text.count(b"\n") > lines:
            last = text.splitlines(keepends=True)[-lines:] if lines else []
            return b"".join(last), first + len(text)
        length *= 4


def show_text(text: str) -> None:
    """As it is, on stdout, at once."""
    sys.stdout.write(text)
    sys.stdout.flush()


def exit_code(state: dict[str, Any]) -> int:
    """Of a command that waited for a job: the job's own, 1 where it has none or was ended."""
    code = state.get("exit_code")
    if state.get("state") == "finished":
        return 0
    return code if isinstance(code, int) and 0 < code < 256 else 1
