"""Where sources lie, and in which format: told by the names of files alone, nothing is opened."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from pipelines.readers.folder import SourceFolder
from schemas.errors import UsageError

DEPTH, MAX_FOLDERS, LISTED = 3, 1000, 20  # levels below, folders looked into, sources that an error names
HDF5_NAMES = (".hdf5", ".h5", ".hdf")
ROSBAG_NAMES = (".mcap", ".db3", ".bag")
FILE_NAME = re.compile(r".*\.[A-Za-z]\w{0,7}")  # where only a request would tell a file from a folder
LOOKS: Mapping[str, Sequence[str]] = {  # a folder with one of these is a source of the format; the first that fits
    "rlds": ["features.json"],
    "hdf5": [f"*{ending}" for ending in HDF5_NAMES],  # a file that such a pattern names is a source by itself, too
    "rosbag": ["metadata.yaml", *(f"*{ending}" for ending in ROSBAG_NAMES), "*/metadata.yaml"],  # a bag is an episode
}


@dataclass(frozen=True, slots=True)
class Found:
    """A source: its format and where it is."""

    format: str
    uri: str


def sources(uri: str, looks: Mapping[str, Sequence[str]] = LOOKS) -> tuple[Found, ...]:
    """Find the source at `uri`, or those up to three levels below it, sorted."""
    name = uri.rstrip("/").rpartition("/")[2]
    for form, patterns in looks.items():
        if any(fnmatchcase(name, pattern) for pattern in patterns if "/" not in pattern):
            return (Found(form, uri),)
    return tuple(sorted(_below(SourceFolder.at(uri), looks), key=lambda found: found.uri))


def _below(top: SourceFolder, looks: Mapping[str, Sequence[str]]) -> Iterator[Found]:
    """Walk level by level into what is no source itself."""
    level, seen = [top], 0
    for depth in range(DEPTH + 1):
        deeper: list[SourceFolder] = []
        for folder in level:
            seen += 1
            if seen > MAX_FOLDERS:
                raise UsageError(f"{top.uri}: more than {MAX_FOLDERS} folders to look into; name one further down")
            names = folder.names()
            form = next((form for form, look in looks.items() if _fits(folder, names, look)), None)
            if form and not _is_mixed(folder, names, form=form, looks=looks):
                yield Found(form, folder.uri)
            elif depth < DEPTH:
                deeper += [folder.child(name) for name in names if _may_be_folder(folder, name)]
        level = deeper


def _fits(folder: SourceFolder, names: Iterable[str], look: Iterable[str]) -> bool:
    return any(_holds(folder, names, pattern) for pattern in look)


def _is_mixed(folder: SourceFolder, names: Sequence[str], *, form: str, looks: Mapping[str, Sequence[str]]) -> bool:
    """Say whether a folder is a source by what lies below it alone, with those of other formats beside that."""
    if _fits(folder, names, [pattern for pattern in looks[form] if not pattern.startswith("*/")]):
        return False
    below = [folder.child(name) for name in names if _may_be_folder(folder, name)]
    others = [look for other, look in looks.items() if other != form]
    return any(_fits(inner, inner.names(), look) for inner in below for look in others)


def _holds(folder: SourceFolder, names: Iterable[str], pattern: str) -> bool:
    """Say whether a folder with these names has what a pattern such as `meta/info.json` names."""
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
