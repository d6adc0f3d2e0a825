"""A source's folder: what cannot be read is a SourceError that names the file."""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO

from schemas.errors import SourceError
from schemas.files import folder

LFS_MARK = b"version https://git-lfs"
INSIDE = re.compile(r"(?!(.*/)?\.\.(/|$))[^/\\\0][^\\\0]*", re.DOTALL)


def lfs_pointer(path: str) -> SourceError:
    """Say that a file is a pointer, and what to do."""
    message = "a Git LFS pointer, not the data; run 'git lfs pull' where it was cloned"
    return SourceError(message, reason="lfs_pointer", file=path)


def pickle_refused(path: str) -> SourceError:
    """Say why a pickle is not read, and what to do."""
    message = (
        "a pickle: reading one runs whatever code it holds, so none is ever read; where you trust it, load it yourself "
        "and write its arrays with numpy.savez, which is read"
    )
    return SourceError(message, reason="unsupported_field", file=path)


def inside(name: str, *, where: str) -> str:
    """Return `name` if it is a relative path that stays inside its folder; else a SourceError naming `where`."""
    if not INSIDE.fullmatch(name):
        raise SourceError(f"'{name}' leaves its folder: refused", reason="unsafe_path", file=where)
    return name


@dataclass(frozen=True, slots=True)
class SourceFolder:
    """Files of a source, read only."""

    files: folder.Folder

    @classmethod
    def at(cls, uri: str) -> "SourceFolder":
        """Open a local path or an fsspec URI."""
        return cls(folder.open_folder(uri))

    @classmethod
    def around(cls, uri: str, endings: tuple[str, ...]) -> tuple["SourceFolder", str]:
        """Open a folder; of a file with one of `endings`, the folder that it lies in, and return its name too."""
        above, _, name = uri.rstrip("/").rpartition("/")
        if f"/{name}".endswith(endings):
            return cls.at(above or "/" if "/" in uri else "."), name
        return cls.at(uri), ""

    @property
    def uri(self) -> str:
        """Say where it is."""
        return self.files.uri

    def child(self, name: str) -> "SourceFolder":
        """Go one folder down."""
        return SourceFolder(self.files.child(name))

    def path(self, name: str) -> str:
        """Name a file as errors do."""
        return self.files.place(name)

    def size(self, name: str) -> int | None:
        """Tell a file's size in bytes; None where there is none."""
        with self._reading("reached", name):
            return self.files.size(name)

    def sizes(self, names: Iterable[str]) -> dict[str, int | None]:
        """Tell the sizes of many files."""
        with self._reading("reached"):
            return self.files.sizes(names)

    def tails(self, names: Iterable[str], count: int) -> dict[str, bytes]:
        """Read the last `count` bytes of many files; those that are not there are left out."""
        with self._reading("reached"):
            return self.files.tails(names, count)

    def open(self, name: str) -> IO[bytes]:
        """Open a file for reading."""
        with self._reading("opened", name):
            return self.files.open(name)

    def open_parts(self, name: str) -> IO[bytes]:
        """Open a file for reading small parts of it."""
        with self._reading("opened", name):
            return self.files.open_parts(name)

    def read(self, name: str) -> bytes:
        """Read a whole small file."""
        with self._reading("opened", name):
            content = self.files.read(name)
        if content.startswith(LFS_MARK):
            raise lfs_pointer(self.path(name))
        return content

    def names(self, below: str = "") -> tuple[str, ...]:
        """List what lies directly in the folder or in one below it, sorted; nothing where listing is not possible."""
        with self._reading("listed", below):
            return self.files.names(below)

    @contextmanager
    def _reading(self, verb: str, name: str = "") -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise SourceError("no such file", reason="missing_file", file=self.path(name)) from error
        except OSError as error:  # without the path: that stands in the error already, and in no published file
            why = error.strerror or type(error).__name__
            raise SourceError(f"cannot be {verb} ({why})", file=self.path(name)) from error
