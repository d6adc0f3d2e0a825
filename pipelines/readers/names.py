"""Sort file names, and match file names and field paths against those in a declaration."""

import re
from collections.abc import Collection
from fnmatch import fnmatchcase

from pipelines.readers.folder import SourceFolder


def natural_key(name: str) -> tuple[list[str | int], str]:
    """Return the key that sorts the numbers inside names by value.

    >>> sorted(["demo_10", "demo_2"], key=natural_key)
    ['demo_2', 'demo_10']
    """
    return [int(word) if i % 2 else word for i, word in enumerate(re.split(r"([0-9]+)", name))], name


def covers(prefixes: Collection[str], path: str) -> bool:
    """Whether a dotted path is one of `prefixes`, or below one.

    >>> covers(["obs"], "obs.image"), covers(["obs"], "observation")
    (True, False)
    """
    return any(path == prefix or path.startswith(f"{prefix}.") for prefix in prefixes)


def matching(folder: SourceFolder, pattern: str) -> tuple[str, ...]:
    """List the paths that match a pattern such as `*/demo.hdf5`, `demo_2` before `demo_10`, without hidden ones."""
    paths = [""]
    for depth, word in enumerate(pattern.split("/")):
        parents = [(parent, f"{parent}/" if depth else "") for parent in paths]
        paths = [
            f"{prefix}{name}"
            for parent, prefix in parents
            for name in folder.names(parent)
            if fnmatchcase(name, word) and name[0] != "."
        ]
    return tuple(sorted(paths, key=natural_key))


def list_files(folder: SourceFolder, pattern: str | None, endings: tuple[str, ...]) -> tuple[str, ...]:
    """List the files that match a pattern; without one, those directly in the folder with one of `endings`."""
    if pattern is not None:
        return matching(folder, pattern)
    return tuple(sorted((name for name in folder.names() if name.endswith(endings)), key=natural_key))
