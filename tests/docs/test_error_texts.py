"""Every error text in the code, in one golden file: its diff shows what changes for users.

`UPDATE_GOLDEN=1 pytest tests/docs` rewrites tests/golden/errors.txt; review the difference like code.
"""

import ast
import os
from collections.abc import Iterator

from tests.docs.toy import ROOT

GOLDEN = ROOT / "tests/golden/errors.txt"
PACKAGES = ("schemas", "stats", "pipelines", "finetune", "oxe_tools")


def text_of(node: ast.expr) -> str:
    """Write a message as the code has it: `{name}` where a value is filled in, alternatives joined by ` | `."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=values):
            return "".join(text_of(value) for value in values)
        case ast.FormattedValue(value=value):
            return f"{{{ast.unparse(value)}}}"
        case ast.IfExp(body=body, orelse=orelse):
            return f"{text_of(body)} | {text_of(orelse)}"
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return text_of(left) + text_of(right)
    return f"{{{ast.unparse(node)}}}"


def error_texts() -> Iterator[str]:
    """Return the class and the text of every error that the code raises."""
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args:
                    name, message = node.func.id, node.args[0]
                    yield from [f"{name}: {text_of(message)}"] if name.endswith("Error") or name == "fail" else []


def test_the_error_texts_are_those_of_the_golden_file() -> None:
    lines = "\n".join(sorted({text.replace("\n", "\\n") for text in error_texts()})) + "\n"
    if os.environ.get("UPDATE_GOLDEN"):
        GOLDEN.write_text(lines)
    assert GOLDEN.read_text() == lines, "if this is meant: UPDATE_GOLDEN=1 pytest tests/docs"
