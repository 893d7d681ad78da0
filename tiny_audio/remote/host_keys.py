"""The host keys that are trusted: those in known_hosts, and a new one only after its fingerprint was shown and accepted."""

import base64
import hashlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tiny_audio.console import say
from tiny_audio.errors import TinyAudioError

from .openssh import Hop

if TYPE_CHECKING:
    from paramiko import HostKeys, PKey, Transport

GLOBAL_FILE = Path("/etc/ssh/ssh_known_hosts")


def known_keys(hop: Hop) -> "HostKeys":
    """What known_hosts holds."""
    from paramiko import HostKeys

    keys = HostKeys()
    for file in (*hop.known_hosts, GLOBAL_FILE):
        if file.is_file():
            keys.load(str(file))
    return keys


def prefer_known(transport: "Transport", hop: Hop) -> None:
    """Asks the machine for a key of a kind that is known: it may have several."""
    known = known_keys(hop).lookup(hop.name)
    if known is None:
        return
    kinds = [kind for name in known for kind in (("rsa-sha2-512", "rsa-sha2-256") if name == "ssh-rsa" else (name,))]
    options = transport.get_security_options()
    options.key_types = sorted(options.key_types, key=lambda kind: kind not in kinds)


def check_host_key(transport: "Transport", hop: Hop, accept_new: bool) -> None:
    """Lets nobody in between.

    Args:
        accept_new: take the key of a machine that was never met, without a question.

    Raises:
        TinyAudioError: the key is another than the known one, or nobody accepts a new one.
    """
    key = transport.get_remote_server_key()
    known = known_keys(hop)
    if known.check(hop.name, key):
        return
    shown = f"{key.get_name().removeprefix('ssh-').upper()} key {fingerprint(key)}"
    if known.lookup(hop.name) is not None:
        raise TinyAudioError(
            f"The host key of {hop} has changed: it shows the {shown}, which {hop.known_hosts[0]} does not hold. Somebody may be "
            f"listening. If the machine was made anew: ssh-keygen -f {hop.known_hosts[0]} -R '{hop.name}'"
        )
    if not accept_new:
        ask(hop, shown)
    remember(hop, key)
    say(f"{hop} has the {shown}; kept in {hop.known_hosts[0]}.")


def ask(hop: Hop, shown: str) -> None:
    """Shows the fingerprint and waits for a yes."""
    what = f"{hop} was never met before; it shows the {shown}"
    if not sys.stdin.isatty():
        raise TinyAudioError(f"{what}. Compare it, then call once with --accept-new.")
    say(f"{what}.")
    if input("Is that its fingerprint? (yes/no) ").strip().lower() not in ("y", "yes"):
        raise TinyAudioError(f"The host key of {hop} was not accepted; nothing was sent.")


def remember(hop: Hop, key: "PKey") -> None:
    """Adds a line to known_hosts and touches nothing else in it."""
    file = hop.known_hosts[0]
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    cut = file.is_file() and not file.read_bytes().endswith(b"\n") and file.stat().st_size > 0
    with file.open("a", encoding="ascii") as stream:
        stream.write("\n" * cut + f"{hop.name} {key.get_name()} {key.get_base64()}\n")


def fingerprint(key: "PKey") -> str:
    """As OpenSSH prints it."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(key.asbytes()).digest()).decode().rstrip("=")
