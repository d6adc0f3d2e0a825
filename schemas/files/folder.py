"""`Folder`: files on this machine or behind an fsspec URI, with the operations that datasets need."""

import os
import shutil
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

from schemas.files import durable


class Folder(Protocol):
    """The files below `uri`. Names are relative to it, with `/` between folders.

    Methods raise FileNotFoundError if a file is missing. All other failures raise OSError for local files, and
    UnreachableError, after several tries, for remote files.
    """

    @property
    def uri(self) -> str:
        """The URI or path that error messages show."""

    @property
    def local(self) -> Path | None:
        """The path, if the folder is on this machine, else None."""

    @property
    def options(self) -> Mapping[str, Any]:
        """The options that fsspec needs to open a file, besides its place; empty for a local folder."""

    def __hash__(self) -> int:
        """Hash what identifies the folder."""

    def absolute(self) -> "Folder":
        """Return the same folder with a path that does not depend on the working directory."""

    def child(self, name: str) -> "Folder":
        """Return a folder inside this one."""

    def place(self, name: str) -> str:
        """Return the full path or URI of a file, which error messages show."""

    def size(self, name: str) -> int | None:
        """Return a file's size in bytes, or None if there is no such file."""

    def sizes(self, names: Iterable[str]) -> dict[str, int | None]:
        """Return the sizes of many files."""

    def check_unchanged(self) -> None:
        """Ask again for each file of a web server; UnreachableError if one is not as when it was first asked for."""

    def names(self, below: str = "") -> tuple[str, ...]:
        """List the names in the folder, or in its subfolder `below`, sorted; empty if a server does not list them."""

    def open(self, name: str) -> IO[bytes]:
        """Open a file to read it from start to end."""

    def open_parts(self, name: str) -> IO[bytes]:
        """Open a file to read small parts of it; no other bytes are fetched in advance."""

    def read(self, name: str) -> bytes:
        """Read a whole small file."""

    def read_many(self, names: Iterable[str]) -> dict[str, bytes]:
        """Read many small files by name; missing ones are left out."""

    def tails(self, names: Iterable[str], count: int) -> dict[str, bytes]:
        """Read the last `count` bytes of many files by name; missing ones are left out."""

    def write(self, name: str, content: bytes, *, sync: bool = True) -> None:
        """Write a small file atomically; with `sync=False`, a power cut may undo it until `sync` is called."""

    def staged(self, below: str) -> Path:
        """Return the path of a new local file; once it is complete, `adopt` moves it into the folder `below`."""

    def adopt(self, staged: Path, name: str, *, sync: bool = True) -> None:
        """Move a complete staged file to `name`, atomically; `sync` has the same meaning as in `write`."""

    def sync(self, below: Iterable[str]) -> None:
        """Make what was written with `sync=False`, adopted or removed in the folders `below` durable."""

    def drop(self, staged: Path) -> None:
        """Delete a staged file."""

    def remove(self, name: str) -> None:
        """Remove a file, or a folder with its contents, if it exists; durable only after `sync`."""

    def sweep(self, below: Iterable[str]) -> None:
        """Remove incomplete files from the folders `below`, which processes left when they were killed."""

    def exclusive(self, name: str) -> AbstractContextManager[None]:
        """Lock the file `name`. Raises BlockingIOError if another process has locked it."""


def open_folder(uri: str | Path, *, for_writing: bool = False) -> Folder:
    """Open a local path or an fsspec URI (`gs://`, `s3://`, `https://`, `hf://`, ...).

    To read a remote folder, only credentials from fsspec's configuration are used, if there are any. To write to one,
    the credentials that the store's library finds are used. Raises UsageError if no file system supports the URI.
    """
    text = str(uri)
    if is_local(text):
        return LocalFolder(Path(text.removeprefix("file://")).expanduser())
    from schemas.files.remote import RemoteFolder  # noqa: PLC0415 - imported only for remote folders

    return RemoteFolder.at(text, for_writing=for_writing)


