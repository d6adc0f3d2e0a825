"""The folder on this machine in which a loader keeps what it would otherwise fetch or compute again."""

import os
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from schemas.errors import UsageError

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
