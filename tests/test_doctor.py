"""`ta doctor`: each check's finding, and that no token is ever shown."""

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib import metadata

from packaging.requirements import Requirement

from tiny_audio import doctor
from tiny_audio.cli.main import run


def test_here_everything_required_is_well(nano, capsys, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret123")
    monkeypatch.setenv("WANDB_API_KEY", "wandbsecret456")
    assert run(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(line[0] in "✓!" for line in lines)
    assert "✓ token HF_TOKEN is set" in lines
    assert "secret" not in "".join(lines)
    for subject in ("Python 3.", "packages in range", "extra train", "disk:", "memory:", "network:", "self-test: nano"):
        assert any(subject in line for line in lines), subject


def test_a_failure_exits_1(capsys, monkeypatch):
    monkeypatch.setattr(doctor, "MAX_SELF_TEST_WER", -1.0)
    assert run(["doctor"]) == 1
    assert "✗ self-test" in capsys.readouterr().out


def test_a_package_out_of_range_is_named_with_its_version():
    what, requirement = doctor._problem(Requirement("torch<1"))
    assert what.startswith("torch 2.")
    assert what.endswith("needs <1")
    assert str(requirement) == "torch<1"
    assert doctor._problem(Requirement("no-such-package>=1"))[0] == "no-such-package is not installed"
    assert doctor._problem(Requirement("torch>=2")) is None


def test_every_extra_of_commands_is_looked_at():
    extras = {name for name in metadata.metadata("tiny-audio").get_all("Provides-Extra") if name not in ("dev", "docs")}
    assert set(doctor.EXTRAS) == extras


def test_the_requirements_of_an_extra_are_what_it_adds():
    assert [requirement.name for requirement in doctor._requirements("wandb")] == ["wandb"]
    assert "torch" in [requirement.name for requirement in doctor._requirements("")]


def test_a_check_that_breaks_is_a_failure_with_its_reason():
    def disk_space():
        raise OSError("the disk is gone")
        yield

    (check,) = doctor._guarded(disk_space)
    assert str(check).startswith("✗ disk space: the disk is gone — ")


def test_missing_tokens_are_a_warning(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    for name in doctor.TOKENS:
        monkeypatch.delenv(name, raising=False)
    assert {check.state for check in doctor.tokens()} == {"warning"}


class NotFound(BaseHTTPRequestHandler):
    def do_HEAD(self):
        self.send_error(404)

    def log_message(self, *arguments):
        pass


def test_any_answer_of_the_server_is_a_network():
    server = HTTPServer(("127.0.0.1", 0), NotFound)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    assert doctor._answer_seconds(url) < doctor.NETWORK_SECONDS
    server.shutdown()
    server.server_close()
    assert doctor._answer_seconds(url) is None
