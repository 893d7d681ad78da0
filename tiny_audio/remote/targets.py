"""Which machine is meant: host, port, user, key and folder, given or kept by name in remotes.toml."""

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path, PurePosixPath

from tiny_audio.console import say
from tiny_audio.errors import TinyAudioError

DEFAULT_PATH = "tiny-audio"  # below the remote home
HOST = re.compile(r"[A-Za-z0-9_:][\w.:%-]*", re.ASCII)
USER = re.compile(r"[A-Za-z0-9_][\w.@+\\-]*\$?", re.ASCII)
NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,63}", re.ASCII)


@dataclass(frozen=True)
class Target:
    """A machine and the project's folder there; what is None is as ~/.ssh/config says."""

    host: str
    port: int | None = None
    user: str | None = None
    identity: str | None = None
    path: str = DEFAULT_PATH
    ssh_config: str | None = None  # in place of ~/.ssh/config
    dollars_per_hour: float | None = None
    pod: str | None = None  # its id, of a pod of RunPod
    name: str | None = None

    def __post_init__(self) -> None:
        check(HOST, self.host, "a host", "a name or an address")
        if self.user is not None:
            check(USER, self.user, "a user", "a user's name")
        if self.port is not None and not 0 < self.port < 65_536:
            raise TinyAudioError(f"{self.port} is no port; expected 1 to 65535.")
        if self.host.count(":") == 1:  # an IPv6 address has more
            raise TinyAudioError(f"{self.host!r} is not a host; expected one without its port: give that by --port.")
        parts = self._below.parts
        if not parts or parts[-1] in ("/", "//") or ".." in parts or parts[0].startswith("~") or "\0" in self.path:
            expected = "one of its own, in the home or absolute, without .. and ~USER"
            raise TinyAudioError(f"{self.path!r} is no folder for the project; expected {expected}.")

    @property
    def folder(self) -> str:
        """The project's folder there: absolute, or ./… below the home, so that it is never taken for an option."""
        path = self._below
        return str(path) if path.is_absolute() else f"./{path}"

    @property
    def _below(self) -> PurePosixPath:
        in_home = self.path.startswith("~/")
        return PurePosixPath(self.path[2:].lstrip("/") if in_home else self.path)

    def options(self) -> list[str]:
        """What names this target on `ta remote`'s command lines."""
        if self.name is not None:
            return ["--host", self.name]
        given = {"port": self.port, "user": self.user, "identity": self.identity, "ssh-config": self.ssh_config}
        given["path"] = None if self.path == DEFAULT_PATH else self.path
        options = [f"--{option}={value}" for option, value in given.items() if value is not None]
        return [f"--host={self.host}", *options]

    def __str__(self) -> str:
        address = self.host if self.port is None else f"{self.host}:{self.port}"
        return address if self.user is None else f"{self.user}@{address}"


def check(pattern: re.Pattern[str], value: str, what: str, expected: str) -> str:
    """The value, if it is one.

    Raises:
        TinyAudioError: it is not.
    """
    if not pattern.fullmatch(value):
        raise TinyAudioError(f"{value!r} is not {what}; expected {expected}.")
    return value


def remotes_file() -> Path:
    """Where named targets are kept."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "tiny-audio" / "remotes.toml"


def read_remotes() -> dict[str, Target]:
    """The named targets.

    Raises:
        TinyAudioError: the file cannot be understood.
    """
    file = remotes_file()
    if not file.is_file():
        return {}
    try:
        tables = tomllib.loads(file.read_text(encoding="utf-8"))
        return {name: Target(**{**table, "name": name}) for name, table in tables.items()}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, TypeError) as error:
        raise TinyAudioError(f"{file} is damaged ({error}); mend it, or delete it and `ta remote add` anew.") from error


def add_remote(name: str, target: Target) -> None:
    """Keeps a target under a name; one of that name is replaced."""
    check(NAME, name, "a name for a remote", "letters, digits, '.', '_' and '-', 64 at most")
    write_remotes({**read_remotes(), name: target})


def remove_remote(name: str) -> None:
    """Forgets a name; nothing changes on the machine.

    Raises:
        TinyAudioError: there is none of that name.
    """
    remotes = read_remotes()
    if name not in remotes:
        raise TinyAudioError(f"No machine has the name {name} (known: {', '.join(remotes) or 'none'}).")
    write_remotes({known: target for known, target in remotes.items() if known != name})


def write_remotes(remotes: Mapping[str, Target]) -> None:
    """The file as a whole, or as it was."""
    file = remotes_file()
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_suffix(".unfinished")
    temporary.write_text("\n".join(map(as_toml, remotes, remotes.values())), encoding="utf-8")
    temporary.replace(file)


def as_toml(name: str, target: Target) -> str:
    """A table of remotes.toml."""
    values = {field.name: getattr(target, field.name) for field in fields(target) if field.name != "name"}
    lines = [f"{key} = {toml_value(value)}\n" for key, value in values.items() if value is not None]
    return f"[{toml_value(name)}]\n{''.join(lines)}"


def toml_value(value: str | float) -> str:
    """A string or a number in TOML; JSON's escapes of ASCII are TOML's too, but for those above the BMP and DEL."""
    if not isinstance(value, str):
        return repr(value)
    plain = "".join(c if c.isprintable() and c not in '"\\' else f"\\U{ord(c):08x}" for c in value)
    return f'"{plain}"'


def find_target(host: str | None, **given: str | float | None) -> Target:
    """The target that the options of a command mean.

    Args:
        host: a name of remotes.toml, a host of ~/.ssh/config, a host, or USER@HOST; None for the only named one.
        given: what is said of it on the command line; None for what is not.

    Raises:
        TinyAudioError: none is named and there is not exactly one; or a value is none that could be meant.
    """
    remotes = read_remotes()
    changes = {key: value for key, value in given.items() if value is not None}
    if host is None:
        if len(remotes) != 1:
            known = ", ".join(remotes) or "none is known yet: `ta remote add NAME USER@HOST`"
            raise TinyAudioError(f"No machine is named; expected --host NAME or --host HOST ({known}).")
        (host,) = remotes
        say(f"On {host}, the only machine that has a name.")
    if host in remotes:
        named = remotes[host]
        return replace(named, **changes, name=None) if changes else named  # type: ignore[arg-type]
    return parse_address(host, changes)


def parse_address(address: str, given: Mapping[str, str | float]) -> Target:
    """A target from [USER@]HOST and what else is said of it."""
    user, _, host = address.rpartition("@")
    return Target(host, **({"user": user} if user else {}) | dict(given))  # type: ignore[arg-type]
