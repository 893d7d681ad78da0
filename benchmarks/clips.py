"""The clips of a benchmark: a list of recordings, written as a dataset that `ta train` reads."""

import csv
import json
from pathlib import Path

from tiny_audio.errors import TinyAudioError

CHECKOUT = Path(__file__).resolve().parents[1]
SPEECH = CHECKOUT.parent / "shared" / "speech"
LIST = SPEECH / "lists" / "bench-300.txt"


def dataset_of(list_file: Path, folder: Path) -> Path:
    """A folder with the clips of a list as its train split, and one of them to validate on.

    A list holds paths that start at its parent folder's parent; beside each clip a metadata.csv has its text.

    Raises:
        TinyAudioError: the list, a clip or a text is not there.
    """
    if not list_file.is_file():
        raise TinyAudioError(
            f"{list_file} does not exist; expected a list of clips, --list PATH, or a dataset, --data PATH."
        )
    root = list_file.resolve().parents[1]
    clips = [root / line for line in list_file.read_text(encoding="utf-8").splitlines() if line]
    texts = {parent: _texts(parent) for parent in {clip.parent for clip in clips}}
    rows = [_row(clip, texts[clip.parent]) for clip in clips]
    for split, chosen in (("train", rows), ("validation", rows[:1])):
        lines = "".join(json.dumps(row) + "\n" for row in chosen)
        (folder / f"{split}.jsonl").write_text(lines, encoding="utf-8")
    return folder


def _texts(folder: Path) -> dict[str, dict[str, str]]:
    file = folder / "metadata.csv"
    if not file.is_file():
        raise TinyAudioError(f"{file} does not exist; expected the texts of the clips beside them.")
    with open(file, newline="", encoding="utf-8") as lines:
        return {row["file_name"]: row for row in csv.DictReader(lines)}


def _row(clip: Path, texts: dict[str, dict[str, str]]) -> dict[str, str | float]:
    if clip.name not in texts or not clip.is_file():
        raise TinyAudioError(f"{clip} or its line in metadata.csv is not there; expected both.")
    row = texts[clip.name]
    return {"file_name": str(clip), "text": row["text"], "duration": float(row["duration"])}
