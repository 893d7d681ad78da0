"""`ta dev`: its steps, what a commit and CI run, nano made anew, a release; and the files that GitHub reads."""

import os
import pty
import re
import shutil
import subprocess
import sys
import tomllib
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pyarrow.parquet as pq
import pytest
import typer
import yaml
from packaging.specifiers import SpecifierSet

from recipes import release
from recipes.nano import make
from tiny_audio.cli import dev
from tiny_audio.cli.main import load_command, run
from tiny_audio.errors import TinyAudioError

REPOSITORY = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
COMMANDS = sorted(load_command("dev").commands)


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=Ada", "-c", "user.email=ada@example.org", "-c", "init.defaultBranch=main"]
    command = ["git", *who, *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout


def read_yaml(name: str) -> dict:
    return yaml.safe_load((REPOSITORY / name).read_text(encoding="utf-8"))


# The steps


@pytest.fixture
def steps(monkeypatch):
    """Two steps, `good` and `bad`."""
    monkeypatch.setitem(dev.STEPS, "good", ("pytest", ["-c", "import sys; print('well', *sys.argv[1:])"]))
    monkeypatch.setitem(dev.STEPS, "bad", ("pytest", ["-c", "raise SystemExit(3)"]))


def test_every_step_runs_and_a_failed_one_is_named(steps, capfd):
    dev.run_all("good")
    with pytest.raises(typer.Exit) as ended:
        dev.run_all("bad", "good", arguments=["-k", "x"])
    shown = capfd.readouterr()
    assert ended.value.exit_code == 1
    assert shown.out == "well\nwell -k x\n"
    assert shown.err.endswith("Failed: bad\n")


def test_a_missing_tool_is_one_line(monkeypatch):
    monkeypatch.setitem(dev.STEPS, "new", ("no_such_tool", []))
    with pytest.raises(TinyAudioError, match="no_such_tool is not installed: run `pip install"):
        dev.run_all("new")


def test_further_arguments_go_to_pytest(capfd):
    assert run(["dev", "test", "--version"]) == 0
    assert "pytest" in capfd.readouterr().out


def test_lint_runs(capfd):
    assert run(["dev", "lint"]) == 0
    assert "All checks passed" in capfd.readouterr().out


def test_a_commit_passes_all_of_ci_but_the_tests():
    assert (*dev.COMMIT, "tests") == dev.CI
    assert set(dev.CI) <= set(dev.STEPS)


def test_the_checks_are_those_of_ci():
    ci = (REPOSITORY / ".ci/run").read_text(encoding="utf-8")
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    assert ci.strip().endswith("\nmake test")
    assert re.search(r"^test: .*\n\t\$\(BIN\)/ta dev check$", makefile, re.MULTILINE)


@pytest.fixture(scope="module")
def copied(tmp_path_factory) -> Path:
    """What `ta dev` needs of the package, in a folder that is no checkout."""
    folder = tmp_path_factory.mktemp("elsewhere")
    for name in ("__init__.py", "errors.py", "console.py"):
        (folder / "tiny_audio").mkdir(exist_ok=True)
        shutil.copy(REPOSITORY / "tiny_audio" / name, folder / "tiny_audio" / name)
    shutil.copytree(REPOSITORY / "tiny_audio/cli", folder / "tiny_audio/cli")
    return folder


@pytest.mark.parametrize("command", COMMANDS)
def test_outside_a_checkout_each_command_is_one_line(copied, command):
    arguments = [sys.executable, "-m", "tiny_audio.cli.main", "dev", command]
    environment = {**os.environ, "PYTHONPATH": str(copied)}
    shown = subprocess.run(arguments, cwd=copied, env=environment, capture_output=True, text=True, check=False)
    assert shown.returncode == 1 and shown.stdout == ""
    assert shown.stderr.startswith("Error: `ta dev` works on a checkout") and shown.stderr.count("\n") == 1


# What a commit runs


@pytest.fixture
def clone(tmp_path) -> Path:
    """A repository of this tree's files."""
    folder = tmp_path / "clone"
    for name in git(REPOSITORY, "ls-files", "--cached", "--others", "--exclude-standard").splitlines():
        if (REPOSITORY / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPOSITORY / name, folder / name)
    git(folder, "init", "--quiet")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "All")
    return folder


