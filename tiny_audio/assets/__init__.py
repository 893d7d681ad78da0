"""What ships inside the package: the model `nano`, the corpus `quickstart` and a few example clips."""

from pathlib import Path

from tiny_audio.errors import TinyAudioError

NAMES = ("nano", "quickstart", "clips")


def embedded(name: str) -> Path:
    """The folder of a shipped model or corpus.

    Args:
        name: "nano" (a self-contained checkpoint), "quickstart" (`train`, `validation` and `test.parquet`) or "clips".

    Raises:
        TinyAudioError: nothing of that name is shipped.
    """
    if name not in NAMES:
        raise TinyAudioError(f"Nothing named {name!r} ships with tiny-audio; expected one of: {', '.join(NAMES)}.")
    return Path(__file__).parent / name
