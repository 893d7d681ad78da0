"""`ta deploy` against the Hub's stand-in: a Space of the very demo, its build watched, its owner's words kept."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import yaml
from hub_server import Fault, Hub, hub
from hub_spaces import Spaces

from tiny_audio.cli.main import run
from tiny_audio.hub import space
from tiny_audio.hub.space import added, is_settled

OURS = b'{"model_type": "asr_model"}'
SECONDS = 120  # that an app may take to start on a busy machine
APP = """
import runpy, sys, tiny_audio
print(tiny_audio.__file__, flush=True)
runpy.run_path("app.py", run_name="__main__")
"""


@pytest.fixture
def spaces(monkeypatch) -> Spaces:
    monkeypatch.setattr(space, "POLL_SECONDS", 0.01)
    return Spaces()


@pytest.fixture
def server(network, spaces) -> Hub:
    with hub({"config.json": OURS}, routers=[spaces.routes]) as running:
        running.add("me/other", {"config.json": OURS}, settings={"private": True})
        network(running.url)
        yield running


def page(server: Hub, name: str = "me/page") -> dict[str, bytes]:
    return server.files_of(name, kind="space")


def front(server: Hub) -> dict:
    return yaml.safe_load(page(server)["README.md"].decode().split("---\n")[1])


def test_a_space_with_a_local_model_runs_the_demo(server, nano, tmp_path, capsys):
    shutil.copytree(nano, tmp_path / "runs" / "mine" / "best")
    assert run(["deploy", "page", "-m", str(tmp_path / "runs" / "mine")]) == 0
    printed = capsys.readouterr()
    assert "Successfully built the image" in printed.out
    assert f"me/page runs: {server.url}/spaces/me/page · https://me-page.hf.space" in printed.err
    (commit,) = server.commits
    files = page(server)
    assert commit["repository"] == "spaces/me/page" and server.created["sdk"] == "gradio"
    assert {"tiny_audio/demo/page/index.html", "model-mine/encoder/model.safetensors", "app.py"} <= files.keys()
    assert not [name for name in files if "__pycache__" in name or "quickstart/" in name or "assets/nano/" in name]
    assert str(tmp_path) not in " ".join(content.decode("utf-8", "ignore") for content in files.values())
    for name, content in files.items():
        file = tmp_path / "space" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    assert_it_serves(tmp_path / "space")


def assert_it_serves(folder: Path) -> None:
    """Starts app.py as a Space does and asks for its page."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    environment = {**os.environ, "GRADIO_SERVER_NAME": "127.0.0.1", "GRADIO_SERVER_PORT": str(port)}
    app = subprocess.Popen([sys.executable, "-c", APP], cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert Path(app.stdout.readline().strip()).is_relative_to(folder)
        html = wait_for(f"http://127.0.0.1:{port}/", app)
        assert "<title>" in html
    finally:
        app.terminate()
        app.wait(30)


def wait_for(url: str, app: subprocess.Popen) -> str:
    for _ in range(SECONDS * 5):
        assert app.poll() is None, "the app ended"
        try:
            return urllib.request.urlopen(url, timeout=5).read().decode()
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise AssertionError(f"no answer after {SECONDS} s")


def test_what_the_readme_and_the_requirements_say(server):
    assert run(["deploy", "me/page", "-m", "me/mine"]) == 0
    said = front(server)
    assert said["sdk"] == "gradio" and said["app_file"] == "app.py" and said["models"] == ["me/mine"]
    assert said["python_version"] == "3.12"  # a Space's own default is older than what tiny-audio runs on
    lines = page(server)["requirements.txt"].decode().splitlines()
    assert lines[0].endswith("/cpu") and {line.split("<")[0] for line in lines} >= {
        "torch",
        "transformers",
        "gradio",
        "av",
    }
    assert not [line for line in lines if line.startswith(("pytest", "tensorboard"))]
    assert b"launch('me/mine')" in page(server)["app.py"]


def test_a_second_deploy_keeps_the_owners_words_and_removes_what_is_gone(server, spaces):
    assert run(["deploy", "me/page", "-m", "me/mine"]) == 0
    repository = server.repositories["space", "me/page"]
    files = dict(page(server))
    files["README.md"] = files["README.md"].replace("🎙️".encode(), "🐸".encode()) + b"\nMy own words.\n"
    files["notes.txt"] = b"mine"
    repository.commit(files)
    assert run(["deploy", "me/page", "-m", "me/other"]) == 0
    assert front(server)["emoji"] == "🐸" and front(server)["models"] == ["me/mine", "me/other"]
    assert page(server)["README.md"].endswith(b"\nMy own words.\n") and page(server)["notes.txt"] == b"mine"
    assert b"launch('me/other')" in page(server)["app.py"]
    commits = len(server.commits)
    assert run(["deploy", "me/page", "-m", "me/other"]) == 0
    assert len(server.commits) == commits  # nothing had changed


def test_an_app_that_another_wrote_is_asked_for(server, capsys):
    server.add("me/page", {"app.py": b"print('theirs')"}, "space")
    assert run(["deploy", "me/page"]) == 1
    assert "would overwrite: app.py" in capsys.readouterr().err and page(server)["app.py"] == b"print('theirs')"
    assert run(["deploy", "me/page", "--yes"]) == 0
    assert page(server)["app.py"] != b"print('theirs')"


def test_a_space_of_another_kind_is_asked_for(server, capsys):
    readme = b"---\nsdk: docker\napp_port: 3000\n---\n# Theirs\n"
    server.add("me/page", {"README.md": readme, "Dockerfile": b"FROM scratch"}, "space")
    assert run(["deploy", "me/page", "-m", "me/mine", "--no-wait"]) == 1
    assert "would overwrite: README.md" in capsys.readouterr().err and page(server)["README.md"] == readme
    assert run(["deploy", "me/page", "-m", "me/mine", "--no-wait", "--yes"]) == 0 and front(server)["sdk"] == "gradio"


def test_models_that_a_readme_names_alone_stay(server):
    server.add("me/page", {"README.md": b"---\nmodels: me/old\n---\n# Mine\n"}, "space")
    assert run(["deploy", "me/page", "-m", "me/mine", "--no-wait"]) == 0
    assert front(server)["models"] == ["me/old", "me/mine"]


@pytest.mark.parametrize("readme", [b"---\nsdk: [\n---\n", b"---\n- a\n---\n", b"---\nmodels: 3\n---\n", b"\xff\xfe#"])
def test_a_damaged_readme_is_one_line(server, capsys, readme):
    server.add("me/page", {"README.md": readme}, "space")
    assert run(["deploy", "me/page", "-m", "me/mine", "--no-wait"]) == 1
    assert capsys.readouterr().err.startswith("Error: ") and page(server)["README.md"] == readme


@pytest.mark.parametrize(
    ("stages", "shown"),
    [
        (["BUILDING", "BUILDING", "BUILD_ERROR"], "Collecting torch"),
        (["APP_STARTING", "RUNTIME_ERROR"], "No module named x"),
    ],
)
def test_a_space_that_does_not_run_is_an_error_with_its_log(server, spaces, capsys, stages, shown):
    spaces.stages, spaces.error, spaces.run_log = stages, "exit code 1\nmore", ["Traceback\n", "No module named x\n"]
    assert run(["deploy", "me/page", "-m", "me/mine"]) == 1
    printed = capsys.readouterr()
    assert shown in printed.out
    assert printed.err.splitlines()[-1].startswith(
        f"Error: me/page does not run: {stages[-1]} (exit code 1); the log above"
    )


def test_secrets_are_there_before_the_app_and_nowhere_else(server, spaces, monkeypatch, capsys):
    monkeypatch.setenv("MY_SECRET", "s3cr3t-value")
    assert run(["deploy", "me/page", "-m", "me/mine", "--secrets-from-env", "MY_SECRET"]) == 0
    assert spaces.secrets == {"MY_SECRET": "s3cr3t-value"}
    order = [request for request in server.requests if "/secrets" in request or "/commit/" in request]
    assert "/secrets" in order[0] and "/commit/" in order[1]
    printed = capsys.readouterr()
    assert "s3cr3t" not in printed.out + printed.err + str(page(server)) + str(server.commits)
    assert run(["deploy", "me/page", "--secrets-from-env", "NOT_SET_AT_ALL"]) == 1
    assert "NOT_SET_AT_ALL, which is not set" in capsys.readouterr().err


def test_paid_hardware_is_shown_and_asked_for(server, spaces, capsys):
    command = ["deploy", "me/page", "-m", "me/mine", "--hardware", "t4-small", "--sleep-minutes", "30"]
    assert run(command) == 1
    said = capsys.readouterr().err
    assert said.count("t4-small costs $0.40 an hour while it is awake") == 1 and not server.commits
    assert said.endswith("Error: me/page was not changed; give --yes to take it.\n")
    assert ("space", "me/page") not in server.repositories
    assert run([*command, "--yes"]) == 0
    assert server.created["hardware"] == "t4-small" and server.created["sleepTimeSeconds"] == 1800
    assert spaces.asked == [
        {"flavor": "t4-small", "sleepTimeSeconds": 1800}
    ]  # a new Space of the stand-in begins on cpu-basic
    assert not page(server)["requirements.txt"].startswith(b"--extra-index-url")
    assert run(["deploy", "me/page", "--hardware", "abacus"]) == 1
    assert "no hardware 'abacus' for Spaces; expected one of: cpu-basic" in capsys.readouterr().err


def test_a_dry_run_changes_nothing(server, capsys):
    assert run(["deploy", "me/page", "-m", "me/mine", "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert (
        "me/page, which is to be made: Deploy the demo of me/mine" in printed and "tiny_audio/demo/server.py" in printed
    )
    assert run(["deploy", "me/page", "-m", "me/mine", "--dry-run", "--hardware", "t4-small"]) == 0
    assert "t4-small costs $0.40 an hour" in capsys.readouterr().err
    assert run(["deploy", "me/page", "-m", "me/mine", "--dry-run", "--hardware", "nope"]) == 1
    assert "no hardware 'nope' for Spaces" in capsys.readouterr().err
    assert ("space", "me/page") not in server.repositories and not server.commits


def test_options_of_an_endpoint_are_refused(capsys):
    assert run(["deploy", "me/page", "--access", "public", "--replicas", "4", "--image", "foo"]) == 1
    assert "Error: --access, --replicas, --image are not for a Space; it has --private" in capsys.readouterr().err


@pytest.mark.parametrize("request_", ["/api/repos/create", "/commit/", "/secrets"])
def test_a_fault_is_one_line_and_the_retry_completes(server, spaces, monkeypatch, capsys, request_):
    monkeypatch.setenv("MY_SECRET", "x")
    command = ["deploy", "me/page", "-m", "me/mine", "--secrets-from-env", "MY_SECRET"]
    server.faults = [Fault(403, request_)]
    assert run(command) == 1
    assert "403" in capsys.readouterr().err.splitlines()[-1] and not server.commits
    assert run(command) == 0 and "app.py" in page(server)


def test_a_model_that_the_space_could_not_load(server, monkeypatch, capsys):
    assert run(["deploy", "me/page", "-m", "me/missing", "--dry-run"]) == 1
    assert "Error: The model me/missing was not found (HTTP 404" in capsys.readouterr().err
    server.add("me/theirs", {"config.json": b'{"model_type": "whisper"}'})
    assert run(["deploy", "me/page", "-m", "me/theirs", "--dry-run"]) == 1
    assert "Error: me/theirs is a model of type 'whisper'; expected a checkpoint" in capsys.readouterr().err
    assert run(["deploy", "me/page", "-m", "me/other", "--dry-run"]) == 0
    assert "Warning: me/other is private" in capsys.readouterr().err
    monkeypatch.setenv("HF_TOKEN", "hf_right")
    assert run(["deploy", "me/page", "-m", "me/other", "--dry-run", "--secrets-from-env", "HF_TOKEN"]) == 0
    assert "Warning" not in capsys.readouterr().err


def test_no_space_is_named(capsys):
    assert run(["deploy"]) == 1
    assert "Name one thing to deploy" in capsys.readouterr().err


def test_the_state_of_an_older_commit_is_not_taken_for_the_new_ones(spaces):
    from huggingface_hub import SpaceRuntime

    spaces.stages, spaces.commit = ["RUNNING"], "old"
    assert not is_settled(SpaceRuntime(spaces.runtime("old")), "new", 1e9)
    assert is_settled(SpaceRuntime(spaces.runtime("new")), "new", 0)
    silent = SpaceRuntime({"stage": "RUNNING"})
    assert not is_settled(silent, "new", 0) and is_settled(silent, "new", 61)


def test_only_new_lines_of_a_log_are_shown():
    assert added(["a"], ["a", "b"]) == ["b"]
    assert added(["a", "b"], ["c"]) == ["c"]  # another build's