def pre_commit(folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(folder), "PRE_COMMIT_HOME": str(folder.parent / "cache")}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = [sys.executable, "-m", "pre_commit", "run", "--all-files", "--verbose"]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_pre_commit_runs_ta_dev_precommit_of_the_environment_beside_it(tmp_path):
    shutil.copy(REPOSITORY / ".pre-commit-config.yaml", tmp_path)
    program = tmp_path / ".venv/bin/ta"
    program.parent.mkdir(parents=True)
    program.write_text('#!/bin/sh\necho "called: $*"\nexit 3\n')
    program.chmod(0o755)
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".pre-commit-config.yaml")
    result = pre_commit(tmp_path)
    assert result.returncode == 1, result.stderr
    assert "called: dev precommit" in result.stdout and "exit code: 3" in result.stdout


@pytest.mark.slow
def test_pre_commit_passes_on_a_clone_and_fails_on_a_mistake(clone):
    result = pre_commit(clone)
    assert result.returncode == 0, result.stdout + result.stderr
    assert all(f"== {step}" in result.stdout for step in dev.COMMIT)
    (clone / "tiny_audio/audio/mistake.py").write_text('"""A."""\n\nfrom tiny_audio.training import train\n')
    git(clone, "add", "--all")
    result = pre_commit(clone)
    assert result.returncode == 1
    assert "Failed: lint, imports" in result.stdout


# nano


@pytest.fixture
def small(tmp_path) -> make.Options:
    return make.Options(tmp_path / "work", tmp_path / "made", minutes=0.1, share=0.001)


def test_a_dry_run_prints_the_recipes_commands(tmp_path, capsys):
    assert run(["dev", "nano", "--dry-run", f"--work-dir={tmp_path / 'w'}", "--minutes=90", "--speech=../sp eech"]) == 0
    lines = capsys.readouterr().out.splitlines()
    names = [line.split()[2] for line in lines]
    order = ["corpus", "synthesize", "human", "train", "train", "export", "ctc"]
    assert names == [f"recipes.nano.{name}" for name in order]
    assert lines[2] == f"python -m recipes.nano.human --work-dir={tmp_path / 'w'} '--speech=../sp eech' --strings=6000"
    assert lines[3].endswith("--minutes=9")
    assert lines[4].endswith("--minutes=90 --resume --again")
    assert not (tmp_path / "w").exists()


def test_the_counts_are_the_recipes_own(tmp_path):
    from recipes.nano.corpus import COUNTS

    assert make.CORPUS == COUNTS
    assert make.Options(tmp_path, tmp_path, 1).count(28_000) == 28_000
    assert make.Options(tmp_path, tmp_path, 1, share=0.01).count(150) == 10


def test_nothing_is_written_over_what_ships_unless_it_is_named(capsys, tmp_path):
    assert run(["dev", "nano", "--dry-run", f"--work-dir={tmp_path}"]) == 0
    assert "assets" not in capsys.readouterr().out
    assert run(["dev", "nano", "--dry-run", f"--work-dir={tmp_path}", "--output-dir=tiny_audio/assets"]) == 0
    assert "--output=tiny_audio/assets/nano" in capsys.readouterr().out


def test_missing_programs_are_one_line(small, monkeypatch):
    monkeypatch.setenv("PATH", str(small.work_dir))
    with pytest.raises(TinyAudioError, match=r"Not installed: espeak-ng, flite.*`apt-get install espeak-ng flite`"):
        make.make(small)


def test_missing_recordings_are_one_line(small, tmp_path):
    with pytest.raises(TinyAudioError, match="spoken-digits does not exist; expected human recordings"):
        make.make(make.Options(small.work_dir, small.output_dir, 1, speech=tmp_path))


