"""Reads byte ranges of a dataset's files, and caches fetched blocks on disk.

Threads and forked processes may share open files and the cache. Files are read with `pread`. They are not mapped into
memory, because the process would crash when a mapped file shrinks, and mapped pages count as memory of the process.
"""

import os
import weakref
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from schemas.errors import DatasetError, UsageError
from schemas.files import durable
from schemas.files.folder import Folder
from schemas.store.dataset import Fetched

BLOCK = 1 << 20  # how many bytes of a remote file are fetched and cached together
LEAST = 64 * BLOCK
LIMIT = 32 << 30
VARIABLE = "OXE_TOOLS_CACHE"


def default_folder() -> Path:
    """Return `$OXE_TOOLS_CACHE`, or `oxe-tools` in the user's cache folder."""
    folder = os.environ.get(VARIABLE)
    return Path(folder) if folder else Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "oxe-tools"


def keep(path: Path, content: bytes, *, sync: bool = True) -> None:
    """Write a file atomically. Other processes may write the same file at the same time."""
    try:
        durable.write(path, content, sync=sync)
    except OSError as error:
        raise UsageError(
            f"{path.parent}: cannot write the loader's cache ({error}); name another folder with cache=... or "
            f"{VARIABLE}"
        ) from error


class BlockCache:
    """A folder of blocks of remote files. If it is full, the least recently used blocks are removed.

    Several processes may share the folder.
    """

    def __init__(self, folder: Path, limit: int = LIMIT) -> None:
        """Cache at most `limit` bytes in `folder`. Raises UsageError if `limit` is less than 64 MiB."""
        if limit < LEAST:
            raise UsageError(f"cache of {limit} bytes: at least {LEAST} are required")
        self.folder, self.limit = folder, limit
        self._unseen = limit  # bytes written since the folder was last measured; the first write measures it

    def get(self, name: str, fetch: Callable[[], bytes]) -> bytes:
        """Return a block from the cache. If it is not cached, fetch it and cache it."""
        path = self.folder / name
        with suppress(OSError):
            content = path.read_bytes()
            os.utime(path)
            return content
        content = fetch()
        keep(path, content, sync=False)  # a block that is lost in a power cut is fetched again
        self._unseen += len(content)
        if self._unseen > self.limit // 16:
            self._make_room()
        return content

    def _make_room(self) -> None:
        """Remove the blocks that killed processes left unfinished, and the least recently used blocks."""
        blocks = []
        for path in self.folder.rglob("*"):
            with suppress(FileNotFoundError):
                stat = path.stat()
                if path.is_dir():
                    durable.sweep(path)
                elif not durable.NAME.fullmatch(path.name):
                    blocks.append((stat.st_mtime, stat.st_size, path))
        total = sum(size for _, size, _ in blocks)
        for _, size, path in sorted(blocks):
            if total <= self.limit - self.limit // 8:
                break
            path.unlink(missing_ok=True)
            total -= size
        self._unseen = 0


# Byte ranges


class Ranges(Protocol):
    """A file that is read by byte ranges."""

    def read(self, start: int, count: int) -> bytes:
        """Return `count` bytes from `start` on. Raises DatasetError if the file cannot be read or is too short."""


class LocalRanges:
    """A file on this machine."""

    def __init__(self, path: Path) -> None:
        """Open the file."""
        try:
            self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise _unreadable(str(path), str(error)) from error
        self._place = str(path)
        weakref.finalize(self, os.close, self._descriptor)  # after the last thread has finished reading

    def read(self, start: int, count: int) -> bytes:
        """Return `count` bytes from `start` on, in one system call."""
        try:
            data = os.pread(self._descriptor, count, start)
        except OSError as error:
            raise _unreadable(self._place, str(error)) from error
        if len(data) < count:
            raise _unreadable(self._place, f"it ends before byte {start + count}: it was changed while in use")
        return data


class RemoteRanges:
    """A remote file, read in blocks that are cached on this machine."""

    def __init__(self, folder: Folder, name: str, *, key: str, cache: BlockCache) -> None:
        """Look up the size of the file. It is opened only when a block is not cached.

        `key` identifies the dataset, because files of several datasets may have the same name.
        """
        self._folder, self._name, self._key, self._cache = folder, name, key, cache
        self._size = folder.size(name)
        self._fetched: Fetched | None = None

    def read(self, start: int, count: int) -> bytes:
        """Return `count` bytes from `start` on; reads all blocks that contain some of them."""
        first, last = start // BLOCK, (start + count - 1) // BLOCK
        blocks = b"".join(self._block(number) for number in range(first, last + 1))
        data = blocks[start - first * BLOCK : start - first * BLOCK + count]
        if len(data) < count:
            raise _unreadable(self._folder.place(self._name), f"it ends before byte {start + count}")
        return data

    def _block(self, number: int) -> bytes:
        return self._cache.get(f"{self._key}/{self._name}/{number}", lambda: self._fetch(number))

    def _fetch(self, number: int) -> bytes:
        if self._size is None:
            raise _unreadable(self._folder.place(self._name), "it was not found")
        if self._fetched is None:
            self._fetched = Fetched(self._folder.open_parts(self._name))
        return self._fetched[number * BLOCK : min((number + 1) * BLOCK, self._size)]


def _unreadable(place: str, why: str) -> DatasetError:
    return DatasetError(f"{place}: cannot be read ({why}); run 'oxe verify' to find all damaged files")
