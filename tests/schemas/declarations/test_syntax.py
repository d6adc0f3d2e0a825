"""Digests of hook files: `tests/data/syntax_digests.json` has the digests, equal in Python 3.11, 3.12 and 3.13."""

import json
from itertools import combinations
from typing import Any

import pytest

from schemas.declarations.syntax import syntax_digest
from tests.docs.toy import ROOT

SOURCES: dict[str, Any] = json.loads((ROOT / "tests/data/syntax_digests.json").read_text())
HOOK = "\n".join(SOURCES["hook"]["source"])


@pytest.mark.parametrize("name", SOURCES)
def test_the_digest_is_the_same_on_every_python(name: str) -> None:
    assert syntax_digest("\n".join(SOURCES[name]["source"])) == SOURCES[name]["digest"]


def test_no_two_of_them_are_the_same() -> None:
    digests = [case["digest"] for case in SOURCES.values()]
    assert len(set(digests)) == len(digests)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"""A hook."""\n', ""),
        ('    """Leave out slow steps."""\n', ""),
        ("slow steps.", "steps that are slow."),
        ("1e-5", "0.00001  # metres"),
        ("np.abs(", "np.abs(\n        "),
        ('"action"', "'act' 'ion'"),
        ("\n\n\n", "\n"),
        ("\n", "\r\n"),
    ],
)
def test_docstrings_comments_and_layout_do_not_count(old: str, new: str) -> None:
    assert old in HOOK
    assert (
        syntax_digest(HOOK.replace(old, new)) == syntax_digest(HOOK.replace(old, new).encode()) == syntax_digest(HOOK)
    )


DIFFERENT = """x = 1
x = 1.0
x = True
x = "1"
x = b"1"
x = 1j
x = None
x = -1
x = "a"
x = f"a{b}"
x = f"a{b!r}"
x = f"a{b:c}"
x = f"a{b=}"
x = (1,)
x = [1]
x = {1}
x = []
x = {**a}
x = {None: a}
x = {a: b}
x: int = 1
x += 1
x[1] = 1
x.y = 1
def x(): "a"; "b"
def x(): "a"; return "b"
def x(): "a"; f"b"
async def x(): return "b"
def x(a): return "b"
def x(*a): return "b"
def x(*, a): return "b"
def x(*, a=None): return "b"
def x(a, /): return "b"
class x: a = 1"""


def test_whatever_changes_the_code_counts() -> None:
    sources = [*DIFFERENT.splitlines(), HOOK, *(HOOK.replace(a, b) for a, b in (("> L", ">= L"), ("2, /", "3, /")))]
    for one, other in combinations(sources, 2):
        assert syntax_digest(one) != syntax_digest(other), (one, other)


def test_what_is_not_python_is_a_syntax_error() -> None:
    with pytest.raises(SyntaxError):
        syntax_digest("def")
