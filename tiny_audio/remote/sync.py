"""The project to the machine: what git tracks, and what it would track but for datasets and checkpoints."""

import os
import re
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from tiny_audio.errors import TinyAudioError

from .connection import Connection
from .rsync import Transfer, remote, rsync

OURS = ".ta"  # below the project's folder there: environment, jobs, what was sent
SENT = "sent"  # in it: the files of the last sync, with NUL between
# untracked files that are data, checkpoints or secrets; what git tracks is sent whatever its name
DATA = re.compile(
    r"(^|/)(outputs|runs|wandb|datasets|checkpoints|checkpoint-\d+)/"
    r"|\.(wav|flac|mp3|ogg|opus|m4a|parquet|arrow|tar|tgz|zip|gz|zst|npy|npz|h5)$"
    r"|\.(safetensors|pt|pth|ckpt|bin|onnx|gguf)$"
    r"|(^|/)\.env(\.[^/]*)?$",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Listing:
    """What of the project goes there; paths are relative to `root`."""

    root: Path
    files: tuple[str, ...]
    left_out: tuple[str, ...]  # untracked datasets, checkpoints, secrets


def listing(folder: Path) -> Listing:
    """The files of the repository that `folder` is in.

    Raises:
        TinyAudioError: it is in none, or git is missing.
    """
    root = Path(git(folder, "rev-parse", "--show-toplevel").removesuffix("\n"))
    tracked = [name for name in git(root, "ls-files", "-z").split("\0") if name]
    others = [name for name in git(root, "ls-files", "-z", "--others", "--exclude-standard").split("\0") if name]
    mine = [name for name in {*tracked, *others} if name.split("/")[0] == OURS]
    left_out = [name for name in others if DATA.search(name)]
    wanted = {*tracked, *others} - {*mine, *left_out}
    there = sorted(name for name in wanted if is_file(root / name))
    return Listing(root, tuple(there), tuple(left_out))


def is_file(path: Path) -> bool:
    """A file or a link; git also names what was deleted, and other repositories inside this one."""
    return path.is_symlink() or path.is_file()


def git(folder: Path, *arguments: str) -> str:
    """What git says; names of files keep bytes that are no UTF-8."""
    try:
        result = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, check=False)
    except FileNotFoundError as error:
        raise TinyAudioError(
            "git is not installed here; `ta remote` asks it which files belong to the project."
        ) from error
    if result.returncode:
        raise TinyAudioError(f"{folder} is in no git repository; run `git init` in your project, or cd there.")
    return result.stdout.decode("utf-8", "surrogateescape")


def sync(connection: Connection, listed: Listing, dry_run: bool = False) -> Transfer:
    """Makes the project there as it is here; deletes only what an earlier sync has sent and is gone here.

    Raises:
        TinyAudioError: something cannot be sent.
    """
    ours = f"{connection.target.folder}/{OURS}"
    before = connection.lasting(lambda: connection.read(f"{ours}/{SENT}")) or b""
    gone = [name for name in split(before) if is_gone(listed.root, name)]
    now, every = joined(listed.files), joined({*gone, *listed.files})
    if not dry_run:
        connection.lasting(lambda: connection.make_folder(ours, 0o700))
        if every != before:
            connection.lasting(lambda: connection.write(f"{ours}/{SENT}", every))
    options = ["--from0", "--files-from=-", "--delete-missing-args", *(["--dry-run"] if dry_run else [])]
    names = joined(f"./{name}" for name in split(every))  # so that none is an option or a comment
    done = rsync(connection, options, f"{listed.root}/", remote(connection, f"{connection.target.folder}/"), names)
    if not dry_run and every != now:
        connection.lasting(lambda: connection.write(f"{ours}/{SENT}", now))
    return done


def is_gone(root: Path, name: str) -> bool:
    """Whether a file that was sent is no longer here; what a machine says was sent must not make it be sent."""
    path = PurePosixPath(name)
    inside = not path.is_absolute() and ".." not in path.parts
    return inside and not os.path.lexists(root / path)


def joined(names: Iterable[str]) -> bytes:
    """Names in order, each with a NUL behind it."""
    return b"".join(name.encode("utf-8", "surrogateescape") + b"\0" for name in sorted(names))


def split(names: bytes) -> list[str]:
    """The names of `joined`."""
    return [name.decode("utf-8", "surrogateescape") for name in names.split(b"\0") if name]


def describe(done: Transfer, listed: Listing, dry_run: bool) -> str:
    """What went there, in a line."""
    verb = "Would send" if dry_run else "Sent"
    deleted = f", {'would delete' if dry_run else 'deleted'} {done.deleted}" if done.deleted else ""
    apart = f"; left out {len(listed.left_out)} untracked files of data" if listed.left_out else ""
    return f"{verb} {done.files} of {len(listed.files)} files, {size(done.bytes)}{deleted}{apart}."


def size(number: float) -> str:
    """Bytes for people."""
    for unit in ("B", "kB", "MB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} GB"
