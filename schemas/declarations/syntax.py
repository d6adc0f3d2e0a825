"""Hash Python source by its syntax tree, without docstrings and comments.

The digest is the same in Python 3.11, 3.12 and 3.13. The output of `ast.dump` differs between them, so it is not used.
"""

import ast
import hashlib
import json
from collections.abc import Sequence
from typing import Any

IGNORED = {"ctx", "kind", "type_comment"}  # these fields do not change what the code does


def syntax_digest(source: str | bytes) -> str:
    """Hash the code of a module. Raises SyntaxError if it is not Python.

    >>> syntax_digest("x = 'a' # why") == syntax_digest('x = ("a")')
    True
    """
    return hashlib.sha256(json.dumps(_json(ast.parse(source)), sort_keys=True).encode()).hexdigest()


def _json(value: Any) -> Any:
    """Convert a syntax node, a list of nodes, or the value of a node's field to JSON, without empty fields."""
    if isinstance(value, list):
        return [_json(item) for item in value]
    if isinstance(value, ast.Constant):
        return ["Constant", _constant(value.value)]
    if isinstance(value, ast.AST):
        fields = {name: _field(value, name) for name in value._fields if name not in IGNORED}
        return [type(value).__name__, {name: _json(field) for name, field in fields.items() if field not in (None, [])}]
    return _constant(value)


def _field(node: ast.AST, name: str) -> Any:
    value = getattr(node, name, None)
    if name == "body" and isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        return node.body[1:] if ast.get_docstring(node, clean=False) is not None else node.body
    if name == "values" and isinstance(node, ast.JoinedStr):
        return _joined(node.values)
    if name == "format_spec" and isinstance(value, ast.JoinedStr) and not _joined(value.values):
        return None
    return value


def _joined(parts: Sequence[ast.expr]) -> list[ast.expr]:
    """Join neighbouring texts of an f-string, because Python versions split them differently; drop empty texts."""
    joined: list[ast.expr] = []
    for part in parts:
        last = joined[-1] if joined else None
        if isinstance(last, ast.Constant) and isinstance(part, ast.Constant):
            joined[-1] = ast.Constant(f"{last.value!s}{part.value!s}")
        elif not isinstance(part, ast.Constant) or part.value:
            joined.append(part)
    return joined


def _constant(value: Any) -> list[str]:
    """Return the type and text of a constant; the text does not depend on the Unicode version or the digit limit."""
    if isinstance(value, str):
        return ["str", value]
    if isinstance(value, bytes):
        return ["bytes", value.hex()]
    if type(value) is int:
        return ["int", hex(value)]
    return [type(value).__name__, repr(value)]
