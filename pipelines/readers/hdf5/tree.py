"""Walk the groups of an HDF5 file; links to other files, loops of links and too many nodes are errors."""

import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from fnmatch import fnmatchcase
from typing import Any

import h5py

from pipelines.readers.folder import LFS_MARK, SourceFolder, lfs_pointer_error
from pipelines.readers.names import covers, natural_key
from pipelines.readers.survey import ArrayHead
from schemas.errors import SourceError

MAX_NODES = 10_000  # groups and datasets of one episode
DAMAGE = (OSError, LookupError, RuntimeError, ValueError, TypeError)  # errors that h5py raises for damaged files
REFUSED = "refused, also with --follow-links; copy the values into this file"
DETAILS = re.compile(r": time = .*", re.DOTALL)  # the times, addresses and paths in an error differ in every run


@contextmanager
def reading(path: str) -> Iterator[None]:
    """Turn h5py's errors for a damaged file into SourceErrors; times, addresses and local paths are removed."""
    try:
        yield
    except FileNotFoundError as error:
        raise SourceError("no such file", reason="missing_file", file=path) from error
    except DAMAGE as error:
        why = DETAILS.sub("", str(error)).replace(path, "").strip("'\"")
        if "truncated file" in why:
            message = "the file is incomplete: it was not fully written or copied"
            raise SourceError(message, reason="truncated", file=path) from error
        raise SourceError(f"cannot be read ({why})", file=path) from error


@contextmanager
def open_hdf5(folder: SourceFolder, name: str, *, cache: int = 0) -> Iterator[h5py.File]:
    """Open a file; raise SourceError if it is not HDF5.

    Each dataset caches up to `cache` bytes of chunks. Where every chunk is read whole and once, that only costs memory.
    """
    path = folder.path(name)
    with ExitStack() as stack:
        with reading(path):
            file = folder.local_path(name) or stack.enter_context(folder.open_parts(name))
            try:
                opened = stack.enter_context(h5py.File(file, "r", rdcc_nbytes=cache))
            except OSError as error:
                if "signature not found" in str(error):
                    raise _not_hdf5(folder, name) from error
                raise
        yield opened


def _not_hdf5(folder: SourceFolder, name: str) -> SourceError:
    with folder.open(name) as file:
        if file.read(len(LFS_MARK)) == LFS_MARK:
            return lfs_pointer_error(folder.path(name))
    return SourceError("not an HDF5 file", reason="not_hdf5", file=folder.path(name))


def child(group: h5py.Group, name: str) -> Any:
    """Return the group or dataset `name`; raise SourceError for a link to another file."""
    link = group.get(name, getlink=True)
    if link is None:
        raise SourceError(f"{group.name} has no '{name}'", reason="missing_record")
    if isinstance(link, h5py.ExternalLink):
        raise SourceError(f"{group.name}: '{name}' is a link into another file: {REFUSED}", reason="unsafe_link")
    if isinstance(link, h5py.SoftLink):
        _check_target(group, name, target=link.path)
    return group[name]


def _check_target(group: h5py.Group, name: str, *, target: str) -> None:
    """Raise SourceError if a soft link leads to nothing, or through another link.

    A chain of links could be a loop or lead to another file.
    """
    node: Any = group.file["/"] if target.startswith("/") else group
    for word in filter(None, target.split("/")):
        exists = isinstance(node, h5py.Group) and word in list(node)
        if not exists or not isinstance(node.get(word, getlink=True), h5py.HardLink):
            raise SourceError(
                f"{group.name}: '{name}' is a soft link to nothing, or to another link: refused", reason="unsafe_link"
            )
        node = node[word]


