"""Results from the machine: checkpoints, curves, evaluations; in pieces that a dropped link keeps, each file's hash compared."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from tiny_audio.console import say, warn
from tiny_audio.errors import TinyAudioError

from .connection import Connection
from .jobs import check_inside
from .rsync import remote, rsync
from .sync import OURS

ROUNDS = 3  # of fetching what differs
PARTIAL = ".ta-partial"  # half a file, beside its place


@dataclass(frozen=True)
class Pulled:
    """What came."""

    files: int  # all that are there
    fetched: int
    bytes: int
    whole: bool  # every hash agrees, of one file at least


def pull(connection: Connection, names: Sequence[str], into: Path, growing: bool = False) -> Pulled:
    """Fetches folders or files below the project's, to the same places below `into`; what is here already stays.

    Args:
        growing: a job still writes there, so files may differ.

    Raises:
        TinyAudioError: one is not there, or differs after some rounds.
    """
    folder = connection.target.folder
    wanted = [check_wanted(name.rstrip("/")) for name in names]
    into = made(into)
    files = b"".join(f"./{name}\0".encode("utf-8", "surrogateescape") for name in wanted)  # names, never patterns
    always = [
        "--recursive",
        "--safe-links",
        f"--partial-dir={PARTIAL}",
        f"--exclude=/{OURS}",
        "--from0",
        "--files-from=-",
    ]
    fetched = size = 0
    for number in range(ROUNDS):
        options = [*always, *(["--checksum"] if number else [])]
        done = rsync(connection, options, remote(connection, f"{folder}/"), f"{into}/", files)
        fetched, size = fetched + done.files, size + done.bytes
        found = connection.lasting(lambda: connection.script("probe.py", "hashes", folder, *wanted))
        there = {name: digest for name, digest in found.items() if not is_ours(name)}
        differ = [name for name, digest in there.items() if digest_of(into / name) != digest]
        if not differ:
            return Pulled(len(there), fetched, size, whole=bool(there))
        say(f"{len(differ)} files have changed meanwhile; fetching them again.")
    told = f"{len(differ)} of {len(there)} files differ from those on {connection.target}: {', '.join(differ[:3])}"
    if not growing:
        raise TinyAudioError(f"{told}; run the same command again, and look at the disks if it stays so.")
    warn(f"{told}; the job still writes them. Pull again when it has ended.")
    return Pulled(len(there), fetched, size, whole=False)


def check_wanted(name: str) -> str:
    """A path of the project that may be fetched."""
    if is_ours(check_inside(name)):
        raise TinyAudioError(f"{name!r} is of `ta remote` itself; name a folder or file of the project.")
    return name


def is_ours(name: str) -> bool:
    """Whether it lies in the folder of jobs and environment."""
    return PurePosixPath(name).parts[:1] == (OURS,)


def made(folder: Path) -> Path:
    """The folder, absolute so that rsync takes it for no host; with those above it.

    Raises:
        TinyAudioError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TinyAudioError(f"{folder} cannot be made ({error.strerror}); name another folder by --into.") from error
    return folder.absolute()


def digest_of(path: Path) -> str | None:
    """SHA-256; None where there is no file."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
