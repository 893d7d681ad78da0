"""Pushes a checkpoint to the Hub in one commit: finds it, stages it, tries it, asks before it overwrites, uploads."""

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tiny_audio.console import ask, out, say, table
from tiny_audio.errors import TinyAudioError
from tiny_audio.hub_access import ADVICE, content_of, hub_errors, require_access
from tiny_audio.model_source import BEST, ModelSource, folder_of

from .repository import CARD, MAIN, Changes, Remote, changes_of, look, size_of

OUTPUTS = Path("outputs")
SETTINGS_FILE = "settings.yaml"
NAMED = 5  # files that a question or an error names
_BRANCH = re.compile(r"(?!refs/)(?!.*\.lock$)\w(?:[\w-]|[./](?=[\w-]))*", re.ASCII)


@dataclass(frozen=True)
class PushRequest:
    """What is pushed where, as the options of `ta push` say."""

    repository: str | None = None  # OWNER/NAME, or NAME for the token's own account
    checkpoint: str | None = None  # folder or Hub id; None for the last run's best
    branch: str = MAIN
    private: bool = False
    self_contained: bool = False
    create_pr: bool = False
    message: str | None = None
    dry_run: bool = False
    card_only: bool = False
    yes: bool = False


def push(request: PushRequest) -> str | None:
    """Pushes a checkpoint, or only its card; the commit's address, None where nothing was to be done.

    Raises:
        TinyAudioError: no checkpoint, no repository named, no token, the user's no, what the Hub refused, or a model
            that does not load elsewhere. Nothing is half there then: what others see changes by one commit.
    """
    if request.create_pr and request.branch != MAIN:
        raise TinyAudioError("--create-pr opens a pull request against main; leave out --branch.")
    if not _BRANCH.fullmatch(request.branch):
        raise TinyAudioError(
            f"--branch got {request.branch!r}; expected letters, digits and '_', and between them '-', '.' and '/'."
        )
    checkpoint, run = find_checkpoint(request.checkpoint)
    named = repository_of(request, run)
    require_access(named, "ta push")
    remote = look(full_name(named), request.branch, to_write=not request.create_pr)
    if request.private and remote.commit and not remote.private:
        raise TinyAudioError(f"{remote.repository} is public; make it private in its settings, or leave out --private.")
    message = request.message or default_message(checkpoint, run, request)
    with TemporaryDirectory(prefix="ta-push-") as temporary:
        added = files_to_push(checkpoint, Path(temporary), remote, request)
        changes = changes_of(added, remote, keep_rest=request.card_only)
        if request.dry_run:
            show(changes, remote, message)
            return None
        require_agreement(changes, remote, request)
        return publish(changes, remote, message, request)


def find_checkpoint(named: str | None) -> tuple[ModelSource, Path | None]:
    """The checkpoint, and the folder of the run it comes from, where there is one.

    Raises:
        TinyAudioError: none is named and no run has one; or there is none of that name.
    """
    if named is None:
        found = sorted(OUTPUTS.glob(f"*/{BEST}/config.json"), key=lambda file: file.stat().st_mtime)
        if not found:
            raise TinyAudioError(f"No run in {OUTPUTS}/ has a checkpoint; name one: -c FOLDER, or train one: ta train.")
        named = str(found[-1].parent)
        say(f"Checkpoint: {named}, the best of the last run.")
    source = ModelSource.of(named)
    folder = Path(source.location).resolve()
    of_run = source.local and (folder.name == BEST or (folder.parent / SETTINGS_FILE).is_file())
    return source, folder.parent if of_run else None


def repository_of(request: PushRequest, run: Path | None) -> str:
    """REPO, or what the run's settings name.

    Raises:
        TinyAudioError: neither.
    """
    if request.repository is not None:
        return request.repository
    named = pushed_to(run / SETTINGS_FILE) if run is not None else None
    if not named:
        raise TinyAudioError("No repository is named; expected `ta push OWNER/NAME`, or NAME for your own account.")
    say(f"Repository: {named}, the run's training.push_to.")
    return named


def pushed_to(settings: Path) -> str | None:
    """`training.push_to` of a run's settings."""
    import yaml

    try:
        return yaml.safe_load(settings.read_text("utf-8"))["training"]["push_to"]
    except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError):  # none, old or damaged: then it has to be said
        return None


def full_name(repository: str) -> str:
    """OWNER/NAME; of a bare name the token's own account is the owner."""
    from huggingface_hub import HfApi

    if "/" in repository:
        return repository
    with hub_errors(f"{repository} was not pushed"):
        return f"{HfApi().whoami()['name']}/{repository}"


def default_message(source: ModelSource, run: Path | None, request: PushRequest) -> str:
    if request.card_only:
        return "Update the model card"
    return f"Push {run.name if run is not None else Path(source.name).name}"


