"""A folder of files, on this machine or behind any fsspec URI, and the few things that a dataset needs of it."""

import fcntl
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

TMP = "tmp-" + 32 * "[0-9a-f]"  # not `tmp-*`: a split may be called tmp


class Folder(Protocol):
    """Files below `uri`, by names with `/`.

    What is not there is a FileNotFoundError. What else goes wrong is an OSError on this machine and, after several
    tries, an UnreachableError elsewhere.
    """

    @property
    def uri(self) -> str:
        """Say where it is, as errors do."""

    @property
    def local(self) -> Path | None:
        """Give its path, if it is on this machine."""

    @property
    def options(self) -> Mapping[str, Any]:
        """What fsspec needs besides a file's place to open it; nothing on this machine."""

    def __hash__(self) -> int:
        """Hash what tells it from other folders."""

    def absolute(self) -> "Folder":
        """Give the same folder as any process finds it."""

    def child(self, name: str) -> "Folder":
        """Go down."""

    def place(self, name: str) -> str:
        """Give a file's whole name, as errors do."""

    def size(self, name: str) -> int | None:
        """Tell a file's size in bytes; None where there is none."""

    def sizes(self, names: Iterable[str]) -> dict[str, int | None]:
        """Tell the sizes of many files at once."""

    def names(self, below: str = "") -> tuple[str, ...]:
        """List what lies directly in the folder or in one below it, sorted; nothing where listing is not possible."""

    def open(self, name: str) -> IO[bytes]:
        """Open a file for reading, from its start to its end as a rule."""

    def open_parts(self, name: str) -> IO[bytes]:
        """Open a file for reading small parts of it: no more is fetched than is asked for."""

    def read(self, name: str) -> bytes:
        """Read a whole small file."""

    def read_many(self, names: Iterable[str]) -> dict[str, bytes]:
        """Read many small files; those that are not there are left out."""

    def tails(self, names: Iterable[str], count: int) -> dict[str, bytes]:
        """Read the last `count` bytes of many files; those that are not there are left out."""

    def write(self, name: str, content: bytes) -> None:
        """Write a small file so that it is either whole or not there."""

    def staged(self, below: str) -> Path:
        """Name a new local file, for something large that will be put into the folder `below` by `adopt`."""

    def adopt(self, staged: Path, name: str) -> None:
        """Make a finished local file appear under `name`, whole; it is gone from where it was."""

    def drop(self, staged: Path) -> None:
        """Give up a file that `staged` named."""

    def remove(self, name: str) -> None:
        """Remove a file, or a folder with all it holds; what is not there is no error."""

    def sweep(self, below: Iterable[str]) -> None:
        """Remove what killed processes left half written in the folders `below`."""

    def exclusive(self, name: str) -> AbstractContextManager[None]:
        """Hold the file `name` as a lock; while somebody else does, this is a BlockingIOError."""


def open_folder(uri: str | Path, *, for_writing: bool = False) -> Folder:
    """Open a local path or an fsspec URI (`gs://`, `s3://`, `https://`, `hf://`, ...).

    Remote folders are read anonymously, unless fsspec's own configuration says otherwise, and written with the
    credentials that the store's library finds. Raises UsageError for a URI that no file system knows.
    """
    text = str(uri)
    if is_local(text):
        return LocalFolder(Path(text.removeprefix("file://")).expanduser())
    from schemas.files.remote import RemoteFolder  # noqa: PLC0415 - only remote folders pay for it

    return RemoteFolder.at(text, for_writing=for_writing)


def is_local(uri: str) -> bool:
    """Say whether a URI means this machine's own files."""
    return "://" not in uri or uri.startswith("file://")


def absolute(uri: str) -> str:
    """Say where a URI leads from any working directory.

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
        """Its path."""
        return str(self.root)

    @property
    def local(self) -> Path:
        """Its path."""
        return self.root

    @property
    def options(self) -> Mapping[str, Any]:
        """It needs none."""
        return {}

    def absolute(self) -> "LocalFolder":
        """Follow it from the root."""
        return LocalFolder(self.root.resolve())

    def child(self, name: str) -> "LocalFolder":
        """Go down."""
        return LocalFolder(self.root / name)

    def place(self, name: str) -> str:
        """Give a file's path."""
        return str(self.root / name)

    def size(self, name: str) -> int | None:
        """Ask the file system."""
        try:
            return (self.root / name).stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            return None

    def sizes(self, names: Iterable[str]) -> dict[str, int | None]:
        """Ask for one after the other."""
        return {name: self.size(name) for name in names}

    def names(self, below: str = "") -> tuple[str, ...]:
        """List a folder."""
        try:
            return tuple(sorted(entry.name for entry in os.scandir(self.root / below)))
        except (FileNotFoundError, NotADirectoryError):
            return ()

    def open(self, name: str) -> IO[bytes]:
        """Open a file; Python reads it ahead."""
        return (self.root / name).open("rb")

    def open_parts(self, name: str) -> IO[bytes]:
        """Open a file; Python reads little ahead."""
        return self.open(name)

    def read(self, name: str) -> bytes:
        """Read a file."""
        return (self.root / name).read_bytes()

    def read_many(self, names: Iterable[str]) -> dict[str, bytes]:
        """Read one after the other."""
        return {name: self.read(name) for name in names if (self.root / name).is_file()}

    def tails(self, names: Iterable[str], count: int) -> dict[str, bytes]:
        """Read the end of one after the other."""
        tails = {}
        for name in names:
            with suppress(FileNotFoundError, NotADirectoryError), self.open(name) as file:
                file.seek(max(0, file.seek(0, 2) - count))
                tails[name] = file.read()
        return tails

    def write(self, name: str, content: bytes) -> None:
        """Write a file beside its place and rename it."""
        staged = self.staged(str(Path(name).parent))
        try:
            staged.write_bytes(content)
            self.adopt(staged, name)
        except BaseException as error:  # Ctrl-C among them: nothing half written stays
            self.drop(staged)
            if isinstance(error, OSError):
                raise OSError(error.errno, error.strerror, self.place(name)) from error
            raise

    def staged(self, below: str) -> Path:
        """Name a file in the folder where it will appear: a rename is atomic only there."""
        folder = self.root / below
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"tmp-{uuid.uuid4().hex}"

    def adopt(self, staged: Path, name: str) -> None:
        """Let the disk have it, then rename."""
        with staged.open("rb") as file:
            os.fsync(file.fileno())
        staged.rename(self.root / name)

    def drop(self, staged: Path) -> None:
        """Remove it."""
        staged.unlink(missing_ok=True)

    def remove(self, name: str) -> None:
        """Remove a file or a folder."""
        path = self.root / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)

    def sweep(self, below: Iterable[str]) -> None:
        """Remove what was never renamed."""
        for name in below:
            for path in (self.root / name).glob(TMP):
                path.unlink(missing_ok=True)

    @contextmanager
    def exclusive(self, name: str) -> Iterator[None]:
        """Lock a file; the lock is the process's, so one that was killed holds nothing."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            try:
                held = os.path.samestat(os.fstat(file.fileno()), path.stat())
            except FileNotFoundError:
                held = False
            if not held:  # who held it has just removed it, and a third may hold a new one
                raise BlockingIOError
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
