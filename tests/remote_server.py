"""A real sshd on loopback for the tests: its own keys, port, known_hosts and home, all in one folder, and gone after them."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tiny_audio.remote.targets import Target

LIFETIME = "900"  # seconds, should nobody stop it
WRAPPER = """#!/bin/sh
# every session begins in the server's own home
cd "$HOME" || exit 1
if [ -n "$SSH_ORIGINAL_COMMAND" ]; then exec /bin/sh -c "$SSH_ORIGINAL_COMMAND"; else exec /bin/sh; fi
"""
CONFIG = """
ListenAddress 127.0.0.1
Port {port}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
PidFile none
StrictModes no
UsePAM no
PermitRootLogin yes
PasswordAuthentication no
KbdInteractiveAuthentication no
MaxStartups 100
MaxSessions 100
LogLevel ERROR
Subsystem sftp {sftp}
ForceCommand {folder}/wrapper
SetEnv {environment}
"""
CLIENT = """
Host *
  UserKnownHostsFile {folder}/known_hosts
  GlobalKnownHostsFile /dev/null
  IdentityFile {folder}/client_key
  IdentitiesOnly yes
"""


@dataclass
class Server:
    """A running sshd; what its sessions see are `home` and the programs of `bin` before those of the system."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    port: int = 0
    process: subprocess.Popen | None = None

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def bin(self) -> Path:
        return self.folder / "bin"

    @property
    def ssh_config(self) -> Path:
        return self.folder / "ssh_config"

    def target(self, **changes) -> Target:
        return Target(**{"host": "127.0.0.1", "port": self.port, "ssh_config": str(self.ssh_config)} | changes)

    def make(self) -> None:
        """Keys, configurations and folders."""
        self.home.mkdir(parents=True)
        self.bin.mkdir()
        (self.bin / "python3").symlink_to(Path(sys.base_prefix) / "bin" / "python3")
        for name in ("host_key", "client_key"):
            make_key(self.folder / name)
        shutil.copy(self.folder / "client_key.pub", self.folder / "authorized_keys")
        (self.folder / "wrapper").write_text(WRAPPER)
        (self.folder / "wrapper").chmod(0o755)
        self.ssh_config.write_text(CLIENT.format(folder=self.folder))
        self.port = free_port()

    def start(self) -> None:
        """Starts sshd and waits until it answers."""
        environment = {
            "HOME": self.home, "PATH": f"{self.bin}:/usr/bin:/bin", "PYTHONPATH": sysconfig.get_path("purelib"),
            "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1", "TMUX_TMPDIR": self.folder, **self.environment,
        }  # fmt: skip
        settings = " ".join(f'"{name}={value}"' for name, value in environment.items())
        text = CONFIG.format(port=self.port, folder=self.folder, sftp=sftp_server(), environment=settings)
        (self.folder / "sshd_config").write_text(text)
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)
        command = [
            "timeout",
            LIFETIME,
            shutil.which("sshd") or "/usr/sbin/sshd",
            "-D",
            "-e",
            "-f",
            self.folder / "sshd_config",
        ]
        self.process = subprocess.Popen(command, stderr=(self.folder / "sshd.log").open("a"))
        until(lambda: answers(self.port), "sshd to answer")

    def stop(self) -> None:
        """Stops sshd; sessions go on, as those of a real one."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait(20)
            self.process = None

    def drop_links(self) -> int:
        """Kills the processes of sshd that serve sessions; how many there were."""
        children = [pid for pid in descendants(self.process.pid) if name_of(pid) == "sshd"]
        sessions = [pid for pid in children if parent_of(pid) != self.process.pid]
        for pid in sessions:
            with suppress(ProcessLookupError):  # one may end with another that it goes through
                os.kill(pid, signal.SIGKILL)
        return len(sessions)


def make_key(path: Path) -> None:
    path.unlink(missing_ok=True)
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path, "-C", "test"]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


def sftp_server() -> str:
    return next(
        path for path in ("/usr/lib/openssh/sftp-server", "/usr/libexec/openssh/sftp-server") if Path(path).is_file()
    )


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as sock:
            return sock.recv(4) == b"SSH-"
    except OSError:
        return False


def until(condition, what: str, seconds: float = 60.0) -> None:
    """Waits for it."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds} s for {what}"
        time.sleep(0.05)


def stat_of(pid: int) -> list[str]:
    """Fields of /proc/PID/stat from the state on; the name before them may hold anything."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def parent_of(pid: int) -> int:
    try:
        return int(stat_of(pid)[1])
    except OSError:
        return 0


def name_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def descendants(pid: int) -> list[int]:
    """All processes below one."""
    parents = {int(path.name): parent_of(int(path.name)) for path in Path("/proc").glob("[0-9]*")}
    found, level = [], [pid]
    while level:
        level = [child for child, parent in parents.items() if parent in level]
        found += level
    return found
