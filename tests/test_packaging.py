"""The wheel: built, installed away from the checkout over the packages already here, and used."""

import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

from recipes import release
from recipes.release import installed_alone
from tiny_audio import __version__

REPOSITORY = Path(__file__).resolve().parents[1]
MAX_WHEEL_BYTES = 32 * 2**20


def project() -> dict:
    return tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """A folder with the sdist, and the wheel that was built from it."""
    folder = tmp_path_factory.mktemp("built")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(REPOSITORY)]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stdout + made.stderr
    return folder


@pytest.fixture(scope="module")
def wheel(built) -> Path:
    return next(built.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """The `bin` folder of an environment with the wheel in it."""
    return installed_alone(wheel, tmp_path_factory.mktemp("elsewhere"))


def call(installed: Path, *command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return release.call(installed / command[0], *command[1:], cwd=cwd)


def test_the_version_is_written_twice_and_equal():
    assert project()["version"] == __version__


def test_every_dependency_has_a_range():
    extras = project()["optional-dependencies"].values()
    for line in [*project()["dependencies"], *(line for extra in extras for line in extra)]:
        assert line.startswith("tiny-audio[") or re.fullmatch(r"[\w.-]+>=[\d.]+,<[\d.]+", line), line


def test_nothing_tracked_belongs_to_one_machine():
    listed = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True, check=False).stdout
    names = [Path(name) for name in listed.splitlines()]
    assert not {"uv.lock", "poetry.lock", "Pipfile.lock", "requirements.txt"} & {path.name for path in names}
    foreign = re.compile("|".join(["python" + "hosted", "/" + r"work/\w", "/" + r"root/\w", "/" + r"opt/pypi"]))
    for path in names:
        if path.suffix in {".py", ".md", ".toml", ".yaml", ".csv", ""} and (REPOSITORY / path).is_file():
            assert not foreign.search((REPOSITORY / path).read_text(encoding="utf-8")), path


def test_the_wheel_holds_the_package_the_configs_and_the_default(wheel):
    assert wheel.stat().st_size < MAX_WHEEL_BYTES
    names = set(zipfile.ZipFile(wheel).namelist())
    configs = [path.relative_to(REPOSITORY) for path in (REPOSITORY / "configs").rglob("*.yaml")]
    modules = [path.relative_to(REPOSITORY) for path in (REPOSITORY / "tiny_audio").rglob("*.py")]
    report = (REPOSITORY / "tiny_audio/analysis/report").iterdir()
    page = [path.relative_to(REPOSITORY) for path in report if path.suffix in (".html", ".css", ".js")]
    assert {f"tiny_audio/{path.as_posix()}" for path in configs} <= names
    assert {path.as_posix() for path in (*modules, *page)} <= names
    assert len(page) > 2
    assert {f"tiny_audio/assets/quickstart/{split}.parquet" for split in ("train", "validation", "test")} <= names
    assert "tiny_audio/assets/nano/model.safetensors" in names
    assert "tiny_audio/assets/dimensions/Qwen--Qwen3-0.6B.json" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert {name.split("/")[0] for name in names} == {"tiny_audio", f"tiny_audio-{__version__}.dist-info"}


def test_the_sdist_holds_all_that_is_tracked_so_that_its_tests_run(built):
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    listed = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True, check=False).stdout
    tracked = {name for name in listed.splitlines() if (REPOSITORY / name).is_file()}
    assert tracked <= names
    assert {"pyproject.toml", "tests/conftest.py", "docs/architecture.md", ".ci/run", "CITATION.cff"} <= names
    assert not {name for name in names if name.startswith((".git/", ".venv", "dist/", "build/", "outputs/"))}


def test_the_installed_package_is_not_the_checkout(installed, tmp_path):
    result = call(installed, "python", "-c", "import tiny_audio; print(tiny_audio.__file__)", cwd=tmp_path)
    assert Path(result.stdout.strip()).is_relative_to(installed.parent)


@pytest.mark.parametrize("command", ["ta", "tiny-audio"])
def test_help(installed, tmp_path, command):
    result = call(installed, command, "--help", cwd=tmp_path)
    assert result.returncode == 0
    assert "transcribe" in result.stdout


def test_dev_says_that_it_needs_a_checkout(installed, tmp_path):
    result = call(installed, "ta", "dev", "lint", cwd=tmp_path)
    assert result.returncode == 1
    assert result.stderr.startswith("Error: `ta dev` works on a checkout")


def test_transcribe(installed, tmp_path):
    clips = next(installed.parent.glob("lib/*/site-packages/tiny_audio/assets/clips"))
    result = call(installed, "ta", "transcribe", str(next(clips.glob("*.ogg"))), cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip()


def test_train(installed, tmp_path):
    overrides = ("training.max_steps=2", "data.max_eval_samples=4")
    result = call(installed, "ta", "train", "--experiment", "quickstart", *overrides, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    (run,) = (tmp_path / "outputs").iterdir()
    assert (run / "best" / "config.json").is_file()


def test_the_model_is_read_in_one_sitting():
    assert sum(len(file.read_text().splitlines()) for file in (REPOSITORY / "tiny_audio/model").glob("*.py")) <= 1_500
