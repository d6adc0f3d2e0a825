"""A folder of files behind any fsspec URI; local files are opened by Python itself."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from schemas.errors import SourceError, UsageError

LFS_MARK = b"version https://git-lfs"
INSIDE = re.compile(r"(?!(.*/)?\.\.(/|$))[^/\\\0][^\\\0]*", re.DOTALL)


def lfs_pointer(path: str) -> SourceError:
    """Say that a file is a pointer, and what to do."""
    message = "a Git LFS pointer, not the data; run 'git lfs pull' where it was cloned"
    return SourceError(message, reason="lfs_pointer", file=path)


def inside(name: str, *, where: str) -> str:
    """Return `name` if it is a relative path that stays inside its folder; else a SourceError naming `where`."""
    if not INSIDE.fullmatch(name):
        raise SourceError(f"'{name}' leaves its folder: refused", reason="unsafe_path", file=where)
    return name


@dataclass(frozen=True, slots=True)
class Folder:
    """Files below `root`, read only. `fs` is None for local paths."""

    uri: str
    root: str
    fs: Any = None

    @classmethod
    def at(cls, uri: str) -> "Folder":
        """Open a local path or an fsspec URI (`gs://`, `s3://`, `https://`, `hf://`, ...)."""
        if "://" not in uri or uri.startswith("file://"):
            return cls(uri, str(Path(uri.removeprefix("file://")).expanduser()))
        from fsspec.core import url_to_fs  # noqa: PLC0415 - only remote sources pay for it

        try:
            fs, root = url_to_fs(uri)
        except (ImportError, ValueError) as error:
            raise UsageError(f"{uri}: {error}") from error
        return cls(uri, root.rstrip("/"), fs)

    def child(self, name: str) -> "Folder":
        """Go one folder down."""
        return Folder(f"{self.uri.rstrip('/')}/{name}", f"{self.root}/{name}", self.fs)

    def path(self, name: str) -> str:
        """Name a file the way its file system does."""
        return f"{self.root}/{name}" if name else self.root

    def size(self, name: str) -> int | None:
        """Tell a file's size in bytes; None where there is none."""
        try:
            return int(self.fs.info(self.path(name))["size"]) if self.fs else Path(self.path(name)).stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise SourceError(f"cannot be reached ({_why(error)})", file=self.path(name)) from error

    def open(self, name: str) -> IO[bytes]:
        """Open a file for reading."""
        try:
            return self.fs.open(self.path(name), "rb") if self.fs else Path(self.path(name)).open("rb")
        except FileNotFoundError as error:
            raise SourceError("no such file", reason="missing_file", file=self.path(name)) from error
        except OSError as error:
            raise SourceError(f"cannot be opened ({_why(error)})", file=self.path(name)) from error

    def read(self, name: str) -> bytes:
        """Read a whole small file."""
        with self.open(name) as file:
            content = file.read()
        if content.startswith(LFS_MARK):
            raise lfs_pointer(self.path(name))
        return content

    def names(self) -> tuple[str, ...]:
        """List what lies directly in the folder, sorted; nothing where listing is not possible."""
        try:
            entries = (
                self.fs.ls(self.root, detail=False) if self.fs else [path.name for path in Path(self.root).iterdir()]
            )
        except (FileNotFoundError, NotADirectoryError):
            return ()
        except OSError as error:
            raise SourceError(f"cannot be listed ({_why(error)})", file=self.root) from error
        return tuple(sorted(str(entry).rstrip("/").rsplit("/", 1)[-1] for entry in entries))


def _why(error: OSError) -> str:
    """Say what the system said, without the path: that stands in the error already, and in no published file."""
    return error.strerror or type(error).__name__
