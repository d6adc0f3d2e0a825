"""Names of files and paths of fields: their order, and which ones a declaration means."""

import re
from collections.abc import Collection
from fnmatch import fnmatchcase

from pipelines.readers.folder import SourceFolder


def natural(name: str) -> tuple[list[str | int], str]:
    """Give the key that sorts numbers inside names by their value.

    >>> sorted(["demo_10", "demo_2"], key=natural)
    ['demo_2', 'demo_10']
    """
    return [int(word) if i % 2 else word for i, word in enumerate(re.split(r"([0-9]+)", name))], name


def covers(prefixes: Collection[str], path: str) -> bool:
    """Say whether a dotted path is one of `prefixes`, or below one.

    >>> covers(["obs"], "obs.image"), covers(["obs"], "observation")
    (True, False)
    """
    return any(path == prefix or path.startswith(f"{prefix}.") for prefix in prefixes)


def matching(folder: SourceFolder, pattern: str) -> tuple[str, ...]:
    """List what a pattern such as `*/demo.hdf5` names, `demo_2` before `demo_10`; hidden names are not meant."""
    found = [""]
    for depth, word in enumerate(pattern.split("/")):
        bases = [(base, f"{base}/" if depth else "") for base in found]
        found = [
            f"{stem}{name}"
            for base, stem in bases
            for name in folder.names(base)
            if fnmatchcase(name, word) and name[0] != "."
        ]
    return tuple(sorted(found, key=natural))


def listed(folder: SourceFolder, pattern: str | None, endings: tuple[str, ...]) -> tuple[str, ...]:
    """List the files that a pattern names, or those directly in the folder that end so, `demo_2` before `demo_10`."""
    if pattern is not None:
        return matching(folder, pattern)
    return tuple(sorted((name for name in folder.names() if name.endswith(endings)), key=natural))
