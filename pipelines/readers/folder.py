"""Read the files in the folder of a source; every error is a SourceError that names the file."""

import re
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import IO

from pipelines.readers.links import Confines
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
    """The files of a source, read-only.

    On this machine, a link that leaves the source is a SourceError unless links are followed (`links_followed`), and
    so is anything else that is not a regular file.
    """

    files: folder.Folder
    confines: Confines | None = field(compare=False, repr=False)  # None: the source is not on this machine
    below: str = ""  # this folder's path inside the source, with a slash at the end

    @classmethod
    def at(cls, uri: str, named: str = "") -> "SourceFolder":
        """Open a local path or an fsspec URI; `named` is the file in it that is the source itself."""
        files = folder.open_folder(uri)
        return cls(files, Confines(str(files.local), named) if files.local else None)

    @classmethod
    def around(cls, uri: str, endings: tuple[str, ...]) -> tuple["SourceFolder", str]:
        """Open a folder; for a file with one of `endings`, open its folder and return the file's name as well."""
        above, _, name = uri.rstrip("/").rpartition("/")
        if f"/{name}".endswith(endings):
            return cls.at(above or "/" if "/" in uri else ".", name), name
        return cls.at(uri), ""

    @property
    def uri(self) -> str:
        """The folder's path or URI."""
        return self.files.uri

    @property
    def is_local(self) -> bool:
        """Whether the source is on this machine."""
        return self.confines is not None

    def child(self, name: str) -> "SourceFolder":
        """Return the folder `name` inside this one."""
        return SourceFolder(self.files.child(name), self.confines, f"{self.below}{name}/")

    def path(self, name: str) -> str:
        """Return the full path of a file, as errors show it."""
        return self.files.place(name)

    def local_path(self, name: str) -> str | None:
        """Return the path of a file that a library opens by itself; None if the source is not on this machine."""
        with self._reading("opened", name):
            return self.files.place(name) if self.is_local else None

    def size(self, name: str) -> int | None:
        """Return a file's size in bytes; None if it does not exist."""
        with self._reading("reached", name):
            return self.files.size(name)

    def sizes(self, names: Iterable[str]) -> dict[str, int | None]:
        """Return the sizes of many files in bytes; None for those that do not exist."""
        files = list(names)
        with self._reading("reached", *files):
            return self.files.sizes(files)

    def tails(self, names: Iterable[str], count: int) -> dict[str, bytes]:
        """Read the last `count` bytes of many files; missing files are left out."""
        files = list(names)
        with self._reading("reached", *files):
            return self.files.tails(files, count)

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
        with self._reading("listed"):
            is_listed = self.confines is None or self.confines.is_folder(self.below + below)
        if not is_listed:
            return ()
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
        if self.confines is not None:
            with self._reading("reached"):
                return self.confines.is_folder(self.below + name)
        return "." not in name.rpartition("/")[2] or bool(self.names(name))

    def unchanged(self) -> AbstractContextManager[None]:
        """Raise UnreachableError at the end if a file that was opened in this block has changed since.

        Behind a URI, a change while a file is read is an error of that read.
        """
        return nullcontext() if self.confines is None else self.confines.unchanged()

    def check_unchanged(self) -> None:
        """Raise UnreachableError if a file has changed since it was first looked at."""
        with self._reading("reached"):
            (self.confines or self.files).check_unchanged()

    @contextmanager
    def _reading(self, verb: str, *names: str) -> Iterator[None]:
        """Check that files may be read, and turn the errors of reading them into a SourceError."""
        shown = names[0] if len(names) == 1 else ""
        try:
            if self.confines is not None:
                for name in names:
                    self.confines.check(self.below + name)
            yield
        except FileNotFoundError as error:
            raise SourceError("no such file", reason="missing_file", file=self.path(shown)) from error
        except OSError as error:  # the message must not contain the local path, because it is published
            why = error.strerror or type(error).__name__
            raise SourceError(f"cannot be {verb} ({why})", file=self.path(shown)) from error
