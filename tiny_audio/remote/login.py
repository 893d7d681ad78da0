"""The way into a machine: TCP, through others where it must be, the handshake, and a key that is taken."""

import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tiny_audio.errors import TinyAudioError

from .host_keys import prefer_known
from .openssh import CONNECT_SECONDS, Hop, last_line
from .targets import Target, read_remotes

if TYPE_CHECKING:
    from paramiko import PKey, Transport

SILENCE_SECONDS = 60.0  # a link on which an answer takes so long is taken for dropped


class Unreachable(TinyAudioError):
    """Nothing answers there now; it may later."""


def socket_to(hop: Hop, through: "Transport | None") -> Any:
    """A TCP connection, through the machine before on the way if there is one."""
    from paramiko import SSHException

    try:
        if through is None:
            sock = socket.create_connection((hop.host, hop.port), timeout=CONNECT_SECONDS)
            if hasattr(
                socket, "TCP_USER_TIMEOUT"
            ):  # Linux: else a link without a word is noticed after a quarter of an hour
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(1000 * SILENCE_SECONDS))
            return sock
        return through.open_channel("direct-tcpip", (hop.host, hop.port), ("127.0.0.1", 0), timeout=CONNECT_SECONDS)
    except socket.gaierror as error:
        names = ", ".join(read_remotes()) or "none"
        raise Unreachable(
            f"{hop.host} is not known here ({error.strerror}); check the name (of `ta remote add`: {names}), or the network."
        ) from error
    except (OSError, SSHException) as error:
        reason = getattr(error, "strerror", None) or str(error) or "no answer"
        raise Unreachable(f"Nothing answers at {hop} ({reason}); check host and port, and that it runs.") from error


def shake_hands(hop: Hop, sock: Any) -> "Transport":
    """An encrypted link, whose other end is not yet known."""
    import logging

    from paramiko import SSHException, Transport

    logging.getLogger("paramiko").setLevel(logging.CRITICAL)  # it prints tracebacks of what is worded here
    transport = Transport(sock)
    transport.set_keepalive(10)
    prefer_known(transport, hop)
    try:
        transport.start_client(timeout=CONNECT_SECONDS)
    except (SSHException, EOFError, OSError) as error:
        transport.close()
        raise Unreachable(
            f"What answers at {hop} does not speak SSH ({last_line(str(error))}); check the port."
        ) from error
    return transport


def log_in(transport: "Transport", hop: Hop) -> None:
    """Shows the keys of the configuration, then those of the agent, until one is taken."""
    from paramiko import Agent, AuthenticationException, SSHException

    tried, locked = [], []
    files = [(str(path), load_key(path)) for path in hop.identities if path.is_file() and path.suffix != ".pub"]
    wanted = public_keys(hop)
    agent = [
        (f"agent: {key.name}", key)
        for key in Agent().get_keys()
        if not hop.only_identities or key.get_base64() in wanted
    ]
    for name, key in [*files, *agent]:
        if key is None:
            locked.append(name)
            continue
        tried.append(name)
        try:
            if not transport.auth_publickey(hop.user, key):
                return
        except AuthenticationException:
            continue
        except (SSHException, EOFError):
            break  # too many for its taste
    shown = f"tried: {', '.join(tried) or 'none, there was no key'}" + (
        f"; locked by a passphrase or unreadable, so `ssh-add` them: {', '.join(locked)}" if locked else ""
    )
    raise TinyAudioError(f"{hop} takes none of the keys ({shown}); name the right one by --identity.")


def check_identity(target: Target) -> None:
    """That the key that was named is there; of an agent's key the public half is enough.

    Raises:
        TinyAudioError: it is not.
    """
    if target.identity is None:
        return
    path = Path(target.identity).expanduser()
    if not path.is_file() and not Path(f"{path}.pub").is_file():
        raise TinyAudioError(f"{path} is not there; expected a private key: name another by --identity, or none.")


def public_keys(hop: Hop) -> set[str]:
    """What the public halves of its identities hold, in base 64: an agent may have the private ones."""
    files = [path if path.suffix == ".pub" else path.with_name(f"{path.name}.pub") for path in hop.identities]
    return {word for path in files if path.is_file() for word in path.read_text("utf-8", "replace").split()}


def load_key(path: Any) -> "PKey | None":
    """A private key; None where it cannot be read without a passphrase."""
    from paramiko import PKey, SSHException

    try:
        return PKey.from_path(path)
    except (SSHException, OSError, ValueError, TypeError):
        return None
