"""Reads byte ranges of a dataset's files. Threads and forked processes may share open files.

Files are read with `pread`. They are not mapped into memory, because the process would crash when a mapped file
shrinks, and mapped pages count as memory of the process.
"""

import os
import weakref
from pathlib import Path
from threading import Lock
from typing import IO, Protocol

from schemas.store.checks import unreadable


class Ranges(Protocol):
    """A file that is read by byte ranges."""

    def read(self, start: int, count: int) -> bytes:
        """Return `count` bytes from `start` on. Raises DatasetError if the file cannot be read or is too short."""

    def again(self, start: int, count: int) -> bytes:
        """Read bytes that turned out to be damaged again, from where they are stored and not from a cache."""


class LocalRanges:
    """A file on this machine."""

    def __init__(self, path: Path) -> None:
        """Open the file. Raises DatasetError if it cannot be opened."""
        try:
            self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise unreadable(str(path), error) from error
        self._place = str(path)
        weakref.finalize(self, os.close, self._descriptor)  # after the last thread has finished reading

    def size(self) -> int:
        """Return the size of the file."""
        return os.fstat(self._descriptor).st_size

    def read(self, start: int, count: int) -> bytes:
        """Return `count` bytes from `start` on, in one system call."""
        try:
            data = os.pread(self._descriptor, count, start)
        except OSError as error:
            raise unreadable(self._place, error) from error
        if len(data) < count:
            raise unreadable(self._place, f"it ends before byte {start + count}: it was changed while in use")
        return data

    again = read


class Fetched:
    """The bytes of a remote file; each slice is one request. Safe to share between threads."""

    def __init__(self, file: IO[bytes]) -> None:
        """Wrap an open file, which must not be used elsewhere afterwards."""
        self.file, self.lock = file, Lock()

    def size(self) -> int:
        """Return the size of the file."""
        with self.lock:
            return self.file.seek(0, os.SEEK_END)

    def __getitem__(self, part: slice) -> bytes:
        """Fetch a range of bytes."""
        return self.read(part.start, part.stop - part.start)

    def read(self, start: int, count: int) -> bytes:
        """Fetch `count` bytes from `start` on."""
        with self.lock:
            self.file.seek(start)
            return self.file.read(count)

    again = read
