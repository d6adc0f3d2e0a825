"""Folders behind fsspec: anonymous reading, bounded memory, and patience with networks that fail."""

import errno
import fcntl
import io
import os
import socket
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar, cast

import fsspec
from fsspec.core import url_to_fs
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from schemas.errors import UnreachableError, UsageError

T = TypeVar("T")
TRIES, FIRST_PAUSE, LONGEST_PAUSE = 6, 0.5, 20.0  # seconds; the pauses double and are drawn at random below that
PATIENCE = 30  # seconds without a byte before a connection is given up
BLOCK = 8 << 20  # bytes of a request when a file is read from start to end; up to three are held
REQUESTS = 16  # at a time, for small files
CREDENTIALS = {"s3": '{"anon": false}', "gs": '{"token": "google_default"}', "hf": '{"token": true}'}


@dataclass(frozen=True, slots=True)
class RemoteFolder:
    """A folder of an object store or a web server; see `Folder` for what its methods promise."""

    uri: str
    root: str
    fs: Any

    @classmethod
    def at(cls, uri: str, *, anonymous: bool) -> "RemoteFolder":
        """Find the file system of a URI."""
        protocol = uri.partition("://")[0]
        try:
            fs, root = url_to_fs(uri.rstrip("/"), **_options(protocol, anonymous=anonymous))
        except (ImportError, ValueError) as error:
            raise UsageError(f"{uri}: {error}") from error
        return cls(uri.rstrip("/"), root.rstrip("/"), fs)

    @property
    def local(self) -> None:
        """It is elsewhere."""

    def child(self, name: str) -> "RemoteFolder":
        """Go down."""
        return RemoteFolder(f"{self.uri}/{name}", self._path(name), self.fs)

    def place(self, name: str) -> str:
        """Give a file's URI."""
        return f"{self.uri}/{name}" if name else self.uri

    def _path(self, name: str) -> str:
        return f"{self.root}/{name}" if name else self.root

    def size(self, name: str) -> int | None:
        """Ask the store; a server that does not tell is an UnreachableError."""
        try:
            size = self._patiently(name, lambda: self.fs.info(self._path(name))["size"])
        except FileNotFoundError:
            return None
        if size is None:
            raise UnreachableError(f"{self.place(name)}: the server does not tell the size; download the source first")
        return int(size)

    def sizes(self, names: Iterable[str]) -> dict[str, int | None]:
        """Ask for a listing of each folder; a web server, which has none, file by file."""
        wanted = list(names)
        if _is_web(self.fs):
            with ThreadPoolExecutor(REQUESTS) as pool:
                return dict(zip(wanted, pool.map(self.size, wanted), strict=True))
        known: dict[str, int] = {}
        for below in dict.fromkeys(name.rpartition("/")[0] for name in wanted):
            found = self._listed(below)
            known |= {f"{below}/{_leaf(entry)}".lstrip("/"): int(entry["size"] or 0) for entry in found}
        return {name: known.get(name) for name in wanted}

    def _listed(self, below: str) -> list[dict[str, Any]]:
        try:
            found: list[dict[str, Any]] = self._patiently(below, lambda: self.fs.ls(self._path(below), detail=True))
        except (FileNotFoundError, NotADirectoryError):
            return []
        return found

    def names(self, below: str = "") -> tuple[str, ...]:
        """List a folder; of a web server, what its page links to."""
        return tuple(sorted({_leaf(entry) for entry in self._listed(below)} - {""}))

    def open(self, name: str) -> IO[bytes]:
        """Open a file whose next block is fetched while one is used."""
        return cast("IO[bytes]", RemoteFile(self._fetcher(name), self._existing_size(name), ahead=True))

    def open_parts(self, name: str) -> IO[bytes]:
        """Open a file of which each read is one request."""
        return cast("IO[bytes]", RemoteFile(self._fetcher(name), self._existing_size(name), ahead=False))

    def _existing_size(self, name: str) -> int:
        size = self.size(name)
        if size is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self.place(name))
        return size

    def _fetcher(self, name: str) -> Callable[[int, int], bytes]:
        """Give a function that fetches bytes `start` to `end`, whatever it takes."""
        handle: IO[bytes] | None = None

        def once(start: int, end: int) -> bytes:
            nonlocal handle
            if handle is None:
                handle = cast("IO[bytes]", self.fs.open(self._path(name), "rb", cache_type="none", block_size=BLOCK))
            try:
                handle.seek(start)
                data = handle.read(end - start)
            except ValueError:
                if not _is_web(self.fs):
                    raise
                handle = self._downloaded(name)  # the server knows no ranges
                return once(start, end)
            except BaseException:
                handle = None  # its connection may be no good any more
                raise
            if len(data) < end - start:
                raise ConnectionError(f"{len(data)} bytes came instead of {end - start}")
            return data

        return lambda start, end: self._patiently(name, lambda: once(start, end))

    def _downloaded(self, name: str) -> IO[bytes]:
        """Keep a whole file on the disk, where it has no name."""
        file = tempfile.TemporaryFile()  # noqa: SIM115 - closed with its reader
        with self.fs.open(self._path(name), "rb", block_size=0) as stream:
            while block := stream.read(BLOCK):
                file.write(block)
        return cast("IO[bytes]", file)

    def read(self, name: str) -> bytes:
        """Read a file."""
        return bytes(self._patiently(name, lambda: self.fs.cat_file(self._path(name))))

    def read_many(self, names: Iterable[str]) -> dict[str, bytes]:
        """Read files, several at a time."""
        return _each(self.read, names)

    def tails(self, names: Iterable[str], count: int) -> dict[str, bytes]:
        """Read the ends of files, several at a time."""

        def tail(name: str) -> bytes:
            with self.open_parts(name) as file:
                file.seek(max(0, file.seek(0, 2) - count))
                return file.read(count)

        return _each(tail, names)

    def write(self, name: str, content: bytes) -> None:
        """Put an object: stores show it whole or not at all."""
        self._patiently(name, lambda: self.fs.pipe_file(self._path(name), content))

    def staged(self, below: str) -> Path:  # noqa: ARG002 - all wait in one place
        """Name a file in the temporary folder of this machine; its lock says that its process lives."""
        self.sweep(())
        path = Path(tempfile.gettempdir()) / f"{STAGED}{uuid.uuid4().hex}"
        _held[path] = path.open("wb")
        fcntl.flock(_held[path], fcntl.LOCK_EX)
        return path

    def adopt(self, staged: Path, name: str) -> None:
        """Upload a file."""
        self._patiently(name, lambda: self.fs.put_file(str(staged), self._path(name)))
        self.drop(staged)

    def drop(self, staged: Path) -> None:
        """Remove it, and then its lock."""
        staged.unlink(missing_ok=True)
        if staged in _held:
            _held.pop(staged).close()

    def remove(self, name: str) -> None:
        """Remove an object, or all objects below a name."""
        with suppress(FileNotFoundError):
            self._patiently(name, lambda: self.fs.rm(self._path(name), recursive=True))

    def sweep(self, below: Iterable[str]) -> None:  # noqa: ARG002 - in the store nothing is ever half written
        """Remove what killed processes left in the temporary folder."""
        for path in Path(tempfile.gettempdir()).glob(f"{STAGED}{32 * '[0-9a-f]'}"):
            with suppress(OSError), path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()

    @contextmanager
    def exclusive(self, name: str) -> Iterator[None]:
        """Create an object that must not exist; one that a dead process of this machine left is taken over."""
        mine = f"{socket.gethostname()} {os.getpid()}"
        holder = self.read_many([name]).get(name, b"").decode()
        if holder and not _is_gone(holder):
            raise BlockingIOError(errno.EWOULDBLOCK, f"{self.place(name)} is held by {holder}")
        self.remove(name)
        try:
            self._patiently(name, lambda: self.fs.pipe_file(self._path(name), mine.encode(), mode="create"))
        except FileExistsError as error:
            raise BlockingIOError(errno.EWOULDBLOCK, f"{self.place(name)} has just been taken") from error
        try:
            yield
        finally:
            self.remove(name)

    def _patiently(self, name: str, work: Callable[[], T]) -> T:
        """Try again what may pass; what does not is an UnreachableError that says what happened last."""
        tries = Retrying(
            stop=stop_after_attempt(TRIES),
            wait=wait_random_exponential(FIRST_PAUSE, LONGEST_PAUSE),
            retry=retry_if_exception(_may_pass),
            reraise=True,
        )
        try:
            return tries(work)
        except MISSING:
            raise
        except BUGS:
            raise
        except Exception as error:
            hint = self._hint() if _is_refused(error) else ""
            raise UnreachableError(f"{self.place(name)}: cannot be reached: {_said(error)}{hint}") from error

    def _hint(self) -> str:
        protocol = self.uri.partition("://")[0]
        mine = CREDENTIALS.get(protocol)
        return f". Without credentials? FSSPEC_{protocol.upper()}='{mine}' takes yours" if mine else ""


