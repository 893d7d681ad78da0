"""The job's side of `ta remote`, with real processes: log and state, limits, kills at any moment, secrets, what comes after."""

import ast
import json
import os
import signal
import stat
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tiny_audio.remote import runner as runner_file

RUNNER = Path(runner_file.__file__)
SECRET = "hf_secret_0123456789"
WAIT_SECONDS = 60.0  # for what takes a second on a quiet machine
# Beats often; at SIGTERM it writes a checkpoint.
TRAINING = """
import pathlib, signal, sys, time
def save(*_):
    pathlib.Path("checkpoint").write_text("whole"); print("saved", flush=True); sys.exit(1)
signal.signal(signal.SIGTERM, save)
print("step", sys.argv[1:], flush=True)
pathlib.Path("ready").write_text("")
while True: time.sleep(0.05)
"""


class Job:
    """A job's folder in a project, as a client lays it down."""

    def __init__(self, project: Path, command: list[str], secrets: dict[str, str] | None = None, **settings) -> None:
        self.project, self.folder = project, project / ".ta/jobs/a-job"
        self.folder.mkdir(parents=True)
        job = {"name": "a-job", "command": command, "folder": ".", "secrets": list(secrets or {}), "then": "nothing"}
        (self.folder / "job.json").write_text(json.dumps(job | settings))
        if secrets:
            (self.folder / "secrets").write_text(json.dumps(secrets))

    def start(self, *options: str, check: bool = True, **environment: str) -> subprocess.CompletedProcess:
        """Returns as soon as the runner is on its own."""
        command = [sys.executable, str(RUNNER), str(self.folder), *options]
        environment = os.environ | environment
        return subprocess.run(command, check=check, env=environment, capture_output=True, text=True, timeout=60)

    def state(self) -> dict:
        return json.loads((self.folder / "state.json").read_text())

    def log(self) -> str:
        return (self.folder / "log.txt").read_text()

    def wait(self, condition) -> dict:
        """Until `condition` of the state holds."""
        deadline = time.monotonic() + WAIT_SECONDS
        while not condition(self.state()):
            assert time.monotonic() < deadline, (self.state(), self.log())
            time.sleep(0.05)
        return self.state()

    def wait_for(self, name: str) -> None:
        """Until a file is there, in the project."""
        self.wait(lambda _: (self.project / name).exists())

    def wait_for_end(self) -> dict:
        """Until the runner has gone."""
        state = self.wait(lambda state: state["ended"])
        self.wait(lambda _: not alive(state["runner_pid"]))
        return self.state()


def alive(pid: int) -> bool:
    return runner_file.started_at(pid) is not None


def python(source: str) -> list[str]:
    return [sys.executable, "-c", source]


@pytest.fixture
def job(tmp_path):
    """Makes a job; what it leaves running is killed."""
    jobs = []

    def make(*arguments, **settings) -> Job:
        jobs.append(Job(tmp_path / "a project", *arguments, **settings))
        return jobs[-1]

    yield make
    for made in jobs:
        state = made.state() if (made.folder / "state.json").exists() else {}
        for leader in filter(None, (state.get("runner_pid"), state.get("pid"))):
            for pid in runner_file.family(leader) if alive(leader) else ():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def test_it_needs_only_an_old_python():
    tree = ast.parse(RUNNER.read_text(), feature_version=(3, 8))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported <= sys.stdlib_module_names


def test_a_command_runs_to_its_end(job):
    made = job(
        python("import os, sys; print(os.getcwd()); print('oh', file=sys.stderr); print(sys.argv[1:])")
        + ["a b", "$(x)"]
    )
    began = time.time()
    made.start()
    state = made.wait_for_end()
    assert (state["state"], state["exit_code"], state["reason"]) == ("finished", 0, None)
    assert began - 1 < runner_file.datetime.datetime.fromisoformat(state["started"]).timestamp() < time.time()
    assert made.log().splitlines()[:2].count(str(made.project)) == 1
    assert "oh\n" in made.log() and "['a b', '$(x)']\n" in made.log()


