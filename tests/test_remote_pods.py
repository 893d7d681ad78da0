"""`ta remote pods` against a server that speaks RunPod's API: prices, renting, failures that leave nothing, stopping from inside."""

import io
import os
import subprocess
import sys
from datetime import UTC, datetime

import pytest
import runpod_server
from runpod_server import KEY, Refused, serving, ssh_greeting

from tiny_audio import retries
from tiny_audio.cli.remote_pods import app
from tiny_audio.errors import TinyAudioError
from tiny_audio.remote import rent as rent_module
from tiny_audio.remote import runpod as runpod_module
from tiny_audio.remote.rent import Wish, quote, rent
from tiny_audio.remote.runpod import Runpod, stop_command

CREATE = ["create", "--gpu", "A40"]


@pytest.fixture(scope="module")
def ssh_port():
    with ssh_greeting() as port:
        yield port


@pytest.fixture
def account(monkeypatch, ssh_port):
    monkeypatch.setattr(retries, "BACKOFF_SECONDS", 0.02)
    monkeypatch.setattr(runpod_module, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(rent_module, "LOOK_SECONDS", 0.02)
    with serving(runpod_server.Runpod(ssh_port=ssh_port)) as account:
        monkeypatch.setenv("RUNPOD_API_KEY", KEY)
        monkeypatch.setenv("RUNPOD_API_URL", account.url)
        yield account


def pods(*arguments: str) -> None:
    """`ta remote pods ARGUMENTS`, with its errors as they are raised."""
    app(list(arguments), standalone_mode=False)


def fault(*refusal) -> None:
    raise Refused(*refusal)


def cut() -> None:
    raise ConnectionAbortedError


def test_prices_of_both_kinds_are_listed(account, capsys):
    pods("gpus")
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["A40", "48", "0.44", "0.20", "high"] in lines and ["A100", "SXM", "80", "1.49", "high"] in lines
    pods("gpus", "--cloud", "community")
    said = capsys.readouterr().out
    assert "A40" not in said and "0.34" in said


def test_without_spot_prices_the_others_are_there(account, capsys):
    account.faults["gpuTypes"] = lambda: fault(400, "Cannot query field lowestPrice")
    pods("gpus")
    said = capsys.readouterr()
    assert "0.44" in said.out and said.err.startswith("Warning: RunPod gives no spot prices")
    with pytest.raises(TinyAudioError, match="has no spot price for A40"):
        pods(*CREATE, "--spot", "--yes")


def test_a_pod_is_created_and_waited_for(account, capsys, ssh_port):
    pods(*CREATE, "--hours", "3", "--yes")
    (pod,) = account.pods.values()
    said = capsys.readouterr()
    assert said.out.strip() == pod["id"]
    assert "1 × A40 (48 GB), on demand, secure cloud, 20 + 50 GB of disk: $0.450 an hour" in said.err
    assert f"ta remote add {pod['id']} root@127.0.0.1 -p {ssh_port} --path /workspace/tiny-audio" in said.err
    (given,) = account.inputs
    assert given["gpuTypeId"] == "NVIDIA A40" and given["startSsh"] and "22/tcp" in given["ports"]
    assert "bidPerGpu" not in given and "podFindAndDeployOnDemand" in account.asked
    hours = (datetime.fromisoformat(given["stopAfter"]) - datetime.now(UTC)).total_seconds() / 3600
    assert 2.9 < hours <= 3
    pods("list")
    assert "running  1 × NVIDIA A40  secure  0.440" in capsys.readouterr().out


def test_a_spot_pod_is_bid_for_at_the_price_that_was_shown(account, capsys):
    pods("create", "--gpu", "rtx 4090", "--count", "2", "--cloud", "community", "--spot", "--yes")
    (given,) = account.inputs
    assert (given["bidPerGpu"], given["gpuCount"], given["cloudType"]) == (0.29, 2, "COMMUNITY")
    assert "podRentInterruptable" in account.asked and "spot, community cloud" in capsys.readouterr().err


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("answer, created", [("y\n", 1), ("n\n", 0), ("\n", 0)])
def test_it_asks_before_money_is_spent(account, monkeypatch, capsys, answer, created):
    monkeypatch.setattr(sys, "stdin", Terminal(answer))
    try:
        pods(*CREATE)
    except Exception as error:  # noqa: BLE001 typer's Abort, whose module is not public
        assert type(error).__name__ == "Abort"
    assert len(account.pods) == created and "$0.450 an hour" in capsys.readouterr().err


def test_without_a_terminal_only_yes_agrees(account, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    with pytest.raises(TinyAudioError, match="add --yes"):
        pods(*CREATE)
    assert not account.inputs


@pytest.mark.parametrize(
    "gpu, said",
    [
        ("A41", "There is no GPU 'A41' in the secure cloud; expected one of: A40, RTX 4090"),
        ("A100", "'A100' names A100 PCIe, A100 SXM; give one"),
    ],
)
def test_the_name_of_a_gpu_must_be_one(account, gpu, said):
    with pytest.raises(TinyAudioError, match=said):
        pods("create", "--gpu", gpu, "--yes")


def test_no_capacity_is_one_line(account):
    account.stock = "NONE"
    with pytest.raises(TinyAudioError, match="RunPod has no A40 in the secure cloud now"):
        pods(*CREATE, "--yes")
    account.stock = "GONE"  # since it was looked at
    with pytest.raises(TinyAudioError, match="no longer any instances.*take another --gpu or --cloud"):
        pods(*CREATE, "--yes")
    assert not account.pods


def test_a_price_that_rose_after_the_question_is_refused(account, monkeypatch):
    service = Runpod()
    agreed = quote(service, Wish("A40"))
    monkeypatch.setitem(runpod_server.GPUS, "NVIDIA A40", ("A40", 48, 0.60, None, 0.20))
    with pytest.raises(TinyAudioError, match=r"now asks \$0.610 an hour, agreed were \$0.450; nothing was created"):
        rent(service, agreed)
    assert not account.inputs


@pytest.mark.parametrize("when", ["created", "listed"])
def test_a_pod_that_costs_more_than_agreed_is_terminated(account, when, capsys):
    if when == "created":
        account.storage = 0.10
    else:
        account.faults["GET /v2/pods"] = lambda: [pod.update(cost=9.9) for pod in account.pods.values()]
    with pytest.raises(TinyAudioError, match="agreed were .*; the pod is terminated"):
        pods(*CREATE, "--yes")
    assert account.inputs and not account.pods
    assert "was terminated" in capsys.readouterr().err
    if when == "created":
        assert account.asked.count("GET /v2/pods") == 1  # nobody waited for it


def test_the_disk_is_in_the_price(account):
    account.storage = 70 * 0.10 / 730
    pods(*CREATE, "--yes")
    assert len(account.pods) == 1


@pytest.mark.parametrize("end", ["ERROR", "TERMINATED"])
def test_a_pod_that_does_not_start_is_terminated(account, end):
    account.statuses = ("PROVISIONING", end)
    with pytest.raises(TinyAudioError, match=f"did not start: {end}"):
        pods(*CREATE, "--yes")
    assert account.inputs and not account.pods


def test_a_pod_without_ssh_is_given_up_and_terminated(account, monkeypatch):
    monkeypatch.setattr(runpod_module, "READY_SECONDS", 0.3)
    account.ssh_port = 0
    with pytest.raises(TinyAudioError, match="had no SSH server within .* its --image must start one"):
        pods(*CREATE, "--yes")
    assert not account.pods


def test_ctrl_c_while_it_starts_leaves_nothing(account):
    def interrupt(_: str) -> None:
        raise KeyboardInterrupt

    service = Runpod()
    service.wait = lambda pod: Runpod.wait(service, pod, interrupt)  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        rent(service, quote(service, Wish("A40")))
    assert account.inputs and not account.pods


def test_a_creation_without_an_answer_leaves_nothing(account):
    """The pod is there, and the link breaks before that is said."""
    create = account.create

    def create_and_break(given):
        create(given)
        raise ConnectionAbortedError

    account.create = create_and_break
    with pytest.raises(TinyAudioError, match="RunPod does not answer"):
        pods(*CREATE, "--yes")
    assert len(account.inputs) == 1 and not account.pods


def test_what_cannot_be_undone_is_told(account):
    account.statuses = ("ERROR",)
    service = Runpod()
    agreed = quote(service, Wish("A40"))
    service.terminate = lambda _: fault_here()  # type: ignore[method-assign]
    with pytest.raises(
        TinyAudioError, match="did not start: ERROR.*And the pod tiny-audio-.* may be left.*costs money"
    ):
        rent(service, agreed)


def fault_here() -> None:
    raise TinyAudioError("RunPod does not answer.")


def test_without_ssh_keys_nothing_is_created(account):
    account.keys = []
    with pytest.raises(TinyAudioError, match="no SSH key; add your public one"):
        pods(*CREATE, "--yes")
    assert not account.inputs


def test_lives_of_a_pod(account, capsys):
    pods(*CREATE, "--yes")
    (pod,) = account.pods
    pods("stop", pod)
    assert account.pods[pod]["status"] == "EXITED"
    with pytest.raises(TinyAudioError, match=r"HTTP 409: action stop is not valid.*state does not allow it"):
        pods("stop", pod)
    pods("start", pod, "--yes")
    assert account.pods[pod]["status"] == "RUNNING" and "$0.450 an hour, until you stop it" in capsys.readouterr().err
    pods("stop", pod)
    pods("start", pod, "--spot", "--yes")
    assert "podBidResume" in account.asked and account.pods[pod]["cost"] == 0.20
    pods("terminate", pod, "--yes")
    assert not account.pods
    with pytest.raises(TinyAudioError, match="There is no pod"):
        pods("terminate", pod, "--yes")


def test_a_start_at_a_higher_price_is_stopped_again(account):
    pods(*CREATE, "--yes")
    (pod,) = account.pods
    pods("stop", pod)
    account.storage = 0.2
    with pytest.raises(TinyAudioError, match="the pod is stopped again"):
        pods("start", pod, "--yes")
    assert account.pods[pod]["status"] == "EXITED"


def test_faults_that_pass_are_asked_again(account):
    left = [lambda: fault(429, "rate limit"), lambda: fault(502, "bad gateway"), cut]

    def stumble() -> None:
        if left:
            left.pop()()

    account.faults["GET /v2/pods"] = stumble
    pods("list")
    assert account.asked.count("GET /v2/pods") == 4


@pytest.mark.parametrize(
    "refusal, said",
    [
        ((401, f"invalid key {KEY}"), r"HTTP 401: invalid key \*\*\*\); check the key in RUNPOD_API_KEY"),
        ((402, "Insufficient balance."), "add credit"),
        ((403, "access denied"), "may not do that"),
        ((422, "Request validation failed.", "$: additional properties 'x' not allowed"), "additional properties 'x'"),
        ((503, "maintenance"), r"does not answer \(HTTP 503: maintenance\)"),
    ],
)
def test_refusals_are_one_line_without_the_key(account, refusal, said):
    account.faults["GET /v2/pods"] = lambda: fault(*refusal)
    with pytest.raises(TinyAudioError, match=said) as error:
        pods("list")
    assert KEY not in str(error.value) and "\n" not in str(error.value)


def test_an_answer_of_another_form_is_one_line(account):
    account.listed = lambda pod: {"id": "x"}
    account.create({**dict.fromkeys(("name", "imageName", "ports"), "x"), "cloudType": "SECURE", "gpuTypeId": "NVIDIA A40",
                    "containerDiskInGb": 1, "volumeInGb": 1, "volumeMountPath": "/", "gpuCount": 1})  # fmt: skip
    with pytest.raises(TinyAudioError, match="not as documented"):
        pods("list")


@pytest.mark.parametrize("key", ["", "two words", "naïve"])
def test_a_key_is_needed(monkeypatch, key):
    monkeypatch.setenv("RUNPOD_API_KEY", key)
    with pytest.raises(TinyAudioError, match="RUNPOD_API_KEY is not set to a key"):
        pods("list")


def test_ids_are_no_paths(account):
    for pod in ("../graphql", "a b", "", "a?x=1"):
        with pytest.raises(TinyAudioError, match="no pod's id"):
            pods("stop", pod)


def stop_from_inside(account, **environment: str) -> subprocess.CompletedProcess:
    environment = {"PATH": os.environ["PATH"], "RUNPOD_API_URL": account.url} | environment
    (pod,) = account.pods
    return subprocess.run(stop_command(pod), env=environment, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("works", ["rest", "graphql", "runpodctl", "nothing"])
def test_a_pod_stops_itself_by_whichever_way_answers(account, tmp_path, works):
    pods(*CREATE, "--yes")
    (pod,) = account.pods
    if works != "rest":
        account.faults[f"POST /v2/pods/{pod}/action"] = lambda: fault(403, f"the key {KEY} is of a pod")
    if works in ("runpodctl", "nothing"):
        account.faults["podStop"] = lambda: fault(401, "no")
    program = tmp_path / "runpodctl"
    program.write_text(f"#!/bin/sh\ntest \"$*\" = 'stop pod {pod}' && touch {tmp_path}/stopped\n")
    program.chmod(0o755 if works == "runpodctl" else 0o644)
    done = stop_from_inside(account, RUNPOD_API_KEY=KEY, PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert done.returncode == (works == "nothing") and KEY not in done.stdout + done.stderr
    stopped = account.pods[pod]["status"] == "EXITED" or (tmp_path / "stopped").exists()
    assert stopped == (works != "nothing"), done.stdout
    if works == "nothing":
        assert "stop it by hand" in done.stdout


def test_the_key_goes_to_no_other_place(account):
    pods(*CREATE, "--yes")
    with serving(runpod_server.Runpod()) as other:
        (pod,) = account.pods
        account.location = other.url
        done = stop_from_inside(account, RUNPOD_API_KEY=KEY)
        assert "by_rest: HTTP Error 302" in done.stdout and not other.asked
        with pytest.raises(TinyAudioError, match="HTTP 302"):
            pods("stop", pod)


def test_the_command_imports_nothing_heavy():
    check = "import sys, tiny_audio.cli.remote_pods; assert not {'httpx2', 'torch', 'rich'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", check], check=True)
