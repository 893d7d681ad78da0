"""What OpenSSH's own configuration says of a host, and the ssh command that rsync goes through."""

import subprocess
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from tiny_audio.errors import TinyAudioError

from .targets import Target, parse_address

CONNECT_SECONDS = 20
UNCLEAN_SHELL = "its login shell prints something by itself: mend ~/.bashrc there"


@dataclass(frozen=True)
class Hop:
    """One machine on the way, as `ssh -G` resolves it: aliases, Include and Match are OpenSSH's business."""

    name: str  # as known_hosts has it
    host: str
    port: int
    user: str
    identities: tuple[Path, ...]
    only_identities: bool  # of the agent's keys these alone
    known_hosts: tuple[Path, ...]  # the first is written to
    jumps: tuple[Target, ...]

    def __str__(self) -> str:
        return f"{self.user}@{self.host}:{self.port}"


def arguments(target: Target) -> list[str]:
    """The options that tell ssh who is meant."""
    given = {"-F": target.ssh_config, "-p": target.port, "-l": target.user, "-i": target.identity}
    return [text for flag, value in given.items() if value is not None for text in (flag, str(value))]


def resolve(target: Target) -> Hop:
    """What ssh would do to get there.

    Raises:
        TinyAudioError: ssh is not installed, refuses its configuration, or would go through a program of its own.
    """
    command = ["ssh", "-G", *arguments(target), "--", target.host]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise TinyAudioError("ssh is not installed here; install OpenSSH's client (openssh-client).") from error
    if result.returncode:
        raise TinyAudioError(f"ssh cannot read its configuration for {target}: {last_line(result.stderr)}")
    said = defaultdict(list)
    for line in result.stdout.splitlines():
        key, _, value = line.partition(" ")
        said[key].append(value)
    if said["proxycommand"] and said["proxycommand"] != ["none"]:
        raise TinyAudioError(f"{target} is reached by a ProxyCommand, which is not supported; use ProxyJump.")
    return Hop(
        name=(said["hostkeyalias"] or [bracketed(said["hostname"][0], int(said["port"][0]))])[0],
        host=said["hostname"][0],
        port=int(said["port"][0]),
        user=said["user"][0],
        identities=tuple(Path(name).expanduser() for name in said["identityfile"]),
        only_identities=said["identitiesonly"] == ["yes"],
        known_hosts=known_hosts(" ".join(said["userknownhostsfile"]).split(), target),
        jumps=jumps(said["proxyjump"], target),
    )


def known_hosts(names: list[str], target: Target) -> tuple[Path, ...]:
    """Files that can keep host keys; some configurations name /dev/null, which trusts everybody."""
    paths = [Path(name).expanduser() for name in names if name != "none"]
    kept = tuple(path for path in paths if path.is_file() or not path.exists())
    if not kept:
        raise TinyAudioError(
            f"ssh's configuration keeps no host keys for {target} (UserKnownHostsFile {' '.join(names)}); name a file there, or another "
            "--ssh-config."
        )
    return kept


def way(target: Target) -> list[Hop]:
    """The machines to go through, and the target: the first may be behind others itself, as OpenSSH has it."""
    hop = resolve(target)
    return [*(way(hop.jumps[0]) if hop.jumps else []), *map(resolve, hop.jumps[1:]), hop]


def bracketed(host: str, port: int) -> str:
    """A host's name in known_hosts."""
    return host if port == 22 else f"[{host}]:{port}"


def jumps(said: list[str], target: Target) -> tuple[Target, ...]:
    """The machines to go through, the nearest first: [USER@]HOST[:PORT], with commas between, or ssh:// addresses."""
    hops = [hop.removeprefix("ssh://") for value in said if value != "none" for hop in value.split(",")]
    return tuple(jump(hop, target.ssh_config) for hop in hops)


def jump(address: str, ssh_config: str | None) -> Target:
    """One of them."""
    name, _, port = ("", "", "") if address.endswith("]") else address.rpartition(":")
    if not name or (":" in name and not name.endswith("]")):  # no port, or an IPv6 address without brackets
        name, port = address, ""
    given = {"port": int(port) if port else None, "ssh_config": ssh_config}
    return parse_address(
        name.replace("[", "").replace("]", ""), {key: value for key, value in given.items() if value is not None}
    )


def rsync_shell(target: Target) -> str:
    """rsync's `--rsh`: ssh that asks nothing, and trusts only the host keys that `connect` has checked."""
    options = ["BatchMode=yes", "StrictHostKeyChecking=yes", f"ConnectTimeout={CONNECT_SECONDS}"]
    alive = ["ServerAliveInterval=10", "ServerAliveCountMax=3"]
    flags = [text for option in (*options, *alive) for text in ("-o", option)]
    return " ".join(map(rsync_quote, ["ssh", *arguments(target), *flags]))


def rsync_quote(argument: str) -> str:
    """An argument as rsync splits its `--rsh`: in quotes, a quote in it doubled."""
    return "'" + argument.replace("'", "''") + "'"


def last_line(text: str) -> str:
    """The last line that says something."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "it said nothing")
