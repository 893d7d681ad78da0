"""Pushes the best model, and the newest checkpoint, to the Hub beside the training; what fails is said and ends nothing."""

import json
import os
import re
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shlex import quote
from typing import Any

from transformers import TrainerCallback

from tiny_audio.console import say, warn
from tiny_audio.errors import TinyAudioError
from tiny_audio.hub_access import REFUSALS, reason, require_access, status
from tiny_audio.model_source import BEST, hide_paths

from .checkpoints import LOG_FILE, RUN_FILE, SETTINGS_FILE, SNAPSHOT, remove
from .schema import TrainingSettings

OPEN_SECONDS = 30.0  # that the training waits for the Hub before it begins
FINISH_SECONDS = 600.0  # that the end of a run waits for its last upload
GRACE_SECONDS = 20.0  # that a run waits which was stopped: its machine may be taken back


class Publisher(TrainerCallback):
    """Pushes in a thread of its own, after each checkpoint; of those that wait, only the newest.

    Args:
        repository: OWNER/NAME on the Hub; made private if it is not there.
        folder: of the run.
        with_checkpoint: push `checkpoint-N`, the settings and the log too, so that the run can go on elsewhere.
    """

    def __init__(self, repository: str, folder: Path, with_checkpoint: bool) -> None:
        self.repository, self.folder, self.with_checkpoint = repository, folder, with_checkpoint
        self.newest = self.pushed = ""  # names of checkpoints
        self.failed = 0
        self._changed = threading.Condition()
        self._waiting: Path | None = None  # snapshots
        self._under_way: Path | None = None
        self._opened, self._tried = False, threading.Event()
        self._refusal: TinyAudioError | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """Looks whether the token may write there, before anything is paid for.

        Raises:
            TinyAudioError: it may not, or the name is wrong.
        """
        if not state.is_world_process_zero:
            return
        threading.Thread(target=self._work, daemon=True).start()
        if not self._tried.wait(OPEN_SECONDS):
            warn(f"The Hub has not answered for {OPEN_SECONDS:.0f} s; the run begins.")
        if self._refusal is not None:
            raise self._refusal

    def on_save(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """A checkpoint is whole, and `best` if there is one yet."""
        if state.is_world_process_zero and (self.with_checkpoint or (self.folder / BEST).is_dir()):
            self.newest = f"checkpoint-{state.global_step}"
            self._offer()

    def finish(self, seconds: float) -> None:
        """Waits so long for what is under way; where the newest failed, it is tried once more."""
        if not self.newest:
            return  # also in a process that is not the first
        if not self._idle() and seconds:
            say(f"Pushing {self.newest} to {self.repository}.")
        if self._wait(seconds) and seconds and self.pushed != self.newest:
            self._offer()
            self._wait(seconds)
        for snapshot in self.folder.glob(SNAPSHOT.format("*")):
            if snapshot != self._under_way:
                remove(snapshot)

    def outcome(self) -> str:
        """One line: what is on the Hub, or what is not and how to push it by hand."""
        failed = f"; {self.failed} upload{'s' * (self.failed > 1)} before it failed" if self.failed else ""
        if not self.newest:
            return f"Nothing was pushed to {self.repository}: no checkpoint was written."
        if self.pushed == self.newest:
            from huggingface_hub.constants import ENDPOINT

            return f"Pushed: {self.pushed} is at {ENDPOINT}/{self.repository}{failed}."
        pushed = f"what is there is {self.pushed}" if self.pushed else "nothing of this run is there"
        command = f"hf upload --private {self.repository}"
        commands = [f"{command} {quote(str(self.folder / BEST))} ."] if (self.folder / BEST).is_dir() else []
        if self.with_checkpoint:
            commands.append(f"{command} {quote(str(self.folder / self.newest))} {self.newest}")
        return f"{self.newest} is not at {self.repository}, {pushed}; by hand: {' && '.join(commands)}"

    # ---- the training's side

    def _offer(self) -> None:
        """In place of what still waits."""
        try:
            snapshot = self._snapshot()
        except OSError as error:
            return self._say_failed(self.newest, error)
        with self._changed:
            if self._waiting is not None:
                say(f"{_name(self._waiting)} is not pushed: {self.newest} is newer, and an upload is still under way.")
                remove(self._waiting)
            self._waiting = snapshot
            self._changed.notify_all()

    def _snapshot(self) -> Path:
        """Links to the files that are to be pushed, laid out as on the Hub."""
        snapshot = self.folder / SNAPSHOT.format(self.newest)
        remove(snapshot)
        if (self.folder / BEST).is_dir():
            shutil.copytree(self.folder / BEST, snapshot, copy_function=_link)
            if json.loads((snapshot / "config.json").read_text("utf-8")).get("self_contained"):
                hide_paths(snapshot)
        if self.with_checkpoint:
            shutil.copytree(self.folder / self.newest, snapshot / self.newest, copy_function=_link)
            for name in (SETTINGS_FILE, LOG_FILE, RUN_FILE):  # which are written on
                shutil.copy(self.folder / name, snapshot)
        return snapshot

    def _idle(self) -> bool:
        return self._waiting is None and self._under_way is None

    def _wait(self, seconds: float) -> bool:
        with self._changed:
            return self._changed.wait_for(self._idle, seconds)

    # ---- the thread's side

    def _work(self) -> None:
        from huggingface_hub.utils import disable_progress_bars

        disable_progress_bars()  # the training has its own
        self._refusal = self._try_to_open()
        self._tried.set()
        while True:
            snapshot = self._next()
            self._push(snapshot)
            remove(snapshot)
            with self._changed:
                self._under_way = None
                self._changed.notify_all()

    def _try_to_open(self) -> TinyAudioError | None:
        """What the Hub refuses for good; that it cannot be reached now is only said."""
        try:
            self._open()
        except Exception as error:  # noqa: BLE001 - whatever is wrong with the network, the training goes on
            if status(error) in REFUSALS:
                return TinyAudioError(
                    f"{self.repository} cannot be pushed to ({reason(error)}); check its name and that the token may "
                    "write there, or leave out training.push_to."
                )
            warn(f"The Hub cannot be reached ({reason(error)}); the run goes on, and each checkpoint is tried.")
        return None

    def _next(self) -> Path:
        with self._changed:
            while (snapshot := self._waiting) is None:
                self._changed.wait()
            self._waiting, self._under_way = None, snapshot
        return snapshot

    def _push(self, snapshot: Path) -> None:
        try:
            self._open()
            self._commit(snapshot)
        except Exception as error:  # noqa: BLE001 - whatever happens to an upload, the training goes on
            self._say_failed(_name(snapshot), error)
        else:
            self.pushed = _name(snapshot)

    def _say_failed(self, name: str, error: Exception) -> None:
        self.failed += 1
        warn(f"{name} was not pushed to {self.repository} ({reason(error)}); the run goes on.")

    def _open(self) -> None:
        from huggingface_hub import HfApi

        if not self._opened:
            HfApi().create_repo(self.repository, private=True, exist_ok=True)
            self._opened = True

    def _commit(self, snapshot: Path) -> None:
        """All of it at once, older checkpoints removed: at no moment is half of one there."""
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

        api, name = HfApi(), _name(snapshot)
        files = sorted(path for path in snapshot.rglob("*") if path.is_file())
        added = [CommitOperationAdd(path.relative_to(snapshot).as_posix(), path) for path in files]
        old = {file.split("/")[0] for file in api.list_repo_files(self.repository)} if self.with_checkpoint else set()
        replaced = sorted(folder for folder in old if re.fullmatch(r"checkpoint-\d+", folder) and folder != name)
        deleted = [CommitOperationDelete(f"{folder}/", is_folder=True) for folder in replaced]
        api.create_commit(self.repository, [*added, *deleted], commit_message=f"Training: {name}")


@contextmanager
def publishing(settings: TrainingSettings, folder: Path) -> Iterator[list[Publisher]]:
    """The publisher that the settings ask for, if any; waits at the end for its last upload."""
    if settings.push_to is None:
        yield []
        return
    publisher = Publisher(settings.push_to, folder, settings.push_checkpoints)
    try:
        yield [publisher]
    except BaseException as error:
        publisher.finish(0 if isinstance(error, KeyboardInterrupt) else GRACE_SECONDS)
        if publisher.newest:
            say(publisher.outcome())
        raise
    publisher.finish(FINISH_SECONDS)


def check_push(repository: str) -> None:
    """Fails early where pushing could not work.

    Raises:
        TinyAudioError: no Hub id, no token, or the Hub is switched off.
    """
    if "/" not in repository:
        raise TinyAudioError(f"training.push_to is {repository!r}; expected OWNER/NAME of a model on the Hub.")
    require_access(repository, f"training.push_to={repository}")


def _name(snapshot: Path) -> str:
    return snapshot.name.split(".")[1]


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copy2(source, target)
