"""Sort file names, and match file names and field paths with the patterns and paths in a declaration."""

import re
from collections.abc import Collection
from fnmatch import fnmatchcase

from pipelines.readers.folder import SourceFolder


def natural_key(name: str) -> tuple[list[str | int], str]:
    """Return a sort key that compares the numbers inside names by value.

    >>> sorted(["demo_10", "demo_2"], key=natural_key)
    ['demo_2', 'demo_10']
    """
    return [int(word) if i % 2 else word for i, word in enumerate(re.split(r"([0-9]+)", name))], name


def covers(prefixes: Collection[str], path: str) -> bool:
    """Whether a dotted path is one of `prefixes`, or is below one of them.

    >>> covers(["obs"], "obs.image"), covers(["obs"], "observation")
    (True, False)
    """
    return any(path == prefix or path.startswith(f"{prefix}.") for prefix in prefixes)


def matching(folder: SourceFolder, pattern: str) -> tuple[str, ...]:
    """List the paths that match a pattern such as `*/demo.hdf5`; hidden files and folders are left out.

    A pattern that ends with `/` matches only folders. Numbers in names sort by value: `demo_2` comes before `demo_10`.
    """
    paths = [""]
    for depth, word in enumerate(pattern.rstrip("/").split("/")):
        parents = [(parent, f"{parent}/" if depth else "") for parent in paths]
        paths = [
            f"{prefix}{name}"
            for parent, prefix in parents
            for name in folder.names(parent)
            if fnmatchcase(name, word) and name[0] != "."
        ]
    if pattern.endswith("/"):
        paths = [path for path in paths if folder.is_folder(path)]
    return tuple(sorted(paths, key=natural_key))


def list_files(folder: SourceFolder, pattern: str | None, endings: tuple[str, ...]) -> tuple[str, ...]:
    """List the files that match `pattern`; if it is None, the files directly in the folder with one of `endings`."""
    if pattern is not None:
        return matching(folder, pattern)
    return tuple(sorted((name for name in folder.names() if name.endswith(endings)), key=natural_key))
