"""The link of `ta remote` and what travels on it, against a real sshd: keys, hosts, jumps, drops, hostile names, full disks."""

import ast
import getpass
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from importlib import resources
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from remote_server import Server, free_port, make_key, until

from tiny_audio.cli.main import describe, run
from tiny_audio.errors import TinyAudioError
from tiny_audio.remote.connection import Connection, connect
from tiny_audio.remote.host_keys import fingerprint
from tiny_audio.remote.jobs import Job, holding, job_folder, start
from tiny_audio.remote.machine import Project, choose_python, examine, keeps_torch, look
from tiny_audio.remote.openssh import jump, rsync_quote
from tiny_audio.remote.pull import pull
from tiny_audio.remote.setup import setup
from tiny_audio.remote.sync import describe as describe_sync
from tiny_audio.remote.sync import listing, sync
from tiny_audio.remote.targets import Target, find_target

HOSTILE = (
    "x; touch pwned", "$(touch pwned)", "`touch pwned`", "a'b", 'a"b', "a b", "a\nb", "-rf", "--help", "-oProxyCommand=touch pwned",
    "|| touch pwned", "&touch pwned", "\\", "*", "~", "$HOME", "!!", "#", "é😀", "a\tb", "[x]", ";", "''", "\x7f\x1b[0m",
)  # fmt: skip
TEXT = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=40) | st.sampled_from(
    HOSTILE
)
NAMES = TEXT.filter(lambda name: name not in ("", ".", "..") and "/" not in name and len(name.encode()) < 100)
OFTEN = settings(deadline=None, max_examples=40, suppress_health_check=list(HealthCheck))
SELDOM = settings(OFTEN, max_examples=5)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = started(tmp_path_factory.mktemp("machine"))
    yield server
    server.stop()
    assert not list(server.folder.rglob("pwned"))


def started(folder: Path, **environment: str) -> Server:
    server = Server(folder, environment)
    server.make()
    server.start()
    with connect(server.target(), accept_new=True):
        pass
    return server


@pytest.fixture(scope="module")
def connection(server):
    with connect(server.target()) as connection:
        yield connection


@pytest.fixture
def repository(tmp_path) -> Path:
    return make_repository(tmp_path / "here", {"a.txt": b"a", "folder/b.txt": b"b"})


def make_repository(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    subprocess.run(["git", "init", "-q", folder], check=True)
    subprocess.run(["git", "-C", folder, "add", "-A"], check=True)
    return folder


def refusal(target: Target, accept_new: bool = False) -> str:
    """The one line that a connection ends with."""
    with pytest.raises(TinyAudioError) as caught, connect(target, accept_new):
        pass
    assert "\n" not in str(caught.value)
    return describe(caught.value)


# ---- who is there


def test_an_unknown_host_is_shown_and_not_trusted(server, tmp_path, monkeypatch):
    config, known = tmp_path / "config", tmp_path / "ssh" / "known_hosts"
    config.write_text(f"UserKnownHostsFile {known}\n{server.ssh_config.read_text()}")
    target = server.target(ssh_config=str(config))
    monkeypatch.setattr(sys, "stdin", open(os.devnull))  # noqa: SIM115
    said = refusal(target)
    shown = subprocess.run(
        ["ssh-keygen", "-lf", server.folder / "host_key.pub"], capture_output=True, text=True, check=True
    ).stdout.split()[1]
    assert f"ED25519 key {shown}" in said and "--accept-new" in said
    assert not known.exists()
    with connect(target, accept_new=True) as connection:
        assert fingerprint(connection.transport.get_remote_server_key()) == shown
    assert refusal(server.target(ssh_config=str(config), port=free_port())).startswith("Nothing answers at")
    with connect(target):
        pass


@pytest.mark.parametrize(("answer", "trusted"), [("yes", True), ("no", False), ("", False)])
def test_a_person_is_asked(server, tmp_path, monkeypatch, answer, trusted):
    config, known = tmp_path / "config", tmp_path / "known_hosts"
    config.write_text(f"UserKnownHostsFile {known}\n{server.ssh_config.read_text()}")
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda question: answer)
    target = server.target(ssh_config=str(config))
    if trusted:
        with connect(target):
            assert known.read_text().count("\n") == 1
    else:
        assert "not accepted" in refusal(target)
        assert not known.exists()


