"""Where sources lie, and in which format: told by the names of files alone, nothing is opened."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from pipelines.readers.folder import SourceFolder
from schemas.errors import UsageError

DEPTH, MAX_FOLDERS, LISTED = 3, 1000, 20  # levels below, folders looked into, sources that an error names
HDF5_NAMES = (".hdf5", ".h5", ".hdf")
FILE_NAME = re.compile(r".*\.[A-Za-z]\w{0,7}")  # where only a request would tell a file from a folder


@dataclass(frozen=True, slots=True)
class Look:
    """How the sources of a format look: a folder with a file of that name, or with files that end so.

    A file that ends so is a source by itself, too.
    """

    holds: tuple[str, ...] = ()  # relative to the folder
    endings: tuple[str, ...] = ()

    def fits(self, folder: SourceFolder, names: Iterable[str]) -> bool:
        """Say whether a folder that holds `names` is a source of this format."""
        names = set(names)
        if any(name.endswith(self.endings) for name in names if self.endings):
            return True
        held = [path for path in self.holds if path.partition("/")[0] in names]
        return any(path in names or ("/" in path and folder.size(path) is not None) for path in held)


LOOKS: Mapping[str, Look] = {  # one row for each format of ours; the first that fits is taken
    "rlds": Look(holds=("features.json",)),
    "hdf5": Look(endings=HDF5_NAMES),
}


@dataclass(frozen=True, slots=True)
class Found:
    """A source: its format and where it is."""

    format: str
    uri: str


def sources(uri: str, looks: Mapping[str, Look] = LOOKS) -> tuple[Found, ...]:
    """Find the source at `uri`, or those up to three levels below it, sorted."""
    for form, look in looks.items():
        if look.endings and uri.rstrip("/").endswith(look.endings):
            return (Found(form, uri),)
    return tuple(sorted(_below(SourceFolder.at(uri), looks), key=lambda found: found.uri))


def _below(top: SourceFolder, looks: Mapping[str, Look]) -> Iterator[Found]:
    """Walk level by level into what is no source itself."""
    level, seen = [top], 0
    for depth in range(DEPTH + 1):
        deeper: list[SourceFolder] = []
        for folder in level:
            seen += 1
            if seen > MAX_FOLDERS:
                raise UsageError(f"{top.uri}: more than {MAX_FOLDERS} folders to look into; name one further down")
            names = folder.names()
            form = next((form for form, look in looks.items() if look.fits(folder, names)), None)
            if form:
                yield Found(form, folder.uri)
            elif depth < DEPTH:
                deeper += [folder.child(name) for name in names if _may_be_folder(folder, name)]
        level = deeper


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
