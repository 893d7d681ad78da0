"""Hashes of clips by their stored bytes; those of files are remembered until the file changes."""

import json
import os
from collections.abc import Callable
from hashlib import blake2b, file_digest
from pathlib import Path

import numpy as np

from .corpus import Row, fetched, load_row

DIGEST_BYTES = 16


def audio_hash(row: Row, file_hash: Callable[[str], str]) -> str:
    """blake2b of a clip's stored bytes, or of its waveform where none are stored, and of its place in the recording.

    Raises:
        ValueError, OSError: as `load_row`.
    """
    audio = fetched(row.audio)
    if isinstance(audio, dict) and audio.get("array") is None:
        audio = audio.get("bytes") or audio.get("path")
    if isinstance(audio, bytes):
        stored = _digest(audio)
    elif isinstance(audio, str) and "://" not in audio:
        stored = file_hash(audio)
    else:
        return _digest(np.ascontiguousarray(load_row(row).waveform).data)
    return _digest(repr((stored, *(() if row.offset is None else (row.offset, row.duration)))).encode())


def _digest(data: bytes | memoryview) -> str:
    return blake2b(data, digest_size=DIGEST_BYTES).hexdigest()


class FileHashes:
    """blake2b of files' bytes by path; a file of the same size and date as before is not read again.

    Args:
        memory: JSON file of what is known; one that cannot be read is begun anew.
    """

    def __init__(self, memory: Path) -> None:
        self.memory = memory
        try:
            self._known: dict[str, list] = dict(json.loads(memory.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            self._known = {}

    def __call__(self, path: str | Path) -> str:
        """The file's hash. OSError: it cannot be read."""
        path, status = os.path.abspath(path), os.stat(path)
        known, stamp = self._known.get(path), [status.st_size, status.st_mtime_ns]
        if known is None or known[:2] != stamp:
            with open(path, "rb") as file:
                digest = file_digest(file, lambda: blake2b(digest_size=DIGEST_BYTES)).hexdigest()
            known = self._known[path] = [*stamp, digest]
        return known[2]

    def save(self) -> None:
        """Writes down what is known now; where that cannot be, the files are read again next time."""
        temporary = self.memory.with_suffix(f".{os.getpid()}.unfinished")
        try:
            temporary.write_text(json.dumps(self._known), encoding="utf-8")
            temporary.replace(self.memory)
        except OSError:
            temporary.unlink(missing_ok=True)
