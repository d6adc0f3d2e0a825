"""Shards of a conversion or an export: how workers process them, and the files that record their state."""

import errno
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from schemas.errors import OxeError, TooManyQuarantinedError, UnreachableError
from schemas.files.folder import Folder

FAILURE, STOP = ".failed", "stopped"
PAUSES = (0.1, 1.0)  # seconds to wait before the second and the third attempt at a shard
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}  # errors that would occur again with every shard


class Shard(Protocol):
    """A picklable unit of work."""

    @property
    def name(self) -> str:
        """The name of the shard and of its record."""

    @property
    def episodes(self) -> int:
        """The number of episodes."""

    @property
    def size(self) -> int:
        """The number of bytes that are read."""


class Worker(Protocol):
    """An opened job."""

    def shard(self, ref: Any) -> str | None:
        """Process one shard; returns the error message, or None."""


class Job(Protocol):
    """A picklable description of the work."""

    def open(self) -> Worker:
        """Open the source and the output on this worker."""


@dataclass(frozen=True, slots=True)
class StatusFolder:
    """The folder in which workers write the records of finished shards, the failures, and a request to stop."""

    out: Folder
    BELOW: ClassVar[str]  # path of this folder in the output
    RECORD: ClassVar[str]  # suffix of a record's file name

    def place(self, name: str) -> str:
        """Return the path of a file in this folder."""
        return f"{self.BELOW}/{name}"

    def shard_of(self, place: str) -> str:
        """Return the name of the shard that a file belongs to."""
        return place.rpartition("/")[2].removesuffix(self.RECORD).removesuffix(FAILURE)

    def fail(self, name: str, message: str) -> None:
        """Record that a shard failed, with the error message."""
        self.out.write(self.place(name + FAILURE), message.encode(), sync=False)

    def failures(self) -> dict[str, str]:
        """Return the error message of each shard that failed."""
        places = [self.place(name) for name in self.out.names(self.BELOW) if name.endswith(FAILURE)]
        return {self.shard_of(place): content.decode() for place, content in self.out.read_many(places).items()}

    def stop(self, message: str) -> None:
        """Ask all workers not to start another shard; `message` is the reason."""
        self.out.write(self.place(STOP), message.encode(), sync=False)

    def stop_reason(self) -> str | None:
        """Return why the run was stopped, or None if it was not."""
        content = self.out.read_many([self.place(STOP)])
        return content[self.place(STOP)].decode() if content else None

    def finished(self) -> set[str]:
        """Return the names of the shards that have a record; the records are not read."""
        return {self.shard_of(name) for name in self.out.names(self.BELOW) if name.endswith(self.RECORD)}


def clear_failures(out: Folder, below: str) -> None:
    """Remove the failures and the request to stop of an earlier run from the folder `below` of `out`."""
    for name in out.names(below):
        if name == STOP or name.endswith(FAILURE):
            out.remove(f"{below}/{name}")


def with_retries(status: StatusFolder, name: str, work: Callable[[], None]) -> str | None:
    """Process one shard in up to three attempts; returns the last error message, or None.

    If a shard fails, the other shards are still processed. If too many episodes are quarantined or the disk is full,
    the run is stopped: no worker starts another shard.
    """
    if status.stop_reason():
        return None
    for pause in (*PAUSES, None):
        try:
            work()
        except TooManyQuarantinedError as error:
            status.stop(str(error))
            return None
        except (OxeError, OSError, ValueError) as error:
            message, full = str(error), _is_full(error)
            final = full or isinstance(error, UnreachableError)  # each request was retried already
        else:
            return None
        if final or pause is None:
            break
        time.sleep(pause)
    with suppress(OSError, UnreachableError):  # if this fails, the missing record shows the failure
        status.fail(name, message)
        if full:
            status.stop(message)
    return message


def _is_full(error: Exception) -> bool:
    cause = error.__cause__ or error
    return isinstance(cause, OSError) and cause.errno in FULL
