"""`ta remote` against a real sshd on loopback: from check to pull, and back after a link, a machine or a person has gone."""

import json
import os
import shutil
import signal
import stat
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from remote_server import Server, descendants, until

from tiny_audio.cli.main import run
from tiny_audio.remote.connection import connect
from tiny_audio.remote.follow import follow
from tiny_audio.remote.jobs import Job, find_job, look_at_jobs, start
from tiny_audio.remote.runner import started_at
from tiny_audio.remote.targets import Target, add_remote, read_remotes
from tiny_audio.remote.work import TA, is_training

REPOSITORY = Path(__file__).resolve().parents[1]
TOKEN = "hf_never_to_be_seen_0123456789"
STEPS = 30
SHORT = (
    "data.max_train_samples=100", "data.max_eval_samples=3", "training.batch_seconds=8", "training.warmup_steps=5",
    "training.logging_steps=1", "training.save_steps=8", f"training.eval_steps={STEPS}", f"training.max_steps={STEPS}",
)  # fmt: skip
STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('begun', flush=True); time.sleep(60)"
)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("machine"), {"PIP_NO_DEPS": "1"})
    server.make()
    server.start()
    with connect(server.target(), accept_new=True):
        pass
    yield server
    with connect(server.target()) as connection:
        for job in look_at_jobs(connection)[0]:
            if job.alive:
                os.kill(job.state["runner_pid"], signal.SIGKILL)
                os.killpg(job.state["pid"], signal.SIGKILL)
    server.stop()


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A copy of this project in a repository of its own."""
    folder = tmp_path_factory.mktemp("here") / "project"
    for name in ("tiny_audio", "configs"):
        shutil.copytree(REPOSITORY / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", ".gitignore"):
        shutil.copy(REPOSITORY / name, folder)
    subprocess.run(["git", "init", "-q", folder], check=True)
    subprocess.run(["git", "-C", folder, "add", "."], check=True)
    return folder


@pytest.fixture
def ta(server, project, tmp_path, monkeypatch, capfd):
    """`ta("remote", …)` in the project, with one named machine → what was printed; other exit codes than `code` fail."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.chdir(project)
    add_remote("pod", server.target())

    def call(*arguments: str, code: int = 0) -> str:
        capfd.readouterr()
        exit_code = run(list(arguments))
        said = "".join(capfd.readouterr())
        assert exit_code == code, said
        return said

    return call


@pytest.fixture
def connection(server):
    with connect(server.target()) as connection:
        yield connection


def job_file(server, name: str, file: str) -> Path:
    return server.home / "tiny-audio" / ".ta" / "jobs" / name / file


def state_of(server, name: str) -> dict:
    file = job_file(server, name, "state.json")
    return json.loads(file.read_text()) if file.is_file() else {}


def test_from_check_to_pull(ta, server, project):
    assert "✓ rsync" in ta("remote", "check")
    assert "Would send" in ta("remote", "sync", "--dry-run")
    assert not (server.home / "tiny-audio/pyproject.toml").exists()
    assert "Sent" in ta("remote", "sync")
    assert "torch 2" in ta("remote", "setup")
    started = time.monotonic()
    assert "as it should be" in ta("remote", "setup")
    assert time.monotonic() - started < 10

    train = ["remote", "train", "--name", "first", "--experiment", "quickstart", *SHORT, "--dollars-per-hour=3600"]
    assert "ta remote attach first --host pod" in ta(*train, "training.report_to=tensorboard", "--detach")
    log = server.home / "tiny-audio/outputs/first/log.jsonl"
    until(lambda: log.is_file() and log.read_text().count("\n") > 2, "some steps", 120)
    status = ta("remote", "status", "first")
    assert "first: running" in status and "loss" in status and "cost $" in status
    assert "Run folder: outputs/first" in ta("remote", "logs", "first", "-n", "100")
    assert "first: stopped" in ta("remote", "stop")
    stopped = state_of(server, "first")
    assert [path.name for path in (server.home / "tiny-audio/outputs/first").glob("checkpoint-*")], stopped
    assert "is over: stopped" in ta("remote", "stop", code=1)

    said = ta("remote", "train", "--resume", "auto", "--name", "second", f"training.max_steps={STEPS}")
    assert "second: finished" in said and f"step {STEPS}" in said and "their hashes agree" in said
    assert all(name in ta("remote", "list") for name in ("first", "second"))
    assert (project / f"outputs/first/checkpoint-{STEPS}/model.safetensors").is_file()
    assert list((project / "outputs/first/tensorboard").iterdir())
    assert "0 fetched" in ta("remote", "pull")

    measured = ["-m", "outputs/first/best", "-d", "quickstart", "-n", "12"]
    ta("remote", "eval", *measured, "--output-dir", "outputs/eval/there", "--no-deploy")
    ta("eval", *measured, "--output-dir", "outputs/eval/here")
    here, there = (
        json.loads((project / f"outputs/eval/{side}/metrics.json").read_text()) for side in ("here", "there")
    )
    assert here["wer"] == there["wer"] and here["num_samples"] == 12