def match_groups(file: h5py.File, pattern: str, ignore: Collection[str] = ()) -> list[str]:
    """List the paths that match a pattern such as `data/demo_*`; the pattern `/` matches the whole file.

    Numbers in names sort by value: `demo_2` comes before `demo_10`. Paths in `ignore` that start with a slash, such as
    `/metadata`, are left out.
    """
    matches: list[tuple[str, Any]] = [("/", file["/"])]
    words = [word for word in pattern.split("/") if word]
    for depth, word in enumerate(words, 1):
        names = [(path, group, name) for path, group in matches for name in group if fnmatchcase(name, word)]
        below = [(f"{path.rstrip('/')}/{name}", group, name) for path, group, name in names]
        below = [place for place in below if place[0] not in ignore]
        if depth == len(words):
            return sorted((path for path, _, _ in below), key=natural_key)
        nodes = [(path, child(group, name)) for path, group, name in below]
        matches = [(path, node) for path, node in nodes if isinstance(node, h5py.Group)]
    return ["/"]


def node_at(file: h5py.File, path: str) -> Any:
    """Return the group or dataset at a path."""
    node = file["/"]
    for word in filter(None, path.split("/")):
        if not isinstance(node, h5py.Group):
            raise SourceError(f"{node.name} is not a group", reason="contradicts_fields")
        node = child(node, word)
    return node


def group_at(file: h5py.File, path: str) -> h5py.Group:
    """Return the group at a path; raise SourceError if it is a dataset."""
    node = node_at(file, path)
    if not isinstance(node, h5py.Group):
        raise SourceError("expected an episode's group, got a dataset", reason="contradicts_fields")
    return node


def datasets(episode: h5py.Group, ignore: Collection[str]) -> tuple[dict[str, h5py.Dataset], list[str]]:
    """Return all datasets below a group, sorted by their dotted paths, and the paths of empty groups.

    Those in `ignore` are left out.
    """
    by_path: dict[str, h5py.Dataset] = {}
    empty: list[str] = []
    stack: list[tuple[str, h5py.Group, tuple[int, ...]]] = [("", episode, (_address(episode),))]
    visited = 0
    while stack:
        prefix, group, ancestors = stack.pop()
        for name in group:
            path = f"{prefix}{name}".replace("/", ".")
            if covers(ignore, path):
                continue
            node = child(group, name)
            visited += 1
            if visited > MAX_NODES:
                raise SourceError(f"more than {MAX_NODES} groups and datasets in one episode", reason="too_large")
            if isinstance(node, h5py.Group):
                if _address(node) in ancestors:
                    raise SourceError(f"{path} leads back to a group that contains it: refused", reason="unsafe_link")
                stack.append((f"{path}.", node, (*ancestors, _address(node))))
                empty += [] if len(node) else [path]
            elif isinstance(node, h5py.Dataset):
                if path in by_path:
                    raise SourceError(f"two datasets are called {path}", reason="unsupported_field")
                by_path[path] = node
    return dict(sorted(by_path.items())), sorted(empty)


def _address(group: h5py.Group) -> int:
    return int(h5py.h5o.get_info(group.id).addr)


class Hdf5Tree:
    """The groups and headers of a file; refused links and damaged nodes count as empty arrays."""

    def __init__(self, file: h5py.File) -> None:
        """Look at the groups of `file`; nothing is read yet."""
        self.nodes: dict[str, Any] = {"": file["/"]}

    def names(self, group: str) -> Sequence[str]:
        """Return the names in a group; empty for a dataset."""
        node = self._node(group)
        try:
            return list(node) if isinstance(node, h5py.Group) else ()
        except DAMAGE:
            return ()

    def __contains__(self, path: str) -> bool:
        """Whether there is a group or dataset at a path."""
        return self._node(path) is not None

    def head(self, path: str) -> ArrayHead | None:
        """Return the header of a dataset; None for a group."""
        node = self._node(path)
        if isinstance(node, h5py.Group):
            return None
        if not isinstance(node, h5py.Dataset):
            return ArrayHead("V", ())
        kind = node.dtype.kind
        return ArrayHead("S" if kind in "SUO" else kind, tuple(node.shape or ()))

    def _node(self, path: str) -> Any:
        """Return the node at a path; None for a refused link or a damaged node."""
        if path not in self.nodes:
            group, _, name = path.rpartition("/")
            try:
                self.nodes[path] = child(self._node(group), name)
            except (SourceError, AttributeError, *DAMAGE):
                self.nodes[path] = None
        return self.nodes[path]