def test_the_exit_code_of_a_failure_is_kept(job):
    made = job(python("import sys; sys.exit(7)"), then_command=["touch", "after"], then="stop-pod")
    made.start()
    state = made.wait_for_end()
    assert (state["state"], state["exit_code"]) == ("failed", 7)
    assert (made.project / "after").exists() and state["then"] == {"tries": 1, "exit_code": 0}


@pytest.mark.parametrize(
    "command, folder, said",
    [(["true"], "missing", "could not be started"), (["no-such-program"], ".", "exit code 127")],
)
def test_what_cannot_start_is_a_failure_and_what_comes_after_is_done(job, command, folder, said):
    made = job(command, folder=folder, then_command=["touch", "after"])
    made.start()
    state = made.wait_for_end()
    assert state["state"] == "failed" and said in state["reason"] and "No such file" in made.log()
    assert (made.project / "after").exists()


def test_it_outlives_its_terminal_and_a_hang_up(job):
    made = job(python(TRAINING))
    made.start()
    made.wait_for("ready")
    state = made.state()
    assert os.getsid(state["runner_pid"]) != os.getsid(0) != os.getsid(state["pid"])
    os.kill(state["runner_pid"], signal.SIGHUP)
    made.wait(lambda new: new["heartbeat"] > state["heartbeat"])
    assert alive(state["pid"])
    again = made.start(check=False)
    assert again.returncode == 1 and again.stderr == "Error: a-job is running already.\n"


@pytest.mark.parametrize("how", ["file", "signal"])
def test_stop_lets_the_command_write_its_checkpoint(job, how):
    made = job(python(TRAINING), then_command=["touch", "after"])
    made.start()
    made.wait_for("ready")
    if how == "file":
        (made.folder / "stop").write_text("")
    else:
        os.kill(made.state()["runner_pid"], signal.SIGTERM)
    state = made.wait_for_end()
    assert (state["state"], state["exit_code"]) == ("stopped", 1)
    assert (made.project / "checkpoint").read_text() == "whole" and (made.project / "after").exists()
    assert "saved\n" in made.log()


STUBBORN = """
import pathlib, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
pathlib.Path("worker").write_text(str(worker.pid)); pathlib.Path("ready").write_text("")
while True: time.sleep(0.05)
"""


@pytest.mark.parametrize("how", ["grace", "kill"])
def test_what_does_not_stop_is_killed_with_all_it_started(job, how):
    made = job(python(STUBBORN), grace_seconds=0.5 if how == "grace" else 600)
    made.start()
    made.wait_for("ready")
    (made.folder / "stop").write_text("" if how == "grace" else "kill")
    assert (made.wait_for_end()["state"], made.state()["exit_code"]) == ("stopped", 137)
    made.wait(lambda _: not alive(int((made.project / "worker").read_text())))


def test_hours_are_limited(job):
    made = job(python(TRAINING), max_hours=0.5 / 3600)
    made.start()
    state = made.wait_for_end()
    assert state["state"] == "out-of-time" and state["seconds"] > 0.5


@pytest.mark.parametrize("work, ends", [("pass", "finished"), ("time.sleep(0.1)", "idle")])
def test_without_a_gpu_idle_is_what_neither_computes_nor_speaks(job, work, ends):
    made = job(python(f"import time\nend = time.time() + 3\nwhile time.time() < end: {work}"), idle_minutes=1.5 / 60)
    made.start()
    assert made.wait_for_end()["state"] == ends


