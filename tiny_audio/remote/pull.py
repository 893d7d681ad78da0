"""Results from the machine: checkpoints, curves, evaluations; in pieces that a dropped link keeps, each file's hash compared."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tiny_audio.console import say, warn
from tiny_audio.errors import TinyAudioError

from .connection import Connection
from .jobs import check_inside
from .rsync import remote, rsync

ROUNDS = 3  # of fetching what differs
PARTIAL = ".ta-partial"  # half a file, beside its place


@dataclass(frozen=True)
class Pulled:
    """What came."""

    files: int  # all that are there
    fetched: int
    bytes: int
    whole: bool  # every hash agrees


def pull(connection: Connection, names: Sequence[str], into: Path, growing: bool = False) -> Pulled:
    """Fetches folders or files below the project's, to the same places below `into`; what is here already stays.

    Args:
        growing: a job still writes there, so files may differ.

    Raises:
        TinyAudioError: one is not there, or differs after some rounds.
    """
    folder = connection.target.folder
    wanted = [check_inside(name.rstrip("/")) for name in names]
    fetched = size = 0
    for number in range(ROUNDS):
        options = ["--recursive", "--safe-links", f"--partial-dir={PARTIAL}", *(["--checksum"] if number else [])]
        for name in wanted:
            done = rsync(connection, [*options, "--relative"], remote(connection, f"{folder}/./{name}"), f"{into}/")
            fetched, size = fetched + done.files, size + done.bytes
        there = connection.lasting(lambda: connection.script("probe.py", "hashes", folder, *wanted))
        differ = [name for name, digest in there.items() if digest_of(into / name) != digest]
        if not differ:
            return Pulled(len(there), fetched, size, whole=True)
        say(f"{len(differ)} files have changed meanwhile; fetching them again.")
    told = f"{len(differ)} of {len(there)} files differ from those on {connection.target}: {', '.join(differ[:3])}"
    if not growing:
        raise TinyAudioError(f"{told}; run the same command again, and look at the disks if it stays so.")
    warn(f"{told}; the job still writes them. Pull again when it has ended.")
    return Pulled(len(there), fetched, size, whole=False)


def digest_of(path: Path) -> str | None:
    """SHA-256; None where there is no file."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
