"""What the commands of the benchmarks share: the names of the sizes, and errors in one line."""

import sys
from collections.abc import Callable

from tiny_audio import console
from tiny_audio.errors import TinyAudioError

SIZES = ("nano", "mini", "full")


def run(main: Callable[[], None]) -> None:
    """Runs a benchmark; an error that is the user's is one line and exit code 1."""
    try:
        main()
    except TinyAudioError as error:
        console.error(str(error))
        sys.exit(1)
