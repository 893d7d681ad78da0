"""A connection to a machine by paramiko: commands as argument lists, files by SFTP, and a new link where one drops."""

import json
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any, Self, TypeVar

from tiny_audio.console import say
from tiny_audio.errors import TinyAudioError, require_extra

from .host_keys import check_host_key
from .login import SILENCE_SECONDS, Unreachable, check_identity, log_in, shake_hands, socket_to
from .openssh import UNCLEAN_SHELL, Hop, last_line, way
from .targets import Target

if TYPE_CHECKING:
    from paramiko import Channel, SFTPClient, Transport

PATIENCE_SECONDS = 900.0  # of reconnecting
MOST_DROPS = 20  # of one action
LONGEST_PAUSE = 30.0
CHUNK = 32_768  # bytes
IN_FOLDER = 'cd -- "$1" && shift && exec "$@"'  # every value is an argument, none is read as a script

Result = TypeVar("Result")


class Dropped(TinyAudioError):
    """The link broke; what was under way may or may not have happened."""


@dataclass(frozen=True)
class Output:
    """What a remote command came to."""

    exit_code: int
    stdout: str
    stderr: str

    @property
    def last(self) -> str:
        """The last line that it said."""
        return last_line(self.stderr if self.stderr.strip() else self.stdout)


class Connection:
    """A machine that commands and files go to; made by `connect`, closed by its `with`.

    Args:
        target: which.
        accept_new: trust the host key of a machine that was never met.
    """

    def __init__(self, target: Target, accept_new: bool = False):
        self.target, self.accept_new = target, accept_new
        self._transports: list[Transport] = []
        self._sftp: SFTPClient | None = None

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def open(self) -> None:
        """Connects, through its jump hosts.

        Raises:
            TinyAudioError: one does not answer, is not the known machine, or refuses the keys.
            Dropped: the link broke meanwhile.
        """
        require_extra("paramiko", "remote")
        check_identity(self.target)
        self.close()
        try:
            for hop in way(self.target):
                self._transports.append(self._reach(hop))
        except BaseException:
            self.close()
            raise

    def _reach(self, hop: Hop) -> "Transport":
        through = self._transports[-1] if self._transports else None
        transport = shake_hands(hop, socket_to(hop, through))
        try:
            check_host_key(transport, hop, self.accept_new)
            log_in(transport, hop)
        except BaseException:
            transport.close()
            raise
        return transport

    def close(self) -> None:
        """Ends the link; what was started there goes on."""
        for transport in reversed(self._transports):
            with suppress(Exception):  # what goes through a link that broke cannot even say goodbye
                transport.close()
        self._transports, self._sftp = [], None

    @property
    def transport(self) -> "Transport":
        """The link to the machine itself.

        Raises:
            Dropped: there is none now.
        """
        if not self._transports or not self._transports[-1].is_active():
            raise Dropped(f"The link to {self.target} dropped.")
        return self._transports[-1]

    def lasting(self, action: Callable[[], Result]) -> Result:
        """Does what may be done twice, again on a new link where the old one drops.

        Raises:
            TinyAudioError: the machine stays away.
        """
        for attempt in range(MOST_DROPS):
            try:
                if not self._transports:
                    self.open()
                return action()
            except Dropped as error:
                self.close()
                if attempt + 1 == MOST_DROPS:
                    raise TinyAudioError(f"{error} It did so {MOST_DROPS} times; look at the network.") from error
                self._return(error)
        raise AssertionError

    def _return(self, dropped: Dropped) -> None:
        """Connects again, with growing pauses."""
        say(f"{dropped} Connecting again …")
        patience, pause = time.monotonic() + PATIENCE_SECONDS, 0.25
        while True:
            time.sleep(pause)
            try:
                return self.open()
            except (Unreachable, Dropped) as error:
                if time.monotonic() + pause > patience:
                    raise TinyAudioError(
                        f"{error} It did not come back in {PATIENCE_SECONDS / 60:.0f} minutes."
                    ) from error
            pause = min(2 * pause, LONGEST_PAUSE)

    def run(
        self,
        command: Sequence[str],
        *,
        folder: str | None = None,
        stdin: str = "",
        on_line: Callable[[str], None] | None = None,
    ) -> Output:
        """Runs a command there and waits for it.

        Args:
            command: the program and its arguments; no shell reads them.
            folder: where to run it; None for the home.
            on_line: gets the lines of its stdout and stderr as they come, in place of `Output.stdout`.

        Raises:
            Dropped: the link broke.
        """
        with link_errors(self.target):
            channel = self.transport.open_session(timeout=SILENCE_SECONDS)
            channel.set_combine_stderr(on_line is not None)
            channel.exec_command(command_line(command, folder))
            channel.sendall(stdin.encode())
            channel.shutdown_write()
            stdout, stderr = drain(channel, on_line)
            exit_code = channel.recv_exit_status()
        if exit_code == -1 and not self.transport.is_active():
            raise Dropped(f"The link to {self.target} dropped.")
        return Output(exit_code, stdout, stderr)

    def script(self, name: str, *arguments: str) -> Any:
        """Runs a script of this package with the Python there, through its stdin, and reads the JSON of its last line.

        Raises:
            TinyAudioError: there is no usable Python.
            Dropped: the link broke.
        """
        code = resources.files("tiny_audio.remote").joinpath(name).read_text(encoding="utf-8")
        output = self.run(["python3", "-", *arguments], stdin=code)
        if output.exit_code == 127:
            raise TinyAudioError(
                f"There is no python3 on {self.target}; expected 3.8 or newer: apt-get install python3."
            )
        if output.exit_code:
            raise TinyAudioError(f"The Python of {self.target} could not look around: {output.last}")
        return json.loads(output.stdout.strip().splitlines()[-1])

    @property
    def sftp(self) -> "SFTPClient":
        """Files there; relative paths are below the home.

        Raises:
            TinyAudioError: the machine has none.
        """
        from paramiko import SFTPClient, SFTPError, SSHException

        transport = self.transport
        if self._sftp is None:
            try:
                self._sftp = SFTPClient.from_transport(transport)
            except SSHException as error:
                if not transport.is_active():
                    raise Dropped(f"The link to {self.target} dropped.") from error
                raise TinyAudioError(
                    f"{self.target} has no SFTP ({error}); use an address with whole SSH (a pod's public IP and port, not a proxy)."
                ) from error
            except SFTPError as error:
                raise TinyAudioError(f"Files cannot be sent to {self.target}: {UNCLEAN_SHELL}.") from error
            assert self._sftp is not None
            channel = self._sftp.get_channel()
            assert channel is not None
            channel.settimeout(SILENCE_SECONDS)
        return self._sftp

    def read(self, path: str, offset: int = 0, limit: int = -1) -> bytes | None:
        """A file there from a place on, `limit` bytes at most; None where there is none."""
        with link_errors(self.target, path):
            try:
                with self.sftp.open(path, "rb") as file:
                    file.seek(offset)
                    return file.read(None if limit < 0 else limit)
            except FileNotFoundError:
                return None

    def exists(self, path: str) -> bool:
        """Whether there is something of that name."""
        with link_errors(self.target, path):
            try:
                self.sftp.stat(path)
            except FileNotFoundError:
                return False
            return True

    def size(self, path: str) -> int:
        """Bytes of a file there; 0 where there is none."""
        with link_errors(self.target, path):
            try:
                return self.sftp.stat(path).st_size or 0
            except FileNotFoundError:
                return 0

    def write(self, path: str, content: bytes, mode: int = 0o644) -> None:
        """Writes a file there: empty and with its mode first, whole under its name only at the end."""
        with link_errors(self.target, path):
            temporary = f"{path}.unfinished"
            with self.sftp.open(temporary, "wb") as file:
                file.chmod(mode)
                file.write(content)
            self.sftp.posix_rename(temporary, path)

    def remove(self, path: str) -> None:
        """Deletes a file there, if it is there."""
        with link_errors(self.target, path), suppress(FileNotFoundError):
            self.sftp.remove(path)

    def make_folder(self, path: str, mode: int = 0o755) -> None:
        """Makes a folder there, with those above it."""
        with link_errors(self.target, path):
            if self.exists(path):
                return
            parent = path.rpartition("/")[0]
            if parent not in ("", "."):
                self.make_folder(parent)
            self.sftp.mkdir(path, mode)


