"""The server: a real `ta serve`, asked by real clients; its limits, its queue, its end; and `ta eval` against it."""

import base64
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx2
import pytest

from tiny_audio import embedded, transcribe
from tiny_audio.cli.main import run
from tiny_audio.export.handler import EndpointHandler
from tiny_audio.hub.endpoint import SERVER_PORT
from tiny_audio.serving.app import SpeechApp

CLIP = embedded("clips") / "send-a-message-to-jack.ogg"
OGG = CLIP.read_bytes()
LIMIT_MB = 0.1
PATIENCE = 120  # seconds, on a machine that does other things too


@contextmanager
def process(*options: str):
    """`ta serve OPTIONS` on a free port → (the process, its address), once it listens."""
    command = [sys.executable, "-m", "tiny_audio.cli.main", "serve", "--port", "0", *options]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert server.stderr is not None
        line = server.stderr.readline()
        found = re.search(r"http://127\.0\.0\.1:\d+", line)
        assert found, line + server.stderr.read()
        yield server, found[0]
    finally:
        server.kill()
        server.communicate()


def wait_until_ready(url: str) -> dict:
    deadline = time.monotonic() + PATIENCE
    while (answer := httpx2.get(f"{url}/health")).status_code != 200:
        assert (answer.status_code, answer.json()["status"]) == (503, "loading")
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return answer.json()


@pytest.fixture(scope="module")
def url():
    with process("--max-upload-mb", str(LIMIT_MB), "--max-minutes", "0.1") as (_, address):
        assert wait_until_ready(address) == {"status": "ready", "model": "nano"}
        yield address


@pytest.fixture(scope="module")
def text() -> str:
    return transcribe(CLIP)


def post(url: str, **request) -> tuple[int, dict]:
    answer = httpx2.post(url, timeout=PATIENCE, **request)
    assert answer.headers["content-type"] == "application/json"
    return answer.status_code, answer.json()


# ---- what it answers

BODIES = {
    "audio": {"content": OGG, "headers": {"Content-Type": "audio/ogg"}},
    "audio with a codec": {"content": OGG, "headers": {"Content-Type": "Audio/OGG; codecs=opus"}},
    "bytes": {"content": OGG, "headers": {"Content-Type": "application/octet-stream"}},
    "base64": {"json": {"inputs": base64.b64encode(OGG).decode()}},
    "a form": {"files": {"file": ("clip.ogg", OGG)}, "data": {"num_beams": "1"}},
}


@pytest.mark.parametrize("name", BODIES)
def test_each_body_is_heard(name, url, text):
    assert post(url, **BODIES[name]) == (200, {"text": text})


def test_parameters_stand_in_the_address_or_the_body(url, text):
    status, timed = post(f"{url}/?return_timestamps=word", **BODIES["audio"])
    assert status == 200 and [chunk["text"] for chunk in timed["chunks"]] == text.split()
    body = {**BODIES["base64"]["json"], "parameters": {"return_timestamps": "word"}}
    assert post(url, json=body) == (200, timed)
    assert post(url, files={"file": OGG}, data={"return_timestamps": "word"}) == (200, timed)


def test_settings_of_decoding_leave_no_lines_of_transformers_in_the_log(text):
    query = "repetition_penalty=1.01&no_repeat_ngram_size=9&length_penalty=0.5"
    with process() as (server, url):
        wait_until_ready(url)
        assert post(f"{url}/?{query}", **BODIES["audio"]) == (200, {"text": text})
        assert post(f"{url}/?do_sample=true&temperature=0.01&top_k=1", **BODIES["audio"]) == (200, {"text": text})
        server.send_signal(signal.SIGTERM)
        assert server.stderr.read() == "The model nano is ready.\n"


def test_the_client_of_the_hub_works_with_it(url, text, monkeypatch):
    from huggingface_hub import InferenceClient, constants
    from huggingface_hub.errors import BadRequestError

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    client = InferenceClient(url, token="hf_local")
    assert client.automatic_speech_recognition(str(CLIP)).text == text
    timed = client.automatic_speech_recognition(OGG, extra_body={"return_timestamps": "word", "num_beams": 1})
    assert timed.text == text and timed.chunks is not None and timed.chunks[0].text == text.split()[0]
    with pytest.raises(BadRequestError, match="num_beams is 99"):
        client.automatic_speech_recognition(OGG, extra_body={"num_beams": 99})


