"""A recording from an address that a visitor names: public hosts only, and no more than is allowed."""

import ipaddress
import socket
import time
from collections.abc import Callable
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from urllib.parse import SplitResult, urljoin, urlsplit

from tiny_audio.errors import TinyAudioError

MAX_REDIRECTS = 3
STEP_SECONDS, ALL_SECONDS = 10.0, 60.0  # of waiting for an answer, and of the whole transfer
BLOCK_BYTES = 1 << 16
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


def is_public(address: str) -> bool:
    """Whether an IP address belongs to the internet: not loopback, private, link-local, reserved or multicast."""
    ip: ipaddress.IPv4Address | ipaddress.IPv6Address = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):  # which may stand for an IPv4 address
        ip = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF) if ip in NAT64 else ip.ipv4_mapped or ip.sixtofour or ip
    return ip.is_global and not ip.is_multicast


def download(url: str, max_bytes: int, allowed: Callable[[str], bool] = is_public) -> bytes:
    """The bytes behind an http or https address.

    Args:
        allowed: says of an IP address whether it may be asked; checked for each redirect, and of the connection itself.

    Raises:
        TinyAudioError: another scheme, a host that is not allowed, no answer, an error, too large or too slow.
    """
    until = time.monotonic() + ALL_SECONDS
    for _ in range(MAX_REDIRECTS + 1):
        try:
            connection, response = _ask(_checked(url), allowed)
            with connection, response:
                if response.status not in (301, 302, 303, 307, 308):
                    return _body(response, max_bytes, until)
                url = urljoin(url, response.headers.get("Location", ""))
        except (OSError, HTTPException, UnicodeError) as error:
            raise TinyAudioError(f"The address gave no answer ({error or type(error).__name__}); check it.") from error
    raise TinyAudioError(f"The address leads on more than {MAX_REDIRECTS} times; name the recording itself.")


def _checked(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        plain = parts.scheme in ("http", "https") and parts.hostname and "@" not in parts.netloc and parts.port != 0
    except ValueError:
        plain = None
    if not plain or not url.isascii() or not url.isprintable():
        raise TinyAudioError("That is no address of a recording; expected http:// or https:// and a public host.")
    return parts


def _ask(parts: SplitResult, allowed: Callable[[str], bool]) -> tuple[socket.socket, HTTPResponse]:
    secure = parts.scheme == "https"
    host, port = str(parts.hostname), parts.port or (443 if secure else 80)
    for *_, found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        _require(allowed, str(found[0]))
    connection = (HTTPSConnection if secure else HTTPConnection)(host, port, timeout=STEP_SECONDS)
    connection.connect()
    _require(allowed, connection.sock.getpeername()[0])  # the name may mean another address by now
    connection.request("GET", f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}")
    return connection.sock, connection.getresponse()


def _require(allowed: Callable[[str], bool], address: str) -> None:
    if not allowed(address):
        raise TinyAudioError("That address lies in a private network; expected a public host.")


def _body(response: HTTPResponse, max_bytes: int, until: float) -> bytes:
    if response.status != 200:
        raise TinyAudioError(f"The address answered {response.status} {response.reason}; check it.")
    blocks, size = [], 0
    while block := response.read1(BLOCK_BYTES):
        blocks.append(block)
        size += len(block)
        if size > max_bytes:
            raise TinyAudioError(f"The recording at that address is larger than {max_bytes / 10**6:g} MB.")
        if time.monotonic() > until:
            raise TinyAudioError(f"The recording took longer than {ALL_SECONDS:g} s to come; upload it as a file.")
    return b"".join(blocks)
