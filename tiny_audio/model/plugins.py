"""Files that register encoder adapters and projectors, shipped or a user's own: run here, exported with a checkpoint."""

import importlib.util
import logging
import re
import sys
from pathlib import Path

from torch import nn

HERE = Path(__file__).parent
IN_THE_PACKAGE = __package__ == "tiny_audio.model"  # not in the code of a checkpoint, where all files lie in one folder
CODE = [HERE, HERE.parent / "audio"][: 1 + IN_THE_PACKAGE]  # the folders that every checkpoint carries
_ABSOLUTE_IMPORT = re.compile(r"(?m)^from tiny_audio(?:\.model|\.audio)?(?:\.(\w+))? import")


def find_class(registry: dict[str, type], name: str, shipped: str, own: str | None, unknown: str) -> type:
    """The class of that name; to find it the user's own file is run, then the package's imported (ValueError: none)."""
    if name not in registry and own and Path(own).is_file():
        run_plugin(Path(own))
    if name not in registry and IN_THE_PACKAGE:
        importlib.import_module(f"..{shipped}", __package__)
    if name not in registry:
        kind, missing = shipped.removesuffix("s"), f" {own} is no file here." if own and not Path(own).is_file() else ""
        raise ValueError(
            f"{unknown} {name!r}; known: {', '.join(sorted(registry))}.{missing} Your own needs {kind}_file, a local file "
            f"like my_{kind}.py (from the Hub: AutoModel and trust_remote_code=True)."
        )
    return registry[name]


def run_plugin(file: Path) -> None:
    """Run a file as a module of this package: the copy in a checkpoint imports its siblings. ValueError: it cannot be."""
    name = f"{__package__}.{file.stem}"
    if file.suffix != ".py" or not file.stem.isidentifier() or any((home / file.name).exists() for home in CODE):
        raise ValueError(f"{file} cannot lie beside the model's own files; give it another name, like my_projector.py.")
    spec = importlib.util.spec_from_file_location(name, file)
    sys.modules[name] = module = importlib.util.module_from_spec(spec)  # type: ignore[arg-type]
    try:
        spec.loader.exec_module(module)  # type: ignore[union-attr]
    except Exception as error:
        del sys.modules[name]
        raise ValueError(f"{file} cannot be run ({type(error).__name__}: {error}); TA_DEBUG=1 shows where.") from error


def export_file(file: Path, folder: Path) -> None:
    """Write a file of the package, or one that imports it, into a checkpoint, where all lie side by side."""
    code = _ABSOLUTE_IMPORT.sub(lambda found: f"from .{found[1] or 'projectors'} import", file.read_text("utf-8"))
    (folder / file.name).write_text(code, "utf-8")


def export_plugin(part: nn.Module, registry: str, folder: Path) -> str | None:
    """Write the file that defines a part's class into a checkpoint, where the file that holds the registry imports it.

    Its name is returned; None where the class is the registry file's own, or lies in no file.
    """
    name, module = type(part).__name__, sys.modules[type(part).__module__]
    file = Path(getattr(module, "__file__", None) or "")
    if file == HERE / registry:
        return None
    if module.__name__ == "__main__" or not file.is_file():
        logging.getLogger(__name__).warning("%s is not saved: put it into a file of its own, as projector_file.", name)
        return None
    export_file(file, folder)
    code, line = (folder / registry).read_text("utf-8"), f"from .{file.stem} import {name}  # noqa: E402, F401\n"
    (folder / registry).write_text(code if line in code else f"{code}\n\n{line}", "utf-8")
    return file.name
