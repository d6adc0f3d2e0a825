"""Network access: retries of transient errors, deadlines, and remote files read in blocks."""

import errno
import io
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Event, Thread
from typing import Any, TypeAlias, TypeVar

from tenacity import (
    Retrying,
    retry_if_exception,
    sleep_using_event,
    stop_after_attempt,
    stop_any,
    stop_when_event_set,
    wait_random_exponential,
)

T = TypeVar("T")
TRIES, FIRST_PAUSE, LONGEST_PAUSE = 8, 0.5, 20.0  # pauses are random, in seconds, up to a limit that doubles
BLOCK = 8 << 20  # bytes per request when a file is read from start to end
PATIENCE = 60.0  # seconds for any request, besides the time for its bytes
CALL_PATIENCE = 300.0  # the same for a call of a storage library, which may send several requests and repeat them
SLOWEST = 64 << 10  # bytes per second


class AnswerError(Exception):
    """A server's answer does not fit what was asked; asking again would not help."""


MISSING = (FileNotFoundError, FileExistsError, NotADirectoryError)
BUGS = (TypeError, AttributeError, LookupError, AssertionError)
FINAL = (*MISSING, *BUGS, AnswerError, NotImplementedError, ValueError, PermissionError)
DISK_FULL = {errno.ENOSPC, errno.EDQUOT}  # no space in the temporary folder
TRANSIENT_STATUSES = {400, 408, 409, 425, 429}  # stores also send these for garbled requests or too many of them
MISCONFIGURED = {  # errors by class name, because their libraries are optional
    "DefaultCredentialsError",
    "LocalTokenNotFoundError",
    "NoCredentialsError",
    "ParamValidationError",
    "PartialCredentialsError",
    "ProfileNotFound",
}

Fetch: TypeAlias = Callable[[int, int, Event], bytes]  # fetches bytes start to end; setting the event cancels it


def with_retries(work: Callable[[], T], *, closed: Event | None = None) -> T:
    """Call `work`; after a transient error, wait and call it again. Raises the last error if all tries fail."""
    closed = closed or Event()
    tries = Retrying(
        stop=stop_any(stop_after_attempt(TRIES), stop_when_event_set(closed)),
        wait=wait_random_exponential(FIRST_PAUSE, LONGEST_PAUSE),
        sleep=sleep_using_event(closed),
        retry=retry_if_exception(is_transient),
        reraise=True,
    )
    return tries(work)


def within(seconds: float, work: Callable[[], T]) -> T:
    """Call `work`, however steadily bytes drip; raises AnswerError if it takes longer than `seconds`.

    It runs in a thread, because libraries have no deadline for a whole request. After the deadline, the thread is
    left to itself and does not keep the process from ending.
    """
    done: Future[T] = Future()

    def run() -> None:
        try:
            done.set_result(work())
        except BaseException as error:  # noqa: BLE001 - raised below
            done.set_exception(error)

    Thread(target=run, daemon=True).start()
    try:
        return done.result(seconds)
    except TimeoutError as error:
        if done.done():  # the error of `work` itself; another try may succeed
            raise
        raise too_slow(seconds) from error


def too_slow(seconds: float) -> AnswerError:
    """Return the error for an answer that is not complete in time."""
    return AnswerError(f"no complete answer within {seconds:.0f} s: the server is too slow")


def is_transient(error: BaseException) -> bool:
    """Whether a retry may succeed."""
    if not isinstance(error, Exception) or isinstance(error, FINAL) or type(error).__name__ in MISCONFIGURED:
        return False
    if getattr(error, "errno", None) in DISK_FULL:
        return False
    return isinstance(error, TimeoutError) or not is_refused(error)


def is_refused(error: BaseException) -> bool:
    """Whether the server refused the request."""
    return isinstance(error, PermissionError) or (
        400 <= (status(error) or 0) < 500 and status(error) not in TRANSIENT_STATUSES
    )


def status(error: BaseException) -> int | None:
    """Return the HTTP status of an error, which each library stores in a different place; None if it has none."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):  # botocore
        response = response.get("ResponseMetadata", {})
        code = response.get("HTTPStatusCode")
        return code if isinstance(code, int) else None
    places = ((error, "status"), (error, "code"), (response, "status_code"))
    codes = (getattr(place, name, None) for place, name in places)
    code = next((code for code in codes if isinstance(code, int)), None)
    return status(error.__cause__) if code is None and error.__cause__ else code


class RemoteFile(io.RawIOBase):
    """A seekable remote file, which only one thread may use at a time."""

    def __init__(self, fetch: Fetch, size: int, *, ahead: bool) -> None:
        """Open the file. With `ahead`, a read fetches whole blocks and the next block, otherwise only its bytes."""
        self._fetch, self._size, self._at = fetch, size, 0
        self._closed = Event()
        self._pool = ThreadPoolExecutor(1) if ahead else None
        self._blocks: dict[int, Future[bytes]] = {}  # the block in use and the next one

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position of the next read."""
        return self._at

    def seek(self, offset: int, whence: int = 0) -> int:
        """Set the position of the next read."""
        at = offset + (0, self._at, self._size)[whence]
        if at < 0:
            raise ValueError(f"cannot seek before the start of a file: {at}")
        self._at = at
        return at

    def readall(self) -> bytes:
        """Read to the end."""
        return self.read(max(0, self._size - self._at)) or b""

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer` completely, unless the file ends."""
        self._checkClosed()
        view = memoryview(buffer).cast("B")
        wanted = min(len(view), max(0, self._size - self._at))
        done = 0
        while done < wanted:
            piece = self._piece(wanted - done)
            view[done : done + len(piece)] = piece
            done += len(piece)
            self._at += len(piece)
        return done

    def _piece(self, count: int) -> memoryview:
        if self._pool is None:
            return memoryview(self._fetch(self._at, self._at + count, self._closed))
        number, start = divmod(self._at, BLOCK)
        return memoryview(self._block(number, self._pool))[start : start + count]

    def _block(self, number: int, pool: ThreadPoolExecutor) -> bytes:
        """Return a block once it is fetched; if the file is read in order, also request the next block."""
        in_order = number == 0 or not self._blocks.keys().isdisjoint({number - 1, number})
        wanted = (number, number + 1) if in_order else (number,)
        for n in self._blocks.keys() - set(wanted):
            self._blocks.pop(n).cancel()
        for n in wanted:
            if n not in self._blocks and n * BLOCK < self._size:
                end = min((n + 1) * BLOCK, self._size)
                self._blocks[n] = pool.submit(self._fetch, n * BLOCK, end, self._closed)
        return self._blocks[number].result()

    def close(self) -> None:
        """Cancel pending requests and close the file."""
        self._closed.set()
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
        super().close()
