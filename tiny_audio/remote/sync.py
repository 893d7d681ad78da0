"""The project to the machine: what git tracks, and what it would track but for datasets and checkpoints."""

import os
import re
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

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
    repositories: tuple[str, ...] = ()  # inside this one: submodules too


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
    there = sorted(name for name in wanted if is_file(root / name) and was_folder(root, name) is None)
    inside = sorted(name.rstrip("/") for name in wanted if (root / name / ".git").exists())
    return Listing(root, tuple(there), tuple(left_out), tuple(inside))


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
    gone = {name: was_folder(listed.root, name) for name in split(before) if is_gone(listed.root, name)}
    deleted = delete(connection, gone, dry_run) if gone else 0
    now = joined(listed.files)
    if not dry_run:
        connection.lasting(lambda: connection.make_folder(ours, 0o700))
        if now != before:
            connection.lasting(lambda: connection.write(f"{ours}/{SENT}", now))
    hidden = {*gone.values()} if dry_run else set()  # folders are still in their way
    done = send(connection, listed.root, {*listed.files} - hidden, dry_run)
    return replace(done, deleted=done.deleted + deleted)


def send(connection: Connection, root: Path, names: Iterable[str], dry_run: bool, *more: str) -> Transfer:
    """Makes some files there as they are below `root`: also gone, if they are."""
    options = ["--from0", "--files-from=-", "--delete-missing-args", *(["--dry-run"] if dry_run else []), *more]
    files = joined(f"./{name}" for name in names)  # so that none is an option or a comment
    return rsync(connection, options, f"{root}/", remote(connection, f"{connection.target.folder}/"), files)


def delete(connection: Connection, gone: Mapping[str, str | None], dry_run: bool) -> int:
    """Deletes there what was sent and is gone, and folders that are files here now, if they are empty then.

    Args:
        gone: files, and what `was_folder` says of each.

    Returns:
        How many were there.
    """
    with TemporaryDirectory() as nothing:  # rsync deletes only what is missing in a folder that is here
        for name in gone:
            (Path(nothing) / name).parent.mkdir(parents=True, exist_ok=True)
        deleted = send(connection, Path(nothing), gone, dry_run, "--no-implied-dirs").deleted
    folders = sorted({f"./{folder}" for folder in gone.values() if folder is not None})
    if folders and not dry_run:
        find = ["find", *folders, "-type", "d", "-empty", "-delete"]
        connection.lasting(lambda: connection.run(find, folder=connection.target.folder))
    return deleted


def is_gone(root: Path, name: str) -> bool:
    """Whether a file that was sent is no longer here; what a machine says was sent must not make it be sent."""
    path = PurePosixPath(name)
    inside = not path.is_absolute() and ".." not in path.parts
    return inside and (not os.path.lexists(root / path) or was_folder(root, name) is not None)


def was_folder(root: Path, name: str) -> str | None:
    """The file or link here that is now where a folder above `name` was."""
    return next((str(above) for above in PurePosixPath(name).parents if is_file(root / above)), None)


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
    if listed.repositories:
        apart += f"; left out repositories inside this one: {', '.join(listed.repositories)}"
    return f"{verb} {done.files} of {len(listed.files)} files, {size(done.bytes)}{deleted}{apart}."


def size(number: float) -> str:
    """Bytes for people."""
    for unit in ("B", "kB", "MB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} GB"
