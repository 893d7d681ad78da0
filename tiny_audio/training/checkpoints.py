"""Checkpoints on disk: written whole or not at all, the newest kept, and found again to resume from."""

import errno
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from tiny_audio.errors import TinyAudioError
from tiny_audio.evaluation.results import write_atomically

SETTINGS_FILE = "settings.yaml"
LOG_FILE = "log.jsonl"
RUN_FILE = "run.json"
STATE_FILE = "trainer_state.json"
SNAPSHOT = ".{}.pushing"  # links to what is being pushed, so that it may be replaced meanwhile
LEFTOVERS = (".*.unfinished", ".*.deleted", SNAPSHOT.format("*"), ".*.yaml.*", ".*.jsonl.*", ".*.json.*")
_NAME = re.compile(r"checkpoint-(\d+)")


def write_whole(folder: Path, write: Callable[[Path], None]) -> None:
    """Lets `write` fill a folder under a temporary name, then puts it at `folder`, in place of what stood there.

    Raises:
        TinyAudioError: it could not be written (disk full, no permission); what stood at `folder` is untouched.
    """
    temporary = folder.with_name(f".{folder.name}.unfinished")
    remove(temporary)
    with _explained(folder, temporary):
        temporary.mkdir(parents=True)
        write(temporary)
        _sync(temporary)
        replace_folder(temporary, folder)


def _sync(folder: Path) -> None:
    """Waits until the disk has it: a machine that loses power may else keep the new name and lose what is in the files."""
    for path in [*folder.rglob("*"), folder]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # a file system that cannot
                raise
        finally:
            os.close(descriptor)


def replace_folder(new: Path, folder: Path) -> None:
    """Renames `new` to `folder`; the old one goes away only when the new one is whole."""
    old = folder.with_name(f".{folder.name}.old")
    remove(old)
    if folder.exists():
        folder.rename(old)
    new.rename(folder)
    remove(old)


def remove(folder: Path) -> None:
    """Deletes a folder, if it is there; renamed first, so that a half-deleted one is never taken for a checkpoint."""
    if not folder.exists():
        return
    doomed = folder.with_name(f".{folder.name.lstrip('.')}.deleted")
    shutil.rmtree(doomed, ignore_errors=True)
    folder.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def tidy(run: Path) -> None:
    """Cleans up after a process that was killed: what it had set aside comes back, what it had not finished goes."""
    for old in run.glob(".*.old"):
        folder = old.with_name(old.name.removeprefix(".").removesuffix(".old"))
        old.rename(folder) if not folder.exists() else remove(old)
    for pattern in LEFTOVERS:
        for path in run.glob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


@contextmanager
def _explained(folder: Path, temporary: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:  # torch.save raises RuntimeError where the disk is full
        shutil.rmtree(temporary, ignore_errors=True)
        kept = latest_checkpoint(folder.parent)
        reason = (getattr(error, "strerror", None) or str(error).splitlines()[0]).rstrip(".")
        hint = f"{kept.name} is whole: go on from it with --resume {folder.parent}" if kept else "try again"
        raise TinyAudioError(f"Could not write {folder} ({reason}); {hint} when there is space again.") from error


def checkpoints(run: Path) -> list[Path]:
    """The whole checkpoints of a run, oldest first."""
    if not run.is_dir():
        return []
    found = [(int(match[1]), path) for path in run.iterdir() if (match := _NAME.fullmatch(path.name))]
    return [path for _, path in sorted(found) if (path / STATE_FILE).is_file()]


def latest_checkpoint(run: Path) -> Path | None:
    """The newest whole checkpoint of a run."""
    found = checkpoints(run)
    return found[-1] if found else None


def rotate(run: Path, limit: int | None) -> None:
    """Deletes all but the newest `limit` checkpoints; None keeps all."""
    if limit is not None:
        for path in checkpoints(run)[:-limit]:
            remove(path)


def find_resume(resume: str, experiment: str | None, output_dir: Path | None, outputs: Path) -> Path:
    """The checkpoint that `--resume` means.

    Args:
        resume: "auto" (the newest run of the experiment, or of any, in `outputs`, or the run in `output_dir`), a run's
            folder, or a checkpoint's.

    Raises:
        TinyAudioError: there is none.
    """
    if resume != "auto":
        found = _checkpoint_at(Path(resume))
        if found is None:
            raise TinyAudioError(f"{resume} holds no checkpoint; expected a run's folder or a checkpoint-N in one.")
        return found
    runs = [output_dir] if output_dir is not None else _runs(experiment, outputs)
    for run in runs:
        found = latest_checkpoint(run)
        if found is not None:
            return found
    where = output_dir if output_dir is not None else f"{outputs}/{experiment or '*'}-*"
    raise TinyAudioError(f"Nothing to resume in {where}: no checkpoint was written yet; start without --resume.")


def _checkpoint_at(path: Path) -> Path | None:
    if _NAME.fullmatch(path.name) and (path / STATE_FILE).is_file():
        return path
    return latest_checkpoint(path)


def _runs(experiment: str | None, outputs: Path) -> list[Path]:
    """Runs of an experiment, or of any, newest first; their names end in date and time."""
    pattern = re.compile((".+" if experiment is None else re.escape(experiment)) + r"-(\d{8}-\d{6})")
    found = [(match[1], path) for path in outputs.glob("*") if (match := pattern.fullmatch(path.name))]
    return [path for _, path in sorted(found, reverse=True)]


def set_aside_later(run: Path, step: int) -> list[Path]:
    """Renames the checkpoints after `step`, which a run resumed there leaves behind, so that none is taken for its own."""
    moved = []
    for path in checkpoints(run):
        if step_of(path) > step:
            aside = path.with_name(f"left-behind-{path.name}")
            shutil.rmtree(aside, ignore_errors=True)
            moved.append(path.rename(aside))
    return moved


def step_of(checkpoint: Path) -> int:
    """Optimizer steps that a checkpoint has behind it."""
    match = _NAME.fullmatch(checkpoint.name)
    if match is None:
        raise TinyAudioError(f"{checkpoint} is not named checkpoint-N; expected a checkpoint of `ta train`.")
    return int(match[1])


def truncate_log(file: Path, step: int) -> None:
    """Drops the entries after `step`, and a last line that was cut off: a resumed run writes them again."""
    if not file.is_file():
        return
    kept = [line for line in file.read_text(encoding="utf-8").splitlines() if _logged_step(line) <= step]
    write_atomically(file, "".join(f"{line}\n" for line in kept))


def _logged_step(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError):
        return float("inf")
