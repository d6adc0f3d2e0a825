"""Patience with networks: what may pass is tried again, and a file comes in blocks."""

import errno
import io
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Event
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
TRIES, FIRST_PAUSE, LONGEST_PAUSE = 8, 0.5, 20.0  # seconds; the pauses double and are drawn at random below that
BLOCK = 8 << 20  # bytes of a request when a file is read from start to end

MISSING = (FileNotFoundError, FileExistsError, NotADirectoryError)
BUGS = (TypeError, AttributeError, LookupError, AssertionError)
FINAL = (*MISSING, *BUGS, NotImplementedError, ValueError, PermissionError)
FULL = {errno.ENOSPC, errno.EDQUOT}  # the temporary folder, as it must be
PASSING = {400, 408, 409, 425, 429}  # what stores also answer when a request was garbled, or too many came
MISCONFIGURED = {  # by name: their libraries are extras
    "DefaultCredentialsError",
    "LocalTokenNotFoundError",
    "NoCredentialsError",
    "ParamValidationError",
    "PartialCredentialsError",
    "ProfileNotFound",
}

Fetch: TypeAlias = Callable[[int, int, Event], bytes]  # bytes from, to; tries no more once the event is set


def patiently(work: Callable[[], T], *, closed: Event | None = None) -> T:
    """Try again, after growing pauses, what may pass; in the end its last error is raised."""
    closed = closed or Event()
    tries = Retrying(
        stop=stop_any(stop_after_attempt(TRIES), stop_when_event_set(closed)),
        wait=wait_random_exponential(FIRST_PAUSE, LONGEST_PAUSE),
        sleep=sleep_using_event(closed),
        retry=retry_if_exception(may_pass),
        reraise=True,
    )
    return tries(work)


def may_pass(error: BaseException) -> bool:
    """Say whether asking again may help."""
    if not isinstance(error, Exception) or isinstance(error, FINAL) or type(error).__name__ in MISCONFIGURED:
        return False
    if getattr(error, "errno", None) in FULL:
        return False
    return isinstance(error, TimeoutError) or not is_refused(error)


def is_refused(error: BaseException) -> bool:
    """Say whether a server has understood and says no."""
    return isinstance(error, PermissionError) or (400 <= (status(error) or 0) < 500 and status(error) not in PASSING)


def status(error: BaseException) -> int | None:
    """Find the HTTP status in an error, wherever its library keeps it."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):  # botocore's
        response = response.get("ResponseMetadata", {})
        found = response.get("HTTPStatusCode")
        return found if isinstance(found, int) else None
    places = ((error, "status"), (error, "code"), (response, "status_code"))
    answers = (getattr(place, name, None) for place, name in places)
    found = next((answer for answer in answers if isinstance(answer, int)), None)
    return status(error.__cause__) if found is None and error.__cause__ else found


class RemoteFile(io.RawIOBase):
    """A remote file, seekable, for one thread at a time."""

    def __init__(self, fetch: Fetch, size: int, *, ahead: bool) -> None:
        """Read whole blocks, and one ahead; or just what is asked for, each time in one request."""
        self._fetch, self._size, self._at = fetch, size, 0
        self._closed = Event()
        self._pool = ThreadPoolExecutor(1) if ahead else None
        self._blocks: dict[int, Future[bytes]] = {}  # the one in use and the next

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """Say where the next read begins."""
        return self._at

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go somewhere; nothing is fetched yet."""
        at = offset + (0, self._at, self._size)[whence]
        if at < 0:
            raise ValueError(f"no place before the start of a file: {at}")
        self._at = at
        return at

    def readall(self) -> bytes:
        """Read to the end, as one piece."""
        return self.read(max(0, self._size - self._at)) or b""

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer`, all of it unless the file ends."""
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
        """Wait for a block; where reading goes on, ask for the one behind it."""
        goes_on = number == 0 or not self._blocks.keys().isdisjoint({number - 1, number})
        wanted = (number, number + 1) if goes_on else (number,)
        for n in self._blocks.keys() - set(wanted):
            self._blocks.pop(n).cancel()
        for n in wanted:
            if n not in self._blocks and n * BLOCK < self._size:
                end = min((n + 1) * BLOCK, self._size)
                self._blocks[n] = pool.submit(self._fetch, n * BLOCK, end, self._closed)
        return self._blocks[number].result()

    def close(self) -> None:
        """Let go of what is being fetched."""
        self._closed.set()
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
        super().close()
