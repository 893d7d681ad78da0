"""requirements.txt of an exported model: what its code imports, in the versions that tiny-audio runs with."""

import ast
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PACKAGE = "tiny-audio"


def requirements_of(folder: Path, without: frozenset[str] = frozenset()) -> str:
    """The lines of requirements.txt for the Python files of a folder.

    A distribution that tiny-audio needs has tiny-audio's range; another one, of a user's own projector, the installed
    version or a newer one. What such a file, or ours, only tries to import is left out.

    Args:
        without: distributions that this model does without, as PEFT where there is no LoRA.
    """
    known = {str(canonicalize_name(one.name)): str(one.specifier) for one in own_requirements()}
    distributions = metadata.packages_distributions()
    wanted: dict[str, bool] = {}  # by distribution, whether it is only tried
    for module, tried in imports_of(folder):
        name = str(canonicalize_name(distributions.get(module, [module])[0]))
        wanted[name] = tried and wanted.get(name, True)
    needed = [name for name, tried in sorted(wanted.items()) if name not in without and (name in known or not tried)]
    return "".join(f"{name}{known[name] if name in known else at_least_installed(name)}\n" for name in needed)


def own_requirements() -> list[Requirement]:
    """What tiny-audio needs itself, without its extras."""
    found = [Requirement(line) for line in metadata.requires(PACKAGE) or ()]
    return [one for one in found if one.marker is None or one.marker.evaluate({"extra": ""})]


def at_least_installed(name: str) -> str:
    try:
        return f">={metadata.version(name)}"
    except metadata.PackageNotFoundError:
        return ""


def imports_of(folder: Path) -> Iterator[tuple[str, bool]]:
    """(top-level module, whether it is imported inside `try:`) of each import from outside the standard library."""
    for file in sorted(folder.glob("*.py")):
        tree = ast.parse(file.read_text("utf-8"), str(file))
        tried = {node for block in ast.walk(tree) if isinstance(block, ast.Try) for node in ast.walk(block)}
        for node in ast.walk(tree):
            for module in modules_of(node):
                if module not in sys.stdlib_module_names:
                    yield module, node in tried


def modules_of(node: ast.AST) -> list[str]:
    """The top-level modules that a statement imports; none for `from .name import X`."""
    if isinstance(node, ast.Import):
        return [alias.name.split(".")[0] for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
        return [node.module.split(".")[0]]
    return []
