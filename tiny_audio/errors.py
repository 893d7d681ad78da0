"""The error that users see as one line, and the check for an extra that is not installed."""

import importlib
from types import ModuleType


class TinyAudioError(Exception):
    """What was found, what was expected and what to do, in one line; printed as `Error: …` by the command line."""


def require_extra(module: str, extra: str) -> ModuleType:
    """Imports `module`, which the extra `extra` installs.

    Raises:
        TinyAudioError: the module is not installed; names the pip command.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != module.split(".")[0]:
            raise
        raise TinyAudioError(
            f"This needs the package {module.split('.')[0]!r}, which is not installed: "
            f"run `pip install 'tiny-audio[{extra}]'`."
        ) from error
