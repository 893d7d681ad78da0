"""Files that register encoder adapters and projectors, shipped or a user's own: run here, exported with a checkpoint."""

import importlib.util
import logging
import re
import sys
from pathlib import Path

from torch import nn

HERE = Path(__file__).parent
_ABSOLUTE_IMPORT = re.compile(r"(?m)^from tiny_audio(?:\.model)?(?:\.(\w+))? import")


def find_class(registry: dict[str, type], name: str, shipped: str, own: str | None = None) -> type | None:
    """The class of that name; unknown so far, the user's own file and then the package's are run until one registers it."""
    for file in (Path(own or ""), *sorted((HERE.parent / shipped).glob("[a-z]*.py"))):
        if name not in registry and file.is_file():
            run_plugin(file)
    return registry.get(name)


def run_plugin(file: Path) -> None:
    """Run a file as a module of this package: the copy in a checkpoint imports its siblings. ValueError: a bad name."""
    name = f"{__package__}.{file.stem}"
    if file.suffix != ".py" or not file.stem.isidentifier() or (HERE / file.name).exists():
        raise ValueError(f"{file} cannot lie beside the model's own files; give it another name, like my_projector.py.")
    spec = importlib.util.spec_from_file_location(name, file)
    sys.modules[name] = module = importlib.util.module_from_spec(spec)  # type: ignore[arg-type]
    spec.loader.exec_module(module)  # type: ignore[union-attr]


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
    code = _ABSOLUTE_IMPORT.sub(lambda found: f"from .{found[1] or 'projectors'} import", file.read_text("utf-8"))
    (folder / file.name).write_text(code, "utf-8")
    code, line = (folder / registry).read_text("utf-8"), f"from .{file.stem} import {name}  # noqa: E402, F401\n"
    (folder / registry).write_text(code if line in code else f"{code}\n\n{line}", "utf-8")
    return file.name
