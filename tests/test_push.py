"""`ta push` against the Hub's stand-in: what others can download and run, what is asked first, and what a fault leaves."""

import io
import json
import logging
import os
import shutil
import subprocess
import sys
import venv
from hashlib import sha256
from pathlib import Path

import pytest
from hub_server import FIRST_FILE, READ_TOKEN, Fault, Hub, hub
from huggingface_hub import constants

from tiny_audio import ASRModel
from tiny_audio.assets import embedded
from tiny_audio.cli.main import describe, is_for_the_user, run
from tiny_audio.errors import TinyAudioError
from tiny_audio.hub.clean_process import CLIP, check_loads
from tiny_audio.hub.push import PushRequest, find_checkpoint, publish, repository_of, require_agreement, show
from tiny_audio.hub.repository import CARD, MANIFEST, changes_of, look
from tiny_audio.hub.requirements import requirements_of
from tiny_audio.hub.staging import stage
from tiny_audio.model.lora import adapted_parts
from tiny_audio.model_source import ModelSource
from tiny_audio.training.build import build_model

pytestmark = pytest.mark.usefixtures("one_thread")
SECONDS = 300  # that a process may take on a busy machine
TEXT = "send a message to jack"
WEIGHTS = bytes(range(256)) * 2000
REQUEST = PushRequest("me/mine")
FROM_PRETRAINED = """
import sys
from tiny_audio import ASRModel
print(ASRModel.from_pretrained("me/mine").transcribe(sys.argv[1]))
"""
PIPELINE = """
import sys
sys.modules["tiny_audio"] = None  # importing it now fails
from transformers import pipeline
print(pipeline("automatic-speech-recognition", "me/mine", trust_remote_code=True)(sys.argv[1])["text"])
"""
UPLOAD = """
import sys
import venv
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
import huggingface_hub.utils._http as http
http.time = SimpleNamespace(sleep=lambda seconds: None, time=http.time.time)  # its retries do not wait
from tiny_audio.cli.main import describe, is_for_the_user
from tiny_audio.hub.push import PushRequest, publish
from tiny_audio.hub.repository import changes_of, look
try:
    remote = look("me/mine")
    added = {path.name: path for path in Path(sys.argv[1]).iterdir()}
    print("Pushed:", publish(changes_of(added, remote), remote, "Push", PushRequest("me/mine")))
except Exception as error:
    if not is_for_the_user(error):
        raise
    sys.exit(f"Error: {describe(error)}")
"""