@pytest.mark.parametrize("utilisation, ends", [("0\n3\n", "idle"), ("0\n97\n", "finished")])
def test_idleness_is_that_of_the_gpus_where_there_are_any(job, tmp_path, utilisation, ends):
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "nvidia-smi").write_text(f"#!/bin/sh\nprintf '{utilisation}'\n")
    (tools / "nvidia-smi").chmod(0o755)
    made = job(python("import time\nfor _ in range(20): print('words'); time.sleep(0.1)"), idle_minutes=1 / 60)
    made.start(PATH=f"{tools}:{os.environ['PATH']}")
    assert made.wait_for_end()["state"] == ends


def test_after_a_preemption_it_goes_on(job):
    made = job(python(TRAINING), restarts=1, resume_arguments=["--resume", "auto"], secrets={"TOKEN": SECRET})
    made.start()
    made.wait_for("ready")
    lose_machine(made)
    (made.folder / "secrets").write_text(json.dumps({"TOKEN": SECRET}))  # the client's, who knows that it is new
    made.start()
    state = made.wait(lambda state: state["restarts"] == 1)
    made.wait(lambda _: "['--resume', 'auto']" in made.log())
    assert state["state"] == "running" and alive(state["pid"])
    lose_machine(made)
    made.start()
    state = made.wait_for_end()
    assert state["state"] == "failed" and "restarted 1 times" in state["reason"]


def test_what_was_lost_before_its_first_checkpoint_begins_anew(job):
    made = job(python(TRAINING), restarts=2, resume_arguments=["--resume", "auto"], resume_needs="run/checkpoint-*")
    made.start()
    made.wait_for("ready")
    lose_machine(made)
    made.start()
    made.wait(lambda _: made.log().count("step []") == 2)
    (made.project / "run/checkpoint-3").mkdir(parents=True)
    lose_machine(made)
    made.start()
    made.wait(lambda _: "step ['--resume', 'auto']" in made.log())
    (made.folder / "stop").write_text("kill")
    made.wait_for_end()


def lose_machine(made: Job) -> None:
    """Kills runner and command, and lets time pass."""
    state = made.state()
    for pid in (state["runner_pid"], *runner_file.family(state["pid"])):
        os.kill(pid, signal.SIGKILL)
    made.wait(lambda _: not alive(state["pid"]) and not alive(state["runner_pid"]))
    (made.folder / "state.json").write_text(json.dumps(made.state() | {"heartbeat": "2026-01-01T00:00:00.000+00:00"}))


def test_a_restart_without_the_secrets_says_so_and_still_ends_the_machine(job):
    made = job(python(TRAINING), {"TOKEN": SECRET}, restarts=3, then_command=["touch", "after"])
    made.start()
    made.wait_for("ready")
    lose_machine(made)
    made.start()
    state = made.wait_for_end()
    assert state["state"] == "failed" and "TOKEN must be sent again" in state["reason"]
    assert (made.project / "after").exists()


def test_a_killed_runner_finds_its_command_again(job):
    made = job(python(TRAINING), then_command=["touch", "after"])
    made.start()
    made.wait_for("ready")
    pid, runner = made.state()["pid"], made.state()["runner_pid"]
    os.kill(runner, signal.SIGKILL)
    made.wait(lambda _: not alive(runner))
    made.start()
    (made.folder / "stop").write_text("")
    state = made.wait_for_end()
    assert (state["pid"], state["state"], state["restarts"]) == (pid, "stopped", 0)
    assert (made.project / "checkpoint").exists() and (made.project / "after").exists()


@pytest.mark.parametrize("code, ends", [(0, "finished"), (3, "failed")])
def test_the_exit_code_outlives_the_runner(job, code, ends):
    made = job(python(f"import os, time; open('ready', 'w'); time.sleep(1); os._exit({code})"), restarts=3)
    made.start()
    made.wait_for("ready")
    state = made.state()
    os.kill(state["runner_pid"], signal.SIGKILL)
    made.wait(lambda _: not alive(state["pid"]))
    made.start()
    ended = made.wait_for_end()
    assert (ended["state"], ended["exit_code"], ended["restarts"]) == (ends, code, 0)


