"""Which files of a source on this machine may be read: regular files inside it, unless the user follows links.

A file that changes while it is read is noticed.
"""

import errno
import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import TypeAlias

from schemas.errors import SourceError, UnreachableError

FileState: TypeAlias = tuple[int, int]  # size in bytes, time of the last change in ns
CACHE = re.compile(r"(?P<repository>.*/(datasets|models|spaces)--[^/]+)/snapshots(/.*)?", re.DOTALL)
KINDS = ((stat.S_ISFIFO, "a FIFO"), (stat.S_ISSOCK, "a socket"), (stat.S_ISCHR, "a device"), (stat.S_ISBLK, "a device"))
LOOP = "a link that leads back to itself or to a folder that contains it: refused"
MAX_FOLDERS, MAX_FILES = 10_000, 100_000  # folders whose resolved paths are kept, files whose state is kept

_are_followed: ContextVar[bool] = ContextVar("links_are_followed", default=False)


@contextmanager
def links_followed(*, follow: bool) -> Iterator[None]:
    """Set whether the sources that are opened in this block follow links that leave them."""
    before = _are_followed.set(follow)
    try:
        yield
    finally:
        _are_followed.reset(before)


class LinkLoopError(SourceError):
    """A link leads back to itself, or to a folder that contains it."""


class Confines:
    """The places that a source may read from, and whether it follows links to other places.

    Links inside the source, and links from `snapshots/` to `blobs/` in a cache of Hugging Face, are always followed.
    The source itself may be a link.
    """

    def __init__(self, root: str, named: str = "") -> None:
        """Confine a source to the folder `root`; `named` is the file or folder in it that is the source itself."""
        self.root, self.follow = Path(root), _are_followed.get()
        top = os.path.realpath(root)
        own = {top, os.path.realpath(f"{top}/{named}")}
        self.places = (*own, *(f"{match['repository']}/blobs" for match in map(CACHE.fullmatch, own) if match))
        self._folders: dict[str, tuple[str, ...]] = {"": (top,)}
        self._first: dict[str, FileState] = {}  # the first known state of each file
        self._watched: dict[str, FileState] | None = None  # the same within `unchanged`, else None

    def status(self, name: str) -> os.stat_result:
        """Return the status of a file or folder; links are followed.

        Raises FileNotFoundError or NotADirectoryError if it does not exist, and SourceError for a link that leaves the
        source or leads back to itself.
        """
        above, _, leaf = name.rpartition("/")
        if leaf in {"", ".", ".."}:
            return Path(self._resolved(name)[-1]).stat()
        path = f"{self._resolved(above)[-1]}/{leaf}"
        status = os.lstat(path)
        return Path(self._target(path, name)).stat() if stat.S_ISLNK(status.st_mode) else status

    def check(self, name: str) -> None:
        """Raise SourceError if a file must not be read, and UnreachableError if it has changed within `unchanged`.

        A missing file and a folder are left to the caller.
        """
        try:
            status = self.status(name)
        except (FileNotFoundError, NotADirectoryError):
            return
        mode = status.st_mode
        if stat.S_ISREG(mode):
            state = status.st_size, status.st_mtime_ns
            if len(self._first) < MAX_FILES:
                self._first.setdefault(name, state)
            if self._watched is not None:
                self._compare(name, self._watched.setdefault(name, state), state)
            return
        if stat.S_ISDIR(mode):
            self._resolved(name)  # a loop is an error
        if kind := next((kind for is_kind, kind in KINDS if is_kind(mode)), None):
            message = f"{kind}, not a regular file: refused, also with --follow-links"
            raise SourceError(message, reason="special_file", file=self._path(name))

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        """Raise UnreachableError at the end if a file that was opened in this block has changed since."""
        watched = self._watched = dict[str, FileState]()
        try:
            yield
            self._check(watched)
        finally:
            self._watched = None if self._watched is watched else self._watched

    def check_unchanged(self) -> None:
        """Raise UnreachableError if a file has changed since it was first looked at."""
        self._check(self._first)

    def _check(self, states: Mapping[str, FileState]) -> None:
        for name, before in states.items():
            with suppress(OSError):
                status = self.status(name)
                self._compare(name, before, (status.st_size, status.st_mtime_ns))

    def _compare(self, name: str, before: FileState, now: FileState) -> None:
        if before != now:
            i = int(before[0] == now[0])
            message = f"it changed while it was read: its {('size', 'time')[i]} was {before[i]}, now it is {now[i]}"
            raise UnreachableError(f"{self._path(name)}: {message}")

    def is_folder(self, name: str) -> bool:
        """Whether a name is a folder, or a link to one that does not contain it; raises SourceError like `status`."""
        try:
            if not stat.S_ISDIR(self.status(name).st_mode):
                return False
            self._resolved(name)
        except (FileNotFoundError, NotADirectoryError, LinkLoopError):
            return False
        return True

    def _resolved(self, below: str) -> tuple[str, ...]:
        """Return the path of a folder without links, after the paths of the folders that lead to it."""
        if (known := self._folders.get(below)) is not None:
            return known
        above, _, leaf = below.rpartition("/")
        before = self._resolved(above)
        if leaf == "..":
            raise SourceError("leaves its folder: refused", reason="unsafe_path", file=self._path(below))
        if leaf in {"", "."}:
            return before
        path = f"{before[-1]}/{leaf}"
        if Path(path).is_symlink():
            path = self._target(path, below)
            if any(_is_inside(place, path) for place in before):
                raise LinkLoopError(LOOP, reason="unsafe_link", file=self._path(below))
        if len(self._folders) >= MAX_FOLDERS:
            self._folders = {"": self._folders[""]}
        self._folders[below] = (*before, path)
        return self._folders[below]

    def _target(self, path: str, name: str) -> str:
        """Return where a link leads."""
        try:
            target = os.path.realpath(path, strict=True)
        except FileNotFoundError:
            target = os.path.realpath(path)
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
            raise LinkLoopError(LOOP, reason="unsafe_link", file=self._path(name)) from error
        if not self.follow and not any(_is_inside(target, place) for place in self.places):
            message = "a link that leaves the source: refused; pass --follow-links if you trust the source"
            raise SourceError(message, reason="unsafe_link", file=self._path(name))
        return target

    def _path(self, name: str) -> str:
        return str(self.root / name)


def _is_inside(path: str, folder: str) -> bool:
    """Whether a path without links is a folder or inside it."""
    return f"{path}/".startswith(f"{folder.rstrip('/')}/")