class Terminal(io.StringIO):
    """Standard input of somebody who answers."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def server(network, monkeypatch) -> Hub:
    monkeypatch.setattr("sys.stdin", io.StringIO())  # nobody answers
    with hub({}) as running:
        network(running.url)
        yield running


@pytest.fixture
def weights(tmp_path) -> Path:
    """A folder to push: weights and a config."""
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(WEIGHTS)
    (folder / "encoder.safetensors").write_bytes(WEIGHTS[:-1])
    (folder / "config.json").write_text("{}")
    return folder


def python(environment: dict[str, str], script: str, *arguments: object, cwd: Path | None = None):
    """A script in a process of its own."""
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.run(
        command, check=False, env=environment, cwd=cwd, capture_output=True, text=True, timeout=SECONDS
    )


def ta(environment: dict[str, str], cwd: Path, *arguments: object):
    return python(environment, "from tiny_audio.cli.main import main; main()", *arguments, cwd=cwd)


def push_files(files: dict[str, bytes], request: PushRequest = REQUEST) -> str | None:
    """What `ta push` does with files that are staged."""
    remote = look(request.repository, request.branch, to_write=not request.create_pr)
    changes = changes_of(files, remote)
    require_agreement(changes, remote, request)
    return publish(changes, remote, "Push", request)


def test_what_is_pushed_is_loaded_and_run_elsewhere(nano, tmp_path):
    clip = embedded("clips") / CLIP
    shutil.copytree(nano, tmp_path / "outputs" / "quickstart-20260102-030405" / "best")
    with hub({}) as server:
        done = ta(server.environment(tmp_path / "pusher"), tmp_path, "push", "mine", "--private")
        assert done.returncode == 0, done.stderr
        assert f"Pushed: {server.url}/me/mine/commit/" in done.stdout and "hf_right" not in done.stdout + done.stderr
        assert "Checkpoint: outputs/quickstart-20260102-030405/best" in done.stderr and repr(TEXT) in done.stderr
        (commit,) = server.commits
        assert commit["summary"] == "Push quickstart-20260102-030405" and server.created["visibility"] == "private"
        wanted = "config.json model.safetensors encoder/model.safetensors decoder/tokenizer.json modeling.py handler.py"
        assert {*wanted.split(), "requirements.txt", CARD, MANIFEST} <= server.files.keys()
        assert not any("__pycache__" in name for name in server.files)
        for number, script in enumerate((FROM_PRETRAINED, PIPELINE)):
            heard = python(server.environment(tmp_path / f"home{number}"), script, clip, cwd=tmp_path)
            assert heard.stdout.strip() == TEXT, heard.stderr


FAULTS = {
    "no payment": ([Fault(402, "POST /api/repos/create")], "it costs money"),
    "no permission": ([Fault(403, "/preupload/")], "use one that may write"),
    "too many requests": ([Fault(429, headers={"Retry-After": "1"})], "too many requests: wait some minutes"),
    "server error": ([Fault(500)], "the Hub is not well"),
    "maintenance": ([Fault(503, f"PUT /lfs/{sha256(WEIGHTS).hexdigest()}", times=6)], "the Hub is not well"),
    "cut commit": ([Fault("cut")], "check the network and run the command again"),
    "cut upload": (
        [Fault("cut", f"PUT /lfs/{sha256(WEIGHTS).hexdigest()}", times=6)],
        "what is uploaded already is not uploaded again",
    ),
    "cut looking": ([Fault("cut", "GET /api/models/me/mine")], "check the network"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_one_line_leaves_nothing_and_a_retry_completes(name, weights, tmp_path):
    faults, advice = FAULTS[name]
    with hub({}) as server:
        server.faults = [Fault(**vars(fault)) for fault in faults]
        failed = python(server.environment(tmp_path), UPLOAD, weights)
        error = failed.stderr.strip().splitlines()[-1]
        assert failed.returncode == 1 and error.startswith("Error: Nothing was pushed to me/mine ("), failed.stderr
        assert advice in error and "Traceback" not in failed.stderr and "hf_right" not in failed.stderr
        assert not server.commits and server.files.keys() <= FIRST_FILE.keys()
        assert all(fault.times == 0 for fault in server.faults)
        stored, asked = set(server.stored), len(server.requests)
        again = python(server.environment(tmp_path), UPLOAD, weights)
        assert again.returncode == 0, again.stderr
        assert server.files["model.safetensors"] == WEIGHTS and len(server.commits) == 1
        sent = [request for request in server.requests[asked:] if request.startswith("PUT /lfs/")]
        assert len(sent) == 2 - len(stored)  # what was uploaded before the fault is not sent again
        if name in ("maintenance", "cut upload"):
            assert len(stored) == 1  # the other file


def test_a_refusal_of_xet_is_one_line_too(weights, tmp_path):
    with hub({}) as server:
        server.faults = [Fault(403, "/xet-write-token/", times=9)]
        failed = python(server.environment(tmp_path) | {"HF_HUB_DISABLE_XET": "0"}, UPLOAD, weights)
        assert failed.stderr.splitlines()[-1].startswith("Error: Nothing was pushed to me/mine (")
        assert "403" in failed.stderr and "use one that may write" in failed.stderr and not server.commits


def test_who_may_not_push_and_who_cannot_reach_the_hub_read_one_line(server, network, monkeypatch, capsys, nano):
    server.add("me/mine", {"a.txt": b"a"})
    push = ["push", "me/mine", "-c", "nano", "--card-only"]

    def said() -> str:
        assert run(push) == 1
        return capsys.readouterr().err.strip().splitlines()[-1]

    network(server.url, "hf_wrong")
    assert "401" in said() or "hf auth login" in said()
    network(server.url, READ_TOKEN)
    assert said().startswith("Error: Nothing was pushed to me/mine (") and "use one that may write" in said()
    network("http://127.0.0.1:9")
    assert "check the network" in said()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE=1 forbids it" in said()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    assert said().startswith("Error: ta push needs a token of the Hub and there is none; run `hf auth login`")
    assert not server.commits


def test_what_another_wrote_is_asked_for_and_what_we_wrote_is_replaced(server, capsys, monkeypatch):
    server.add("me/mine", {"config.json": b"theirs", "notes.txt": b"theirs", CARD: b"# Theirs"})
    ours = {"config.json": b"{}", "model.safetensors": WEIGHTS, "encoder/config.json": b"{}", CARD: b"# Ours"}
    with pytest.raises(TinyAudioError, match=r"did not write and would overwrite: config.json; nothing was pushed"):
        push_files(ours)
    assert not server.commits
    monkeypatch.setattr("sys.stdin", Terminal("\n"))
    with pytest.raises(TinyAudioError, match="Nothing was pushed to me/mine"):
        push_files(ours)
    monkeypatch.setattr("sys.stdin", Terminal("y\n"))
    assert push_files(ours) and "Overwrite them? [y/N]" in capsys.readouterr().err
    assert server.files["config.json"] == b"{}"

    smaller = {"config.json": b'{"a": 1}', "model.safetensors": WEIGHTS, CARD: b"# Ours"}
    assert push_files(smaller) and "Overwrite" not in capsys.readouterr().err
    assert server.files.keys() == {"config.json", "notes.txt", "model.safetensors", CARD, MANIFEST}
    assert push_files(smaller) is None and "has all of it already" in capsys.readouterr().err


def test_an_edit_of_a_file_that_we_wrote_is_asked_for_too(server):
    ours = {"config.json": b"{}", "old.py": b"pass"}
    assert push_files(ours)
    server.repositories["model", "me/mine"].commit({**server.files, "config.json": b"edited", "old.py": b"edited"})
    with pytest.raises(TinyAudioError, match="would overwrite: config.json"):
        push_files({"config.json": b'{"a": 1}'})
    assert push_files({"config.json": b'{"a": 1}'}, PushRequest("me/mine", yes=True))
    assert server.files["old.py"] == b"edited"  # no longer ours
    server.repositories["model", "me/mine"].commit({**server.files, MANIFEST: b'{"files": {"config.json": 1}}'})
    with pytest.raises(TinyAudioError, match="would overwrite: config.json"):
        push_files({"config.json": b"{}"})  # the note is damaged


def test_what_changed_at_the_same_moment_is_not_overwritten(server):
    assert push_files({"config.json": b"{}"})
    repository = server.repositories["model", "me/mine"]
    theirs = {**server.files, "config.json": b"of another machine"}
    server.faults = [Fault(lambda: repository.commit(theirs), "/preupload/")]
    with pytest.raises(TinyAudioError, match=r"412.*it was changed at the same moment"):
        push_files({"config.json": b'{"a": 1}'})
    assert server.files["config.json"] == b"of another machine"


def test_a_repository_that_another_push_made_meanwhile(server):
    server.faults = [Fault(lambda: server.add("me/mine", FIRST_FILE), "POST /api/repos/create")]
    assert push_files({"config.json": b"{}"}) and server.files["config.json"] == b"{}"
    server.faults = [Fault(lambda: server.add("me/other", {"config.json": b"theirs"}), "POST /api/repos/create")]
    with pytest.raises(TinyAudioError, match="Nothing was pushed to me/other: it was changed at the same moment"):
        push_files({"config.json": b"{}"}, PushRequest("me/other"))


@pytest.mark.parametrize("name", ["Ünïcode", "a--b", "me/x.git", "-x", "a" * 200, "me/a/b", "", "a b"])
def test_a_name_that_the_hub_has_not_is_refused_first(server, capsys, name):
    assert run(["push", "-c", "nano", "--card-only", "--", name]) == 1
    assert capsys.readouterr().err.startswith(f"Error: ta push got {name!r}; expected OWNER/NAME of a repository")
    assert not server.requests


@pytest.mark.parametrize("branch", ["a b", "a..b", "ünï", "../x", "-x", "refs/pr/1", "a/", "a//b", "a.lock", ""])
def test_a_branch_that_git_has_not_is_refused_first(server, capsys, branch):
    assert run(["push", "me/mine", "-c", "nano", "--card-only", f"--branch={branch}"]) == 1
    assert f"Error: --branch got {branch!r}; expected" in capsys.readouterr().err and not server.requests


def test_a_new_branch_of_what_is_there_is_told_and_nothing_else(server, capsys):
    assert push_files({"config.json": b"{}"})
    said, handler = [], logging.Handler()
    handler.emit = said.append
    logging.getLogger("huggingface_hub").addHandler(handler)
    assert push_files({"config.json": b"{}"}, PushRequest("me/mine", branch="v1.0/try_it-2")) is None
    assert "has all of it already; the branch v1.0/try_it-2 was made." in capsys.readouterr().err
    logging.getLogger("huggingface_hub").removeHandler(handler)
    assert not said and server.files_of("me/mine", "v1.0/try_it-2") == server.files


def test_a_token_that_cannot_be_sent_and_a_cache_that_cannot_be_written(server, network, monkeypatch, capsys):
    network(server.url, "hf_rïght")
    assert run(["push", "me/mine", "-c", "nano", "--card-only"]) == 1
    assert "holds what no token does; the token is not valid: run `hf auth login`" in capsys.readouterr().err
    network(server.url)
    server.add("me/mine", {CARD: b"# Mine"})
    monkeypatch.setattr(constants, "HF_HUB_CACHE", "/dev/full/x")
    assert run(["push", "me/mine", "-c", "nano", "--card-only"]) == 1
    assert "Nothing was pushed to me/mine (" in (said := capsys.readouterr().err) and "; check /dev/full/x" in said


def test_branches_and_pull_requests(server, network):
    assert push_files({"config.json": b"{}"})
    assert push_files({"config.json": b'{"try": 1}'}, PushRequest("me/mine", branch="try/this"))
    assert (
        server.files["config.json"] == b"{}" and server.files_of("me/mine", "try/this")["config.json"] == b'{"try": 1}'
    )
    network(server.url, READ_TOKEN)
    request = PushRequest("me/mine", create_pr=True)
    assert push_files({"config.json": b'{"pr": 1}'}, request) == f"{server.url}/me/mine/discussions/1"
    assert (
        server.files["config.json"] == b"{}" and server.files_of("me/mine", "refs/pr/1")["config.json"] == b'{"pr": 1}'
    )
    assert run(["push", "me/mine", "-c", "nano", "--create-pr", "--branch", "try/this"]) == 1
    server.add("me/gated", {MANIFEST: b"{}"}).gated = True
    with pytest.raises(TinyAudioError, match="ask for access on its page"):
        push_files({"config.json": b"{}"}, PushRequest("me/gated", create_pr=True))


def test_a_dry_run_shows_all_and_touches_nothing(server, capsys):
    assert push_files({"config.json": b"{}", "old.py": b"pass"})
    server.requests.clear()
    remote = look("me/mine")
    show(changes_of({"config.json": b'{"a": 1}', "new.bin": bytes(1_500_000)}, remote), remote, "Push it")
    shown = capsys.readouterr().out
    assert "Commit to me/mine: Push it" in shown and "1.500" in shown
    words = {line.split()[0]: line.split()[-1] for line in shown.splitlines()[2:] if line.strip()}
    assert words == {"config.json": "changed", "new.bin": "new", MANIFEST: "changed", "old.py": "deleted"}
    assert all(request.startswith(("GET", "HEAD")) for request in server.requests)


def test_only_the_card(server, capsys):
    assert push_files({"config.json": b"{}"})
    note = server.files[MANIFEST]
    assert run(["push", "mine", "-c", "nano", "--card-only", "--dry-run"]) == 0
    assert len(server.commits) == 1 and CARD in capsys.readouterr().out
    assert run(["push", "mine", "-c", "nano", "--card-only"]) == 0
    assert server.commits[-1]["summary"] == "Update the model card" and server.files[CARD].startswith(b"---\n")
    assert server.files[MANIFEST] == note and server.files["config.json"] == b"{}"
    assert run(["push", "me/mine", "-c", "nano", "--card-only", "--private"]) == 1
    assert "me/mine is public; make it private in its settings" in capsys.readouterr().err
    server.repositories["model", "me/mine"].commit({CARD: "# Größe".encode("latin-1")})
    assert run(["push", "me/mine", "-c", "nano", "--card-only"]) == 1
    assert "Error: README.md of me/mine is no UTF-8 text (byte 4); write it" in capsys.readouterr().err


def test_the_checkpoint_and_the_repository_that_are_meant(nano, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TinyAudioError, match="No run in outputs/ has a checkpoint; name one: -c FOLDER"):
        find_checkpoint(None)
    for age, name in enumerate(("newer", "older")):
        best = tmp_path / "outputs" / name / "best"
        best.mkdir(parents=True)
        shutil.copy(Path(nano) / "config.json", best)
        os.utime(best / "config.json", (1e9 - age, 1e9 - age))
        (best.parent / "settings.yaml").write_text(f"training: {{push_to: me/{name}}}\n")
    (tmp_path / "outputs" / "newest-without-one").mkdir()
    source, of_run = find_checkpoint(None)
    assert source.location == "outputs/newer/best"
    assert repository_of(PushRequest(), of_run) == "me/newer"
    assert repository_of(PushRequest(), find_checkpoint("outputs/older")[1]) == "me/older"
    with pytest.raises(TinyAudioError, match="No repository is named; expected `ta push OWNER/NAME`"):
        repository_of(PushRequest(), find_checkpoint("nano")[1])


def test_parts_of_this_machine_are_pushed_along_or_refused(settings_of, tmp_path):
    lora = ("model.use_lora=true", "model.encoder_lora_rank=2", "model.self_contained=false")
    model = build_model(settings_of(tmp_path, *lora).model)
    model.config.max_new_tokens = 8
    model.save_pretrained(tmp_path / "mine")
    before = {path: path.read_bytes() for path in (tmp_path / "mine").rglob("*") if path.is_file()}
    source = ModelSource.of(str(tmp_path / "mine"))
    with pytest.raises(TinyAudioError, match="a folder of this machine; push it along with --self-contained"):
        stage(source, tmp_path / "refused", self_contained=False)
    stage(source, tmp_path / "staged", self_contained=True)
    assert {path: path.read_bytes() for path in before} == before
    staged = ModelSource.of(str(tmp_path / "staged"))
    stage(staged, tmp_path / "again", self_contained=False)  # as it is
    for file in (path for path in (tmp_path / "staged").rglob("*") if path.is_file()):
        assert b"/parts" not in file.read_bytes()  # where this machine has them
        assert (tmp_path / "again" / file.relative_to(tmp_path / "staged")).read_bytes() == file.read_bytes()
    names = {path.relative_to(tmp_path / "again").as_posix() for path in (tmp_path / "again").rglob("*")}
    assert {"adapter/adapter_model.safetensors", "encoder_adapter/adapter_config.json", "encoder/config.json"} <= names
    assert "\npeft<0.22,>=0.21\n" in (tmp_path / "again" / "requirements.txt").read_text()
    assert len(adapted_parts(ASRModel.from_pretrained(tmp_path / "again"))) == 2


def test_only_what_is_read_of_a_part_is_pushed(nano, tmp_path):
    shutil.copytree(nano, tmp_path / "mine")
    for name in (
        "encoder/.env",
        "encoder/.cache/y.json",
        "encoder/.token.json",
        "decoder/notes.txt",
        "decoder/old/a.json",
    ):
        file = tmp_path / "mine" / name
        file.parent.mkdir(exist_ok=True)
        file.write_text("{}")
    (tmp_path / "mine/decoder/vocab.txt").write_text("a")
    stage(ModelSource.of(str(tmp_path / "mine")), tmp_path / "staged", self_contained=False)
    parts = [path for part in ("encoder", "decoder") for path in (tmp_path / "staged" / part).rglob("*")]
    wanted = {path.name for part in ("encoder", "decoder") for path in (nano / part).iterdir()}
    assert {path.name for path in parts} == wanted | {"vocab.txt"}


def test_a_damaged_checkpoint_is_one_line_that_names_it(nano, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("no-tokenizer", "no-json", "no-config", "cut"):
        shutil.copytree(nano, name)

    def said(name: str) -> str:
        with pytest.raises((TinyAudioError, OSError, ValueError)) as raised:
            stage(ModelSource.of(name), tmp_path / "staged" / name, self_contained=False)
            check_loads(tmp_path / "staged" / name, name)
        assert is_for_the_user(raised.value)
        return describe(raised.value)

    Path("no-tokenizer/tokenizer.json").unlink()
    assert said("no-tokenizer").startswith(
        "no-tokenizer could not be loaded as a model's tokenizer and feature extractor"
    )
    Path("no-json/encoder/config.json").write_text("{")
    assert said("no-json").startswith(f"{tmp_path}/no-json/encoder/config.json is no JSON (")
    Path("no-config/config.json").unlink()
    assert said("no-config") == "no-config holds no config.json; expected a checkpoint folder."
    os.truncate("cut/encoder/model.safetensors", 1000)
    cut = said("cut")
    assert cut.startswith("cut does not load in a clean process (OSError: cut could not be loaded as an audio encoder")
    assert str(tmp_path) not in cut


@pytest.mark.slow
def test_its_requirements_installed_alone_are_enough(tmp_path):
    stage(ModelSource.of("nano"), tmp_path / "linked", self_contained=False)
    model = shutil.copytree(tmp_path / "linked", tmp_path / "model")
    venv.create(tmp_path / "alone", with_pip=True)
    alone = tmp_path / "alone" / "bin" / "python"
    subprocess.run([alone, "-m", "pip", "install", "--quiet", "-r", model / "requirements.txt"], check=True)
    script = """
