"""The frame of `ta`: the table of commands, exit codes, and errors worded once."""

import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from tiny_audio.cli.main import COMMANDS, describe, is_for_the_user, load_command, run
from tiny_audio.errors import TinyAudioError, require_extra

CLI_FOLDER = Path(import_module("tiny_audio.cli").__file__).parent


def test_the_table_names_every_command_file():
    files = {path.stem for path in CLI_FOLDER.glob("*.py")} - {"__init__", "main", "options"}
    files = {name for name in files if not name.startswith("remote_")}  # parts of `ta remote`
    assert set(COMMANDS) == files


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_loads_and_explains_itself(name, capsys):
    assert load_command(name).help
    assert run([name, "--help"]) == 0
    assert capsys.readouterr().out.startswith(f"Usage: ta {name}")


def test_help_lists_every_command_with_its_sentence(capsys):
    assert run(["--help"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert all(f"{name} {sentence}" in shown for name, sentence in COMMANDS.items())


def test_version(capsys):
    import tiny_audio

    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"tiny-audio {tiny_audio.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["transcibe"], "Did you mean 'transcribe'?"),
        (["transcribe"], "Missing argument"),
        (["transcribe", "a.wav", "--format", "doc"], "'doc' is not one of"),
        (["transcribe", "a.wav", "--batch-size", "0"], "--batch-size"),
        (["doctor", "--loud"], "No such option"),
    ],
)
def test_wrong_usage_exits_2(arguments, shown, capsys):
    assert run(arguments) == 2
    assert shown in capsys.readouterr().err


def raised(function, *arguments) -> Exception:
    with pytest.raises(Exception) as caught:
        function(*arguments)
    return caught.value


def test_errors_worded_for_the_user_are_told_from_bugs(tmp_path):
    from tiny_audio.audio.reading import load_audio

    assert is_for_the_user(TinyAudioError("No such dataset."))
    assert is_for_the_user(raised((tmp_path / "missing").read_text))
    assert is_for_the_user(raised(load_audio, b"not audio"))
    assert not is_for_the_user(raised(int, "x"))
    assert not is_for_the_user(raised({}.popitem))


def test_an_error_is_one_line(tmp_path):
    missing = tmp_path / "missing"
    assert describe(raised(missing.read_text)) == f"{missing}: No such file or directory."
    assert describe(ValueError("two\n  lines")) == "two lines"


def ta(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "tiny_audio.cli.main", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, check=False)


def test_ta_debug_shows_the_traceback():
    arguments = ("transcribe", "--dtype", "float99", "clip.wav")
    plain, debug = ta(*arguments), ta(*arguments, TA_DEBUG="1")
    assert (plain.returncode, debug.returncode) == (1, 1)
    assert plain.stderr.startswith("Error: Unknown dtype 'float99'")
    assert plain.stderr.count("\n") == 1
    assert "Traceback" in debug.stderr


def test_a_reader_that_goes_away_is_no_error():
    shell = f"{sys.executable} -m tiny_audio.cli.main --help | head -c 1"
    result = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=False)
    assert result.stderr == ""


def test_a_missing_extra_is_one_line_with_the_pip_command():
    error = raised(require_extra, "no_such_package.part", "train")
    assert isinstance(error, TinyAudioError)
    assert "pip install 'tiny-audio[train]'" in str(error)
    assert require_extra("json", "train").loads("1") == 1


def test_heavy_imports_in_commands_are_found_by_lint(tmp_path):
    config = CLI_FOLDER.parents[1] / "pyproject.toml"
    assert lint_codes(config, "tiny_audio/cli/new.py") == {"TID253"}
    assert lint_codes(config, "tiny_audio/model/new.py") == set()


def lint_codes(config: Path, name: str) -> set[str]:
    command = [sys.executable, "-m", "ruff", "check", "--config", str(config), "--output-format", "concise"]
    command += ["--no-cache", "--stdin-filename", str(config.parent / name), "-"]
    source = "import torch\n\nprint(torch)\n"
    output = subprocess.run(command, input=source, capture_output=True, text=True, check=False).stdout
    return {line.split()[1] for line in output.splitlines() if line.count(":") >= 3}
