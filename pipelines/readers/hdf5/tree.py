"""Files and groups of HDF5, walked without leaving the file: foreign links are refused, loops and crowds end."""

import re
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from fnmatch import fnmatchcase
from typing import Any

import h5py

from pipelines.readers.folder import LFS_MARK, SourceFolder, lfs_pointer
from pipelines.readers.names import covers, natural
from schemas.errors import SourceError

MAX_NODES = 10_000  # groups and datasets of one episode
DETAILS = re.compile(r": time = .*", re.DOTALL)  # clocks, addresses and paths, different in every run
LOOKED_AT = 100  # groups, for a guess


@contextmanager
def reading(path: str) -> Iterator[None]:
    """Make a SourceError of whatever h5py raises for a damaged file; none of them names a place of this machine."""
    try:
        yield
    except FileNotFoundError as error:
        raise SourceError("no such file", reason="missing_file", file=path) from error
    except (OSError, LookupError, RuntimeError, ValueError, TypeError) as error:
        why = DETAILS.sub("", str(error)).replace(path, "").strip("'\"")
        if "truncated file" in why:
            message = "the file is shorter than it says: it was not written or not copied to its end"
            raise SourceError(message, reason="truncated", file=path) from error
        raise SourceError(f"cannot be read ({why})", file=path) from error


@contextmanager
def opened(folder: SourceFolder, name: str) -> Iterator[h5py.File]:
    """Open a file; one that is no HDF5 is a SourceError."""
    path, here = folder.path(name), folder.files.local
    with ExitStack() as stack:
        with reading(path):
            file = str(here / name) if here else stack.enter_context(folder.open_parts(name))
            try:
                # Every chunk is read once and whole: a cache of chunks would only be one more copy.
                held = stack.enter_context(h5py.File(file, "r", rdcc_nbytes=0))
            except OSError as error:
                if "signature not found" in str(error):
                    raise _no_hdf5(folder, name) from error
                raise
        yield held


def _no_hdf5(folder: SourceFolder, name: str) -> SourceError:
    with folder.open(name) as file:
        if file.read(len(LFS_MARK)) == LFS_MARK:
            return lfs_pointer(folder.path(name))
    return SourceError("not an HDF5 file", reason="not_hdf5", file=folder.path(name))


def child(group: h5py.Group, name: str) -> Any:
    """Go one link down, to a group or dataset of the same file; a link to elsewhere is a SourceError."""
    link = group.get(name, getlink=True)
    if link is None:
        raise SourceError(f"{group.name} has no '{name}'", reason="missing_record")
    if isinstance(link, h5py.ExternalLink):
        raise SourceError(f"{group.name}: '{name}' is a link into another file: refused", reason="unsafe_link")
    if isinstance(link, h5py.SoftLink):
        _check_target(group, name, target=link.path)
    return group[name]


def _check_target(group: h5py.Group, name: str, *, target: str) -> None:
    """Refuse a soft link that leads nowhere, or through another link: that may go round or leave the file."""
    node: Any = group.file["/"] if target.startswith("/") else group
    for word in filter(None, target.split("/")):
        known = isinstance(node, h5py.Group) and word in list(node)
        if not known or not isinstance(node.get(word, getlink=True), h5py.HardLink):
            raise SourceError(
                f"{group.name}: '{name}' is a soft link to nothing, or to another link: refused", reason="unsafe_link"
            )
        node = node[word]


def groups(file: h5py.File, pattern: str) -> list[str]:
    """Name what a pattern such as `data/demo_*` finds, `demo_2` before `demo_10`; `/` is the file as a whole."""
    found: list[tuple[str, Any]] = [("/", file["/"])]
    words = [word for word in pattern.split("/") if word]
    for depth, word in enumerate(words, 1):
        names = [(path, group, name) for path, group in found for name in group if fnmatchcase(name, word)]
        below = [(f"{path.rstrip('/')}/{name}", group, name) for path, group, name in names]
        if depth == len(words):
            return sorted((path for path, _, _ in below), key=natural)
        nodes = [(path, child(group, name)) for path, group, name in below]
        found = [(path, node) for path, node in nodes if isinstance(node, h5py.Group)]
    return ["/"]


def node_at(file: h5py.File, path: str) -> Any:
    """Go to a group or dataset."""
    node = file["/"]
    for word in filter(None, path.split("/")):
        if not isinstance(node, h5py.Group):
            raise SourceError(f"{node.name} is no group", reason="contradicts_fields")
        node = child(node, word)
    return node


def group_at(file: h5py.File, path: str) -> h5py.Group:
    """Go to a group that `groups` named."""
    node = node_at(file, path)
    if not isinstance(node, h5py.Group):
        raise SourceError("an episode is a group, this is a dataset", reason="contradicts_fields")
    return node


def datasets(episode: h5py.Group, ignore: Collection[str]) -> dict[str, h5py.Dataset]:
    """Find all datasets below a group by their dotted paths, in the order of their names."""
    found: dict[str, h5py.Dataset] = {}
    stack: list[tuple[str, h5py.Group, tuple[int, ...]]] = [("", episode, (_address(episode),))]
    visited = 0
    while stack:
        prefix, group, above = stack.pop()
        for name in group:
            path = f"{prefix}{name}".replace("/", ".")
            if covers(ignore, path):
                continue
            node = child(group, name)
            visited += 1
            if visited > MAX_NODES:
                raise SourceError(f"more than {MAX_NODES} groups and datasets in one episode", reason="too_large")
            if isinstance(node, h5py.Group):
                if _address(node) in above:
                    raise SourceError(f"{path} leads back to a group that it lies in: refused", reason="unsafe_link")
                stack.append((f"{path}.", node, (*above, _address(node))))
            elif isinstance(node, h5py.Dataset):
                if path in found:
                    raise SourceError(f"two datasets are called {path}", reason="unsupported_field")
                found[path] = node
    return dict(sorted(found.items()))


def _address(group: h5py.Group) -> int:
    return int(h5py.h5o.get_info(group.id).addr)


def guess(file: h5py.File) -> str:
    """Guess where the episodes are: in numbered groups at the top or one below, or the file is one."""
    tops = {name: child(file, name) for name in list(file)[:LOOKED_AT]}
    if not any(isinstance(node, h5py.Dataset) for node in tops.values()):
        for prefix, group in [("", file), *((f"{name}/", node) for name, node in tops.items())]:
            names = [name for name in list(group)[:LOOKED_AT] if isinstance(child(group, name), h5py.Group)]
            stems = {re.sub(r"[0-9]+$", "", name) for name in names}
            if len(stems) == 1 and all(name[-1:].isdigit() for name in names):
                return f"{prefix}{stems.pop()}*"
    return "/"
