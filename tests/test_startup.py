"""What start-up costs: no command imports more than it needs, and `import tiny_audio` nearly nothing."""

import resource
import statistics
import subprocess
import sys

import pytest

from tiny_audio.cli.main import COMMANDS

HEAVY = (
    "accelerate", "av", "datasets", "gradio", "httpx2", "huggingface_hub", "hydra", "jiwer", "matplotlib", "numpy", "omegaconf", "peft", "rich",
    "safetensors", "tokenizers", "torch", "transformers",
)  # fmt: skip
UNUSED_IN_TRANSCRIBE = ("datasets", "gradio", "hydra", "jiwer", "omegaconf", "pandas", "peft", "pyarrow", "rich")


def imported(code: str, names: tuple[str, ...]) -> set[str]:
    """Which of `names` a fresh process has imported after `code`."""
    code += f"\nimport sys\nprint(*(set({names!r}) & set(sys.modules)), file=sys.stderr)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(result.stderr.split())


def test_importing_the_package_imports_nothing_heavy():
    assert imported("import tiny_audio, tiny_audio.errors, tiny_audio.console", HEAVY) == set()


@pytest.mark.parametrize("arguments", [["--help"], *([name, "--help"] for name in COMMANDS)])
def test_help_imports_nothing_heavy(arguments):
    assert imported(f"from tiny_audio.cli.main import run\nassert run({arguments!r}) == 0", HEAVY) == set()


def test_transcribe_imports_only_what_it_uses(tiny_checkpoint, tmp_path, tone):
    clip = tmp_path / "clip.wav"
    write_wav(clip, tone(1.0))
    arguments = ["transcribe", "-m", str(tiny_checkpoint), "--device", "cpu", str(clip)]
    code = f"from tiny_audio.cli.main import run\nassert run({arguments!r}) == 0"
    assert imported(code, UNUSED_IN_TRANSCRIBE) == set()


def write_wav(path, waveform):
    import wave

    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes((waveform * 32767).astype("<i2").tobytes())


def median_seconds(command: list[str], runs: int = 5) -> float:
    """CPU seconds of a whole process: a busy machine changes them little."""
    seconds = []
    for _ in range(runs):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return statistics.median(seconds)


def test_start_up_is_quick():
    """Generous bounds; on a quiet machine `ta --help` takes under 120 ms of wall time and the import under 30 ms."""
    bare = median_seconds([sys.executable, "-c", "pass"])
    assert median_seconds([sys.executable, "-c", "import tiny_audio"]) - bare < 0.1
    assert median_seconds([sys.executable, "-m", "tiny_audio.cli.main", "--help"]) - bare < 0.4


def test_public_names():
    import tiny_audio

    for name in tiny_audio.__all__:
        assert getattr(tiny_audio, name) is not None
        assert name in dir(tiny_audio)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        tiny_audio.nothing  # noqa: B018


@pytest.mark.parametrize("first", ["", "import tiny_audio.assets", "from tiny_audio.assets import embedded"])
def test_embedded_is_the_function_whatever_was_imported_before(first):
    code = f"{first}\nimport tiny_audio\nprint(tiny_audio.embedded('nano').name)\nfrom tiny_audio import embedded"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "nano\n"
