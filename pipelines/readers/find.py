"""Find sources and their formats by file names alone, without opening a file."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TypeAlias

from pipelines.readers.alike import has_alike_folders
from pipelines.readers.boundary import source_errors
from pipelines.readers.endings import EPISODE_NAMES, PICKLES
from pipelines.readers.folder import SourceFolder
from schemas.errors import UsageError

MAX_DEPTH, MAX_FOLDERS, MAX_LISTED = 3, 300, 20  # levels to search, folders to search, sources to list in an error
HDF5_NAMES = (".hdf5", ".h5", ".hdf")
ZARR_NAMES = (".zarr", ".zarr.zip")
ROSBAG_NAMES = (".mcap", ".db3", ".bag")
EPISODE_FOLDER = re.compile(  # `episode_7`, `0007`; not `1.0.0`, nor LeRobot's `chunk-000`
    r"(?!chunk-[0-9]+$)([^.]*[A-Za-z_ -][0-9]+|[0-9]{2,})"
)
FILE_NAME = re.compile(r".*\.[A-Za-z]\w{0,7}")  # a remote name like this is assumed to be a file, which saves a request
# A glob of a path, a regular expression for folder names, or a test of the folders in a folder.
Pattern: TypeAlias = str | re.Pattern[str] | Callable[[SourceFolder, Sequence[str]], bool]
FormatPatterns: TypeAlias = Mapping[str, Sequence[Pattern]]  # by format
FORMAT_PATTERNS: FormatPatterns = {  # a folder with a match is a source of that format; the first format wins
    "rlds": ["features.json"],
    "hdf5": [f"*{ending}" for ending in HDF5_NAMES],  # a matching file is also a source by itself
    "lerobot": ["meta/info.json"],
    "zarr": [".zgroup", ".zmetadata", "zarr.json", *(f"*{ending}" for ending in ZARR_NAMES)],
    "rosbag": ["metadata.yaml", *(f"*{ending}" for ending in ROSBAG_NAMES), "*/metadata.yaml"],  # a bag is an episode
}
LOOSE_PATTERNS: FormatPatterns = {  # used only if there is no source of the formats above
    "folder": [*(f"*{ending}" for ending in (*EPISODE_NAMES, *PICKLES)), EPISODE_FOLDER, has_alike_folders],
}


@dataclass(frozen=True, slots=True)
class SourceLocation:
    """A source: its format and where it is."""

    format: str
    uri: str


def find_sources(uri: str, formats: FormatPatterns | None = None) -> tuple[SourceLocation, ...]:
    """Find the source at `uri`, or those up to three levels below it, sorted by URI.

    `formats` limits the search to some formats. Raises UsageError if there are too many folders to search, and
    SourceError if a folder cannot be listed.
    """
    with source_errors(uri):
        return _find(uri, formats)


def _find(uri: str, formats: FormatPatterns | None) -> tuple[SourceLocation, ...]:
    name = uri.rstrip("/").rpartition("/")[2]
    if formats is None and name.endswith(".zip"):  # inside a folder, a zip file need not be a Zarr store
        return (SourceLocation("zarr", uri),)
    for table in (FORMAT_PATTERNS, LOOSE_PATTERNS) if formats is None else (formats,):
        for format_name, patterns in table.items():
            if any(isinstance(pattern, str) and fnmatchcase(name, pattern) for pattern in patterns):
                return (SourceLocation(format_name, uri),)
    top = SourceFolder.at(uri)
    sources, is_complete = _find_below(top, FORMAT_PATTERNS if formats is None else formats)
    if formats is None and (is_complete or not sources):
        loose, is_complete = _find_below(top, LOOSE_PATTERNS, known=[source.uri for source in sources])
        sources += loose
    if not is_complete:
        raise UsageError(f"{uri}: more than {MAX_FOLDERS} folders to search; name one further down")
    return tuple(sorted(sources, key=lambda source: source.uri))


def _find_below(
    top: SourceFolder, formats: FormatPatterns, known: Sequence[str] = ()
) -> tuple[list[SourceLocation], bool]:
    """Search level by level; return the sources, and whether every folder was searched.

    The folders of sources, including those in `known`, are not searched any further.
    """
    level, searched, sources = [top], 0, list[SourceLocation]()
    for depth in range(MAX_DEPTH + 1):
        next_level: list[SourceFolder] = []
        for folder in level:
            searched += 1
            if searched > MAX_FOLDERS:
                return sources, False
            if folder.uri in known:
                continue
            names = folder.names()
            format_name = next((key for key, patterns in formats.items() if _any_match(folder, names, patterns)), None)
            if (
                format_name
                and not _is_mixed(folder, names, format_name=format_name, formats=formats)
                and _is_apart(folder, names, formats=formats, known=known)
            ):
                sources.append(SourceLocation(format_name, folder.uri))
            elif depth < MAX_DEPTH:
                next_level += [folder.child(name) for name in names if may_be_folder(folder, name)]
        level = next_level
    return sources, True


def _is_apart(folder: SourceFolder, names: Sequence[str], *, formats: FormatPatterns, known: Sequence[str]) -> bool:
    """Whether a folder is one more source, given the sources `known` so far; True if there are none.

    The folder must not contain any of them. It must have at least two names that match, because a single table in a
    folder does not make it a source.
    """
    if not known:
        return True
    if any(other.startswith(f"{folder.uri.rstrip('/')}/") for other in known):
        return False
    matches = sum(_any_match(folder, [name], own) for name in names for own in formats.values())
    return matches > 1 or _matches(folder, names, has_alike_folders)


def _any_match(folder: SourceFolder, names: Sequence[str], patterns: Iterable[Pattern]) -> bool:
    return any(_matches(folder, names, pattern) for pattern in patterns)


def _is_mixed(folder: SourceFolder, names: Sequence[str], *, format_name: str, formats: FormatPatterns) -> bool:
    """Whether a folder matches its format only through subfolders, some of which match another format."""
    if _any_match(folder, names, [pattern for pattern in formats[format_name] if not str(pattern).startswith("*/")]):
        return False
    below = [folder.child(name) for name in names if may_be_folder(folder, name)]
    others = [patterns for other, patterns in formats.items() if other != format_name]
    return any(_any_match(inner, inner.names(), patterns) for inner in below for patterns in others)


def _matches(folder: SourceFolder, names: Sequence[str], pattern: Pattern) -> bool:
    """Whether a folder with these names has a match for a pattern such as `meta/info.json`."""
    if isinstance(pattern, re.Pattern):
        return any(pattern.fullmatch(name) and may_be_folder(folder, name) for name in names)
    if not isinstance(pattern, str):
        return pattern(folder, [name for name in names if may_be_folder(folder, name)])
    if not names and not folder.is_local and "*" not in pattern:  # many web servers cannot list a folder
        return folder.size(pattern) is not None
    first, _, rest = pattern.partition("/")
    matching = [name for name in names if fnmatchcase(name, first)]
    if not rest:
        return bool(matching)
    inner = [folder.child(name) for name in matching if may_be_folder(folder, name)]
    return any(_matches(below, below.names(), rest) for below in inner)


def may_be_folder(folder: SourceFolder, name: str) -> bool:
    """Whether `name` inside a folder is a folder; remote names without the ending of a file are assumed to be one."""
    if name.startswith("."):
        return False
    return folder.is_folder(name) if folder.is_local else not FILE_NAME.fullmatch(name)


def several_sources_error(uri: str, sources: Iterable[SourceLocation]) -> UsageError:
    """Return the error for a folder that is not a source itself; it lists the sources inside."""
    listed = [f"{source.uri} ({source.format})" for source in sources]
    if len(listed) == 1:
        return UsageError(f"{uri} is not a source itself, but contains one; use its path instead: {listed[0]}")
    more = f", and {len(listed) - MAX_LISTED} more ('oxe inspect {uri}' lists them)" if len(listed) > MAX_LISTED else ""
    return UsageError(f"{uri} holds several sources, name one: {', '.join(listed[:MAX_LISTED])}{more}")
