"""How a benchmark ends when the user asked for what is not there: with one line."""

import sys
from collections.abc import Callable

from tiny_audio import console
from tiny_audio.errors import TinyAudioError


def run(main: Callable[[], None]) -> None:
    """Runs a benchmark; an error that is the user's is one line and exit code 1."""
    try:
        main()
    except TinyAudioError as error:
        console.error(str(error))
        sys.exit(1)
