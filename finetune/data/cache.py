"""Caches blocks of remote files on disk, and reads byte ranges of remote files through the cache.

Threads and forked processes may share the cache.
"""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np

from schemas.errors import UsageError
from schemas.files import durable
from schemas.files.folder import Folder
from schemas.store.checks import crc, unreadable
from schemas.store.ranges import Fetched

BLOCK = 1 << 20  # how many bytes of a remote file are fetched and cached together
PIECE = 64 << 10  # bytes of a cached block that have one CRC-32C
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

    Several processes may share the folder. A block is stored with a CRC-32C of each 64 KiB, which also depends on the
    block's name; what is read is compared with it, and a damaged block is fetched again.
    """

    def __init__(self, folder: Path, limit: int = LIMIT) -> None:
        """Cache at most `limit` bytes in `folder`. Raises UsageError if `limit` is less than 64 MiB."""
        if limit < LEAST:
            raise UsageError(f"cache of {limit} bytes: at least {LEAST} are required")
        self.folder, self.limit = folder, limit
        self._unseen = limit  # bytes written since the folder was last measured; the first write measures it

    def get(self, name: str, fetch: Callable[[], bytes], *, start: int = 0, stop: int | None = None) -> bytes:
        """Return the bytes [start, stop) of a block from the cache. If it is not cached, fetch it and cache it."""
        path = self.folder / name
        with suppress(OSError):
            content = _cached(path, seed=crc(name.encode()), start=start, stop=stop)
            if content is not None:
                os.utime(path)
                return content
        content = fetch()
        sums = [crc(content[at : at + PIECE], crc(name.encode())) for at in range(0, len(content), PIECE)]
        keep(path, content + np.array(sums, "<u4").tobytes(), sync=False)  # a block that is lost is fetched again
        self._unseen += len(content)
        if self._unseen > self.limit // 16:
            self._make_room()
        return content[start:stop]

    def forget(self, name: str) -> None:
        """Remove a block."""
        (self.folder / name).unlink(missing_ok=True)

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


def _cached(path: Path, *, seed: int, start: int, stop: int | None) -> bytes | None:
    """Read the bytes [start, stop) of a cached block, and those around them to check them. None if they are damaged."""
    with path.open("rb", buffering=0) as file:
        whole = os.fstat(file.fileno()).st_size
        if not whole:
            return None
        pieces = -(-whole // (PIECE + 4))
        size = whole - 4 * pieces
        stop = size if stop is None else min(stop, size)
        first, last = start // PIECE, max(start // PIECE, -(-stop // PIECE))
        data = memoryview(os.pread(file.fileno(), min(last * PIECE, size) - first * PIECE, first * PIECE))
        sums = np.frombuffer(os.pread(file.fileno(), 4 * (last - first), size + 4 * first), "<u4").tolist()
    if sums != [crc(data[at : at + PIECE], seed) for at in range(0, len(data), PIECE)]:
        return None
    return bytes(data[start - first * PIECE : stop - first * PIECE])


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
        end = start + count
        data = b"".join(
            self._block(number, start=max(0, start - number * BLOCK), stop=min(BLOCK, end - number * BLOCK))
            for number in range(start // BLOCK, (end - 1) // BLOCK + 1)
        )
        if len(data) < count:
            raise unreadable(self._folder.place(self._name), f"it ends before byte {end}")
        return data

    def again(self, start: int, count: int) -> bytes:
        """Remove the blocks from the cache that contain these bytes, and fetch them again."""
        for number in range(start // BLOCK, (start + count - 1) // BLOCK + 1):
            self._cache.forget(self._key_of(number))
        return self.read(start, count)

    def _key_of(self, number: int) -> str:
        return f"{self._key}/{self._name}/{number}"

    def _block(self, number: int, *, start: int, stop: int) -> bytes:
        return self._cache.get(self._key_of(number), lambda: self._fetch(number), start=start, stop=stop)

    def _fetch(self, number: int) -> bytes:
        if self._size is None:
            raise unreadable(self._folder.place(self._name), "it was not found")
        if self._fetched is None:
            self._fetched = Fetched(self._folder.open_parts(self._name))
        return self._fetched[number * BLOCK : min((number + 1) * BLOCK, self._size)]
