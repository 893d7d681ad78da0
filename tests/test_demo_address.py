"""Recordings from addresses that visitors of the demo name: public hosts only, bounded, with errors of one line."""

import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tiny_audio.demo import address
from tiny_audio.demo.address import download, is_public
from tiny_audio.errors import TinyAudioError

CONTENT = bytes(range(256)) * 40


class Host(BaseHTTPRequestHandler):
    """Answers by the path that is asked for."""

    def do_GET(self) -> None:
        kind, _, rest = self.path[1:].partition("/")
        kind = kind.split("?")[0]
        self.send_response({"to": 302, "loop": 302, "missing": 404}.get(kind, 200))
        if kind in ("to", "loop"):
            self.send_header("Location", rest or "/loop")
        self.end_headers()
        with suppress(OSError):  # who asked has heard enough
            for start in range(0, len(CONTENT), 1000) if kind in ("file", "slow") else ():
                self.wfile.write(CONTENT[start : start + 1000])
                time.sleep(0.2 * (kind == "slow"))

    def log_message(self, *_) -> None:
        pass


@pytest.fixture(scope="module")
def host():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Host)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def is_here(ip: str) -> bool:
    return ip == "127.0.0.1"


def test_a_file_also_where_the_address_leads_on(host):
    assert download(f"{host}/file", 10**6, is_here) == CONTENT
    assert download(f"{host}/to/{host}/file?a=b", 10**6, is_here) == CONTENT
    assert download(f"{host}/to//file", 10**6, is_here) == CONTENT


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("missing", "The address answered 404"),
        ("to/http://127.0.0.2/file", "lies in a private network"),
        ("to/file:///etc/passwd", "That is no address of a recording"),
        ("loop", "leads on more than 3 times"),
        ("file", "is larger than 0.005 MB"),
    ],
)
def test_what_is_refused_on_the_way(host, path, message):
    with pytest.raises(TinyAudioError, match=message) as refused:
        download(f"{host}/{path}", 5000, is_here)
    assert "\n" not in str(refused.value)


def test_a_transfer_that_takes_too_long(host, monkeypatch):
    monkeypatch.setattr(address, "ALL_SECONDS", 0.5)
    with pytest.raises(TinyAudioError, match="took longer than 0.5 s"):
        download(f"{host}/slow", 10**6, is_here)


@pytest.mark.parametrize(
    "url",
    ["ftp://example.org/a.wav", "file:///etc/passwd", "/etc/passwd", "http://", "http://me:secret@example.org/", "http://[::1",
     "https://example.org:99999/", "http://example.org/a\r\nHost: b", "http://exämple.org/"],
)  # fmt: skip
def test_what_is_no_address(url):
    with pytest.raises(TinyAudioError, match="That is no address of a recording"):
        download(url, 10**6, lambda ip: True)


@pytest.mark.parametrize(
    "name", ["localhost", "127.1", "0x7f000001", "2130706433", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0"]
)
def test_names_of_this_machine_are_private(name):
    with pytest.raises(TinyAudioError, match="lies in a private network|gave no answer"):
        download(f"http://{name}:1/", 10**6)


@pytest.mark.parametrize(
    ("ip", "public"),
    [
        ("93.184.216.34", True),
        ("2606:2800:220:1::1", True),
        ("10.0.0.1", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("169.254.169.254", False),  # where clouds keep a machine's secrets
        ("100.64.0.1", False),
        ("224.0.0.1", False),
        ("fe80::1%eth0", False),
        ("fd00::1", False),
        ("::ffff:10.0.0.1", False),
        ("2002:7f00:1::", False),  # 127.0.0.1 by 6to4
        ("64:ff9b::7f00:1", False),  # and by NAT64
    ],
)
def test_public_addresses(ip, public):
    assert is_public(ip) is public
