"""Where the page finds a clip's sound: a link to its file, relative to the page, or the file's bytes inside the page."""

import base64
import mimetypes
import os
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from tiny_audio.analysis.report.contents import Takes
from tiny_audio.analysis.runs import Run
from tiny_audio.console import say

Sound = tuple[str, str]  # media type, bytes in base64

INLINE_BYTES = 32 * 2**20  # of all files together; a page much larger opens slowly on a phone


def audio_files(runs: Sequence[Run], clips: Sequence[Takes]) -> dict[int, Path]:
    """By the clip's number its file, where one of the runs names one that is there."""
    found = {}
    for number, takes in enumerate(clips):
        named = (run.folder / take.audio for run, take in zip(runs, takes, strict=True) if take and take.audio)
        if file := next(filter(Path.is_file, named), None):
            found[number] = file
    return found


def link(file: Path, page_folder: Path) -> str:
    """The file as a relative URL."""
    return quote(Path(os.path.relpath(file.resolve(), page_folder.resolve())).as_posix())


def inlined(files: dict[int, Path], clips: Sequence[Takes]) -> dict[int, Sound]:
    """By the clip's number its sound: the worst clips first, until INLINE_BYTES are full."""
    chosen: dict[int, Sound] = {}
    left = INLINE_BYTES
    for number in sorted(files, key=lambda number: -_most_errors(clips[number])):
        size = files[number].stat().st_size
        if size <= left:
            left -= size
            kind = mimetypes.guess_type(files[number].name)[0] or "audio/wav"
            chosen[number] = (kind, base64.b64encode(files[number].read_bytes()).decode("ascii"))
    if len(chosen) < len(files):
        megabytes = INLINE_BYTES // 2**20
        say(
            f"{len(chosen)} of {len(files)} clips are inside the page, the worst first ({megabytes} MB); the others are links."
        )
    return chosen


def _most_errors(takes: Takes) -> float:
    """The highest WER of a clip; a failed clip has none."""
    return max((take.wer or 0.0 for take in takes if take is not None), default=0.0)
