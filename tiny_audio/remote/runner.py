"""Runs one job on the machine that it was sent to: the command, its log and state as files, its limits, and what comes after.

It is sent by itself, and needs Linux, the standard library and Python 3.8:

    python3 .ta/runner.py .ta/jobs/NAME [--tmux]

It returns at once; what it watches over, and what it writes, is in docs/remote-pods.md.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import fcntl
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any, Iterator

KEEP = "--keep"  # EXIT_FILE COMMAND…: this file as the keeper of a command
STARTING, RUNNING = "starting", "running"
FINISHED, FAILED, STOPPED, OUT_OF_TIME, IDLE = ENDS = ("finished", "failed", "stopped", "out-of-time", "idle")

LOOK_SECONDS = 0.1  # between two looks at the command and at the file `stop`
HEARTBEAT_SECONDS = 2.0  # between two states on the disk
STALE_SECONDS = 10.0  # without a heartbeat: the runner has gone
GRACE_SECONDS = 600.0  # from SIGTERM to SIGKILL, for a step, a validation and a checkpoint
KILL_SECONDS = 30.0  # after SIGKILL; what a driver holds for longer must not keep the machine from being stopped
ACTIVITY_SECONDS = 10.0  # between two looks for idleness, at most
BUSY_GPU = 5  # per cent of utilisation
BUSY_CPU = 0.02  # CPU seconds a second
HOLD_SECONDS, LONGEST_HOLD_SECONDS = (
    120.0,
    3600.0,
)  # how long a fresh file `hold` puts off what comes after; all of them
LONGEST_PAUSE_SECONDS = 300.0  # between two tries of what comes after
THEN_SECONDS = 120.0  # for one of them


class Refused(Exception):
    """Why a job cannot be started, in one line."""


def now() -> str:
    """UTC, as ISO 8601."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="milliseconds")


def seconds_since(moment: str | None) -> float:
    """Since a time of `now`; infinite where there is none."""
    if not moment:
        return float("inf")
    then = datetime.datetime.fromisoformat(moment)
    return (datetime.datetime.now(datetime.timezone.utc) - then).total_seconds()


