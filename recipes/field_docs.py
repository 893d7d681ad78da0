"""What a field of a class means, for the API reference: its sentence in the code, or else the comment behind it."""

from __future__ import annotations

import ast
from typing import Any

from griffe import Attribute, Docstring, Extension


class FieldDocs(Extension):
    """A Griffe extension: gives the annotated fields of classes docstrings."""

    def on_attribute_instance(self, *, node: Any, attr: Attribute, **others: Any) -> None:
        if (
            attr.docstring is None
            and attr.parent is not None
            and attr.parent.is_class
            and isinstance(node, ast.AnnAssign)
        ):
            if told := sentence(node) or comment(attr):
                attr.docstring = Docstring(told, lineno=node.lineno, endlineno=node.end_lineno, parent=attr)
            if attr.value is not None and isinstance(node.value, ast.Call) and node.value.args:
                attr.value = ast.unparse(node.value.args[0])


def sentence(node: ast.AnnAssign) -> str | None:
    """Of `field: int = _option(4, "Its sentence.")`."""
    last = node.value.args[-1] if isinstance(node.value, ast.Call) and node.value.args else None
    return last.value if isinstance(last, ast.Constant) and isinstance(last.value, str) else None


def comment(attr: Attribute) -> str:
    last = attr.parent.module.lines_collection[attr.filepath][attr.endlineno - 1]
    return last.partition("  # ")[2].strip()
