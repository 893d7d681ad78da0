"""Inference Endpoints by the real client, against a stand-in: made, updated, watched, refused, failed."""

import pytest
from hub_endpoints import Endpoints
from hub_server import READ_TOKEN, Hub, hub

from tiny_audio.cli.main import run
from tiny_audio.errors import TinyAudioError
from tiny_audio.hub import endpoint as endpoint_module
from tiny_audio.hub.endpoint import EndpointSettings, create_endpoint

FILES = {"config.json": b"{}", "handler.py": b"class EndpointHandler: ..."}
CPU = EndpointSettings("aws-us-east-1-intel-icl-x1")


@pytest.fixture
def endpoints() -> Endpoints:
    return Endpoints()


@pytest.fixture
def server(endpoints, monkeypatch):
    from huggingface_hub import constants

    with hub(FILES, routers=[endpoints.routes]) as running:
        settings = {"ENDPOINT": running.url, "INFERENCE_ENDPOINTS_ENDPOINT": f"{running.url}/v2"}
        for name, value in {**settings, "HF_HUB_OFFLINE": False}.items():
            monkeypatch.setattr(constants, name, value)
        monkeypatch.setenv("HF_TOKEN", running.token)
        monkeypatch.setattr(endpoint_module, "POLL_SECONDS", 0.01)
        yield running


