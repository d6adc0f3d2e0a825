"""Where sources lie, and in which format: told by the names of files alone, nothing is opened."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TypeAlias

from pipelines.readers.folder import SourceFolder
from schemas.errors import UsageError

DEPTH, MAX_FOLDERS, LISTED = 3, 300, 20  # levels below, folders looked into, sources that an error names
HDF5_NAMES = (".hdf5", ".h5", ".hdf")
ZARR_NAMES = (".zarr", ".zarr.zip")
ROSBAG_NAMES = (".mcap", ".db3", ".bag")
EPISODE_NAMES = (".npz", ".npy", ".csv", ".jsonl")
EPISODE_FOLDER = re.compile(r"[^.]*[A-Za-z_-][0-9]+|[0-9]{2,}")  # `episode_7`, `0007`; not `1.0.0`
PICKLES = (".pkl", ".pickle")
FILE_NAME = re.compile(r".*\.[A-Za-z]\w{0,7}")  # where only a request would tell a file from a folder
Pattern: TypeAlias = str | re.Pattern[str]  # of names, as a shell's, into folders with "/"; or a regular expression
Looks: TypeAlias = Mapping[str, Sequence[Pattern]]
LOOKS: Looks = {  # a folder with one of these is a source of the format; the first that fits
    "rlds": ["features.json"],
    "hdf5": [f"*{ending}" for ending in HDF5_NAMES],  # a file that such a pattern names is a source by itself, too
    "lerobot": ["meta/info.json"],
    "zarr": [".zgroup", ".zmetadata", "zarr.json", *(f"*{ending}" for ending in ZARR_NAMES)],
    "rosbag": ["metadata.yaml", *(f"*{ending}" for ending in ROSBAG_NAMES), "*/metadata.yaml"],  # a bag is an episode
}
LOOSE: Looks = {  # only where nothing of the above lies at or below a place
    "folder": [*(f"*{ending}" for ending in (*EPISODE_NAMES, *PICKLES)), EPISODE_FOLDER],
}


@dataclass(frozen=True, slots=True)
class Found:
    """A source: its format and where it is."""

    format: str
    uri: str


def sources(uri: str, looks: Looks | None = None) -> tuple[Found, ...]:
    """Find the source at `uri`, or those up to three levels below it, sorted."""
    name = uri.rstrip("/").rpartition("/")[2]
    if looks is None and name.endswith(".zip"):  # Zarr's, by whatever name; in a folder, zip files may be anything
        return (Found("zarr", uri),)
    for table in (LOOKS, LOOSE) if looks is None else (looks,):
        for form, patterns in table.items():
            if any(isinstance(pattern, str) and fnmatchcase(name, pattern) for pattern in patterns):
                return (Found(form, uri),)
    top = SourceFolder.at(uri)
    found, is_whole = _below(top, LOOKS if looks is None else looks)
    if looks is None and (is_whole or not found):
        loose, is_whole = _below(top, LOOSE, others=[one.uri for one in found])
        found += loose
    if not is_whole:
        raise UsageError(f"{uri}: more than {MAX_FOLDERS} folders to look into; name one further down")
    return tuple(sorted(found, key=lambda one: one.uri))


def _below(top: SourceFolder, looks: Looks, others: Sequence[str] = ()) -> tuple[list[Found], bool]:
    """Walk level by level into what is no source itself, nor one of `others`; say whether all of it was seen.

    Beside `others`, and not around them, a source is what has several files or folders that say so: many hold a table.
    """
    level, seen, found = [top], 0, list[Found]()
    for depth in range(DEPTH + 1):
        deeper: list[SourceFolder] = []
        for folder in level:
            seen += 1
            if seen > MAX_FOLDERS:
                return found, False
            if folder.uri in others:
                continue
            names = folder.names()
            form = next((form for form, look in looks.items() if _fits(folder, names, look)), None)
            if (
                form
                and not _is_mixed(folder, names, form=form, looks=looks)
                and _stands(folder, names, looks=looks, others=others)
            ):
                found.append(Found(form, folder.uri))
            elif depth < DEPTH:
                deeper += [folder.child(name) for name in names if _may_be_folder(folder, name)]
        level = deeper
    return found, True


def _stands(folder: SourceFolder, names: Sequence[str], *, looks: Looks, others: Sequence[str]) -> bool:
    """Say whether a folder is a source in spite of `others`."""
    if not others:
        return True
    around = any(other.startswith(f"{folder.uri.rstrip('/')}/") for other in others)
    return not around and sum(_fits(folder, [name], look) for name in names for look in looks.values()) > 1


def _fits(folder: SourceFolder, names: Sequence[str], look: Iterable[Pattern]) -> bool:
    return any(_holds(folder, names, pattern) for pattern in look)


def _is_mixed(folder: SourceFolder, names: Sequence[str], *, form: str, looks: Looks) -> bool:
    """Say whether a folder is a source by what lies below it alone, with those of other formats beside that."""
    if _fits(folder, names, [pattern for pattern in looks[form] if not str(pattern).startswith("*/")]):
        return False
    below = [folder.child(name) for name in names if _may_be_folder(folder, name)]
    others = [look for other, look in looks.items() if other != form]
    return any(_fits(inner, inner.names(), look) for inner in below for look in others)


def _holds(folder: SourceFolder, names: Sequence[str], pattern: Pattern) -> bool:
    """Say whether a folder with these names has what a pattern such as `meta/info.json` names."""
    if isinstance(pattern, re.Pattern):
        return any(pattern.fullmatch(name) and _may_be_folder(folder, name) for name in names)
    if not names and folder.files.local is None and "*" not in pattern:  # many web servers list nothing
        return folder.size(pattern) is not None
    first, _, rest = pattern.partition("/")
    found = [name for name in names if fnmatchcase(name, first)]
    if not rest:
        return bool(found)
    inner = [folder.child(name) for name in found if _may_be_folder(folder, name)]
    return any(_holds(below, below.names(), rest) for below in inner)


def _may_be_folder(folder: SourceFolder, name: str) -> bool:
    if name.startswith("."):
        return False
    here = folder.files.local
    return (here / name).is_dir() if here else not FILE_NAME.fullmatch(name)


def several(uri: str, found: Iterable[Found]) -> UsageError:
    """Say that a folder holds other sources, and name them."""
    listed = [f"{one.uri} ({one.format})" for one in found]
    if len(listed) == 1:
        return UsageError(f"{uri} is no source itself; there is one at {listed[0]}: name that")
    more = f", and {len(listed) - LISTED} more ('oxe inspect {uri}' lists them)" if len(listed) > LISTED else ""
    return UsageError(f"{uri} holds several sources, name one: {', '.join(listed[:LISTED])}{more}")
