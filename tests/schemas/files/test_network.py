"""A remote file reads like a local one, with few requests; only transient errors are retried."""

import errno
import io
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.files import network
from schemas.files.network import RemoteFile, is_transient, status, with_retries
from tests.waiting import PATIENCE, wait_until


class Store:
    """Bytes to fetch, with a record of the requests."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.asked: list[tuple[int, int]] = []

    def __call__(self, start: int, end: int, _: Event) -> bytes:
        self.asked.append((start, end))
        return self.data[start:end]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "BLOCK", 8)
    monkeypatch.setattr(network, "FIRST_PAUSE", 0.001)


# --- a file ---

seeks = st.tuples(st.just("seek"), st.integers(0, 120), st.just(0))
from_here = st.tuples(st.just("seek"), st.integers(0, 40), st.just(1))
from_the_end = st.tuples(st.just("seek"), st.integers(-20, 20), st.just(2))
reads = st.tuples(st.just("read"), st.integers(-1, 40), st.none())
fills = st.tuples(st.just("readinto"), st.integers(0, 40), st.none())


@given(st.binary(min_size=20, max_size=100), st.lists(seeks | from_here | from_the_end | reads | fills))
def test_any_seeks_and_reads_give_what_a_file_in_memory_gives(
    data: bytes, steps: list[tuple[str, int, int | None]]
) -> None:
    def run(file: Any) -> list[Any]:
        found: list[Any] = []
        for what, number, whence in steps:
            if what == "readinto":
                buffer = bytearray(number)
                found.append((file.readinto(buffer), bytes(buffer)))
            else:
                found.append(getattr(file, what)(*([number] if whence is None else [number, whence])))
            found.append(file.tell())
        return found

    for ahead in (False, True):
        with RemoteFile(Store(data), len(data), ahead=ahead) as file:
            assert run(file) == run(io.BytesIO(data))


@given(st.binary(max_size=100), st.lists(st.integers(1, 30), min_size=1))
def test_from_start_to_end_each_byte_is_fetched_once(data: bytes, sizes: list[int]) -> None:
    store = Store(data)
    with RemoteFile(store, len(data), ahead=True) as file:
        found = b"".join(file.read(sizes[i % len(sizes)]) for i in range(len(data) + 1))
    assert found == data
    assert store.asked == [(start, min(start + 8, len(data))) for start in range(0, len(data), 8)]


@given(st.lists(st.integers(0, 99)))
def test_no_more_than_two_blocks_are_held_wherever_one_goes(places: list[int]) -> None:
    store = Store(bytes(100))
    with RemoteFile(store, 100, ahead=True) as file:
        for place in places:
            file.seek(place)
            file.read(1)
            assert len(file._blocks) <= 2
    assert len(store.asked) <= 2 * len(places)


def test_far_jumps_fetch_no_block_ahead() -> None:
    store = Store(bytes(100))
    with RemoteFile(store, 100, ahead=True) as file:
        for place in (90, 50, 20):
            file.seek(place)
            file.read(1)
    assert store.asked == [(88, 96), (48, 56), (16, 24)]


def test_a_file_for_parts_fetches_just_what_is_asked_for() -> None:
    store = Store(bytes(range(100)))
    with RemoteFile(store, 100, ahead=False) as file:
        file.seek(30)
        assert file.read(20) == bytes(range(30, 50))
        assert file.read() == bytes(range(50, 100))
        assert file.read(5) == b""
    assert store.asked == [(30, 50), (50, 100)]


def test_there_is_no_place_before_the_start() -> None:
    with RemoteFile(Store(b"abc"), 3, ahead=False) as file, pytest.raises(ValueError, match="before the start"):
        file.seek(-1)


def test_a_closed_file_does_not_read() -> None:
    for ahead in (False, True):
        file = RemoteFile(Store(b"abc"), 3, ahead=ahead)
        file.close()
        with pytest.raises(ValueError, match="closed"):
            file.read(1)


def test_closing_ends_the_thread_that_fetches_and_its_tries() -> None:
    began, tries = Event(), []

    def fetch(start: int, end: int, closed: Event) -> bytes:
        def fail() -> bytes:
            tries.append(start)
            began.set()
            raise ConnectionError

        return bytes(8) if start == 0 else with_retries(fail, closed=closed)

    before = threading.active_count()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(network, "FIRST_PAUSE", 1000)
        patch.setattr(network, "LONGEST_PAUSE", 1000)
        file = RemoteFile(fetch, 24, ahead=True)
        file.read(1)
        assert began.wait(PATIENCE)
        file.close()
        wait_until(lambda: threading.active_count() <= before)
    assert len(tries) <= 2


def test_an_error_of_a_block_reaches_the_one_who_reads_it() -> None:
    def fetch(start: int, end: int, closed: Event) -> bytes:
        if start:
            raise ConnectionError("cut")
        return bytes(8)

    with RemoteFile(fetch, 16, ahead=True) as file:
        assert file.read(8) == bytes(8)
        with pytest.raises(ConnectionError, match="cut"):
            file.read(1)


def test_files_of_several_threads_do_not_disturb_one_another() -> None:
    data = bytes(range(256)) * 20

    def read(_: int) -> bytes:
        with RemoteFile(Store(data), len(data), ahead=True) as file:
            return b"".join(iter(lambda: file.read(7), b""))

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(read, range(40))) == {data}


# --- retries ---


class Answer(Exception):  # noqa: N818 - stands for an exception of a store's library
    def __init__(self, status: int) -> None:
        self.status = status


class ClientError(Exception):
    """Stores its status like botocore's error."""

    def __init__(self, code: int) -> None:
        self.response = {"ResponseMetadata": {"HTTPStatusCode": code}}


