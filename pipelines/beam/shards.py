"""Work in shards, whatever is done with them: marks in a folder say what is done, what failed and when to stop."""

import errno
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from schemas.errors import OxeError, TooManyQuarantinedError, UnreachableError
from schemas.files.folder import Folder

FAILURE, STOP = ".failed", "stopped"
PAUSES = (0.1, 1.0)  # seconds before the second and the third try of a shard
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}  # no other shard can be written either, now or in a second


class Shard(Protocol):
    """The unit of work; picklable."""

    @property
    def name(self) -> str:
        """Name it; the name is that of its record."""

    @property
    def episodes(self) -> int:
        """Count its episodes."""

    @property
    def size(self) -> int:
        """Tell how many bytes are read for it."""


class Worker(Protocol):
    """An opened job."""

    def shard(self, ref: Any) -> str | None:
        """Do one shard; say what went wrong, or None."""


class Job(Protocol):
    """What is to be done, as plain data; picklable."""

    def open(self) -> Worker:
        """Open what it takes on this worker."""


@dataclass(frozen=True, slots=True)
class Marks:
    """What workers leave in a folder of the output: a record for each finished shard, failures, the wish to stop."""

    out: Folder
    BELOW: ClassVar[str]  # the folder
    RECORD: ClassVar[str]  # the ending of a record's name

    def place(self, name: str) -> str:
        """Say where a mark lies."""
        return f"{self.BELOW}/{name}"

    def shard_of(self, place: str) -> str:
        """Say which shard a mark is of."""
        return place.rpartition("/")[2].removesuffix(self.RECORD).removesuffix(FAILURE)

    def fail(self, name: str, message: str) -> None:
        """Say that a shard could not be done, and why."""
        self.out.write(self.place(name + FAILURE), message.encode())

    def failures(self) -> dict[str, str]:
        """Give the shards that could not be done."""
        places = [self.place(name) for name in self.out.names(self.BELOW) if name.endswith(FAILURE)]
        return {self.shard_of(place): content.decode() for place, content in self.out.read_many(places).items()}

    def stop(self, message: str) -> None:
        """Ask every worker to begin no more shards, and say why."""
        self.out.write(self.place(STOP), message.encode())

    def stopped(self) -> str | None:
        """Say why the run was stopped, or None."""
        content = self.out.read_many([self.place(STOP)])
        return content[self.place(STOP)].decode() if content else None

    def finished(self) -> set[str]:
        """Name the shards that have a record, without reading them."""
        return {self.shard_of(name) for name in self.out.names(self.BELOW) if name.endswith(self.RECORD)}


def forgive(out: Folder, below: str) -> None:
    """Remove what an earlier run left in the folder `below` about failures and stopping."""
    for name in out.names(below):
        if name == STOP or name.endswith(FAILURE):
            out.remove(f"{below}/{name}")


def attempted(marks: Marks, name: str, work: Callable[[], None]) -> str | None:
    """Do the work of one shard; say what went wrong, or None.

    A shard that fails is tried again; one that fails for good is a value, so that others go on. More quarantined
    episodes than the job allows, or a full disk, stop the run: shards that have not begun are left.
    """
    if marks.stopped():
        return None
    for pause in (*PAUSES, None):
        try:
            work()
        except TooManyQuarantinedError as error:
            marks.stop(str(error))
            return None
        except (OxeError, OSError, ValueError) as error:
            message, full = str(error), _is_full(error)
            final = full or isinstance(error, UnreachableError)  # of which each request was tried often enough
        else:
            return None
        if final or pause is None:
            break
        time.sleep(pause)
    with suppress(OSError, UnreachableError):  # where nothing can be written, the missing record says it
        marks.fail(name, message)
        if full:
            marks.stop(message)
    return message


def _is_full(error: Exception) -> bool:
    cause = error.__cause__ or error
    return isinstance(cause, OSError) and cause.errno in FULL
