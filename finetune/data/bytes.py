"""Byte ranges of the files of a dataset, on this machine or elsewhere; threads and forked processes may share them.

Files are read by `pread`, not mapped: of a mapped file that shrinks or vanishes, the process would die, and what is
mapped counts as its memory.
"""

import os
import weakref
from pathlib import Path
from typing import Protocol

from finetune.data.cache import BLOCK, BlockCache
from schemas.errors import DatasetError
from schemas.files.folder import Folder
from schemas.store.dataset import Fetched


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