def test_a_changed_host_key_is_refused(server, tmp_path):
    make_key(tmp_path / "another")
    config, known = tmp_path / "config", tmp_path / "known_hosts"
    kind, key, _ = (tmp_path / "another.pub").read_text().split()
    known.write_text(f"[127.0.0.1]:{server.port} {kind} {key}\n")
    config.write_text(f"UserKnownHostsFile {known}\n{server.ssh_config.read_text()}")
    said = refusal(server.target(ssh_config=str(config)), accept_new=True)
    assert "has changed" in said and "ssh-keygen" in said
    assert known.read_text().count("\n") == 1


@pytest.mark.parametrize("nowhere", ["/dev/null", "none"])
def test_a_configuration_that_keeps_no_host_keys_is_refused(server, tmp_path, nowhere):
    config = tmp_path / "config"
    config.write_text(f"UserKnownHostsFile {nowhere}\n{server.ssh_config.read_text()}")
    assert "keeps no host keys" in refusal(server.target(ssh_config=str(config)), accept_new=True)


def test_a_wrong_key_a_locked_key_and_no_key(server, tmp_path, monkeypatch):
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    make_key(tmp_path / "wrong")
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-f", tmp_path / "locked"], check=True)
    config = tmp_path / "config"
    config.write_text(f"UserKnownHostsFile {server.folder}/known_hosts\nIdentitiesOnly yes\n")
    for name, told in (("wrong", f"tried: {tmp_path}/wrong"), ("locked", "ssh-add")):
        said = refusal(server.target(ssh_config=str(config), identity=str(tmp_path / name)))
        assert "takes none of the keys" in said and told in said
    missing = tmp_path / "missing"
    assert f"{missing} is not there" in refusal(server.target(ssh_config=str(config), identity=str(missing)))
    config.write_text(f"{config.read_text()}IdentityFile {missing}\n")
    assert "there was no key" in refusal(server.target(ssh_config=str(config)))
    with connect(server.target(ssh_config=str(config), identity=str(server.folder / "client_key"))) as connection:
        assert connection.run(["true"]).exit_code == 0


def test_the_agents_key_is_shown(server, tmp_path, monkeypatch):
    address = tmp_path / "agent"
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", address], stdout=subprocess.DEVNULL)
    try:
        until(address.exists, "the agent")
        monkeypatch.setenv("SSH_AUTH_SOCK", str(address))
        subprocess.run(["ssh-add", "-q", server.folder / "client_key"], check=True)
        config = tmp_path / "config"
        config.write_text(f"UserKnownHostsFile {server.folder}/known_hosts\nIdentityFile {tmp_path}/none\n")
        with connect(server.target(ssh_config=str(config))) as connection:
            assert connection.run(["true"]).exit_code == 0
        shutil.copy(server.folder / "client_key.pub", tmp_path / "only.pub")
        for name, told in (("only", None), ("none", "there was no key")):
            config.write_text(
                f"UserKnownHostsFile {server.folder}/known_hosts\nIdentityFile {tmp_path}/{name}\nIdentitiesOnly yes\n"
            )
            if told:
                assert told in refusal(server.target(ssh_config=str(config)))
            else:
                with connect(server.target(ssh_config=str(config))):
                    pass
    finally:
        agent.kill()
        agent.wait()


def test_a_wrong_port_a_wrong_name_and_something_else_that_answers(server):
    assert "Nothing answers at" in refusal(server.target(port=free_port()))
    assert "is not known here" in (said := refusal(server.target(host="no-such-host.invalid")))
    assert "of `ta remote add`: " in said
    with socket.create_server(("127.0.0.1", 0)) as other:
        threading.Thread(target=lambda: other.accept()[0].sendall(b"HTTP/1.1 400 Bad\r\n\r\n"), daemon=True).start()
        assert "does not speak SSH" in refusal(server.target(port=other.getsockname()[1]))