def test_a_step_speaks_and_is_not_done_again(small, capfd):
    corpus = make.steps(small)[0]
    make.run(corpus, 1, small.work_dir)
    for split in make.CORPUS:
        assert pq.read_table(small.output_dir / "quickstart" / f"{split}.parquet").num_rows == 10
    assert [done for _, done in make.pending(make.steps(small), small.work_dir)] == [True, *[False] * 5]
    more = make.Options(small.work_dir, small.output_dir, minutes=0.1, share=0.02)
    assert not any(done for _, done in make.pending(make.steps(more), small.work_dir))


def test_what_follows_a_step_that_is_not_done_is_not_done_either(small):
    plan = make.steps(small)
    for number, step in enumerate(plan, 1):
        stamp = make.stamp_of(step, number, small.work_dir)
        stamp.parent.mkdir(parents=True, exist_ok=True)
        stamp.write_text(" ".join(step.arguments))
    assert all(done for _, done in make.pending(plan, small.work_dir))
    make.stamp_of(plan[3], 4, small.work_dir).unlink()
    assert [done for _, done in make.pending(plan, small.work_dir)] == [True] * 3 + [False] * 3


def test_a_training_that_was_cut_off_goes_on(small):
    training = make.steps(small)[2]
    assert "--resume" not in training.command()
    small.work_dir.mkdir()
    (small.work_dir / "training.pt").touch()
    assert training.command()[-1] == "--resume"


def test_a_failed_step_is_one_line(small):
    with pytest.raises(TinyAudioError, match="missing ended with 1; the same command goes on from there: python -m"):
        make.run(make.Step("missing", []), 1, small.work_dir)
    assert not (small.work_dir / "done").exists()


@pytest.mark.slow
def test_nano_is_made_in_miniature(tmp_path):
    def ta(*arguments: str) -> str:
        command = [sys.executable, "-m", "tiny_audio.cli.main", *arguments]
        result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout + result.stderr

    where = ("--work-dir=work", "--minutes=0.1", "--share=0.001")
    shown = ta("dev", "nano", *where)
    assert "quickstart/test: WER" in shown and "== 6 of 6: ctc" in shown
    assert ta("dev", "nano", *where).count("done before") == 6
    from tiny_audio.model.modeling import ASRModel

    made = tmp_path / "work/made"
    model, shipped = (
        ASRModel.from_pretrained(folder) for folder in (made / "nano", REPOSITORY / "tiny_audio/assets/nano")
    )
    sizes, expected = ({name: tensor.shape for name, tensor in of.state_dict().items()} for of in (model, shipped))
    assert sizes.keys() == expected.keys()
    assert len(list((made / "clips").glob("*.ogg"))) > 0
    ta("transcribe", "-m", str(made / "nano"), str(next((made / "clips").glob("*.ogg"))))
    ta("train", "-d", str(made / "quickstart"), "--output-dir=run", "training.max_steps=1")


# A release


PYPROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "tiny-audio"
version = "1.2.3"
description = "A stand-in."
requires-python = ">=3.11"
readme = "README.md"
[project.scripts]
ta = "tiny_audio:main"
[tool.hatch.build.targets.wheel]
packages = ["tiny_audio"]
"""


@pytest.fixture
def checkout(tmp_path) -> Path:
    """A small project that can be released, with a remote repository."""
    folder = tmp_path / "checkout"
    (folder / "tiny_audio").mkdir(parents=True)
    files = {
        "pyproject.toml": PYPROJECT, "README.md": "# Small\n", ".gitignore": "dist/\n",
        "CHANGELOG.md": "# Changelog\n\n## 1.2.3 (2026-11-28)\n\n- All.\n\n## 1.2.2 (2026-01-01)\n",
        "CITATION.cff": "version: 1.2.3\ndate-released: 2026-11-28\n",
        "tiny_audio/__init__.py": "def main():\n    print('tiny-audio 1.2.3')\n",
    }  # fmt: skip
    for name, text in files.items():
        (folder / name).write_text(text)
    git(folder, "init", "--quiet")
    git(folder, "config", "user.name", "Ada")
    git(folder, "config", "user.email", "ada@example.org")
    commit(folder)
    git(tmp_path, "init", "--quiet", "--bare", "origin")
    git(folder, "remote", "add", "origin", str(tmp_path / "origin"))
    return folder


def commit(folder: Path) -> None:
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--allow-empty", "--message", "A change")


def bad(folder: Path) -> list[str]:
    return [str(check) for check in release.source_checks(folder) if check.state != "ok"]


def test_a_dry_run_checks_all_and_changes_nothing(checkout, capsys):
    release.release(dry_run=True, checkout=checkout)
    lines = capsys.readouterr().out.splitlines()
    assert [line[0] for line in lines[:8]] == ["✓"] * 8
    assert lines[5:8] == [
        "✓ built tiny_audio-1.2.3-py3-none-any.whl, tiny_audio-1.2.3.tar.gz",
        "✓ twine check",
        "✓ the wheel, installed alone: tiny-audio 1.2.3",
    ]
    assert lines[9].startswith("    python -m twine upload dist/1.2.3/tiny_audio-1.2.3-py3-none-any.whl")
    assert lines[11] == "    git push --atomic origin main v1.2.3"
    assert git(checkout, "tag") == git(checkout, "ls-remote", "origin") == ""


@pytest.mark.parametrize(
    ("file", "old", "new", "shown"),
    [
        ("README.md", "Small", "Changed", "✗ no change is uncommitted — commit or remove:  M README.md"),
        ("CHANGELOG.md", "1.2.3 (2026-11-28)", "1.2.4 (2026-11-28)", "✗ CHANGELOG.md begins with 1.2.4"),
        ("CHANGELOG.md", "2026-11-28", "not yet released", "! CHANGELOG.md has no date yet"),
        (
            "CHANGELOG.md",
            "2026-11-28",
            "2026-11-29",
            "✗ CITATION.cff: 1.2.3, 2026-11-28 — write version 1.2.3 and date",
        ),
        ("CITATION.cff", "1.2.3", "1.2.2", "✗ CITATION.cff: 1.2.2, 2026-11-28"),
        ("CITATION.cff", "date-released: 2026-11-28\n", "", "✗ CITATION.cff: 1.2.3, no date"),
        ("pyproject.toml", "1.2.3", "1.2.2", "✗ version 1.2.2, after 1.2.2 — raise it"),
    ],
)
def test_what_is_not_ready_is_named(checkout, file, old, new, shown):
    git(checkout, "tag", "v1.2.2")
    git(checkout, "tag", "v1.2.0")
    assert bad(checkout) == []
    (checkout / file).write_text((checkout / file).read_text().replace(old, new))
    if file != "README.md":
        commit(checkout)
    assert any(line.startswith(shown) for line in bad(checkout)), bad(checkout)


def test_another_branch_is_not_released(checkout):
    git(checkout, "switch", "--quiet", "--create", "work")
    assert bad(checkout) == ["✗ branch work — git switch main"]


def test_a_failure_ends_it_in_one_line(checkout):
    (checkout / "pyproject.toml").write_text(PYPROJECT.replace('readme = "README.md"', 'readme = "none.md"'))
    commit(checkout)
    with pytest.raises(TinyAudioError, match="1 of 6 checks failed; nothing was released"):
        release.release(dry_run=True, checkout=checkout)


@pytest.fixture
def type_in(monkeypatch):
    """`type_in("y")`: what the person at the terminal answers."""
    ours, theirs = pty.openpty()
    with os.fdopen(theirs) as terminal:
        monkeypatch.setattr(sys, "stdin", terminal)
        yield lambda answer: os.write(ours, f"{answer}\n".encode())
    os.close(ours)


def test_a_release_asks_on_a_terminal(type_in, monkeypatch):
    type_in("n")
    assert release.agreed() is False
    with open(os.devnull) as nobody, pytest.raises(TinyAudioError, match="agreed to on a terminal"):
        monkeypatch.setattr(sys, "stdin", nobody)
        release.agreed()


@pytest.fixture
def pypi(monkeypatch):
    """A stand-in of PyPI that takes what twine uploads; the names of the files."""
    names: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            names.extend(name.decode() for name in re.findall(rb'filename="([^"]+)"', body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    for name, value in (
        ("REPOSITORY_URL", f"http://127.0.0.1:{server.server_port}/"),
        ("USERNAME", "a"),
        ("PASSWORD", "b"),
    ):
        monkeypatch.setenv(f"TWINE_{name}", value)
    yield names
    server.shutdown()
    server.server_close()


def test_a_release_uploads_and_tags_once_it_is_agreed(checkout, pypi, type_in):
    type_in("y")
    release.release(dry_run=False, checkout=checkout)
    assert sorted(pypi) == ["tiny_audio-1.2.3-py3-none-any.whl", "tiny_audio-1.2.3.tar.gz"]
    pushed = {line.split()[1] for line in git(checkout, "ls-remote", "origin").splitlines()}
    assert {"refs/tags/v1.2.3", "refs/heads/main"} <= pushed


def test_what_is_left_after_a_failed_command_is_named(checkout):
    commands = [["python", "-c", "pass"], ["git", "push", "nowhere"], ["git", "tag", "v1"]]
    with pytest.raises(
        TinyAudioError, match="`git push nowhere` failed; once it is mended, run: git push nowhere; git tag v1"
    ):
        release.carry_out(commands, checkout)


# Files that others read


def test_the_citation_is_of_this_version_and_its_date():
    citation = read_yaml("CITATION.cff")
    version, date = release.changelog_entry(REPOSITORY)
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= citation.keys()
    assert citation["version"] == version == PROJECT["version"]
    assert str(citation.get("date-released")) == str(date)
    assert citation["license"] == PROJECT["license"]


def test_github_runs_what_ci_runs_on_each_python():
    job = read_yaml(".github/workflows/ci.yml")["jobs"]["check"]
    pythons = job["strategy"]["matrix"]["python"]
    allowed = SpecifierSet(PROJECT["requires-python"])
    assert pythons == [f"3.{minor}" for minor in range(30) if f"3.{minor}" in allowed]
    assert pythons == re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["classifiers"]))
    assert job["container"]["image"] == "python:${{ matrix.python }}-bookworm"
    (ran,) = [step["run"] for step in job["steps"] if "run" in step]
    assert ran.splitlines()[-1] == "bash .ci/run"


def test_a_bug_report_has_the_command_and_what_doctor_says():
    forms = {path.stem: read_yaml(str(path)) for path in (REPOSITORY / ".github/ISSUE_TEMPLATE").glob("*.yml")}
    assert forms.keys() == {"bug", "feature", "question", "config"}
    asked = {part["id"]: part for part in forms["bug"]["body"] if "id" in part}
    assert "`ta doctor`" in asked["doctor"]["attributes"]["label"]
    assert all(asked[name]["validations"]["required"] for name in ("command", "doctor"))


@pytest.mark.parametrize(
    ("reason", "environment", "code"),
    [
        ("a reason", {"CI": "true"}, 1),
        ("no ../shared/speech beside the checkout", {"CI": "true"}, 0),
        ("a reason", {}, 0),
    ],
)
def test_in_ci_a_skip_is_a_failure_unless_the_recordings_are_not_there(tmp_path, reason, environment, code):
    shutil.copy(REPOSITORY / "tests/conftest.py", tmp_path)
    (tmp_path / "test_one.py").write_text(f"import pytest\n\ndef test_one():\n    pytest.skip({reason!r})\n")
    kept = {name: value for name, value in os.environ.items() if name != "CI"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    result = subprocess.run(
        command, cwd=tmp_path, env={**kept, **environment}, capture_output=True, text=True, check=False
    )
    assert result.returncode == code, result.stdout
