"""When a request over HTTP is made again, after how long, and what a server says went wrong; the same for every service."""

import json
import random
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

BACKOFF_SECONDS = 1.0  # before the second try; twice as long before each further one
LONGEST_WAIT_SECONDS = 60.0  # between two tries, whatever the server asks for
MAY_PASS = (408, 425, 429)  # and every 5xx
MESSAGE_KEYS = ("error", "detail", "message", "err_msg")  # where services say what went wrong


class TryAgain(Exception):
    """What may go well the next time: a busy server, a lost connection, a broken answer. `wait`: seconds it asks for."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


def may_pass(status: int) -> bool:
    """Whether an HTTP status is that of a server which may answer later."""
    return status in MAY_PASS or status >= 500


def delay(tried: int, asked: float) -> float:
    """Seconds to wait: what the server asks for, at least an exponential back-off with jitter, and capped."""
    backoff = BACKOFF_SECONDS * 2 ** min(tried - 1, 10) * random.uniform(0.5, 1.0)
    return min(max(backoff, asked), LONGEST_WAIT_SECONDS)


def retry_after(value: str) -> float:
    """Seconds in a header Retry-After, which may also be a date; 0 for what is neither."""
    with suppress(ValueError):
        return float(value)
    with suppress(ValueError, TypeError):
        return (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds()
    return 0.0


def message(body: bytes) -> str:
    """What a server says went wrong, wherever in its JSON it says it."""
    value: Any = body.decode("utf-8", "replace")
    with suppress(ValueError):
        value = json.loads(value)
    while isinstance(value, dict):
        value = next((value[key] for key in MESSAGE_KEYS if value.get(key)), str(value))
    return str(value)