def files_to_push(source: ModelSource, folder: Path, remote: Remote, request: PushRequest) -> dict[str, Path | bytes]:
    """By name: what is staged in `folder` and loads in a clean process, and the card; or the card alone."""
    from .clean_process import check_loads
    from .staging import stage

    if not request.card_only:
        stage(source, folder, self_contained=request.self_contained)
        say(check_loads(folder, source.name))
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {**{path.relative_to(folder).as_posix(): path for path in files}, CARD: card(folder_of(source), remote)}


def card(checkpoint: Path, remote: Remote) -> bytes:
    """The model's card; what its owner wrote into the one that is there stays."""
    from .card import card_text

    existing = None
    if remote.commit is not None and CARD in remote.files:
        with hub_errors(f"Nothing was pushed to {remote.repository}"):
            existing = content_of(remote.repository, CARD, remote.commit)
    return card_text(checkpoint, remote.repository, existing).encode()


def show(changes: Changes, remote: Remote, message: str) -> None:
    """What a push would do, on stdout."""
    new = "" if remote.commit else ", which is to be made"
    out(f"Commit to {remote.repository}{new}: {message}")
    rows = [
        [name, megabytes(size_of(content)), changes.effect(name, remote)] for name, content in changes.added.items()
    ]
    table(["file", "MB", ""], rows + [[name, "", "deleted"] for name in changes.deleted], right=["MB"])


def megabytes(size: int) -> str:
    return f"{size / 1e6:.3f}"


def require_agreement(changes: Changes, remote: Remote, request: PushRequest) -> None:
    """Asks before files are overwritten that no push wrote; of a pull request its reader is asked.

    Raises:
        TinyAudioError: the answer is no, or there is no terminal to ask on.
    """
    if not changes.overwritten or request.yes or request.create_pr:
        return
    more = len(changes.overwritten) - NAMED
    names = ", ".join(changes.overwritten[:NAMED]) + (f" and {more} more" if more > 0 else "")
    found = f"{remote.repository} has files that tiny-audio did not write and would overwrite: {names}"
    answer = ask(f"{found}. Overwrite them?")
    if answer is None:
        raise TinyAudioError(f"{found}; nothing was pushed: look at them (--dry-run), then give --yes or another name.")
    if not answer:
        raise TinyAudioError(f"Nothing was pushed to {remote.repository}.")


def publish(changes: Changes, remote: Remote, message: str, request: PushRequest) -> str | None:
    """Uploads what the Hub has not, then commits all at once onto what was looked at; the address, None if all was there.

    Raises:
        TinyAudioError: what the Hub or the network refused; then no file was changed.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
    from huggingface_hub.utils import disable_progress_bars, logging

    logging.set_verbosity_error()  # that nothing was to be done is said below
    if not sys.stderr.isatty():
        disable_progress_bars()
    operations: list[Any] = [CommitOperationAdd(name, content) for name, content in changes.added.items()]
    operations += [CommitOperationDelete(name, is_folder=False) for name in changes.deleted]
    size = megabytes(sum(map(size_of, changes.added.values())))
    say(f"Pushing {len(changes.added)} files, {size} MB, to {remote.repository}; what is there already is not sent.")
    with hub_errors(f"Nothing was pushed to {remote.repository}"):
        parent = open_branch(remote, request)
        commit = HfApi().create_commit(
            remote.repository, operations, commit_message=message, revision=request.branch, parent_commit=parent,
            repo_type=remote.kind, create_pr=request.create_pr,
        )  # fmt: skip
    if commit.oid == parent:
        changed = f"the branch {request.branch} was made" if lacks_branch(remote, request) else "nothing was changed"
        say(f"{remote.repository} has all of it already; {changed}.")
        return None
    return commit.pr_url or str(commit)


def open_branch(remote: Remote, request: PushRequest) -> str:
    """Makes the repository and the branch where they are missing; the commit that the branch is at.

    Raises:
        TinyAudioError: the repository was missing, and another push made and filled it at the same moment.
    """
    from huggingface_hub import HfApi

    api, commit = HfApi(), remote.commit
    if commit is None:
        api.create_repo(remote.repository, private=request.private or None, exist_ok=True)
        info = api.model_info(remote.repository)
        if {file.rfilename for file in info.siblings or ()} - {".gitattributes"}:
            raise TinyAudioError(f"Nothing was pushed to {remote.repository}: {ADVICE[412]}.")
        commit = str(info.sha)
    if lacks_branch(remote, request):
        api.create_branch(remote.repository, branch=request.branch, revision=commit)
    return commit


def lacks_branch(remote: Remote, request: PushRequest) -> bool:
    """Whether the branch that is pushed to is to be made."""
    return request.branch != MAIN and not (remote.commit and remote.branch_exists)