def test_aliases_and_jump_hosts_of_the_configuration(server, tmp_path, repository):
    config = tmp_path / "config"
    hosts = {"behind": "ProxyJump outer", "outer": "ProxyJump door", "door": f"User {getpass.getuser()}"}
    jumps = [f"Host {name}\n  HostName 127.0.0.1\n  Port {server.port}\n  {more}\n" for name, more in hosts.items()]
    config.write_text("".join(jumps) + server.ssh_config.read_text())
    with connect(Target("behind", ssh_config=str(config), path="through")) as connection:
        assert connection.run(["echo", "there"]).stdout == "there\n"
        sync(connection, listing(repository))
        assert server.drop_links() == 3
    assert (server.home / "through/folder/b.txt").read_bytes() == b"b"
    config.write_text(f"Host behind\n  ProxyCommand nc %h %p\n{server.ssh_config.read_text()}")
    assert "ProxyCommand" in refusal(Target("behind", ssh_config=str(config)))


@pytest.mark.parametrize(
    ("address", "meant"),
    [
        ("host", (None, "host", None)), ("me@host:2222", ("me", "host", 2222)), ("ssh.example:22", (None, "ssh.example", 22)),
        ("me@[::1]:22", ("me", "::1", 22)), ("::1", (None, "::1", None)), ("[::1]", (None, "::1", None)),
    ],
)  # fmt: skip
def test_a_jump_host_is_read(address, meant):
    target = jump(address, None)
    assert (target.user, target.host, target.port) == meant


# ---- what arrives is what was sent, and nothing of it is executed


@OFTEN
@given(arguments=st.lists(TEXT, max_size=5))
def test_arguments_arrive_as_they_were_sent(connection, arguments):
    output = connection.run(["printf", "%s\\0", "first", *arguments])
    assert output.stdout.encode() == b"".join(text.encode() + b"\0" for text in ("first", *arguments))


@OFTEN
@given(name=NAMES, content=st.binary(max_size=100))
def test_folders_and_files_are_named_as_asked(server, connection, name, content):
    connection.make_folder(f"./names/{name}")
    connection.write(f"./names/{name}/{name}", content)
    assert connection.read(f"./names/{name}/{name}") == content
    assert (
        connection.run(["cat", "--", f"./{name}"], folder=f"./names/{name}").stdout.encode()
        == content.decode("utf-8", "replace").encode()
    )
    assert (server.home / "names" / name / name).read_bytes() == content


@SELDOM
@given(
    names=st.sets(NAMES | st.sampled_from(HOSTILE).filter(lambda name: "/" not in name), min_size=1, max_size=12),
    path=NAMES,
)
def test_the_project_arrives_under_every_name(server, tmp_path_factory, names, path):
    names, path = {name for name in names if name != ".git"}, f"synced/{path}"
    folder = make_repository(
        tmp_path_factory.mktemp("names") / f"{path[7:]} it's", {f"{name}/{name}": name.encode() for name in names}
    )
    with connect(server.target(path=path)) as connection:
        sync(connection, listing(folder))
        there = server.home / path
        sent = [name for name in listing(folder).files]
        assert {file: (there / file).read_bytes() for file in sent} == {
            file: (folder / file).read_bytes() for file in sent
        }
        pull(connection, sent[:1], folder / "back")
        assert not sent or (folder / "back" / sent[0]).is_file()
        shutil.rmtree(there)