def connect(target: Target, accept_new: bool = False) -> Connection:
    """A connection, to be used in a `with`."""
    return Connection(target, accept_new)


def command_line(command: Sequence[str], folder: str | None) -> str:
    """The one line that the login shell there reads."""
    return shlex.join(command if folder is None else ["sh", "-c", IN_FOLDER, "sh", folder, *command])


def drain(channel: "Channel", on_line: Callable[[str], None] | None) -> tuple[str, str]:
    """All that a command prints, until it closes both streams."""
    out, err = b"", b""
    channel.settimeout(0.05)
    while not (channel.eof_received or channel.closed) or channel.recv_ready() or channel.recv_stderr_ready():
        while channel.recv_stderr_ready():
            err += channel.recv_stderr(CHUNK)
        with suppress(TimeoutError):
            out += channel.recv(CHUNK)
        if on_line is not None:
            *lines, out = out.split(b"\n")
            for line in lines:
                on_line(line.decode("utf-8", "replace"))
    return out.decode("utf-8", "replace"), err.decode("utf-8", "replace")


@contextmanager
def link_errors(target: Target, path: str | None = None) -> Iterator[None]:
    """What paramiko raises when a link breaks becomes Dropped; what the machine's disk refuses, one line."""
    from paramiko import SSHException

    try:
        yield
    except (EOFError, SSHException, ConnectionError, TimeoutError) as error:
        raise Dropped(f"The link to {target} dropped.") from error
    except OSError as error:
        if "closed" in str(error):  # paramiko's words for a socket or a channel that is
            raise Dropped(f"The link to {target} dropped.") from error
        reason = error.strerror or str(error)
        hint = "; it is full, or may not be written" if reason == "Failure" else ""
        raise TinyAudioError(f"{path or 'A file'} on {target}: {reason}{hint}.") from error
