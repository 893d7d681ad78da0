"""`ta remote train --pod new`: a pod of an account of our own, whose SSH server is a real one; it never bills for ever."""

import json

import pytest
import runpod_server
from remote_server import Server, until
from runpod_server import KEY, serving

from tiny_audio import retries
from tiny_audio.cli.main import run
from tiny_audio.remote import rent as rent_module
from tiny_audio.remote import runpod as runpod_module


@pytest.fixture
def account(monkeypatch, tmp_path):
    """An account whose pods are one machine: a real SSH server."""
    monkeypatch.setattr(retries, "BACKOFF_SECONDS", 0.02)
    monkeypatch.setattr(runpod_module, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(rent_module, "LOOK_SECONDS", 0.02)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    with serving(runpod_server.Runpod()) as account:
        for name, value in (("RUNPOD_API_KEY", KEY), ("RUNPOD_API_URL", account.url)):
            monkeypatch.setenv(name, value)
        server = Server(tmp_path / "pod", {"RUNPOD_API_KEY": KEY, "RUNPOD_API_URL": account.url})
        server.make()
        server.start()
        account.ssh_port, account.server = server.port, server
        yield account
        server.stop()


@pytest.fixture
def train(account, tmp_path, monkeypatch, capfd):
    """`train(program, …)` on a new pod, where the Python of jobs is a shell script → its exit code and what was said."""
    monkeypatch.chdir(tmp_path)

    def call(program: str, *arguments: str) -> tuple[int, str]:
        python = account.server.bin / "python"
        python.write_text(f"#!/bin/sh\n{program}\n")
        python.chmod(0o755)
        machine = ["--path=project", f"--ssh-config={account.server.ssh_config}", "--accept-new"]
        pod = ["--pod", "new", "--gpu", "A40", "--yes", "--no-deploy"]
        code = run(["remote", "train", *pod, *machine, "--name", "job", *arguments])
        return code, "".join(capfd.readouterr())

    return call


def states(account) -> list[str]:
    return [account.listed(pod)["status"] for pod in account.pods.values()]


@pytest.mark.parametrize(("ending", "word", "code"), [("exit 0", "finished", 0), ("exit 3", "failed", 3)])
def test_the_results_are_pulled_and_then_the_pod_stops(account, train, tmp_path, ending, word, code):
    found, said = train(f"mkdir -p outputs/job; echo trained > outputs/job/model; {ending}")
    assert found == code, said
    assert f"job: {word}" in said and "A40" in said and "their hashes agree" in said and " an hour: $" in said
    assert (tmp_path / "outputs/job/model").read_text() == "trained\n"
    until(lambda: states(account) == ["EXITED"], "the pod to stop")
    job = json.loads((account.server.home / "project/.ta/jobs/job/job.json").read_text())
    assert job["then"] == "stop-pod" and KEY not in json.dumps(job)


def test_what_goes_wrong_before_the_job_stops_the_pod(account, train):
    code, said = train("true", "--output-dir=/elsewhere")
    assert code == 1 and "not inside the project" in said
    assert states(account) == ["EXITED"]


def test_a_detached_job_keeps_its_pod_and_stops_it_alone(account, train):
    code, said = train("sleep 4", "--detach")
    assert code == 0 and "ta remote attach job --host" in said
    assert states(account) == ["RUNNING"]
    until(lambda: states(account) == ["EXITED"], "the pod to stop")


def test_what_is_missing_is_said_before_money_is_spent(account, train, monkeypatch):
    monkeypatch.delenv("NO_TOKEN", raising=False)
    code, said = train("true", "--env", "NO_TOKEN")
    assert code == 1 and "NO_TOKEN is not set here" in said
    assert account.pods == {}