def failure(*arguments, **options) -> str:
    with pytest.raises(TinyAudioError) as caught:
        create_endpoint(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_it_is_made_watched_and_told(server: Hub, endpoints: Endpoints, capsys):
    endpoints.unhealthy = 1
    secrets = EndpointSettings(secrets={"HF_TOKEN": "hf_of_the_parts"})
    questions = []
    url = create_endpoint("speech", "mine", secrets, confirm=lambda question: questions.append(question) or True)
    assert url == f"{server.url}/deployed" and endpoints.unhealthy < 0
    (asked,) = endpoints.sent
    commit = server.repositories["model", "me/mine"].refs["main"]
    model = {"repository": "me/mine", "revision": commit, "framework": "pytorch", "task": "custom"}
    assert asked["model"] == {**model, "image": {"huggingface": {}}, "secrets": {"HF_TOKEN": "hf_of_the_parts"}}
    assert asked["provider"] == {"vendor": "aws", "region": "us-east-1"} and asked["type"] == "authenticated"
    compute = asked["compute"]
    assert [compute[name] for name in ("accelerator", "instanceType", "instanceSize")] == ["gpu", "nvidia-l4", "x1"]
    assert compute["scaling"] == {"minReplica": 0, "maxReplica": 1, "scaleToZeroTimeout": 15}
    (question,) = questions
    assert question == (
        "Make the endpoint speech with me/mine: 0 to 1 replicas of Nvidia L4 (aws-us-east-1-nvidia-l4-x1), access authenticated, "
        "$0.80 an hour each, asleep after 15 idle minutes"
    )
    shown = capsys.readouterr()
    assert shown.out == f"{url}\n" and "hf_of_the_parts" not in shown.err
    assert shown.err.splitlines()[:3] == ["speech: pending", "speech: initializing (loading)", "speech: running"]
    assert f"--data-binary @speech.flac {url}" in shown.err and "hf endpoints pause speech --namespace me" in shown.err


def test_no_is_no_and_costs_nothing(server: Hub, endpoints: Endpoints):
    assert create_endpoint("speech", "me/mine", confirm=lambda _: False) is None
    assert endpoints.sent == []


def test_without_waiting_there_is_no_address_yet(server: Hub, endpoints: Endpoints, capsys):
    always_on = EndpointSettings("aws-us-east-1-intel-icl-x1", "public", min_replicas=1, max_replicas=2)
    assert create_endpoint("my-lab/speech", "me/mine", always_on, wait=False) is None
    assert list(endpoints.made) == ["my-lab/speech"] and endpoints.sent[0]["type"] == "public"
    assert endpoints.sent[0]["compute"]["scaling"]["scaleToZeroTimeout"] is None
    assert "no address yet; see https://ui.endpoints.huggingface.co/my-lab/endpoints/speech" in capsys.readouterr().err


def test_one_that_is_there_is_updated(server: Hub, endpoints: Endpoints):
    server.add("me/other", FILES)
    create_endpoint("speech", "me/other", CPU)
    questions = []
    url = create_endpoint("speech", "me/mine", EndpointSettings(), confirm=lambda text: questions.append(text) or True)
    assert url is not None and questions[0].startswith(
        "Update the endpoint speech with me/mine, in place of me/other: "
    )
    changed = endpoints.made["me/speech"]
    assert changed["model"]["repository"] == "me/mine" and changed["compute"]["instanceType"] == "nvidia-l4"


def test_an_image_of_ones_own_is_our_server(server: Hub, endpoints: Endpoints):
    own = EndpointSettings(CPU.hardware, image="ghcr.io/me/tiny-audio-server:1")
    create_endpoint("speech", "me/mine", own)
    model = endpoints.made["me/speech"]["model"]
    image = {"url": own.image, "port": 8000, "healthRoute": "/health"}
    assert model["image"] == {"custom": image} and model["args"] == ["-m", "/repository"]
    assert model["framework"] == "custom"
    create_endpoint("speech", "me/mine", CPU)
    assert endpoints.made["me/speech"]["model"]["image"] == {"huggingface": {}}


def test_a_paused_one_runs_again(server: Hub, endpoints: Endpoints):
    create_endpoint("speech", "me/mine", CPU)
    endpoints.made["me/speech"]["state"] = ("paused", "")
    assert create_endpoint("speech", "me/mine", CPU) is not None
    assert endpoints.sent[-1] == {"resume": "speech"}


def test_a_sleeping_one_is_ready(server: Hub, endpoints: Endpoints):
    endpoints.last = ("scaledToZero", "")
    assert create_endpoint("speech", "me/mine", CPU) == f"{server.url}/deployed"


def test_it_cannot_move(server: Hub, endpoints: Endpoints):
    create_endpoint("speech", "me/mine", CPU)
    message = failure("speech", "me/mine", EndpointSettings(CPU.hardware, "public"))
    assert (
        "is authenticated, at aws us-east-1, and cannot become public" in message and "hf endpoints delete" in message
    )


@pytest.mark.parametrize("state", ["failed", "updateFailed", "paused"])
def test_a_failure_says_why_and_where_its_log_is(state, server: Hub, endpoints: Endpoints):
    endpoints.last = (state, "No module named 'av'\nsee the log")
    message = failure("speech", "me/mine", CPU)
    assert f"speech: {state} (No module named 'av' see the log)" in message and "/me/endpoints/speech" in message


def test_one_that_never_starts_is_not_waited_for_for_ever(server: Hub, endpoints: Endpoints, monkeypatch):
    monkeypatch.setattr(endpoint_module, "WAIT_SECONDS", 0.2)
    endpoints.last = ("initializing", "")
    assert "still initializing" in failure("speech", "me/mine", CPU)


def test_what_stands_in_the_way_is_known_before_anything_is_made(server: Hub, endpoints: Endpoints, monkeypatch):
    server.add("me/bare", {"config.json": b"{}"})
    assert "me/bare holds no handler.py" in failure("speech", "me/bare", CPU)
    assert "no such repository" in failure("speech", "me/nothing", CPU)
    message = failure("speech", "me/mine", EndpointSettings("aws-us-east-1-nvidia-l40-x1"))
    assert "'aws-us-east-1-nvidia-l40-x1' is unknown" in message and "such as aws-us-east-1-nvidia-l4-x1" in message
    assert "is not available" in failure("speech", "me/mine", EndpointSettings("aws-us-east-1-nvidia-t4-x1"))
    endpoints.used = 2
    assert "2 of 2 allowed ones are in use" in failure("speech", "me/mine", CPU)
    monkeypatch.setenv("HF_TOKEN", READ_TOKEN)
    assert "the token may not do that" in failure("speech", "me/mine", CPU)
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert "the token is not valid" in failure("speech", "me/mine", CPU)
    assert endpoints.sent == []


@pytest.mark.parametrize(
    ("status", "message", "advice"),
    [
        (402, "Payment required", "set up billing"),
        (403, "Quota exceeded", "may not"),
        (409, "Taken", "the name is taken"),
    ],
)
def test_a_refusal_is_one_line(status, message, advice, server: Hub, endpoints: Endpoints):
    endpoints.refusal = (status, message)
    said = failure("speech", "me/mine", CPU)
    assert said.startswith(f"The endpoint speech was not made (HTTP {status}: {message}); ") and advice in said


@pytest.mark.parametrize(
    ("options", "message"), [({"access": "open"}, "expected one of"), ({"min_replicas": 3}, "3 to 1")]
)
def test_settings_are_checked(options, message):
    with pytest.raises(TinyAudioError, match=message):
        EndpointSettings(**options)


def test_the_command(server: Hub, endpoints: Endpoints, monkeypatch, capsys):
    command = ["deploy", "--endpoint", "speech", "-m", "me/mine", "--hardware", "aws-us-east-1-intel-icl-x1"]
    assert run([*command, "--dry-run"]) == 0 and endpoints.sent == []
    assert "$0.03 an hour each, asleep after 15 idle minutes." in capsys.readouterr().err
    assert run(command) == 1 and endpoints.sent == []  # there is no terminal to ask on
    assert "Error: The endpoint speech was not changed; give --yes to go on." in capsys.readouterr().err
    monkeypatch.setenv("PARTS_TOKEN", "hf_of_the_parts")
    assert run([*command, "--yes", "--sleep-minutes", "30", "--secrets-from-env", "PARTS_TOKEN"]) == 0
    assert capsys.readouterr().out == f"{server.url}/deployed\n"
    assert endpoints.sent[0]["model"]["secrets"] == {"PARTS_TOKEN": "hf_of_the_parts"}
    assert endpoints.sent[0]["compute"]["scaling"]["scaleToZeroTimeout"] == 30


@pytest.mark.parametrize("name", ["", "bad name!", "a" * 80, "-a", "a/b/c"])
def test_a_name_that_no_endpoint_has_is_refused_first(name, server: Hub, capsys):
    assert run(["deploy", f"--endpoint={name}", "-m", "me/mine", "--dry-run"]) == 1
    assert (
        f"Error: --endpoint got {name!r}; expected letters, digits" in capsys.readouterr().err and not server.requests
    )


def test_options_of_a_space_are_refused(capsys):
    assert run(["deploy", "--endpoint", "speech", "-m", "me/mine", "--private"]) == 1
    assert "Error: --private is not for an endpoint; it has --access private." in capsys.readouterr().err


@pytest.mark.parametrize("model", [[], ["-m", "nano"]])
def test_an_endpoint_takes_a_model_of_the_hub(model, capsys):
    assert run(["deploy", "--endpoint", "speech", *model]) == 1
    assert "push one first: ta push OWNER/NAME" in capsys.readouterr().err
