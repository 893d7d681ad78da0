"""What a local path is: which of its files hold the rows of which split."""

import re
from collections import defaultdict
from pathlib import Path

from tiny_audio.errors import TinyAudioError

from .records import MANIFEST_SUFFIXES

AUDIO_SUFFIXES = (".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a", ".aac", ".webm", ".wma", ".aiff")
METADATA_NAMES = ("metadata.csv", "metadata.jsonl", "metadata.tsv")
SPLIT_SYNONYMS = (("train", "training"), ("validation", "valid", "val", "dev"), ("test", "testing", "eval"))
WHOLE = ""  # key of the files of a dataset without splits


def find_splits(path: Path) -> dict[str, list[Path]]:
    """Files of each split of a local dataset; the one key WHOLE where the dataset has no splits.

    Known forms: a manifest or Parquet file; a folder with `metadata.csv` in it or in its subfolders (audiofolder); a
    folder of Parquet files or of manifests, each split named by its subfolder or by the start of its file names.

    Raises:
        TinyAudioError: the path is none of these; says what was found.
    """
    if path.is_file():
        return {WHOLE: [_known_file(path)]}
    metadata = _metadata_splits(path)
    if metadata:
        return metadata
    parquet = [file for file in sorted(path.rglob("*.parquet")) if not _hidden(file, path)]
    manifests = sorted(file for file in path.iterdir() if file.suffix in MANIFEST_SUFFIXES and not _hidden(file, path))
    files = parquet or manifests
    if not files:
        raise _no_rows(path)
    return _grouped(files, path)


def _known_file(path: Path) -> Path:
    if path.suffix not in (*MANIFEST_SUFFIXES, ".parquet"):
        known = ", ".join((*MANIFEST_SUFFIXES, ".parquet"))
        raise TinyAudioError(f"{path} is a {path.suffix or 'nameless'} file; a dataset file is one of {known}.")
    return path


def _metadata_splits(folder: Path) -> dict[str, list[Path]]:
    own = _metadata_file(folder)
    if own:
        return {WHOLE: [own]}
    found = {child.name: _metadata_file(child) for child in sorted(folder.iterdir()) if child.is_dir()}
    return {name: [file] for name, file in found.items() if file}


def _metadata_file(folder: Path) -> Path | None:
    return next((folder / name for name in METADATA_NAMES if (folder / name).is_file()), None)


def _grouped(files: list[Path], root: Path) -> dict[str, list[Path]]:
    splits: dict[str, list[Path]] = defaultdict(list)
    for file in files:
        splits[_split_name(file, root)].append(file)
    known = {name for names in SPLIT_SYNONYMS for name in names}
    by_folder = any(file.parent not in (root, root / "data") for file in files)
    if by_folder or any(re.split(r"[-_.]", name)[0] in known for name in splits):
        return dict(splits)
    return {WHOLE: files}


def _split_name(file: Path, root: Path) -> str:
    """`train/0000.parquet`, `data/train-00000-of-00002.parquet`, `train_part1.parquet` and `train.jsonl` are `train`."""
    folders = [name for name in file.parent.relative_to(root).parts if name != "data"]
    if folders:
        return "/".join(folders)
    return re.split(r"[-_.](?=\d|part|shard|manifest)", file.stem)[0]


def _hidden(file: Path, root: Path) -> bool:
    return any(part.startswith((".", "_")) for part in file.relative_to(root).parts)


def _no_rows(path: Path) -> TinyAudioError:
    audio = next((file for file in path.rglob("*") if file.suffix.lower() in AUDIO_SUFFIXES), None)
    if audio is None:
        return TinyAudioError(
            f"{path} is a folder without a dataset; expected metadata.csv, Parquet files or a manifest "
            f"({', '.join(MANIFEST_SUFFIXES)}) in it or in a subfolder for each split."
        )
    return TinyAudioError(
        f"{path} holds audio ({audio.relative_to(path)}) but no transcripts; "
        f"add a metadata.csv with the columns file_name,text to {path} or to a subfolder for each split."
    )


def same_split(wanted: str, found: list[str]) -> str | None:
    """The found split that is meant: the name itself, or the only one of its synonyms (`dev` for `validation`)."""
    if wanted in found:
        return wanted
    synonyms = next((names for names in SPLIT_SYNONYMS if wanted in names), ())
    candidates = [name for name in found if name in synonyms]
    return candidates[0] if len(candidates) == 1 else None