def is_local(uri: str) -> bool:
    """Whether a URI is a path on this machine."""
    return "://" not in uri or uri.startswith("file://")


def absolute(uri: str) -> str:
    """Return a URI that does not depend on the working directory.

    >>> absolute("s3://bucket/data")
    's3://bucket/data'
    """
    return str(Path(uri.removeprefix("file://")).expanduser().resolve()) if is_local(uri) else uri


@dataclass(frozen=True, slots=True)
class LocalFolder:
    """A folder on this machine."""

    root: Path

    @property
    def uri(self) -> str:
        """The path."""
        return str(self.root)

    @property
    def local(self) -> Path:
        """The path."""
        return self.root

    @property
    def options(self) -> Mapping[str, Any]:
        """Empty, because local files need no options."""
        return {}

    def absolute(self) -> "LocalFolder":
        """Return the same folder with an absolute path."""
        return LocalFolder(self.root.resolve())

    def child(self, name: str) -> "LocalFolder":
        """Return a folder inside this one."""
        return LocalFolder(self.root / name)

    def place(self, name: str) -> str:
        """Return a file's path."""
        return str(self.root / name)

    def size(self, name: str) -> int | None:
        """Return a file's size in bytes, or None if there is no such file."""
        try:
            return (self.root / name).stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            return None

    def sizes(self, names: Iterable[str]) -> dict[str, int | None]:
        """Return the size of each file."""
        return {name: self.size(name) for name in names}

    def check_unchanged(self) -> None:
        """Do nothing, because local files are not on a web server."""

    def names(self, below: str = "") -> tuple[str, ...]:
        """List the names in a folder."""
        try:
            return tuple(sorted(entry.name for entry in os.scandir(self.root / below)))
        except (FileNotFoundError, NotADirectoryError):
            return ()

    def open(self, name: str) -> IO[bytes]:
        """Open a file."""
        return (self.root / name).open("rb")

    def open_parts(self, name: str) -> IO[bytes]:
        """Open a file in the same way as `open`."""
        return self.open(name)

    def read(self, name: str) -> bytes:
        """Read a whole file."""
        return (self.root / name).read_bytes()

    def read_many(self, names: Iterable[str]) -> dict[str, bytes]:
        """Read the files that exist."""
        return {name: self.read(name) for name in names if (self.root / name).is_file()}

    def tails(self, names: Iterable[str], count: int) -> dict[str, bytes]:
        """Read the ends of the files that exist."""
        tails = {}
        for name in names:
            with suppress(FileNotFoundError, NotADirectoryError), self.open(name) as file:
                file.seek(max(0, file.seek(0, 2) - count))
                tails[name] = file.read()
        return tails

    def write(self, name: str, content: bytes, *, sync: bool = True) -> None:
        """Write a temporary file in the same folder, then rename it to `name`."""
        durable.write(self.root / name, content, sync=sync)

    def staged(self, below: str) -> Path:
        """Return a path in the folder `below` itself, because a rename is atomic only within one file system."""
        return durable.staged(self.root / below)

    def adopt(self, staged: Path, name: str, *, sync: bool = True) -> None:
        """Flush a staged file to the disk, then rename it."""
        durable.adopt(staged, self.root / name, sync=sync)

    def sync(self, below: Iterable[str]) -> None:
        """Sync the names in the folders that exist."""
        for name in below:
            if (self.root / name).is_dir():
                durable.sync_folder(self.root / name)

    def drop(self, staged: Path) -> None:
        """Delete a staged file."""
        durable.drop(staged)

    def remove(self, name: str) -> None:
        """Remove a file or a folder, if it exists."""
        path = self.root / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)

    def sweep(self, below: Iterable[str]) -> None:
        """Remove temporary files that were not renamed because their process was killed."""
        for name in below:
            durable.sweep(self.root / name)

    def exclusive(self, name: str) -> AbstractContextManager[None]:
        """Lock a file with `flock`; the system releases the lock when the process ends."""
        path = self.root / name
        durable.make_folder(path.parent)
        return durable.locked(path)