def test_ta_eval_measures_it_as_an_endpoint(url, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_local")
    common = ["-d", "quickstart", "-n", "4", "--output-dir"]
    assert (
        run(["eval", "--provider", "endpoint", "--base-url", url, "-m", "nano", *common, str(tmp_path / "http")]) == 0
    )
    assert run(["eval", "-m", "nano", *common, str(tmp_path / "here")]) == 0
    over_http, here = (
        [json.loads(line)["prediction"] for line in next((tmp_path / name).rglob("results.jsonl")).open()]
        for name in ("http", "here")
    )
    assert len(here) == 4 and all(here) and sorted(over_http) == sorted(here)


# ---- what it refuses

AUDIO = {"Content-Type": "audio/wav"}
REFUSED = {
    "no audio": (400, {"content": b"hello", "headers": AUDIO}, "not readable audio"),
    "nothing": (400, {"content": b"", "headers": AUDIO}, "empty"),
    "no JSON": (400, {"content": b"{", "headers": {"Content-Type": "application/json"}}, "not JSON"),
    "deep JSON": (400, {"content": b"[" * 100_000, "headers": {"Content-Type": "application/json"}}, "not JSON"),
    "a JSON list": (400, {"json": [1]}, "The request is a list"),
    "a path": (400, {"json": {"inputs": "/etc/passwd"}}, "never opened"),
    "one sample": (400, {"json": {"inputs": {"array": [0.1], "sampling_rate": 384_000}}}, "holds no audio samples"),
    "a URL": (400, {"json": {"inputs": "http://127.0.0.1/a.wav"}}, "never opened"),
    "a parameter": (400, {"json": {"inputs": "AAAA", "parameters": {"beams": 2}}}, "expected one of"),
    "a form's path": (400, {"files": {"inputs": (None, b"/etc/passwd")}}, "never opened"),
    "half a form": (
        400,
        {
            "content": b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nRIFF',
            "headers": {"Content-Type": "multipart/form-data; boundary=x"},
        },
        "breaks off",
    ),
    "a long recording": (413, {"json": {"inputs": {"array": [0.1] * 104_000, "sampling_rate": 16_000}}}, "minutes"),
    "a large recording": (413, {"content": bytes(200_000), "headers": AUDIO}, "0.1 MB"),
    "a large body": (413, {"content": bytes(30_000_000), "headers": AUDIO}, "The body has more than"),
    "a large stream": (413, {"content": iter([bytes(100_000)] * 100), "headers": AUDIO}, "The body has more than"),
    "curl's default type": (415, {"data": {"a": "b"}}, "x-www-form-urlencoded; expected audio/"),
    "text": (415, {"content": b"x", "headers": {"Content-Type": "text/plain"}}, "text/plain; expected audio/"),
    "no type": (415, {"content": b"x"}, "not named"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_wrong_has_its_status_and_one_line(name, url, text):
    status, request, message = REFUSED[name]
    answer = post(url, **request)
    assert (answer[0], list(answer[1])) == (status, ["error"]) and message in answer[1]["error"]
    assert "\n" not in answer[1]["error"]
    assert post(url, **BODIES["audio"]) == (200, {"text": text})


def test_other_addresses_and_methods_are_json_errors_too(url):
    assert post(f"{url}/v1/nothing") == (404, {"error": "Not Found"})
    assert httpx2.get(url).status_code == 405


# ---- queue, load, end


class Gate:
    """In the handler's place: hears nothing until it is opened."""

    def __init__(self) -> None:
        self.open, self.heard = threading.Event(), 0

    def __call__(self, data: dict) -> dict:
        assert self.open.wait(PATIENCE)
        self.heard += 1
        if data["inputs"] == b"bug":
            raise RuntimeError("a secret of the server")
        return {"text": data["inputs"].decode()}


@contextmanager
def application(handler, **settings):
    """A SpeechApp in a thread → (its address, the app)."""
    import uvicorn

    app = SpeechApp("gate", handler, **{"max_upload_mb": 1, "queue": 2, **settings})
    server = uvicorn.Server(uvicorn.Config(app.asgi, log_level="critical"))
    listening = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}", app
    finally:
        server.should_exit = True
        thread.join(PATIENCE)


def until(condition) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_full_queue_is_503_and_health_answers_meanwhile():
    gate = Gate()
    with application(lambda: gate) as (url, app), ThreadPoolExecutor(2) as pool:
        wait_until_ready(url)
        first = [pool.submit(post, url, content=name, headers=AUDIO) for name in (b"a", b"b")]
        until(lambda: app.requests == 2)
        refused = httpx2.post(url, content=b"c", headers=AUDIO)
        assert refused.status_code == 503 and int(refused.headers["retry-after"]) > 0
        assert "2 requests wait already" in refused.json()["error"]
        started = time.monotonic()
        assert httpx2.get(f"{url}/health").status_code == 200
        assert time.monotonic() - started < 5
        gate.open.set()
        assert [answer.result() for answer in first] == [(200, {"text": "a"}), (200, {"text": "b"})]
        assert post(url, content=b"c", headers=AUDIO) == (200, {"text": "c"}) and app.requests == 0


def test_slow_clients_keep_nobody_out():
    """A body that does not go on takes no place in the queue, and what all bodies hold is bounded."""
    gate = Gate()
    gate.open.set()
    head = "POST / HTTP/1.1\r\nHost: x\r\nContent-Type: audio/wav\r\nContent-Length: {}\r\n\r\n"
    with application(lambda: gate) as (url, app), ExitStack() as slow:
        wait_until_ready(url)
        port = int(url.rpartition(":")[2])
        clients = [slow.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(4)]
        for client in clients:
            client.sendall(head.format(2_000_000).encode() + b"a")
        until(lambda: app.held_bytes == 4)
        assert post(url, content=b"b", headers=AUDIO) == (200, {"text": "b"})
        for client in clients[:3]:
            client.sendall(bytes(1_500_000))  # 4.5 MB, of 2 × 2.3
        until(lambda: app.held_bytes == 4_500_004)
        status, answer = post(url, content=bytes(500_000), headers=AUDIO)
        assert status == 503 and "large bodies" in answer["error"]
    until(lambda: app.held_bytes == 0)


def test_who_left_is_not_heard():
    gate = Gate()
    with application(lambda: gate) as (url, app), ThreadPoolExecutor(1) as pool:
        wait_until_ready(url)
        first = pool.submit(post, url, content=b"a", headers=AUDIO)
        until(lambda: app.requests == 1)
        with pytest.raises(httpx2.ReadTimeout):
            httpx2.post(url, content=b"b", headers=AUDIO, timeout=1)
        time.sleep(0.3)  # the server sees the end of the connection
        gate.open.set()
        assert first.result() == (200, {"text": "a"})
        until(lambda: app.requests == 0)
        assert gate.heard == 1


def test_a_bug_is_500_without_its_insides():
    gate = Gate()
    gate.open.set()
    with application(lambda: gate) as (url, app):
        wait_until_ready(url)
        status, answer = post(url, content=b"bug", headers=AUDIO)
        assert status == 500 and "secret" not in answer["error"] and app.requests == 0
        assert post(url, content=b"a", headers=AUDIO)[0] == 200


def test_while_the_model_loads_it_answers_503():
    loading = threading.Event()

    def load() -> EndpointHandler:
        assert loading.wait(PATIENCE)
        raise OSError("no such model")

    with application(load) as (url, app):
        assert httpx2.get(f"{url}/health").json() == {"status": "loading", "model": "gate"}
        status, answer = post(url, content=b"a", headers=AUDIO)
        assert status == 503 and "loading" in answer["error"]
        loading.set()
        until(lambda: app.failure is not None)
        answer = httpx2.get(f"{url}/health")
        assert (answer.status_code, answer.json()["status"]) == (503, "failed")


def test_sigterm_answers_what_is_under_way_and_ends_well(text):
    with process() as (server, url), httpx2.Client(timeout=PATIENCE) as client:
        wait_until_ready(url)

        def body():
            yield OGG[:1000]
            time.sleep(1)  # it is read so far
            server.send_signal(signal.SIGTERM)
            time.sleep(0.5)
            yield OGG[1000:]

        assert client.get(f"{url}/health").status_code == 200  # the connection stands
        answer = client.post(url, content=body(), headers=AUDIO)
        assert (answer.status_code, answer.json()) == (200, {"text": text})
        assert server.wait(PATIENCE) == 0
        assert "Traceback" not in server.stderr.read()


def test_a_model_that_cannot_be_loaded_ends_it_with_one_line(tmp_path, capsys):
    assert run(["serve", "-m", str(tmp_path)]) == 1
    assert "holds no config.json" in capsys.readouterr().err
    (tmp_path / "config.json").write_text('{"model_type": "asr_model"}')
    before = signal.getsignal(signal.SIGTERM)
    try:
        assert run(["serve", "--port", "0", "-m", str(tmp_path)]) == 1
    finally:
        signal.signal(signal.SIGTERM, before)
    listening, error = capsys.readouterr().err.strip().splitlines()
    assert listening.startswith("Listening on http://127.0.0.1:")
    assert error.startswith("Error: The config names no audio_model_id")


def test_without_the_extra_the_command_says_what_to_install(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert run(["serve"]) == 1
    assert "pip install 'tiny-audio[serve]'" in capsys.readouterr().err


def test_a_taken_port_is_one_line(capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert run(["serve", "--port", str(taken.getsockname()[1])]) == 1
    assert "cannot be listened on (Address already in use); choose another" in capsys.readouterr().err


# ---- the images

REPOSITORY = Path(__file__).parents[1]
DOCKERFILE = REPOSITORY / "docker" / "Dockerfile"
IMAGES = {"server": "serve", "demo": "demo"}  # target: command of `ta`


def stages() -> dict[str, list[tuple[str, str]]]:
    """The Dockerfile's stages by their names: (instruction, its arguments)."""
    lines = re.sub(r"^#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE).replace("\\\n", " ").splitlines()
    found: dict[str, list[tuple[str, str]]] = {}
    for instruction, arguments in (line.split(maxsplit=1) for line in lines if line.strip()):
        assert instruction in DOCKER_WORDS, instruction
        if instruction == "FROM":
            found[arguments.split(" AS ")[1]] = steps = []
        elif found:
            steps.append((instruction, arguments.strip()))
    return found


DOCKER_WORDS = {*"ARG FROM ENV RUN WORKDIR COPY USER VOLUME EXPOSE HEALTHCHECK ENTRYPOINT".split()}


def test_what_the_images_copy_is_in_the_tree_and_in_the_context():
    context = {line.removeprefix("!") for line in (REPOSITORY / ".dockerignore").read_text().splitlines()}
    copied = {
        source
        for steps in stages().values()
        for instruction, arguments in steps
        if instruction == "COPY"
        for source in arguments.split()[:-1]
    }
    assert copied and copied <= context
    assert all((REPOSITORY / source).exists() for source in copied)


@pytest.mark.parametrize("target", IMAGES)
def test_an_image_is_not_root_and_starts_a_command_that_parses(target):
    from tiny_audio.cli.main import load_command

    steps = dict(stages()[target])  # the last of each instruction
    user, group = steps["USER"].split(":")
    assert user == group and int(user) > 0
    assert any(f"useradd --uid {user} " in arguments for _, arguments in stages()["base"])
    program, command, *options = json.loads(steps["ENTRYPOINT"])
    assert (program, command) == ("ta", IMAGES[target])
    assert options == ["--host", "0.0.0.0", "--port", steps["EXPOSE"]]
    context = load_command(command).make_context(command, [*options, "-m", "me/mine"])
    assert context.params["host"] == "0.0.0.0" and "me/mine" in str(context.params["model"])
    assert f":{steps['EXPOSE']}/" in steps["HEALTHCHECK"]


def test_the_health_check_of_the_image_sees_the_server(url):
    steps = dict(stages()["server"])
    assert steps["EXPOSE"] == str(SERVER_PORT)
    program, *arguments = json.loads(steps["HEALTHCHECK"].partition(" CMD ")[2])
    assert program == "python"
    for port, code in ((url.rpartition(":")[2], 0), ("9", 1)):
        command = [argument.replace(steps["EXPOSE"], port) for argument in arguments]
        done = subprocess.run([sys.executable, *command], check=False, capture_output=True, timeout=PATIENCE)
        assert done.returncode == code, done.stderr