def write_whole(path: Path, value: Any) -> None:
    """JSON that is there as a whole or not at all, whatever is killed meanwhile."""
    unfinished = path.with_name(path.name + ".unfinished")
    with open(unfinished, "w", encoding="utf-8") as file:
        json.dump(value, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    os.replace(unfinished, path)


def read_json(path: Path) -> Any:
    """What a file holds; None where it does not, or is not there."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def shell_code(code: int) -> int:
    """Of a process that ended: 128 + N after signal N."""
    return code if code >= 0 else 128 - code


def keep(exit_file: Path, arguments: list[str]) -> int:
    """Runs a command and keeps its exit code, whatever becomes of the runner; signals to the group end the command only."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    try:
        code = shell_code(subprocess.Popen(arguments).wait())
    except (OSError, ValueError) as error:
        print(f"[ta] The command could not be started: {error}", file=sys.stderr)
        code = 127
    write_whole(exit_file, code)
    return code


# Processes, from /proc


def started_at(pid: int) -> str | None:
    """When a process began, in the kernel's ticks, which tells it from a later one of its number; None: it has gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]


def family(leader: int) -> dict[int, float]:
    """CPU seconds of the processes of the leader's session, and of their descendants in sessions of their own."""
    parents, sessions, seconds = {}, {}, {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except OSError:
            continue
        pid = int(stat.parent.name)
        parents[pid], sessions[pid] = int(fields[1]), int(fields[3])
        seconds[pid] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    own = {pid for pid, session in sessions.items() if session == leader or pid == leader}
    while True:
        children = {pid for pid, parent in parents.items() if parent in own} - own
        if not children:
            return {pid: seconds[pid] for pid in own}
        own |= children


class Command:
    """A keeper with the command, which lead a session of their own: a child, or what an earlier runner has left.

    Args:
        began: as `started_at` had it.
        exit_file: where the keeper writes the exit code.
    """

    def __init__(self, pid: int, began: str | None, exit_file: Path, child: subprocess.Popen | None = None) -> None:
        self.pid, self.began, self._exit_file, self._child = pid, began, exit_file, child

    def ended(self) -> bool:
        """Whether it has ended; `exit_code` is known then."""
        return (
            self._child.poll() is not None if self._child else self.began is None or started_at(self.pid) != self.began
        )

    @property
    def exit_code(self) -> int | None:
        """128 + N after signal N, as shells have it; None where not even the keeper has seen the end."""
        code = read_json(self._exit_file)
        return shell_code(self._child.returncode) if code is None and self._child else code

    def ask_to_end(self) -> None:
        """SIGTERM to its process group, once: a second one would kill a training that writes its checkpoint."""
        with contextlib.suppress(OSError):
            os.killpg(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL to it and all that it has started."""
        for pid in family(self.pid):
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)


class Activity:
    """Whether a job does anything: its GPUs, where there are any, else its log and its CPU time."""

    def __init__(self, leader: int, log: Path, limit: float) -> None:
        self._leader, self._log = leader, log
        self._pause = min(ACTIVITY_SECONDS, limit / 10)
        self._seen = self._busy = time.monotonic()
        self._size, self._cpu = self._log.stat().st_size, 0.0

    def idle_seconds(self) -> float:
        """Since something was last seen to be done."""
        moment = time.monotonic()
        if moment - self._seen >= self._pause:
            if self._is_busy(moment - self._seen):
                self._busy = moment
            self._seen = moment
        return moment - self._busy

    def _is_busy(self, passed: float) -> bool:
        size, cpu = self._log.stat().st_size, sum(family(self._leader).values())
        grown, worked = size != self._size, abs(cpu - self._cpu) > BUSY_CPU * passed
        self._size, self._cpu = size, cpu
        gpu = gpu_utilisation()
        return grown or worked if gpu is None else gpu >= BUSY_GPU


def gpu_utilisation() -> int | None:
    """Of the busiest GPU, in per cent; None: there is none that answers."""
    query = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
    try:
        said = subprocess.run(query, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=10, check=True).stdout
        return max(int(line) for line in said.split())
    except (OSError, ValueError, subprocess.SubprocessError):
        return None


class Runner:
    """One job: its folder holds job.json, secrets, log.txt, state.json, and the files `stop` and `hold` of clients.

    Raises:
        Refused: the job cannot be read, has ended, or has a runner.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.project = folder, folder.parents[2]  # PROJECT/.ta/jobs/NAME
        self.log = folder / "log.txt"
        self.job = self._read_job()
        self._lock = self._take_lock()
        self.state = self._read_state()
        self._last_heartbeat = self.state["heartbeat"]  # of an earlier runner
        self._environment = dict(os.environ)
        self._asked: str | None = None
        self._beaten = time.monotonic()
        then_done = not self.job.get("then_command") or (self.state.get("then") or {}).get("exit_code") == 0
        self._exit_file = folder / "exit_code.json"
        if self.state["ended"] and then_done:
            raise Refused(f"{folder.name} has ended ({self.state['state']}); give a new job another name.")

    def run(self) -> None:
        """The job, from its command to what comes after; nothing that goes wrong here keeps that from being done."""
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        if not self.state["ended"]:
            try:
                self._run_command()
            except Refused as error:
                self._end(FAILED, str(error))
            except Exception:  # noqa: BLE001 (a bug here must not keep the machine from being stopped)
                self._say(traceback.format_exc())
                self._end(FAILED, "the runner itself failed; its last words are in the log")
        self._do_then()

    # What is on the disk

    def _read_job(self) -> dict[str, Any]:
        path = self.folder / "job.json"
        try:
            job = json.loads(path.read_text(encoding="utf-8"))
            if not (isinstance(job["command"], list) and job["command"]):
                raise ValueError("its command is no list of arguments")
            return job
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise Refused(f"{path} is no job: {error!r}.") from None

    def _take_lock(self) -> Any:
        lock = open(self.folder / "lock", "a")  # noqa: SIM115 (held as long as the runner lives)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise Refused(f"{self.folder.name} is running already.") from None
        return lock

    def release(self) -> None:
        """Lets another runner have the job."""
        self._lock.close()

    def _read_state(self) -> dict[str, Any]:
        new = {
            "state": STARTING, "pid": None, "runner_pid": None, "started": None, "ended": None, "exit_code": None,
            "reason": None, "restarts": 0, "heartbeat": None, "seconds": 0.0,
        }  # fmt: skip
        return {**new, **(read_json(self.folder / "state.json") or {})}

    def write(self, **changes: Any) -> None:
        """The state with these changes; a full disk may keep it from being written, and not the job from being watched."""
        self.state.update(changes, heartbeat=now(), runner_pid=os.getpid())
        with contextlib.suppress(OSError):
            write_whole(self.folder / "state.json", self.state)

    def _say(self, text: str) -> None:
        with contextlib.suppress(OSError), open(self.log, "a", encoding="utf-8") as log:
            log.write("".join(f"[ta] {line}\n" for line in text.splitlines()))

    # The command

    def _run_command(self) -> None:
        command = self._left_command() or self._start()
        why = self._watch(command)
        if why is not None:
            return self._end(why, f"{_REASONS[why]}; its exit code was {command.exit_code}", command.exit_code)
        if command.exit_code is None:
            return self._end(FAILED, "it was killed while no runner was there")
        failed = command.exit_code != 0
        self._end(
            FAILED if failed else FINISHED, f"exit code {command.exit_code}" if failed else None, command.exit_code
        )

    def _left_command(self) -> Command | None:
        """The command that an earlier runner, killed meanwhile, has left running, or that has ended since."""
        pid, began = self.state["pid"], self.state.get("pid_began")
        runs = pid is not None and began is not None and started_at(pid) == began
        if not runs and (pid is None or read_json(self._exit_file) is None):
            return None
        self._say("The runner was killed and is here again.")
        self.write(seconds=self.state["seconds"] + (seconds_since(self._last_heartbeat) if runs else 0))
        return Command(pid, began, self._exit_file)

    def _start(self) -> Command:
        again = self.state["state"] == RUNNING
        if again:
            self._check_restart()
        self._environment.update(self._take_secrets(), PYTHONUNBUFFERED="1")
        scripts = self.project / ".ta" / "env" / "bin"
        if scripts.is_dir():
            self._environment["PATH"] = f"{scripts}{os.pathsep}{self._environment.get('PATH', os.defpath)}"
        arguments = self.job["command"] + (
            self.job.get("resume_arguments") or [] if again and self._can_resume() else []
        )
        try:
            with contextlib.suppress(FileNotFoundError):
                self._exit_file.unlink()
            with open(self.log, "ab") as log:
                child = subprocess.Popen(
                    [sys.executable, os.path.abspath(__file__), KEEP, str(self._exit_file), *arguments],
                    cwd=self.project / (self.job.get("folder") or "."),
                    env=self._environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
        except (OSError, ValueError) as error:
            raise Refused(f"the command could not be started: {error}") from None
        command, self._beaten = Command(child.pid, started_at(child.pid), self._exit_file, child), time.monotonic()
        self.write(
            state=RUNNING,
            pid=child.pid,
            pid_began=command.began,
            started=self.state["started"] or now(),
            restarts=self.state["restarts"] + again,
        )
        return command

    def _can_resume(self) -> bool:
        """Whether something was written to resume from, below the project; a job that names nothing always can."""
        pattern = self.job.get("resume_needs")
        return not pattern or any(self.project.glob(pattern))

    def _check_restart(self) -> None:
        """After a pre-emption; waits where another machine with the same disk may still be at it."""
        if self.state["restarts"] >= int(self.job.get("restarts") or 0):
            raise Refused(
                f"the machine or the command was lost, and it may be restarted {self.job.get('restarts')} times"
            )
        while seconds_since(self._last_heartbeat) < STALE_SECONDS:
            time.sleep(LOOK_SECONDS)
        self._say("The machine or the command was lost; it goes on.")

    def _take_secrets(self) -> dict[str, str]:
        """Their file is gone before anything is started."""
        path, names = self.folder / "secrets", self.job.get("secrets") or []
        secrets: dict[str, str] = {}
        try:
            secrets = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            pass  # their absence is told below; a ValueError would repeat their text
        finally:
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
        missing = [name for name in names if not isinstance(secrets.get(name), str)]
        if missing:
            raise Refused(f"{', '.join(missing)} must be sent again: secrets are deleted when a job starts")
        return {name: secrets[name] for name in names}

    def _watch(self, command: Command) -> str | None:
        """Until the command has ended; why it was ended, or None where it did so itself."""
        activity = Activity(command.pid, self.log, 60 * (self.job.get("idle_minutes") or 0))
        while not command.ended():
            why = self._why_end(activity)
            if why is not None:
                self._end_command(command, why)
                return why
            self._beat()
            time.sleep(LOOK_SECONDS)
        return None

    def _why_end(self, activity: Activity) -> str | None:
        hours, minutes = self.job.get("max_hours"), self.job.get("idle_minutes")
        if self._asked or (self.folder / "stop").exists():
            return STOPPED
        if hours is not None and self.state["seconds"] + time.monotonic() - self._beaten > 3600 * hours:
            return OUT_OF_TIME
        if minutes is not None and activity.idle_seconds() > 60 * minutes:
            return IDLE
        return None

    def _end_command(self, command: Command, why: str) -> None:
        self._say(f"{_REASONS[why]}: SIGTERM, and SIGKILL after {self._grace:g} s.")
        command.ask_to_end()
        deadline = time.monotonic() + self._grace
        while not command.ended() and time.monotonic() < deadline and not self._is_kill_asked():
            self._beat()
            time.sleep(LOOK_SECONDS)
        command.kill()
        deadline = time.monotonic() + KILL_SECONDS
        while not command.ended() and time.monotonic() < deadline:
            time.sleep(LOOK_SECONDS)

    @property
    def _grace(self) -> float:
        return float(self.job.get("grace_seconds") or GRACE_SECONDS)

    def _is_kill_asked(self) -> bool:
        """The file `stop` says so, also when it has been there before."""
        with contextlib.suppress(OSError, ValueError):
            return (self.folder / "stop").read_text(encoding="utf-8").strip() == "kill"
        return False

    def _on_signal(self, number: int, frame: Any) -> None:
        self._asked = STOPPED

    def _beat(self) -> None:
        """The state on the disk, every now and then, with the seconds that the command has run, over all its starts."""
        passed = time.monotonic() - self._beaten
        if passed >= HEARTBEAT_SECONDS:
            self._beaten += passed
            self.write(seconds=round(self.state["seconds"] + passed, 3))

    def _end(self, state: str, reason: str | None, exit_code: int | None = None) -> None:
        seconds = round(self.state["seconds"] + time.monotonic() - self._beaten, 3)
        self.write(state=state, reason=reason, exit_code=exit_code, ended=now(), seconds=seconds)
        self._say(f"{state}{f': {reason}' if reason else ''}.")

    # What comes after

    def _do_then(self) -> None:
        """Until it succeeds: what is not stopped is paid for."""
        command = self.job.get("then_command")
        if not command:
            return
        self._wait_while_held()
        for tries, pause in enumerate(_pauses(), start=1):
            code, said = self._try_then(command)
            self.write(then={"tries": tries, "exit_code": code})
            self._say(
                f"{self.job.get('then') or 'then'}: {'done' if code == 0 else f'exit code {code}'}. {said}".rstrip()
            )
            if code == 0:
                return
            time.sleep(pause)

    def _try_then(self, command: list[str]) -> tuple[int | None, str]:
        try:
            done = subprocess.run(
                command,
                cwd=self.project,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=THEN_SECONDS,
                check=False,
            )
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            return None, str(error)
        return done.returncode, self._without_secrets(done.stdout.decode("utf-8", "replace").strip())

    def _without_secrets(self, text: str) -> str:
        for name in self.job.get("secrets") or []:
            if self._environment.get(name):
                text = text.replace(self._environment[name], "***")
        return text

    def _wait_while_held(self) -> None:
        """A client that fetches the results touches `hold` while it does."""
        began = time.monotonic()
        while time.monotonic() - began < LONGEST_HOLD_SECONDS:
            try:
                age = time.time() - (self.folder / "hold").stat().st_mtime
            except OSError:
                return
            if age > HOLD_SECONDS:
                return
            time.sleep(LOOK_SECONDS)


_REASONS = {
    STOPPED: "It was told to stop",
    OUT_OF_TIME: "Its hours are over",
    IDLE: "It has done nothing for too long",
}


def _pauses() -> Iterator[float]:
    pause = 1.0
    while True:
        yield pause
        pause = min(2 * pause, LONGEST_PAUSE_SECONDS)


def in_tmux(folder: Path) -> bool:
    """Starts the runner in a tmux session of the job's name, where its log is seen; False: there is no tmux."""
    again = [sys.executable, os.path.abspath(__file__), str(folder), "--here"]
    name = f"ta-{folder.name.replace('.', '_')}"  # tmux takes what follows a dot for a pane
    arguments = ["tmux", "new-session", "-d", "-s", name, shlex.join(again)]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        subprocess.run(arguments, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=30)
        return True
    return False


@contextlib.contextmanager
def shown(log: Path) -> Iterator[None]:
    """The log on the terminal."""
    tail = subprocess.Popen(["tail", "-n", "+1", "-F", str(log)], stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        tail.kill()


def detach(log: Path) -> None:
    """Goes on in a session of its own, without a terminal; what Python says of a crash goes to the log."""
    if os.fork():
        os._exit(0)
    os.setsid()
    if os.fork():
        os._exit(0)
    for path, numbers in ((os.devnull, (0,)), (str(log), (1, 2))):
        opened = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        for number in numbers:
            os.dup2(opened, number)


def main() -> int:
    if sys.argv[1:2] == [KEEP]:
        return keep(Path(sys.argv[2]), sys.argv[3:])
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="PROJECT/.ta/jobs/NAME")
    parser.add_argument("--tmux", action="store_true", help="in tmux, where there is one")
    parser.add_argument("--here", action="store_true", help="in this terminal")
    options = parser.parse_args()
    folder = options.folder.resolve()
    try:
        runner = Runner(folder)
    except Refused as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    runner.log.touch(mode=0o600)
    runner.write()
    if options.tmux and shutil.which("tmux"):
        runner.release()
        if in_tmux(folder):
            return 0
        runner = Runner(folder)
    if not options.here:
        detach(runner.log)
    with shown(runner.log) if options.here and sys.stdout.isatty() else contextlib.nullcontext():
        runner.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
