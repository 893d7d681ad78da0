"""Reading and writing on the Hub: token and name that it takes, texts of files, and what its refusals mean, in one line."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tiny_audio.errors import TinyAudioError

REFUSALS = (400, 401, 402, 403, 404)  # HTTP statuses that trying again would not change
ADVICE = {
    400: "mend what it names",
    401: "the token is not valid: run `hf auth login` or set HF_TOKEN",
    402: "it costs money: set up billing at the Hub, or ask for less",
    403: "the token may not do that there: use one that may write, of an account that owns the name",
    404: "there is no such repository, or the token may not see it: check the name",
    409: "the name is taken, or it was changed at the same moment: look at it and run the command again",
    412: "it was changed at the same moment: look at it and run the command again",
    429: "too many requests: wait some minutes and run the command again",
}
SERVER_ADVICE = "the Hub is not well: run the command again later; what is uploaded already is not uploaded again"
NETWORK_ADVICE = "check the network and run the command again; what is uploaded already is not uploaded again"


_XET_STATUS = re.compile(r"HTTP status (?:client|server) error \((\d{3})")  # in the ConnectionErrors of hf_xet


def require_access(repository: str, what: str) -> None:
    """Fails early where writing could not work.

    Args:
        repository: OWNER/NAME, or NAME for the token's own account.
        what: the command or option that asks for it, for the message.

    Raises:
        TinyAudioError: no Hub id, the Hub is switched off, or no token that can be sent.
    """
    from huggingface_hub import constants, get_token
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise TinyAudioError(
            f"{what} got {repository!r}; expected OWNER/NAME of a repository on the Hub: letters, digits, '_', and between "
            "them '-' and '.', of 96 characters at most, without '--', '..' and '.git' at the end."
        ) from error
    if constants.HF_HUB_OFFLINE:
        raise TinyAudioError(f"{what} needs the network and HF_HUB_OFFLINE=1 forbids it; leave out one of them.")
    token = get_token()
    if token is None:
        raise TinyAudioError(f"{what} needs a token of the Hub and there is none; run `hf auth login` or set HF_TOKEN.")
    if not token.isascii():
        raise TinyAudioError(f"{what} needs a token of the Hub, and this one holds what no token does; {ADVICE[401]}.")


def content_of(repository: str, name: str, revision: str | None, kind: str = "model") -> str:
    """The text of a file, its line ends as they are.

    Raises:
        TinyAudioError: it is not UTF-8.
    """
    from huggingface_hub import hf_hub_download

    content = Path(hf_hub_download(repository, name, revision=revision, repo_type=kind)).read_bytes()
    return as_text(content, f"{name} of {repository}")


def as_text(content: bytes, what: str) -> str:
    """A file's text, its line ends as they are.

    Raises:
        TinyAudioError: it is not UTF-8.
    """
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise TinyAudioError(f"{what} is no UTF-8 text (byte {error.start}); write it as UTF-8 there first.") from error


@contextmanager
def hub_errors(failed: str) -> Iterator[None]:
    """What the Hub or the network refuses becomes one line: `failed` (as "Nothing was pushed to me/mine"), why, what to do.

    Raises:
        TinyAudioError: in place of HfHubHTTPError, httpx2.HTTPError and the OSErrors of huggingface_hub.
    """
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    refusals = (HfHubHTTPError, httpx2.HTTPError, HFValidationError, OSError)
    try:
        yield
    except (*refusals, RuntimeError) as error:
        cause = error.__cause__ if type(error) is RuntimeError else error  # one that ended the upload of a file
        if not isinstance(cause, refusals):
            raise
        raise TinyAudioError(f"{failed} ({reason(cause)}); {advice(cause)}.") from error


def status(error: BaseException) -> int | None:
    """The HTTP status of an answer of the Hub; None where there was none."""
    response = getattr(error, "response", None)
    if response is not None:
        return response.status_code
    said = _XET_STATUS.search(str(error))
    return int(said[1]) if said else None


def reason(error: BaseException) -> str:
    """The first line of what was said, or the name of the error."""
    said = getattr(error, "server_message", None) or str(error).strip()
    line = (said.splitlines() or [type(error).__name__])[0].rstrip(".")
    code = status(error)
    return line if code is None or str(code) in line else f"HTTP {code}: {line}"


def advice(error: BaseException) -> str:
    """What to do about it."""
    from huggingface_hub.errors import GatedRepoError, HFValidationError

    if isinstance(error, GatedRepoError):
        return "ask for access on its page"
    if isinstance(error, HFValidationError):
        return "check the name"
    code = status(error)
    if code is None:
        file = getattr(error, "filename", None)
        return NETWORK_ADVICE if file is None else f"check {file}"
    return ADVICE.get(code, SERVER_ADVICE if code >= 500 else "check the command")