def test_a_job_has_the_project_the_exit_code_and_the_log(ta, server):
    said = ta(
        "remote", "run", "--no-deploy", "--name", "three", "--", "sh", "-c", "pwd; echo wrong >&2; exit 3", code=3
    )
    assert str(server.home / "tiny-audio") in said and "wrong" in said and "three: failed" in said
    state = state_of(server, "three")
    assert (state["state"], state["exit_code"]) == ("failed", 3)
    assert "already" in ta("remote", "run", "--no-deploy", "--name", "three", "true", code=1)
    assert "no folder of results" in ta("remote", "pull", "--job", "three", code=1)


def test_ctrl_c_detaches_and_says_how_to_come_back(ta, server):
    ta("remote", "run", "--no-deploy", "--name", "long", "--detach", "--", "python3", "-c", STUBBORN)
    attach = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from tiny_audio.cli.main import main; main()"
    command = [sys.executable, "-c", attach, "remote", "attach", "long"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    said = next(line for line in process.stdout if "begun" in line)
    process.send_signal(signal.SIGINT)
    said += process.communicate(timeout=60)[0]
    assert process.returncode == 0 and "Come back with: ta remote attach long --host pod" in said
    assert state_of(server, "long")["state"] == "running"
    assert "killed" in ta("remote", "stop", "long", "--kill")
    assert state_of(server, "long")["exit_code"] == 128 + signal.SIGKILL


def test_a_line_is_shown_within_a_second(server, connection, ta):
    lines = "import time\nfor _ in range(5): print(time.time(), flush=True); time.sleep(0.7)"
    ta("remote", "run", "--no-deploy", "--name", "clock", "--detach", "--", "python3", "-c", lines)
    seen = []
    follow(connection, "clock", lambda text: seen.extend((time.time(), line) for line in text.splitlines()))
    late = [moment - float(line) for moment, line in seen if line[:1].isdigit()]
    assert len(late) == 5 and statistics.median(late) < 1.0


def test_a_dropped_link_loses_no_line_of_the_log(server, connection, ta):
    count = "import time\nfor number in range(60): print('line', number, flush=True); time.sleep(0.05)"
    ta("remote", "run", "--no-deploy", "--name", "count", "--detach", "--", "python3", "-c", count)
    text = []
    threading.Timer(0.8, server.drop_links).start()
    threading.Timer(1.6, server.drop_links).start()
    seen = follow(connection, "count", text.append)
    assert [line for line in "".join(text).splitlines() if line.startswith("line")] == [f"line {n}" for n in range(60)]
    assert seen.word == "finished"


def test_secrets_are_seen_by_the_job_alone(ta, server, monkeypatch, capfd):
    monkeypatch.setenv("SOME_TOKEN", TOKEN)
    done, shown = threading.Event(), []

    def sample() -> None:
        tmux = {**os.environ, "TMUX_TMPDIR": str(server.folder)}
        while not done.is_set():
            listed = subprocess.run(["tmux", "show-environment", "-g"], env=tmux, capture_output=True, check=False)
            shown.append(TOKEN.encode() in listed.stdout)
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    shown.append(TOKEN.encode() in path.read_bytes())
                except OSError:
                    continue
            time.sleep(0.01)

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    check = "import os, time; time.sleep(1); print(len(os.environ['SOME_TOKEN']))"
    said = ta("remote", "run", "--no-deploy", "--name", "secret", "--env", "SOME_TOKEN", "--", "python3", "-c", check)
    done.set()
    thread.join()
    assert str(len(TOKEN)) in said and TOKEN not in said
    assert len(shown) > 100 and not any(shown)
    assert not job_file(server, "secret", "secrets").exists()
    kept = [path for path in server.home.rglob("*") if path.is_file() and TOKEN.encode() in path.read_bytes()]
    assert kept == []
    assert "SOME_OTHER is not set here" in ta("remote", "run", "--no-deploy", "--env", "SOME_OTHER", "true", code=1)


def test_the_file_of_secrets_is_for_its_owner_alone(server, connection):
    connection.make_folder("./private", 0o700)
    connection.write("./private/secrets", b"{}", 0o600)
    assert stat.S_IMODE((server.home / "private/secrets").stat().st_mode) == 0o600
    assert stat.S_IMODE((server.home / "private").stat().st_mode) == 0o700


def test_a_machine_that_was_taken_back_is_told(ta, server, connection):
    ta("remote", "run", "--no-deploy", "--name", "lost", "--restarts", "0", "--detach", "--", "sleep", "60")
    until(lambda: state_of(server, "lost").get("pid"), "the job")
    os.kill(state_of(server, "lost")["runner_pid"], signal.SIGKILL)
    os.killpg(state_of(server, "lost")["pid"], signal.SIGKILL)
    until(lambda: find_job(connection, "lost").word == "lost", "the loss")
    assert "goes on with `ta remote train --resume lost`" in ta("remote", "status", "lost")
    began = time.monotonic()
    assert "lost: lost" in ta("remote", "attach", "lost", code=1)
    assert time.monotonic() - began < 10
    assert "is over: lost" in ta("remote", "stop", "lost", code=1)


@pytest.mark.parametrize("kill", [[], ["--kill"]])
def test_a_command_whose_runner_was_killed_is_stopped_and_not_doubled(ta, server, connection, kill):
    name = f"orphan{len(kill)}"
    start(connection, Job(name, ["sleep", "60"], output=f"outputs/{name}"), {})
    until(lambda: state_of(server, name).get("pid"), "the command")
    os.kill(state_of(server, name)["runner_pid"], signal.SIGKILL)
    until(lambda: find_job(connection, name).word == "unwatched", "the loss of its runner")
    assert f"`ta remote stop {name}` ends it" in ta("remote", "status", name)
    assert f"{name} is running" in ta("remote", "train", "--resume", name, "--no-deploy", code=1)
    assert f"{name}: stopped" in ta("remote", "stop", name, *kill)
    assert started_at(state_of(server, name)["pid"]) is None


def test_two_jobs_do_not_write_into_one_folder(ta, server, connection):
    start(connection, Job("writer", ["sleep", "60"], output="outputs/shared"), {})
    train = ["remote", "train", "--output-dir", "outputs/shared/", "--detach"]
    assert "writer is writing into outputs/shared" in ta(*train, "--no-deploy", code=1)
    said = ta(*train, "--name", "writer", code=1)
    assert "There is a job writer" in said and "environment" not in said  # told before sync and setup
    ta("remote", "stop", "writer")


def test_a_job_that_was_never_started_is_told_and_its_secrets_go(ta, server):
    sent = job_file(server, "cut-off", "job.json")
    for remove in (["stop", "cut-off"], ["run", "--no-deploy", "--name", "next", "true"]):
        shutil.rmtree(sent.parent, ignore_errors=True)
        sent.parent.mkdir(parents=True)
        sent.write_text(json.dumps({"name": "cut-off", "command": ["true"], "created": "2026"}))
        sent.with_name("secrets").write_text("{}")
        assert "cut-off: starting" in ta("remote", "status", "cut-off")
        os.utime(sent, (0, 0))
        assert "cut-off: never-started" in ta("remote", "attach", "cut-off", code=1)
        ta("remote", *remove)
        assert not sent.with_name("secrets").exists()


@pytest.mark.parametrize("text", ["", "[1]", '{"a": 1}', '{"sta'])
def test_a_broken_file_of_a_job_is_one_line_and_spares_the_others(ta, server, text):
    ta("remote", "run", "--no-deploy", "--name", f"whole{len(text)}", "true")
    for name in ("job.json", "state.json"):
        file = job_file(server, f"broken-{name[:-5]}", name)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.with_name("job.json").write_text('{"name": "broken-state", "command": ["true"]}')
        file.write_text(text)
    said = ta("remote", "list")
    assert "broken-state" in said and "unreadable" in said and "broken-job" not in said and f"whole{len(text)}" in said
    said = ta("remote", "attach", "broken-state", code=1)
    assert "is not a job's state; delete that job's folder" in said and "Traceback" not in said


def test_the_values_of_a_run_are_those_of_its_last_job(server, connection):
    for name in ("before", "after"):
        start(connection, Job(name, ["true"], output="outputs/both"), {})
        until(lambda name=name: state_of(server, name).get("ended"), "its end")
    (server.home / "tiny-audio/outputs/both").mkdir(parents=True)
    (server.home / "tiny-audio/outputs/both/log.jsonl").write_text('{"step": 7, "loss": 0.5}\n')
    assert "step" not in find_job(connection, "before").progress
    assert find_job(connection, "after").progress["step"] == 7


def test_what_comes_after_waits_for_the_pull(ta, server, connection, project, monkeypatch):
    from tiny_audio.remote import work

    monkeypatch.setattr(work, "SHUTDOWN", ["sh", "-c", "rm -r outputs/down; touch shut-down"])
    make = "mkdir -p outputs/down; head -c 20000000 /dev/zero > outputs/down/model"
    job = work.Job("down", ["sh", "-c", make], output="outputs/down")
    assert work.submit(connection, job, work.Wishes(then="shutdown", deploy=False)) == 0
    assert (project / "outputs/down/model").stat().st_size == 20_000_000
    until((server.home / "tiny-audio/shut-down").is_file, "the shutdown")
    assert not (server.home / "tiny-audio/outputs/down").exists()


def test_what_comes_after_a_job_without_results_comes_at_once(ta, server, connection, monkeypatch):
    from tiny_audio.remote import work

    monkeypatch.setattr(work, "SHUTDOWN", ["true"])
    assert work.submit(connection, work.Job("bare", ["true"]), work.Wishes(then="shutdown", deploy=False)) == 0
    assert not job_file(server, "bare", "hold").exists()


def test_an_environment_in_use_is_not_replaced(ta, server):
    ta("remote", "run", "--no-deploy", "--name", "uses", "--detach", "--", "sleep", "60")
    assert "uses runs in it" in ta("remote", "setup", "--anew", code=1)
    ta("remote", "stop", "uses")


def test_tensorboard_comes_through_a_tunnel_and_ends_with_it(ta, server, connection):
    import urllib.request

    from tiny_audio.remote.tunnel import running, tunnel

    with running(connection, "outputs") as (_, there), tunnel(connection.transport, there, 0) as here:
        assert here != there
        assert b"[" in urllib.request.urlopen(f"http://127.0.0.1:{here}/data/runs", timeout=60).read()
    until(lambda: not [pid for pid in descendants(server.process.pid) if b"tensorboard" in cmdline(pid)], "its end")


def cmdline(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def test_a_name_is_forgotten(ta):
    ta("remote", "remove", "pod")
    assert read_remotes() == {}
    assert "No machine has the name pod (known: none)" in ta("remote", "remove", "pod", code=1)


def test_wrong_options_of_eval_are_said_before_anything_is_sent(ta, server):
    said = ta("remote", "eval", "-d", "quickstart", "--batch-sise", "4", code=2)
    assert "--batch-sise" in said and "Sent" not in said


def test_a_job_that_never_began_is_not_gone_on_with(ta, server):
    file = job_file(server, "cut-off-training", "job.json")
    file.parent.mkdir(parents=True)
    content = {"name": "cut-off-training", "command": [*TA, "train"], "created": "9999", "output": "outputs/none"}
    file.write_text(json.dumps(content))
    os.utime(file, (0, 0))
    assert "cut-off-training: never-started" in ta("remote", "status", "cut-off-training")
    with connect(server.target()) as connection:
        trained = [seen for seen in look_at_jobs(connection)[0] if is_training(seen)]
    assert "cut-off-training" not in [seen.name for seen in trained]
    shutil.rmtree(file.parent)


def test_named_machines_keep_what_was_said_of_them(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    odd = Target("pod.example", 2222, "root", identity='a "key" \\ \n é 😀', path="a b;$(x)", dollars_per_hour=0.5)
    add_remote("pod1", odd)
    add_remote("other", Target("::1"))
    assert read_remotes() == {"pod1": Target(**{**vars(odd), "name": "pod1"}), "other": Target("::1", name="other")}