MISSING = (FileNotFoundError, FileExistsError, NotADirectoryError)
BUGS = (TypeError, AttributeError, LookupError, AssertionError)


def _may_pass(error: BaseException) -> bool:
    """Say whether asking again may help."""
    final = (*MISSING, *BUGS, NotImplementedError, ValueError)
    return isinstance(error, Exception) and not isinstance(error, final) and not _is_refused(error)


def _is_refused(error: BaseException) -> bool:
    """Say whether a store has understood and says no."""
    status = getattr(error, "status", None) or getattr(error, "code", None)
    refused = isinstance(status, int) and 400 <= status < 500 and status not in {408, 425, 429}
    return refused or isinstance(error, PermissionError)


def _said(error: Exception) -> str:
    """Give an error's message, which some keep to themselves."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _each(read: Callable[[str], bytes], names: Iterable[str]) -> dict[str, bytes]:
    """Read several files at a time; those that are not there are left out."""

    def one(name: str) -> tuple[str, bytes | None]:
        try:
            return name, read(name)
        except FileNotFoundError:
            return name, None

    with ThreadPoolExecutor(REQUESTS) as pool:
        return {name: data for name, data in pool.map(one, names) if data is not None}


def _is_web(fs: Any) -> bool:
    return "https" in ((fs.protocol,) if isinstance(fs.protocol, str) else fs.protocol)


def _leaf(entry: dict[str, Any]) -> str:
    return str(entry["name"]).rstrip("/").rpartition("/")[2]


def _options(protocol: str, *, anonymous: bool) -> dict[str, Any]:
    """Choose what the user's own configuration of fsspec leaves open."""
    connection = {"connect_timeout": PATIENCE, "read_timeout": PATIENCE, "retries": {"max_attempts": 1}}
    ours: dict[str, Any] = {"use_listings_cache": False}
    if protocol in {"s3", "s3a"}:
        ours |= {"config_kwargs": connection} | ({"anon": True} if anonymous else {})
    elif protocol in {"gs", "gcs"}:
        ours |= {"timeout": PATIENCE} | ({"token": "anon"} if anonymous else {})
    elif protocol == "hf" and anonymous:
        ours |= {"token": False}
    elif protocol in {"http", "https"}:
        import aiohttp  # noqa: PLC0415 - comes with fsspec's http

        ours |= {"client_kwargs": {"timeout": aiohttp.ClientTimeout(sock_connect=PATIENCE, sock_read=PATIENCE)}}
    return {**ours, **fsspec.config.conf.get(protocol, {})}


