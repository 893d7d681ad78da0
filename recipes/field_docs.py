"""The fields of a class, listed in the API reference: each with its sentence in the code, or else the comment behind it."""

from __future__ import annotations

import ast
from typing import Any

from griffe import Class, Docstring, Extension


class FieldDocs(Extension):
    """A Griffe extension: adds a section `Attributes` to the docstring of a class whose fields say what they are."""

    def on_class_members(self, *, node: Any, cls: Class, **others: Any) -> None:
        fields = [entry for entry in getattr(node, "body", []) if isinstance(entry, ast.AnnAssign)]
        told = [
            f"    {field.target.id}: {words}" for field in fields if (words := sentence(field) or comment(cls, field))
        ]
        for field in fields:
            if sentence(field):  # the default alone, without its sentence
                cls.members[field.target.id].value = ast.unparse(field.value.args[0])
        if told:
            own = cls.docstring.value if cls.docstring else ""
            cls.docstring = Docstring("\n".join([own, "", "Attributes:", *told]), parent=cls, lineno=cls.lineno)


def sentence(field: ast.AnnAssign) -> str | None:
    """Of `stride: int = _option(4, "Its sentence.")`."""
    last = field.value.args[-1] if isinstance(field.value, ast.Call) and field.value.args else None
    return last.value if isinstance(last, ast.Constant) and isinstance(last.value, str) else None


def comment(cls: Class, field: ast.AnnAssign) -> str:
    return cls.lines_collection[cls.filepath][field.end_lineno - 1].partition("  # ")[2].strip()