import importlib.util, sys
from transformers import pipeline
assert importlib.util.find_spec("tiny_audio") is None
print(pipeline("automatic-speech-recognition", sys.argv[1], trust_remote_code=True)(sys.argv[2])["text"])
"""
    command = [alone, "-I", "-c", script, model, embedded("clips") / CLIP]
    heard = subprocess.run(command, check=False, cwd=tmp_path, capture_output=True, text=True)
    assert heard.stdout.strip() == TEXT, heard.stderr


def test_requirements_are_what_the_code_imports(tmp_path):
    (tmp_path / "modeling.py").write_text(
        "import os, torch.nn\nfrom transformers import AutoModel\nfrom .config import X\nimport packaging.version\n"
        "try:\n    import peft, soundfile\nexcept ImportError:\n    pass\n"
    )
    lines = requirements_of(tmp_path).splitlines()
    assert [line.split("<")[0].split(">")[0] for line in lines] == ["packaging", "peft", "torch", "transformers"]
    assert lines[0] == "packaging<27,>=24" and lines[2] == "torch<2.14,>=2.13"
    assert "peft" not in requirements_of(tmp_path, frozenset({"peft"}))


def test_a_model_that_does_not_load_elsewhere_is_not_pushed(server, nano, tmp_path):
    stage(ModelSource.of("nano"), tmp_path / "staged", self_contained=False)
    config = json.loads((tmp_path / "staged" / "config.json").read_text())
    (tmp_path / "staged" / "pipeline.py").write_text("from tiny_audio.model.pipeline import ASRPipeline\n")
    (tmp_path / "staged" / "config.json").write_text(json.dumps(config))
    with pytest.raises(
        TinyAudioError, match=r"nano does not load in a clean process \(.*tiny_audio.*\); nothing was pushed"
    ):
        check_loads(tmp_path / "staged", "nano")
    with pytest.raises(
        TinyAudioError, match="is a model of type 'whisper'; expected a checkpoint that `ta train` wrote"
    ):
        (tmp_path / "whisper").mkdir()
        (tmp_path / "whisper" / "config.json").write_text('{"model_type": "whisper"}')
        stage(ModelSource.of(str(tmp_path / "whisper")), tmp_path / "other", self_contained=False)


@pytest.mark.parametrize("key", ["projector_file", "encoder_file"])
def test_code_of_a_model_of_the_hub_is_not_run_here(server, key, nano, tmp_path):
    """In a folder of the cache it would be, as a user's own file is."""
    config = json.loads((nano / "config.json").read_text()) | {"projector_type": "theirs", key: "theirs.py"}
    code = f"open({str(tmp_path / 'pwned')!r}, 'w')".encode()
    server.add("them/model", {"config.json": json.dumps(config).encode(), "theirs.py": code})
    with pytest.raises(TinyAudioError, match=r"^them/model comes with code of its own \(theirs.py\).*hf download"):
        stage(ModelSource.of("them/model"), tmp_path / "staged", self_contained=False)
    assert not (tmp_path / "pwned").exists()


def test_parts_that_are_not_in_the_cache_are_not_tried(tiny_checkpoint, tmp_path):
    stage(ModelSource.of(str(tiny_checkpoint)), tmp_path / "staged", self_contained=False)
    config = json.loads((tmp_path / "staged" / "config.json").read_text())
    config |= {"self_contained": False, "audio_model_id": "nobody/encoder", "text_model_id": "nobody/decoder"}
    (tmp_path / "staged" / "config.json").write_text(json.dumps(config))
    assert "its code loads; encoder and language model are not in the cache" in check_loads(tmp_path / "staged", "tiny")


def test_push_to_hub_of_the_model_itself(server, tiny_checkpoint, tmp_path):
    ASRModel.from_pretrained(tiny_checkpoint).push_to_hub("me/mine", commit_message="By hand")
    assert {"model.safetensors", "config.json", "modeling.py", "encoder/config.json"} <= server.files.keys()
    model = ASRModel.from_pretrained("me/mine", cache_dir=tmp_path)
    assert model.config.self_contained