@OFTEN
@given(host=TEXT, user=TEXT, name=TEXT)
def test_odd_hosts_users_and_names_are_refused(host, user, name):
    for make in (
        lambda: Target(host),
        lambda: Target("host", user=user),
        lambda: job_folder(Connection(Target("host")), name),
    ):
        try:
            made = make()
        except TinyAudioError as error:
            assert len(describe(error).splitlines()) == 1
        else:
            text = made.rpartition("/")[2] if isinstance(made, str) else made.user or made.host
            assert not text.startswith("-") and not set(text) & set(" ;$'\"`|&<>()\n\t*?#~!")


@OFTEN
@given(arguments=st.lists(TEXT, min_size=1, max_size=4))
def test_rsync_splits_its_shell_as_it_was_quoted(tmp_path_factory, arguments):
    """Against rsync itself: its remote shell is a program that writes down what it is called with."""
    folder = tmp_path_factory.mktemp("shell")
    (folder / "shell").write_text('#!/bin/sh\nprintf "%s\\0" "$@" > "$0.said"\nexit 1\n')
    (folder / "shell").chmod(0o755)
    shell = " ".join(map(rsync_quote, [str(folder / "shell"), *arguments]))
    subprocess.run(["rsync", f"--rsh={shell}", "host:x", str(folder)], capture_output=True, check=False)
    said = (folder / "shell.said").read_bytes().split(b"\0")
    assert said[: len(arguments)] == [text.encode() for text in arguments]


@SELDOM
@given(arguments=st.lists(TEXT, min_size=1, max_size=6))
def test_a_job_gets_its_arguments_as_they_were_sent(server, connection, arguments):
    name = f"arguments-{uuid.uuid4().hex}"
    write = "import json, sys; open(sys.argv[1], 'w').write(json.dumps(sys.argv[2:]))"
    start(connection, Job(name, ["python3", "-c", write, f"{name}.json", *arguments]), {})
    file = server.home / "tiny-audio" / f"{name}.json"
    until(lambda: file.is_file() and file.read_bytes().endswith(b"]"), "the job")
    assert json.loads(file.read_text()) == arguments


@pytest.mark.parametrize("override", [text for text in HOSTILE if text not in ("--help", "-oProxyCommand=touch pwned")])
def test_overrides_of_train_travel_unread(server, override, monkeypatch, tmp_path, capfd):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    options = ["--host=127.0.0.1", f"--port={server.port}"]
    name = f"override-{uuid.uuid4().hex}"
    train = [
        "remote",
        "train",
        *options,
        f"--ssh-config={server.ssh_config}",
        "--no-deploy",
        "--detach",
        "--name",
        name,
    ]
    assert run([*train, "--experiment", override, "--", override]) == 0, capfd.readouterr().err
    job = json.loads((server.home / f"tiny-audio/.ta/jobs/{name}/job.json").read_text())
    assert [text for text in job["command"] if text == override] == [override] * 2