STAGED = "oxe-tools-"
_held: dict[Path, IO[bytes]] = {}  # the locks of the files that wait to be uploaded


def _is_gone(holder: str) -> bool:
    """Say whether the process that wrote a lock on this machine has ended; of another machine nobody knows."""
    host, _, pid = holder.partition(" ")
    if host != socket.gethostname() or not pid.isdecimal():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


class RemoteFile(io.RawIOBase):
    """A remote file, seekable; each byte is fetched by `fetch(start, end)`."""

    def __init__(self, fetch: Callable[[int, int], bytes], size: int, *, ahead: bool) -> None:
        """Read whole blocks and one ahead, or just what is asked for."""
        self._fetch, self._size, self._at = fetch, size, 0
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
        self._at = offset + (0, self._at, self._size)[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer`, all of it unless the file ends."""
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
            return memoryview(self._fetch(self._at, self._at + count))
        number, start = divmod(self._at, BLOCK)
        block = self._block(number, self._pool)
        return memoryview(block)[start : start + count]

    def _block(self, number: int, pool: ThreadPoolExecutor) -> bytes:
        """Wait for a block, and ask for the one behind it."""
        in_order = number in self._blocks
        self._blocks = {n: block for n, block in self._blocks.items() if n >= number}
        for n in (number, number + 1) if in_order or not number else (number,):
            if n not in self._blocks and n * BLOCK < self._size:
                self._blocks[n] = pool.submit(self._fetch, n * BLOCK, min((n + 1) * BLOCK, self._size))
        return self._blocks[number].result()

    def close(self) -> None:
        """Wait for no block any more."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
        super().close()
