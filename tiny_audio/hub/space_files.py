"""The files of a Space: a README that configures it, an app of two lines, its requirements, this very package, a local model."""

import importlib.metadata
import os
import re
import shutil
from importlib.resources import files
from pathlib import Path

from packaging.requirements import Requirement

from tiny_audio.assets import embedded
from tiny_audio.errors import TinyAudioError, require_extra
from tiny_audio.evaluation.card import read_space_card
from tiny_audio.model_source import SHIPPED, ModelSource

from .staging import stage

PYTHON = "3.12"  # Spaces take 3.10 unless told
CPU_TORCH = "--extra-index-url https://download.pytorch.org/whl/cpu"  # PyPI's brings gigabytes of CUDA
LEFT_OUT = ("__pycache__", "quickstart", ".*")  # the corpus is for training
APP = '''"""The demo of tiny-audio, as `ta demo` shows it; written by `ta deploy`, which overwrites it."""

from tiny_audio.demo import launch

launch({model!r})
'''
RUNS = {"sdk": "gradio", "app_file": "app.py"}
FRONT = {"emoji": "🎙️", "colorFrom": "blue", "colorTo": "gray", "pinned": False}  # a user may change these


def write_space(source: ModelSource, folder: Path, title: str, hardware: str, readme: str | None) -> None:
    """Fills an empty folder with all that a Space needs; a local model is put into it.

    Args:
        title: of the page.
        hardware: of the Space; on a CPU torch comes without CUDA.
        readme: the Space's own so far, whose text and other metadata stay.
    """
    shutil.copytree(str(files("tiny_audio")), folder / "tiny_audio", ignore=_ignored(source))
    model = source.name
    if source.local and source.name not in SHIPPED:
        model = folder_name(source)
        stage(source, folder / model, self_contained=True)
    (folder / "app.py").write_text(APP.format(model=model), encoding="utf-8")
    (folder / "requirements.txt").write_text(requirements(hardware), encoding="utf-8")
    (folder / "README.md").write_text(readme_of(readme, title, source), encoding="utf-8")


def _ignored(source: ModelSource):
    """What of the package is not copied: nano only where it is the model."""
    nano = str(embedded(SHIPPED[0]))
    usual = shutil.ignore_patterns(*LEFT_OUT)

    def ignored(folder: str, names: list[str]) -> set[str]:
        other = {name for name in names if source.name not in SHIPPED and os.path.join(folder, name) == nano}
        return usual(folder, names) | other

    return ignored


def folder_name(source: ModelSource) -> str:
    """Of a local model in the Space: its own, or that of its run for a run's `best`."""
    path = Path(source.location).resolve()
    name = path.parent.name if path.name == "best" else path.name
    return "model-" + (re.sub(r"[^\w.-]+", "-", name).strip("-.") or "trained")


def requirements(hardware: str) -> str:
    """What the demo needs, with the ranges of the package itself."""
    listed = [Requirement(line) for line in importlib.metadata.requires("tiny-audio") or []]
    wanted = [one for one in listed if one.marker is None or one.marker.evaluate({"extra": "demo"})]
    lines = sorted(f"{one.name}{one.specifier}" for one in wanted)
    return "\n".join([*([CPU_TORCH] if hardware.startswith("cpu") else []), *lines]) + "\n"


def readme_of(existing: str | None, title: str, source: ModelSource) -> str:
    """The Space's README: what configures it is ours, its text and other metadata are the user's once it is there.

    Raises:
        TinyAudioError: its metadata is no YAML, or not as the Hub wants it.
    """
    require_extra("gradio", "demo")
    card = read_space_card(existing or _first_text(title, source))
    data = card.data.to_dict()
    ours: dict[str, str | list[str]] = {
        **RUNS,
        "sdk_version": importlib.metadata.version("gradio"),
        "python_version": PYTHON,
    }
    if not source.local:
        ours["models"] = [*dict.fromkeys([*_models(data.get("models", [])), source.location])]
    for key, value in {"title": title, **FRONT, **data, **ours}.items():
        card.data[key] = value
    return str(card)


def runs_another_app(readme: str) -> bool:
    """Whether the Space that a README configures is no Gradio app in app.py, as a Docker or a static one.

    Raises:
        TinyAudioError: its metadata is no YAML, or not as the Hub wants it.
    """
    data = read_space_card(readme).data.to_dict()
    return any(data.get(key, value) != value for key, value in RUNS.items())


def _models(named: object) -> list[str]:
    """The models that a README names; one alone may stand there as text."""
    names = [named] if isinstance(named, str) else named
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise TinyAudioError(f"The README.md of the Space has models: {named}; expected a list of names on the Hub.")
    return names


def _first_text(title: str, source: ModelSource) -> str:
    model = (
        "a speech recogniser trained"
        if source.local
        else f"[{source.name}](https://huggingface.co/{source.location}), trained"
    )
    return f"\n# {title}\n\n{model[0].upper()}{model[1:]} with tiny-audio: say something, or give it a recording.\n"
