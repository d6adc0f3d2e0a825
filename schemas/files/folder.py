"""`Folder`: files on this machine or behind an fsspec URI, with the operations that datasets need."""

import fcntl
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

TMP = "tmp-" + 32 * "[0-9a-f]"  # not `tmp-*`: a split may be named "tmp"


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

    def write(self, name: str, content: bytes) -> None:
        """Write a small file atomically."""

    def staged(self, below: str) -> Path:
        """Return the path of a new local file; once it is complete, `adopt` moves it into the folder `below`."""

    def adopt(self, staged: Path, name: str) -> None:
        """Move a complete staged file to `name`, atomically."""

    def drop(self, staged: Path) -> None:
        """Delete a staged file."""

    def remove(self, name: str) -> None:
        """Remove a file, or a folder with its contents, if it exists."""

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

    def write(self, name: str, content: bytes) -> None:
        """Write a temporary file in the same folder, then rename it to `name`."""
        staged = self.staged(str(Path(name).parent))
        try:
            staged.write_bytes(content)
            self.adopt(staged, name)
        except BaseException as error:  # includes Ctrl-C, so that no incomplete file is left
            self.drop(staged)
            if isinstance(error, OSError):
                raise OSError(error.errno, error.strerror, self.place(name)) from error
            raise

    def staged(self, below: str) -> Path:
        """Return a path in the folder `below` itself, because a rename is atomic only within one file system."""
        folder = self.root / below
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"tmp-{uuid.uuid4().hex}"

    def adopt(self, staged: Path, name: str) -> None:
        """Flush a staged file to the disk, then rename it."""
        with staged.open("rb") as file:
            os.fsync(file.fileno())
        staged.rename(self.root / name)

    def drop(self, staged: Path) -> None:
        """Delete a staged file."""
        staged.unlink(missing_ok=True)

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
            for path in (self.root / name).glob(TMP):
                path.unlink(missing_ok=True)

    @contextmanager
    def exclusive(self, name: str) -> Iterator[None]:
        """Lock a file with `flock`; the system releases the lock when the process ends."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            try:
                is_current = os.path.samestat(os.fstat(file.fileno()), path.stat())
            except FileNotFoundError:
                is_current = False
            if not is_current:  # its owner has just removed it; a third process may have locked a new file
                raise BlockingIOError
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