class NoCredentialsError(Exception):
    """Has the name of botocore's error."""


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    "error",
    [
        ConnectionResetError(),
        TimeoutError(),
        OSError("anything"),
        Answer(500),
        Answer(503),
        Answer(429),
        ClientError(503),
        caused(OSError("slow down"), ClientError(503)),
        caused(TimeoutError("of the request"), ClientError(400)),
    ],
)
def test_what_may_pass_is_tried_again(error: Exception) -> None:
    tries = []

    def work() -> str:
        tries.append(1)
        if len(tries) < 4:
            raise error
        return "done"

    assert with_retries(work) == "done"
    assert len(tries) == 4


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(),
        PermissionError(),
        Answer(403),
        Answer(401),
        caused(OSError("no"), ClientError(405)),
        NoCredentialsError(),
        OSError(errno.ENOSPC, "the temporary folder"),
        KeyError(),
        ValueError(),
        KeyboardInterrupt(),
    ],
)
def test_what_will_not_pass_is_raised_at_once(error: BaseException) -> None:
    tries = []

    def work() -> None:
        tries.append(1)
        raise error

    with pytest.raises(type(error)):
        with_retries(work)
    assert len(tries) == 1


def test_in_the_end_the_last_error_is_raised() -> None:
    tries = iter(range(100))

    def work() -> None:
        raise ConnectionError(f"try {next(tries)}")

    with pytest.raises(ConnectionError, match=f"try {network.TRIES - 1}"):
        with_retries(work)


def test_the_pauses_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []

    class Clock(Event):
        def wait(self, timeout: float | None = None) -> bool:
            pauses.append(timeout or 0)
            return False

    def fail() -> None:
        raise ConnectionError

    monkeypatch.setattr(network, "FIRST_PAUSE", 1)
    random.seed(0)
    with pytest.raises(ConnectionError):
        with_retries(fail, closed=Clock())
    assert len(pauses) == network.TRIES - 1
    assert all(0 <= pause <= min(2**i, network.LONGEST_PAUSE) for i, pause in enumerate(pauses))
    assert max(pauses) > 2


def test_the_status_is_found_wherever_a_library_keeps_it() -> None:
    assert status(Answer(418)) == 418
    assert status(ClientError(503)) == 503
    assert status(caused(OSError(), ClientError(403))) == 403
    assert status(OSError()) is None
    assert not is_transient(caused(OSError(), Answer(404)))