@pytest.mark.parametrize("wrong", ["--bogus", "training.max_stepz=30"])
def test_wrong_settings_are_said_before_anything_is_reached(wrong, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert run(["remote", "train", "--host=127.0.0.1", f"--port={free_port()}", wrong]) != 0
    said = capfd.readouterr().err
    assert wrong.split("=")[0].rpartition(".")[2] in said and "Nothing answers" not in said


# ---- the project


def test_sync_sends_what_changed_and_deletes_only_what_it_sent(server, repository):
    with connect(server.target(path="mirror")) as connection:
        there = server.home / "mirror"
        done = sync(connection, listing(repository))
        assert (done.files, done.bytes) == (2, 2)
        (there / "outputs").mkdir()
        (there / "outputs/model").write_text("trained there")
        (there / "folder/own.txt").write_text("made there")
        (repository / "a.txt").unlink()
        (repository / "new.txt").write_text("new")
        planned = sync(connection, listing(repository), dry_run=True)
        assert (there / "a.txt").exists() and (planned.files, planned.deleted) == (1, 1)
        done = sync(connection, listing(repository))
        assert (done.files, done.deleted) == (1, 1)
        names = sorted(
            str(path.relative_to(there)) for path in there.rglob("*") if path.is_file() and ".ta" not in path.parts
        )
        assert names == ["folder/b.txt", "folder/own.txt", "new.txt", "outputs/model"]
        assert sync(connection, listing(repository)).files == 0


def test_a_folder_that_became_a_file_or_a_link_and_back(server, repository):
    (repository / "folder/deep").mkdir()
    (repository / "folder/deep/c.txt").write_text("c")
    folder, there = repository / "folder", server.home / "turned"
    with connect(server.target(path="turned")) as connection:
        sync(connection, listing(repository))
        folder.rename(repository / "moved")
        folder.symlink_to("moved")
        assert sync(connection, listing(repository), dry_run=True).deleted == 2
        assert (there / "folder/b.txt").is_file()
        assert sync(connection, listing(repository)).deleted == 2
        assert (there / "folder").is_symlink() and (there / "folder/deep/c.txt").is_file()
        folder.unlink()
        (repository / "moved").rename(folder)
        sync(connection, listing(repository))
        assert not (there / "folder").is_symlink() and (there / "folder/b.txt").is_file()
        (there / "folder/own.txt").write_text("made there")
        shutil.rmtree(folder)
        assert sync(connection, listing(repository)).deleted == 2
        folder.write_text("a file")
        with pytest.raises(TinyAudioError, match="a folder there, with what was made in it"):
            sync(connection, listing(repository))
        shutil.rmtree(there / "folder")
        sync(connection, listing(repository))
        assert (there / "folder").read_text() == "a file"


def test_datasets_checkpoints_and_secrets_stay_here(tmp_path):
    data = [
        "clips/a.wav",
        "outputs/x/settings.yaml",
        "runs/1",
        "best/model.safetensors",
        ".env",
        "big.parquet",
        "checkpoint-3/config.json",
    ]
    own = ["train.py", "configs/data/mine.yaml", "déjà vu.txt", "deep/.envrc"]
    folder = make_repository(tmp_path / "here", {"kept/tracked.wav": b"1", ".gitignore": b"ignored/\n"})
    for name in [*data, *own, "ignored/x", ".ta/y"]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x")
    found = listing(folder / "kept")
    assert set(found.files) == {"kept/tracked.wav", ".gitignore", *own}
    assert set(found.left_out) == set(data)
    with pytest.raises(TinyAudioError, match="git init"):
        listing(Path("/"))


def test_a_machine_cannot_ask_for_files(server, repository):
    secret = repository.parent / "secret"
    secret.write_text("mine")
    (repository / "outputs").mkdir()
    (repository / "outputs/model").write_text("mine too")
    with connect(server.target(path="greedy")) as connection:
        connection.make_folder("./greedy/.ta")
        names = ["../secret", str(secret), "outputs/model", "../../etc/passwd"]
        connection.write("./greedy/.ta/sent", b"".join(name.encode() + b"\0" for name in names))
        sync(connection, listing(repository))
    there = [
        path.name
        for path in (server.home / "greedy").rglob("*")
        if path.is_file() and path.name in ("secret", "model", "passwd")
    ]
    assert there == [] and secret.exists()


def test_five_thousand_files_unchanged_take_two_seconds(server, tmp_path):
    folder = make_repository(tmp_path / "here", {f"d{n % 50}/f{n}.py": b"x" * 100 for n in range(5000)})
    target = server.target(path="many")
    with connect(target) as connection:
        sync(connection, listing(folder))
    seconds = []
    while min(seconds, default=9.0) >= 2.0 and len(seconds) < 10:  # other tests run beside
        began = time.monotonic()
        with connect(target) as connection:
            assert sync(connection, listing(folder)).files == 0
        seconds.append(time.monotonic() - began)
    assert min(seconds) < 2.0


# ---- faults


def drop_when(server: Server, path: Path, pattern: str) -> threading.Thread:
    """Kills the sessions as soon as a file of that pattern has come to be."""

    def wait() -> None:
        until(lambda: any(path.rglob(pattern)), pattern)
        server.drop_links()

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


def test_a_link_killed_in_sync_and_in_pull_is_taken_up_again(server, tmp_path, capfd):
    big = random.Random(0).randbytes(40_000_000)
    folder = make_repository(tmp_path / "here", {"big.bin": big, "small.txt": b"x"})
    with connect(server.target(path="dropped")) as connection:
        killer = drop_when(server, server.home, ".big.bin.*")
        sync(connection, listing(folder))
        killer.join()
        assert "Connecting again" in capfd.readouterr().err
        assert (server.home / "dropped/big.bin").read_bytes() == big
        back = tmp_path / "back"
        back.mkdir()
        killer = drop_when(server, back, ".big.bin.*")
        pulled = pull(connection, ["big.bin", "small.txt"], back)
        killer.join()
        assert "Connecting again" in capfd.readouterr().err
        assert (back / "big.bin").read_bytes() == big and pulled.files == 2


def test_a_file_that_differs_is_fetched_again(server, tmp_path):
    there = server.home / "differs"
    there.mkdir()
    (there / "model").write_bytes(b"right")
    with connect(server.target(path="differs")) as connection:
        pull(connection, ["model"], tmp_path)
        moment = (there / "model").stat()
        (tmp_path / "model").write_bytes(b"wrong")  # as long, and of the same time: only the hash tells
        os.utime(tmp_path / "model", ns=(moment.st_atime_ns, moment.st_mtime_ns))
        assert pull(connection, ["model"], tmp_path).fetched == 1
        assert (tmp_path / "model").read_bytes() == b"right"
        with pytest.raises(TinyAudioError, match="No such file"):
            pull(connection, ["none"], tmp_path)
        for outside in ("../x", "/etc/passwd", ""):
            with pytest.raises(TinyAudioError, match="not inside the project"):
                pull(connection, [outside], tmp_path)


def test_pull_takes_names_and_never_patterns(server, tmp_path):
    there = server.home / "patterns"
    (there / ".ta").mkdir(parents=True)
    for name in (".ta/own", "a", "b*"):
        (there / name).write_text(name)
    into = tmp_path / "deep/q:w"
    with connect(server.target(path="patterns")) as connection:
        with pytest.raises(TinyAudioError, match="No such file"):
            pull(connection, ["*"], into)
        assert pull(connection, ["b*"], into).whole and [path.name for path in into.iterdir()] == ["b*"]
        with pytest.raises(TinyAudioError, match="of `ta remote` itself"):
            pull(connection, ["./.ta/own"], into)
        assert pull(connection, ["."], into).files == 2 and not (into / ".ta").exists()
        (there / "empty").mkdir()
        assert not pull(connection, ["empty"], into).whole
        with pytest.raises(TinyAudioError, match="cannot be made"):
            pull(connection, ["a"], into / "a/below")


def test_what_is_still_written_is_pulled_with_a_warning(server, tmp_path, capfd):
    log, done = server.home / "growing" / "log", threading.Event()
    log.parent.mkdir()

    def grow() -> None:
        with log.open("a", buffering=1) as file:
            while not done.wait(0.001):
                file.write("line\n")

    thread = threading.Thread(target=grow, daemon=True)
    thread.start()
    try:
        until(log.is_file, "the log")
        with connect(server.target(path="growing")) as connection:
            assert not pull(connection, ["log"], tmp_path, growing=True).whole
            assert "the job still writes them" in capfd.readouterr().err
            with pytest.raises(TinyAudioError, match="1 of 1 files differ"):
                pull(connection, ["log"], tmp_path)
    finally:
        done.set()
        thread.join()
    assert log.read_bytes().startswith((tmp_path / "log").read_bytes())


def own_mounts() -> list[str]:
    """The command under which another may mount: as root, or as root of a namespace of its own."""
    ways = [["unshare", "--mount"], ["unshare", "--user", "--map-root-user", "--mount"]]
    mount = ["mount", "-t", "tmpfs", "none", "/mnt"]
    return next(way for way in ways if subprocess.run([*way, *mount], check=False, capture_output=True).returncode == 0)


def test_an_interrupted_rsync_has_time_to_put_half_a_file_aside(tmp_path):
    slow = "trap 'sleep 2; touch aside; exit 20' TERM INT; touch begun; while :; do sleep 0.1; done"
    code = "import sys; from tiny_audio.remote.rsync import _run; _run(['bash', '-c', sys.argv[1]], b'')"
    process = subprocess.Popen([sys.executable, "-c", code, slow], cwd=tmp_path, stderr=subprocess.DEVNULL)
    until((tmp_path / "begun").is_file, "the transfer")
    process.send_signal(signal.SIGINT)  # to it alone: a terminal would send it to both
    process.wait(30)
    assert (tmp_path / "aside").is_file()


def test_repositories_inside_are_told(connection, repository):
    make_repository(repository / "vendored", {"c.txt": b"c"})
    inner = make_repository(repository.parent / "inner", {"d.txt": b"d"})
    commit = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", inner, "commit", "-qm", "d"]
    subprocess.run(commit, check=True)
    add = ["git", "-c", "protocol.file.allow=always", "-C", repository, "submodule", "--quiet", "add", inner, "sub"]
    subprocess.run(add, check=True)
    listed = listing(repository)
    assert listed.repositories == ("sub", "vendored") and not [name for name in listed.files if name.endswith("d.txt")]
    said = describe_sync(sync(connection, listed), listed, dry_run=False)
    assert "left out repositories inside this one: sub, vendored" in said


def test_a_full_disk_is_one_line(tmp_path, repository):
    server = Server(tmp_path / "full")
    server.make()
    wrapper = server.folder / "wrapper"
    inside = f'mount -t tmpfs -o size=1m none {server.home}; cd {server.home}; exec /bin/sh -c "$SSH_ORIGINAL_COMMAND"'
    wrapper.write_text(f"#!/bin/sh\nexec {' '.join(own_mounts())} sh -c '{inside}'\n")
    server.start()
    (repository / "big.txt").write_bytes(random.Random(0).randbytes(3_000_000))
    try:
        with connect(server.target(path="project"), accept_new=True) as connection:
            with pytest.raises(TinyAudioError, match="rsync with .* failed: the disk is full: make space"):
                sync(connection, listing(repository))
            with pytest.raises(TinyAudioError, match="it is full"):
                connection.write("./big", bytes(3_000_000))
    finally:
        server.stop()


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """A machine without rsync, tmux and Python."""
    server = Server(tmp_path_factory.mktemp("bare"))
    server.make()
    for name in ("sh", "env", "true"):
        (server.bin / name).symlink_to(shutil.which(name))
    (server.bin / "python3").rename(server.bin / "hidden")
    server.environment["PATH"] = str(server.bin)
    server.start()
    with connect(server.target(), accept_new=True):
        pass
    yield server
    server.stop()


def test_missing_rsync_and_tmux(bare, repository):
    with connect(bare.target()) as connection:
        with pytest.raises(TinyAudioError, match="rsync is not installed there: apt-get install rsync"):
            sync(connection, listing(repository))
        with pytest.raises(TinyAudioError, match="no python3 on"):
            connection.script("probe.py", "machine", ".")
        (bare.bin / "python3").symlink_to(bare.bin / "hidden")
        found = look(connection)
        assert found["rsync"] is None and not found["tmux"]
        start(connection, Job("no-tmux", ["sh", "-c", "echo done > proof"]), {})
        until((bare.home / "tiny-audio/proof").is_file, "the job")


def test_a_login_shell_that_prints_is_one_line(tmp_path, repository):
    server = started(tmp_path / "talks")
    (repository / "pyproject.toml").write_text('[project]\nname = "x"\n')
    wrapper = server.folder / "wrapper"
    wrapper.write_text(wrapper.read_text().replace("cd ", "echo welcome\ncd ", 1))
    try:
        with connect(server.target()) as connection:
            with pytest.raises(TinyAudioError, match="its login shell prints something by itself"):
                sync(connection, listing(repository))
            assert [found for found in examine(connection, repository) if "login shell prints" in found.todo]
    finally:
        server.stop()


def test_an_interrupt_while_the_link_is_down_stays_one(tmp_path):
    server = started(tmp_path / "gone")
    with connect(server.target()) as connection:
        start(connection, Job("held", ["true"]), {})
        with pytest.raises(KeyboardInterrupt), holding(connection, "held"):
            server.drop_links()
            server.stop()
            raise KeyboardInterrupt


def test_a_real_python_that_is_too_old(bare, repository):
    """PyPy of Debian, as Python 3.9: one line of `check` and `setup`; jobs run with it all the same."""
    pypy = shutil.which("pypy3")
    assert pypy is not None, "apt-get install pypy3"
    (repository / "pyproject.toml").write_text('[project]\nname = "x"\nrequires-python = ">=3.11"\n')
    (bare.bin / "python3").unlink(missing_ok=True)
    (bare.bin / "python3").symlink_to(pypy)
    with connect(bare.target()) as connection:
        (failed,) = [found for found in examine(connection, repository) if found.what.startswith("Python")]
        assert failed.state == "failure" and "python3 is 3.9" in failed.what and "expected >=3.11" in failed.todo
        with pytest.raises(TinyAudioError, match=r"^Python: python3 is 3\.9.*expected >=3\.11: install one"):
            setup(connection, repository)
        start(connection, Job("old-python", ["sh", "-c", "echo done > old"]), {})
        until((bare.home / "tiny-audio/old").is_file, "the job")


def test_a_python_that_is_older_than_asked_for(server, connection, repository):
    (repository / "pyproject.toml").write_text('[project]\nname = "x"\nrequires-python = ">=3.99"\n')
    with pytest.raises(TinyAudioError, match=r"Python: python3 is 3\.\d+.*expected >=3.99: install one"):
        choose_python(look(connection), Project(repository))
    for name in ("probe.py", "runner.py"):
        ast.parse(resources.files("tiny_audio.remote").joinpath(name).read_text(), feature_version=(3, 8))


def test_the_images_torch_is_kept_where_it_fits(repository):
    (repository / "pyproject.toml").write_text('[project]\nname = "x"\ndependencies = ["torch>=2.13,<2.14"]\n')
    project, gpu = Project(repository), [{"name": "A40"}]
    python = {"name": "python3", "version": "3.12.1", "venv": True, "torch": "2.13.0+cu128", "cuda": "12.8"}
    assert keeps_torch(python, project, gpu)
    assert not keeps_torch({**python, "torch": "2.4.0+cu121"}, project, gpu)
    assert not keeps_torch({**python, "torch": "2.13.0+cpu", "cuda": None}, project, gpu)
    assert keeps_torch({**python, "torch": "2.13.0+cpu", "cuda": None}, project, [])
    assert not keeps_torch({**python, "torch": None, "cuda": None}, project, [])


def test_which_machine_is_meant(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    with pytest.raises(TinyAudioError, match="No machine is named"):
        find_target(None)
    assert find_target("me@pod.example", port=22022) == Target("pod.example", 22022, "me")
    assert Target("pod", 1, "me", path="-x y").options() == ["--host=pod", "--port=1", "--user=me", "--path=-x y"]
    assert Target("pod", path="~/x").folder == "./x" and Target("pod", path="/w/x").folder == "/w/x"
    assert Target("pod", path="~//x/").folder == "./x" and Target("pod", path="/w/x/").folder == "/w/x"
    with pytest.raises(TinyAudioError, match="give that by --port"):
        find_target("me@1.2.3.4:22")
    for path in ("", "a/../b", "a\0b", "/", ".", "./", "//", "~", "~/", "~root/x"):
        with pytest.raises(TinyAudioError, match="no folder for the project"):
            Target("pod", path=path)
