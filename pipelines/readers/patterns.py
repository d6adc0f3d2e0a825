"""Patterns of paths in a tree of groups and arrays: make one from names, and list what it does and does not match."""

import re
from collections.abc import Collection, Sequence
from fnmatch import fnmatchcase
from glob import escape
from itertools import takewhile
from typing import Protocol

from pipelines.readers.names import natural_key

UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
UUID_PATTERN = "-".join("?" * length for length in (8, 4, 4, 4, 12))
NUMBERED = re.compile(r"(.*?)[0-9]+")


class Names(Protocol):
    """A tree of groups; paths are relative to its root, whose path is empty."""

    def names(self, group: str) -> Sequence[str]:
        """Return the names in a group; empty for an array."""


def below(group: str, name: str) -> str:
    """Return the path of a name in a group."""
    return f"{group}/{name}".strip("/")


def name_pattern(names: Collection[str], *, is_last: bool = False) -> str:
    """Return a pattern that matches all names; `is_last` generalizes a single name that ends with a number.

    >>> name_pattern(["demo_1", "demo_10"]), name_pattern(["0", "12"]), name_pattern(["2025-01-05", "2025-02-01"])
    ('demo_*', '[0-9]*', '[0-9]*')
    >>> name_pattern(["data"]), name_pattern(["pick", "place"]), name_pattern(["run_a", "run_b"])
    ('data', '*', 'run_*')
    """
    (first, *others) = names
    if not others and not (is_last and NUMBERED.fullmatch(first)):
        return escape(first)
    if all(UUID.fullmatch(name) for name in names):
        return UUID_PATTERN
    if all(name[0].isdigit() for name in names):
        return "[0-9]*"
    stems = _stems(names)
    stem = stems.pop() if len(stems) == 1 else None
    if stem is None:  # what all names start with, up to a separator
        letters = takewhile(lambda column: len({*column}) == 1, zip(*names, strict=False))
        stem = re.sub(r"[^_.-]*$", "", "".join(column[0] for column in letters))
    return f"{escape(stem)}*"


def has_style(name: str, names: Collection[str]) -> bool:
    """Whether a name consists of the same word and a number as all other names."""
    stems = _stems([name])
    return None not in stems and stems == _stems(names)


def _stems(names: Collection[str]) -> set[str | None]:
    """Return the names without the numbers at their ends; None for names without one."""
    return {match[1] if (match := NUMBERED.fullmatch(name)) else None for name in names}


def matches(tree: Names, pattern: str) -> list[str]:
    """List the paths that a pattern such as `data/demo_*` matches, ordered by the numbers in their names."""
    paths = [""]
    for word in filter(None, pattern.split("/")):
        paths = [below(path, name) for path in paths for name in tree.names(path) if fnmatchcase(name, word)]
    return sorted(filter(None, paths), key=natural_key)


def siblings(tree: Names, pattern: str) -> list[str]:
    """List the outermost paths that contain no match of a pattern, down to the level of its matches."""
    matched = {*matches(tree, pattern)}
    inside = {"/".join(path.split("/")[:end]) for path in matched for end in range(path.count("/") + 1)}
    others, level = list[str](), [""] if matched or pattern.strip("/") else []
    for _ in filter(None, pattern.split("/")):
        paths = [below(group, name) for group in level for name in tree.names(group)]
        others += [path for path in paths if path not in matched and path not in inside]
        level = [path for path in paths if path in inside]
    return others
