"""Byte ranges of the files of a dataset, and the folder in which what was fetched or computed for them is kept.

Threads and forked processes may share both. Files are read by `pread`, not mapped: of a mapped file that shrinks or
vanishes, the process would die, and what is mapped counts as its memory.
"""

import os
import time
import uuid
import weakref
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from schemas.errors import DatasetError, UsageError
from schemas.files.folder import Folder
from schemas.store.dataset import Fetched

BLOCK = 1 << 20  # bytes of a remote file that are fetched at once
LEAST = 64 * BLOCK
LIMIT = 32 << 30
VARIABLE = "OXE_TOOLS_CACHE"
STAGED = "tmp-"
ABANDONED = 3600  # seconds after which nobody is at a staged file any more


def default_folder() -> Path:
    """Give `$OXE_TOOLS_CACHE`, or the user's folder for caches."""
    told = os.environ.get(VARIABLE)
    return Path(told) if told else Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "oxe-tools"


def keep(path: Path, content: bytes) -> None:
    """Write a file so that it is either whole or not there, whoever else writes it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        staged = path.with_name(f"{STAGED}{uuid.uuid4().hex}")
        try:
            staged.write_bytes(content)
            staged.rename(path)
        finally:
            staged.unlink(missing_ok=True)
    except OSError as error:
        raise UsageError(
            f"{path.parent}: the loader's cache cannot be written ({error}); name another folder: cache=..., or "
            f"{VARIABLE}"
        ) from error


class BlockCache:
    """Blocks of remote files, the oldest of which make room for new ones; processes may share the folder."""

    def __init__(self, folder: Path, limit: int = LIMIT) -> None:
        """Hold at most about `limit` bytes, which is a UsageError if it is less than 64 MiB."""
        if limit < LEAST:
            raise UsageError(f"a cache of {limit} bytes: at least {LEAST} are needed")
        self.folder, self.limit = folder, limit
        self._unseen = limit  # bytes that were written since the folder was last measured; at first, nobody knows

    def get(self, name: str, fetch: Callable[[], bytes]) -> bytes:
        """Read a block, or fetch and keep it."""
        path = self.folder / name
        with suppress(OSError):
            content = path.read_bytes()
            os.utime(path)
            return content
        content = fetch()
        keep(path, content)
        self._unseen += len(content)
        if self._unseen > self.limit // 16:
            self._make_room()
        return content

    def _make_room(self) -> None:
        """Remove the blocks that were not used for the longest time."""
        found = []
        for path in self.folder.rglob("*"):
            with suppress(FileNotFoundError):
                about = path.stat()
                being_written = path.name.startswith(STAGED) and about.st_mtime > time.time() - ABANDONED
                if path.is_file() and not being_written:
                    found.append((about.st_mtime, about.st_size, path))
        total = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if total <= self.limit - self.limit // 8:
                break
            path.unlink(missing_ok=True)
            total -= size
        self._unseen = 0


# Byte ranges


class Ranges(Protocol):
    """One file."""

    def read(self, start: int, count: int) -> bytes:
        """Read bytes; fewer than `count`, or none at all, are a DatasetError."""


class LocalRanges:
    """A file on this machine."""

    def __init__(self, path: Path) -> None:
        """Open it."""
        try:
            self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise _unreadable(str(path), str(error)) from error
        self._place = str(path)
        weakref.finalize(self, os.close, self._descriptor)  # once no thread reads it any more

    def read(self, start: int, count: int) -> bytes:
        """Read bytes in one call."""
        try:
            found = os.pread(self._descriptor, count, start)
        except OSError as error:
            raise _unreadable(self._place, str(error)) from error
        if len(found) < count:
            raise _unreadable(self._place, f"it ends before byte {start + count}: it has changed while it was in use")
        return found


class RemoteRanges:
    """A file elsewhere, in blocks that are kept on this machine."""

    def __init__(self, folder: Folder, name: str, *, key: str, cache: BlockCache) -> None:
        """Open it when the first block is missing; `key` tells it from files of the same name."""
        self._folder, self._name, self._key, self._cache = folder, name, key, cache
        self._size = folder.size(name)
        self._fetched: Fetched | None = None

    def read(self, start: int, count: int) -> bytes:
        """Put the range together from blocks."""
        first, last = start // BLOCK, (start + count - 1) // BLOCK
        blocks = b"".join(self._block(number) for number in range(first, last + 1))
        found = blocks[start - first * BLOCK : start - first * BLOCK + count]
        if len(found) < count:
            raise _unreadable(self._folder.place(self._name), f"it ends before byte {start + count}")
        return found

    def _block(self, number: int) -> bytes:
        return self._cache.get(f"{self._key}/{self._name}/{number}", lambda: self._fetch(number))

    def _fetch(self, number: int) -> bytes:
        if self._size is None:
            raise _unreadable(self._folder.place(self._name), "it is not there")
        if self._fetched is None:
            self._fetched = Fetched(self._folder.open_parts(self._name))
        return self._fetched[number * BLOCK : min((number + 1) * BLOCK, self._size)]


def _unreadable(place: str, why: str) -> DatasetError:
    return DatasetError(f"{place}: cannot be read ({why}); 'oxe verify' tells what else is damaged")
