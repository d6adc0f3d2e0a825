"""The one way in which this project writes files: to a temporary name in the same folder, synced to disk, then renamed.

A reader sees the old content or the new content, never a part of it, also after a kill or a power cut. The process that
writes a temporary file or folder holds a lock on it, so the next run can remove those that a killed process left.
"""

import errno
import fcntl
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

NAME = re.compile(r"tmp-oxe-[0-9a-f]{32}")
ONLY_HERE = os.O_NOFOLLOW | os.O_CLOEXEC
UNSUPPORTED = {errno.EINVAL, errno.ENOTSUP, errno.EBADF}  # errors of file systems that cannot sync a folder

_locks: dict[Path, int] = {}  # descriptors of the temporary files that this process writes


def temporary_name() -> str:
    """Return a new name that cannot be guessed."""
    return f"tmp-oxe-{secrets.token_hex(16)}"


def write(path: Path, content: bytes, *, sync: bool = True) -> None:
    """Write a file, and remove the temporary files that killed processes left in its folder.

    With `sync=False`, the name of the new file is not synced, and nothing is removed: for many files that `sync_folder`
    makes durable together.
    """
    if sync:
        sweep(path.parent)
    temporary = staged(path.parent)
    try:
        with open(_locks[temporary], "wb", closefd=False) as file:
            file.write(content)
        adopt(temporary, path, sync=sync)
    except BaseException as error:  # includes Ctrl-C, so that no incomplete file is left
        drop(temporary)
        if isinstance(error, OSError):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def staged(folder: Path) -> Path:
    """Create an empty temporary file in `folder`; once it is complete, `adopt` gives it its name."""
    make_folder(folder)
    while True:
        path = folder / temporary_name()
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | ONLY_HERE, 0o666)
        if _is_locked(handle):
            _locks[path] = handle
            return path
        os.close(handle)  # another process has removed the file before it was locked


def adopt(temporary: Path, path: Path, *, sync: bool = True) -> None:
    """Sync a complete temporary file to disk and rename it; with `sync=False`, the rename itself is not synced."""
    os.fsync(_locks[temporary])
    os.rename(temporary, path)  # noqa: PTH104 - tests replace this function to kill the process here
    os.close(_locks.pop(temporary))
    if sync:
        sync_folder(path.parent)


def drop(temporary: Path) -> None:
    """Delete a temporary file; does nothing if it was adopted or deleted."""
    if temporary in _locks:
        temporary.unlink(missing_ok=True)
        os.close(_locks.pop(temporary))


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder next to `path`; at the end, sync all that is in it and rename it to `path`.

    An existing folder `path` is replaced. After an error, the temporary folder is removed and `path` is unchanged.
    """
    make_folder(path.parent)
    sweep(path.parent)
    with _locked_folder(path.parent) as temporary:
        yield temporary
        for file in [*temporary.rglob("*"), temporary]:
            _sync(file)
        if path.exists():
            remove_folder(path)
        temporary.rename(path)
        sync_folder(path.parent)


def remove_folder(path: Path) -> None:
    """Remove a folder. After a kill or a power cut, all of it is there under its name, or nothing.

    It gets a temporary name, which is synced to disk, before its first file is removed.
    """
    path.rename(path.with_name(temporary_name()))
    sync_folder(path.parent)
    sweep(path.parent)


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Yield a folder for temporary files in TMPDIR; it is removed at the end, or by the next run if this one is killed.

    It is only for this process and its children.
    """
    folder = Path(tempfile.gettempdir())
    sweep(folder)
    with _locked_folder(folder, mode=0o700) as temporary:
        yield temporary


@contextmanager
def _locked_folder(parent: Path, mode: int = 0o777) -> Iterator[Path]:
    path = parent / temporary_name()
    path.mkdir(mode)
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | ONLY_HERE)
    try:
        if not _is_locked(handle):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(handle)


def _is_locked(handle: int) -> bool:
    """Lock a new temporary file; returns False if `sweep` has removed it just before.

    On a file system without locks, it stays unlocked, and `sweep` leaves it alone.
    """
    with suppress(OSError):
        fcntl.flock(handle, fcntl.LOCK_EX)
    return os.fstat(handle).st_nlink > 0


def sweep(folder: Path) -> None:
    """Remove the temporary files and folders that killed processes left in `folder`; those in use are locked."""
    try:
        entries = [entry for entry in os.scandir(folder) if NAME.fullmatch(entry.name)]
    except (FileNotFoundError, NotADirectoryError):
        return
    for entry in entries:
        is_folder = entry.is_dir(follow_symlinks=False)
        with suppress(OSError):  # it is in use, was just renamed, or belongs to another user
            flags = os.O_RDONLY | os.O_DIRECTORY if is_folder else os.O_RDWR | os.O_NONBLOCK  # NFS locks need O_RDWR
            handle = os.open(entry.path, flags | ONLY_HERE)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                (shutil.rmtree if is_folder else os.unlink)(entry.path)
            finally:
                os.close(handle)


def make_folder(path: Path) -> None:
    """Create a folder and the folders above it, and sync the names of the new ones."""
    if not path.is_dir():
        make_folder(path.parent)
        path.mkdir(exist_ok=True)
        sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Sync the names in a folder to disk: after a power cut, files that were renamed or removed stay so."""
    try:
        _sync(path)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def locked(path: Path, *, wait: bool = False) -> Iterator[None]:
    """Lock the file `path` with `flock` and remove it at the end; the system unlocks it when the process ends.

    Raises BlockingIOError if another process has locked it, unless `wait` is true.
    """
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | ONLY_HERE, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            if _is_at(handle, path):
                try:
                    yield
                finally:
                    path.unlink(missing_ok=True)
                return
        finally:
            os.close(handle)
        if not wait:  # its owner has just removed it; a third process may have locked a new file
            raise BlockingIOError


def _is_at(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.lstat())
    except FileNotFoundError:
        return False