def test_a_kill_at_any_moment_leaves_a_whole_state(tmp_path):
    path, length = tmp_path / "state.json", 500_000
    writer = f"import sys; sys.path.insert(0, {str(RUNNER.parent)!r})\nimport runner, pathlib\n"
    writer += (
        f"for n in range(10**9): runner.write_whole(pathlib.Path({str(path)!r}), {{'n': n, 'text': 'x' * {length}}})"
    )
    for _ in range(5):
        process = subprocess.Popen(python(writer))
        deadline, seen = time.monotonic() + WAIT_SECONDS, 0
        while seen < 10:
            assert time.monotonic() < deadline
            if path.exists():
                state = json.loads(path.read_text())
                assert len(state["text"]) == length
                seen = state["n"]
        process.kill()
        process.wait()
        assert len(json.loads(path.read_text())["text"]) == length
        path.unlink()


def test_secrets_reach_the_command_and_nothing_else(job):
    shows = "import os, time; print(len(os.environ['TOKEN']), os.environ['OTHER']); open('ready', 'w'); time.sleep(1)"
    made = job(
        python(shows), {"TOKEN": SECRET, "OTHER": "x; touch /tmp/pwned\n$(y)"}, then_command=["sh", "-c", "echo $TOKEN"]
    )
    made.start()
    made.wait_for("ready")
    assert not (made.folder / "secrets").exists()
    lines = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline")]
    assert not any(SECRET.encode() in line for line in lines)
    made.wait_for_end()
    assert made.log().startswith(f"{len(SECRET)} x; touch /tmp/pwned\n$(y)\n")
    files = [path for path in made.project.rglob("*") if path.is_file()]
    assert not any(SECRET in path.read_text() for path in files)
    assert stat.S_IMODE((made.folder / "log.txt").stat().st_mode) == 0o600


def test_what_comes_after_is_tried_until_it_succeeds(job):
    script = "test -e once || { touch once; echo not yet; exit 3; }"
    made = job(["true"], then="stop-pod", then_command=["sh", "-c", script])
    made.start()
    assert made.wait_for_end()["then"] == {"tries": 2, "exit_code": 0}
    assert "[ta] stop-pod: exit code 3. not yet\n[ta] stop-pod: done." in made.log()


def test_a_client_that_fetches_results_is_waited_for(job):
    made = job(["true"], then_command=["touch", "after"])
    (made.folder / "hold").write_text("")
    made.start()
    made.wait(lambda state: state["ended"])
    time.sleep(0.5)
    assert not (made.project / "after").exists()
    os.utime(made.folder / "hold", (0, 0))
    made.wait_for("after")


def test_tmux_shows_the_log(job, tmp_path):
    made = job(python(TRAINING))
    made.start("--tmux", TMUX_TMPDIR=str(tmp_path))
    made.wait_for("ready")
    environment = os.environ | {"TMUX_TMPDIR": str(tmp_path)}

    def tmux(*arguments: str) -> str:
        done = subprocess.run(["tmux", *arguments], env=environment, capture_output=True, text=True, check=False)
        return done.stdout

    try:
        made.wait(lambda _: "step []" in tmux("capture-pane", "-p", "-t", "ta-a-job"))
        tmux("kill-server")
        state = made.state()
        made.wait(lambda new: new["heartbeat"] > state["heartbeat"])
    finally:
        tmux("kill-server")
    assert made.state()["state"] == "running"


def test_what_is_no_job_or_has_ended_is_one_line(job):
    made = job(["true"])
    made.start()
    made.wait_for_end()
    assert made.start(check=False).stderr == "Error: a-job has ended (finished); give a new job another name.\n"
    (made.folder / "job.json").write_text('{"command": "rm -rf"')
    broken = made.start(check=False)
    assert broken.returncode == 1 and "is no job" in broken.stderr and len(broken.stderr.splitlines()) == 1
