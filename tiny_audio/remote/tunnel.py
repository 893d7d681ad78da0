"""TensorBoard of the machine in the browser here: it runs there, and a port of this machine leads to it."""

import re
import select
import socketserver
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from tiny_audio.console import say
from tiny_audio.errors import TinyAudioError

from .connection import CHUNK, Connection, command_line, link_errors
from .setup import IN_ENVIRONMENT

if TYPE_CHECKING:
    from paramiko import Channel, Transport

START_SECONDS = 120.0
ADDRESS = re.compile(r"http://(?:127\.0\.0\.1|localhost):(\d+)")


def tensorboard(connection: Connection, logs: str, port: int) -> None:
    """Runs TensorBoard there and leads a port here to it, until Ctrl-C.

    Args:
        logs: the folder of its curves, below the project's.
        port: of this machine; 0 for any that is free.

    Raises:
        TinyAudioError: it does not start, the port is taken, or the link drops.
    """
    with link_errors(connection.target), running(connection, logs) as (channel, there):
        with tunnel(connection.transport, there, port) as here:
            say(f"TensorBoard of {connection.target}: http://127.0.0.1:{here} (Ctrl-C ends it)")
            while not channel.closed:
                time.sleep(0.2)
        raise TinyAudioError(f"TensorBoard on {connection.target} has ended, or the link dropped; call it again.")


@contextmanager
def running(connection: Connection, logs: str) -> "Iterator[tuple[Channel, int]]":
    """TensorBoard on a terminal of its own, with which it ends; its channel, and its port there."""
    command = ["python", "-m", "tensorboard.main", "--logdir", logs, "--host", "127.0.0.1", "--port", "0"]
    channel = connection.transport.open_session()
    channel.get_pty(width=200)
    channel.exec_command(command_line([*IN_ENVIRONMENT, *command], connection.target.folder))
    said, deadline = "", time.monotonic() + START_SECONDS
    try:
        channel.settimeout(START_SECONDS)
        while not (found := ADDRESS.search(said)):
            piece = channel.recv(CHUNK)
            if not piece or time.monotonic() > deadline:
                lines = said.strip().splitlines() or ["it said nothing"]
                raise TinyAudioError(f"TensorBoard does not start on {connection.target}: {lines[-1]}")
            said += piece.decode("utf-8", "replace")
        yield channel, int(found[1])
    finally:
        channel.close()


@contextmanager
def tunnel(transport: "Transport", there: int, port: int) -> Iterator[int]:
    """Leads connections to a port of this machine to one of the other's loopback; gives the port here."""

    class Forward(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with suppress(Exception):  # a browser that goes away, a link that drops
                through = transport.open_channel("direct-tcpip", ("127.0.0.1", there), self.client_address)
                carry(self.request, through)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads, allow_reuse_address = True, True

    from threading import Thread

    try:
        server = Server(("127.0.0.1", port), Forward)
    except OSError as error:
        raise TinyAudioError(f"Port {port} is taken here ({error.strerror}); give another --local-port.") from error
    with server:
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()


def carry(near: Any, far: "Channel") -> None:
    """Bytes both ways, until one side ends."""
    with far:
        while True:
            ready, _, _ = select.select([near, far], [], [])
            for source, sink in ((near, far), (far, near)):
                if source in ready:
                    piece = source.recv(CHUNK)
                    if not piece:
                        return
                    sink.sendall(piece)
