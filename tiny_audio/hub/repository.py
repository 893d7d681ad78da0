"""A repository on the Hub as it is now, and what a push would change in it."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tiny_audio import __version__
from tiny_audio.errors import TinyAudioError
from tiny_audio.hub_access import content_of, hub_errors

CARD = "README.md"
MANIFEST = ".tiny_audio.json"  # in the repository: the hashes of what the last push wrote
MAIN = "main"


@dataclass(frozen=True)
class Remote:
    """A branch as it is on the Hub; `commit` is None where there is no such repository."""

    repository: str
    kind: str = "model"  # or "dataset", "space"
    commit: str | None = None
    private: bool = False
    branch_exists: bool = True
    files: Mapping[str, str] = field(default_factory=dict)  # hash by name: SHA-256 of LFS, git's of others
    written: Mapping[str, list[str]] = field(default_factory=dict)  # hashes by name of what the last push wrote

    def is_ours(self, name: str) -> bool:
        """Whether the file is still as a push wrote it."""
        return self.files.get(name) in self.written.get(name, ())


@dataclass(frozen=True)
class Changes:
    """What a commit does: files by their name in the repository, and names."""

    added: Mapping[str, Path | bytes]
    deleted: list[str]
    overwritten: list[str]  # what the last push did not write, or what was changed since

    def effect(self, name: str, remote: Remote) -> str:
        """What becomes of an added file, in a word or some."""
        if name not in remote.files:
            return "new"
        if name in self.overwritten:
            return "overwrites what tiny-audio did not write"
        return "unchanged" if remote.files[name] in hashes_of(self.added[name]) else "changed"


def look(repository: str, branch: str = MAIN, *, kind: str = "model", to_write: bool = True) -> Remote:
    """What is on the branch now, or on main where there is no such branch yet.

    Args:
        to_write: the token has to be allowed to write there, and the repository need not exist yet.

    Raises:
        TinyAudioError: it may not, or the Hub cannot be reached.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    api, branch_exists = HfApi(), True
    with hub_errors(f"Nothing was pushed to {repository}"):
        try:
            info = api.repo_info(repository, repo_type=kind, revision=branch)
        except RevisionNotFoundError:
            info, branch_exists = api.repo_info(repository, repo_type=kind), False
        except RepositoryNotFoundError:
            if not to_write:
                raise
            return Remote(repository, kind)
        if to_write:
            api.auth_check(repository, repo_type=kind, write=True)
        commit = str(info.sha)
        files = files_of(repository, commit, kind)
        written = written_before(repository, commit, kind) if MANIFEST in files else {}
    return Remote(repository, kind, commit, bool(info.private), branch_exists, files, written)


def files_of(repository: str, commit: str, kind: str) -> dict[str, str]:
    """The hash of each file, as `Remote.files`."""
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

    entries = HfApi().list_repo_tree(repository, recursive=True, revision=commit, repo_type=kind)
    files = [entry for entry in entries if isinstance(entry, RepoFile)]
    return {file.path: file.lfs.sha256 if file.lfs else file.blob_id for file in files}


def written_before(repository: str, commit: str, kind: str) -> dict[str, list[str]]:
    """The hashes that the last push noted; none where the note is damaged."""
    try:
        note = json.loads(content_of(repository, MANIFEST, commit, kind))
        return {name: list(hashes) for name, hashes in note["files"].items()}
    except (TinyAudioError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def changes_of(added: Mapping[str, Path | bytes], remote: Remote, *, keep_rest: bool = False) -> Changes:
    """What a commit of these files does.

    What an older push wrote, is as it wrote it, and is not among them now, goes. The card is not asked about: it keeps
    its owner's words itself.

    Args:
        keep_rest: other files stay, and so does the note of what was written.
    """
    hashes = {name: hashes_of(content) for name, content in added.items() if name != CARD}
    theirs = [name for name in hashes if name in remote.files and not remote.is_ours(name)]
    overwritten = sorted(name for name in theirs if remote.files[name] not in hashes[name])
    if keep_rest:
        return Changes(added, [], overwritten)
    deleted = sorted(name for name in remote.written if name not in added and remote.is_ours(name))
    note = json.dumps({"tiny_audio": __version__, "files": hashes}, indent=1, sort_keys=True)
    return Changes({**added, MANIFEST: f"{note}\n".encode()}, deleted, overwritten)


def hashes_of(content: Path | bytes) -> list[str]:
    """The two that the Hub may know a file by: git's SHA-1 of a blob, and the SHA-256 of LFS."""
    hashes = [hashlib.sha1(b"blob %d\0" % size_of(content)), hashlib.sha256()]
    for piece in pieces_of(content):
        for one in hashes:
            one.update(piece)
    return [one.hexdigest() for one in hashes]


def pieces_of(content: Path | bytes):
    if isinstance(content, bytes):
        yield content
        return
    with open(content, "rb") as file:
        while piece := file.read(2**20):
            yield piece


def size_of(content: Path | bytes) -> int:
    """In bytes."""
    return content.stat().st_size if isinstance(content, Path) else len(content)
