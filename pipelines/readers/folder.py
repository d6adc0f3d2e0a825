"""Read the files in the folder of a source; every error is a SourceError that names the file."""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO

from schemas.errors import SourceError
from schemas.files import folder

LFS_MARK = b"version https://git-lfs"
SAFE_PATH = re.compile(r"(?!(.*/)?\.\.(/|$))[^/\\\0][^\\\0]*", re.DOTALL)


def lfs_pointer_error(path: str) -> SourceError:
    """Return the error for a Git LFS pointer; it names the command that fetches the data."""
    message = "a Git LFS pointer, not the data; run 'git lfs pull' in the clone"
    return SourceError(message, reason="lfs_pointer", file=path)


def pickle_error(path: str) -> SourceError:
    """Return the error for a pickle; it says how to convert the file."""
    message = (
        "a pickle, which is never read because loading one can run any code; if you trust it, load it yourself "
        "and save its arrays with numpy.savez"
    )
    return SourceError(message, reason="unsupported_field", file=path)


def safe_path(name: str, *, where: str) -> str:
    """Return `name` if it is a relative path that stays inside its folder; otherwise raise SourceError.

    `where` is the file that contains the name; the error shows it.
    """
    if not SAFE_PATH.fullmatch(name):
        raise SourceError(f"'{name}' leaves its folder: refused", reason="unsafe_path", file=where)
    return name


@dataclass(frozen=True, slots=True)
class SourceFolder:
    """The files of a source, read-only."""

    files: folder.Folder

    @classmethod
    def at(cls, uri: str) -> "SourceFolder":
        """Open a local path or an fsspec URI."""
        return cls(folder.open_folder(uri))

    @classmethod
    def around(cls, uri: str, endings: tuple[str, ...]) -> tuple["SourceFolder", str]:
        """Open a folder; for a file with one of `endings`, open its folder and return the file's name as well."""
        above, _, name = uri.rstrip("/").rpartition("/")
        if f"/{name}".endswith(endings):
            return cls.at(above or "/" if "/" in uri else "."), name
        return cls.at(uri), ""

    @property
    def uri(self) -> str:
        """The folder's path or URI."""
        return self.files.uri

    def child(self, name: str) -> "SourceFolder":
        """Return the folder `name` inside this one."""
        return SourceFolder(self.files.child(name))

    def path(self, name: str) -> str:
        """Return the full path of a file, as errors show it."""
        return self.files.place(name)

    def size(self, name: str) -> int | None:
        """Return a file's size in bytes; None if it does not exist."""
        with self._reading("reached", name):
            return self.files.size(name)

    def sizes(self, names: Iterable[str]) -> dict[str, int | None]:
        """Return the sizes of many files in bytes; None for those that do not exist."""
        with self._reading("reached"):
            return self.files.sizes(names)

    def tails(self, names: Iterable[str], count: int) -> dict[str, bytes]:
        """Read the last `count` bytes of many files; missing files are left out."""
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
            raise lfs_pointer_error(self.path(name))
        return content

    def names(self, below: str = "") -> tuple[str, ...]:
        """List the names directly in the folder, or in `below`, sorted; empty if they cannot be listed."""
        with self._reading("listed", below):
            names = self.files.names(below)
        for name in names:
            if not name.isprintable() and any("\ud800" <= char <= "\udfff" for char in name):
                raise SourceError(
                    f"the name {name!r} is not UTF-8; rename it", reason="bad_utf8", file=self.path(below)
                )
        return names

    def is_folder(self, name: str) -> bool:
        """Whether a name in the folder is a folder; behind a URI, whether it has names in it, or no ending."""
        if local := self.files.local:
            return (local / name).is_dir()
        return "." not in name.rpartition("/")[2] or bool(self.names(name))

    @contextmanager
    def _reading(self, verb: str, name: str = "") -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise SourceError("no such file", reason="missing_file", file=self.path(name)) from error
        except OSError as error:  # the message must not contain the local path, because it is published
            why = error.strerror or type(error).__name__
            raise SourceError(f"cannot be {verb} ({why})", file=self.path(name)) from error
