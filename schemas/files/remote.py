"""Folders behind fsspec: anonymous reading, bounded memory, and patience with networks that fail."""

import errno
import fcntl
import os
import socket
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Lock
from typing import IO, Any, TypeVar, cast

import fsspec
from fsspec.core import url_to_fs

from schemas.errors import MissingExtraError, UnreachableError, UsageError
from schemas.files.network import BLOCK, BUGS, MISSING, Fetch, RemoteFile, is_refused, may_pass, patiently, status

T = TypeVar("T")
PATIENCE = 30  # seconds without a byte before a connection is given up
REQUESTS = 16  # at a time, for small files
KINDS = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs", "hf": "hf", "http": "web", "https": "web"}
EXTRAS = {"s3": "s3fs", "gs": "gcsfs"}
ANONYMOUS: dict[str, dict[str, Any]] = {"s3": {"anon": True}, "gs": {"token": "anon"}, "hf": {"token": False}}
CREDENTIALS = {"s3": '{"anon": false}', "gs": '{"token": "google_default"}', "hf": '{"token": true}'}
CREDENTIAL_OPTIONS = {"anon", "key", "username", "profile", "session", "token"}
STAGED = "oxe-tools-"


@dataclass(frozen=True, slots=True)
class RemoteFolder:
    """A folder of an object store or a web server; see `Folder` for what its methods promise."""

    uri: str
    root: str
    fs: Any
    hint: str  # for when access is refused

    @classmethod
    def at(cls, uri: str, *, for_writing: bool) -> "RemoteFolder":
        """Find the file system of a URI."""
        protocol, _, rest = uri.partition("://")
        kind = KINDS.get(protocol, protocol)
        if not rest.strip("/"):
            raise UsageError(f"{uri}: names no bucket and no host")
        if for_writing and kind == "web":
            raise UsageError(f"{uri}: a web server can only be read; name a folder, or a store such as s3://")
        if kind != "web" and not set("*?[").isdisjoint(rest):  # fsspec would take it for a pattern, to remove by, too
            raise UsageError(f"{uri}: a name with '*', '?' or '[' is not possible here")
        try:
            options, hint = _options(protocol, kind, for_writing=for_writing)
            fs, root = url_to_fs(uri.rstrip("/"), **options)
        except ImportError as error:
            if kind in EXTRAS:
                raise MissingExtraError(EXTRAS[kind], extra=kind) from error
            raise UsageError(f"{uri}: {error}") from error
        except ValueError as error:
            raise UsageError(f"{uri}: {error}") from error
        if kind == "s3":
            fs.retries = 1  # we try again ourselves
        return cls(uri.rstrip("/"), root.rstrip("/"), fs, hint)

    @property
    def local(self) -> None:
        """It is elsewhere."""

    @property
    def options(self) -> Mapping[str, Any]:
        """What its file system was made with."""
        options: Mapping[str, Any] = self.fs.storage_options
        return options

    def absolute(self) -> "RemoteFolder":
        """It is found from anywhere."""
        return self

    def child(self, name: str) -> "RemoteFolder":
        """Go down."""
        return RemoteFolder(self.place(name), self._path(name), self.fs, self.hint)

    def place(self, name: str) -> str:
        """Give a file's URI."""
        return f"{self.uri}/{name}" if name else self.uri

    def _path(self, name: str) -> str:
        return f"{self.root}/{name}" if name else self.root

    @property
    def _is_web(self) -> bool:
        return KINDS.get(self.uri.partition("://")[0]) == "web"

    def size(self, name: str) -> int | None:
        """Ask the store; a server that does not tell is an UnreachableError."""
        try:
            size = self._patiently(name, lambda: self._info(name)["size"])
        except FileNotFoundError:
            return None
        if size is None:
            raise UnreachableError(f"{self.place(name)}: the server does not tell the size; download the source first")
        return int(size)

    def _info(self, name: str) -> dict[str, Any]:
        try:
            info: dict[str, Any] = self.fs.info(self._path(name))
        except FileNotFoundError as error:  # so fsspec calls whatever a web server does wrong
            if self._is_web and error.__cause__ and status(error.__cause__) not in {404, 410}:
                raise error.__cause__ from None
            raise
        return info

    def sizes(self, names: Iterable[str]) -> dict[str, int | None]:
        """Ask for a listing of each folder; a web server, which has none, file by file."""
        wanted = list(names)
        if self._is_web:
            with ThreadPoolExecutor(REQUESTS) as pool:
                return dict(zip(wanted, pool.map(self.size, wanted), strict=True))
        known: dict[str, int] = {}
        for below in dict.fromkeys(name.rpartition("/")[0] for name in wanted):
            known |= {f"{below}/{leaf}".lstrip("/"): int(entry["size"] or 0) for leaf, entry in self._listed(below)}
        return {name: known.get(name) for name in wanted}

    def names(self, below: str = "") -> tuple[str, ...]:
        """List a folder; of a web server, what its page links to."""
        return tuple(sorted({leaf for leaf, _ in self._listed(below)}))

    def _listed(self, below: str) -> list[tuple[str, dict[str, Any]]]:
        """Give what lies directly in a folder; not the folder itself, and no links with a query."""
        start = self._path(below) + "/"
        try:
            found = self._patiently(below, lambda: self.fs.ls(self._path(below), detail=True))
        except (FileNotFoundError, NotADirectoryError):
            return []
        except UnreachableError as error:
            if self._is_web and error.__cause__ and is_refused(error.__cause__):  # many servers list nothing
                return []
            raise
        leaves = [(str(entry["name"]).removeprefix(start).rstrip("/"), entry) for entry in found]
        return [(leaf, entry) for leaf, entry in leaves if leaf and set("/?#").isdisjoint(leaf)]

    def open(self, name: str) -> IO[bytes]:
        """Open a file whose next block is fetched while one is used."""
        return self._open(name, ahead=True)

    def open_parts(self, name: str) -> IO[bytes]:
        """Open a file of which each read is one request."""
        return self._open(name, ahead=False)

    def _open(self, name: str, *, ahead: bool) -> IO[bytes]:
        size = self.size(name)
        if size is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self.place(name))
        return cast("IO[bytes]", RemoteFile(self._fetcher(name, size), size, ahead=ahead))

    def _fetcher(self, name: str, size: int) -> Fetch:
        """Give a function that fetches bytes `start` to `end`, whatever it takes."""
        handle: IO[bytes] | None = None
        one_at_a_time = Lock()
        known = {"size": size} if self._is_web else {}  # a store is asked again: its answer has the version to read

        def once(start: int, end: int) -> bytes:
            nonlocal handle
            if handle is None:
                handle = self.fs.open(self._path(name), "rb", cache_type="none", block_size=BLOCK, **known)
            try:
                handle.seek(start)
                data = handle.read(end - start)
            except ValueError:
                if not self._is_web:
                    raise
                handle = self._downloaded(name, size)  # the server knows no ranges
                return once(start, end)
            except BaseException:
                handle = None  # its connection may be no good any more
                raise
            if not data:
                raise ConnectionError(f"nothing came instead of {end - start} bytes")
            return data

        def fetch(start: int, end: int, closed: Event) -> bytes:
            data = b""
            with one_at_a_time:
                while (at := start + len(data)) < end:
                    data += self._patiently(name, lambda: once(at, end), closed=closed)
            return data

        return fetch

    def _downloaded(self, name: str, size: int) -> IO[bytes]:
        """Keep a whole file on the disk, where it has no name."""
        file = tempfile.TemporaryFile()  # noqa: SIM115 - closed with its reader
        with self.fs.open(self._path(name), "rb", block_size=0, size=size) as stream:
            while block := stream.read(BLOCK):
                file.write(block)
        if file.tell() != size:
            raise ConnectionError(f"{file.tell()} bytes came instead of {size}")
        return cast("IO[bytes]", file)

    def read(self, name: str) -> bytes:
        """Read a file."""
        with self.open_parts(name) as file:
            return file.read()

    def read_many(self, names: Iterable[str]) -> dict[str, bytes]:
        """Read files, several at a time."""
        return _each(self.read, names)

    def tails(self, names: Iterable[str], count: int) -> dict[str, bytes]:
        """Read the ends of files, several at a time."""

        def tail(name: str) -> bytes:
            with self.open_parts(name) as file:
                file.seek(max(0, file.seek(0, 2) - count))
                return file.read()

        return _each(tail, names)

    def write(self, name: str, content: bytes) -> None:
        """Put an object: stores show it whole or not at all."""
        self._patiently(name, lambda: self.fs.pipe_file(self._path(name), content))

    def staged(self, below: str) -> Path:  # noqa: ARG002 - all wait in one place
        """Name a file in the temporary folder of this machine; its lock says that its process lives."""
        self.sweep(())
        path = Path(tempfile.gettempdir()) / f"{STAGED}{uuid.uuid4().hex}"
        new = path.with_suffix(".new")  # `sweep` must not see it before it is locked
        _held[path] = new.open("wb")
        fcntl.flock(_held[path], fcntl.LOCK_EX)
        return new.rename(path)

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
        mine = f"{socket.gethostname()} {os.getpid()} {uuid.uuid4().hex}".encode()
        with _alone_on_this_machine():
            held = self.read_many([name]).get(name)
            if held is not None and not _is_gone(held):
                raise BlockingIOError(errno.EWOULDBLOCK, f"{self.place(name)} is held by {_holder(held)}")
            if held is not None:
                self.remove(name)
            try:
                self._patiently(name, lambda: self._create(name, mine))
            except FileExistsError as error:
                held = self.read_many([name]).get(name, b"")
                if held != mine:  # the answer to our first try may have got lost
                    raise BlockingIOError(
                        errno.EWOULDBLOCK, f"{self.place(name)} has just been taken by {_holder(held)}"
                    ) from error
            _mine.add(mine)
        try:
            yield
        except BaseException:
            with suppress(UnreachableError):  # what went wrong first is worth telling
                self._release(name, mine)
            raise
        else:
            self._release(name, mine)
        finally:
            _mine.discard(mine)

    def _release(self, name: str, mine: bytes) -> None:
        if self.read_many([name]).get(name) == mine:  # or somebody was told that this process is no more
            self.remove(name)

    def _create(self, name: str, content: bytes) -> None:
        try:
            self.fs.pipe_file(self._path(name), content, mode="create")
        except Exception as error:
            if status(error) == 412:  # the one sign that all stores give
                raise FileExistsError(self.place(name)) from error
            raise

    def _patiently(self, name: str, work: Callable[[], T], *, closed: Event | None = None) -> T:
        """Try again what may pass; what does not is an UnreachableError that says what happened last."""
        try:
            return patiently(work, closed=closed)
        except (*MISSING, *BUGS):
            raise
        except Exception as error:
            hint = self.hint if is_refused(error) else "; try again later" if may_pass(error) else ""
            raise UnreachableError(f"{self.place(name)}: cannot be reached: {_said(error)}{hint}") from error


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


def _options(protocol: str, kind: str, *, for_writing: bool) -> tuple[dict[str, Any], str]:
    """Choose what the user's own configuration of fsspec leaves open; say how to give credentials, if none are used."""
    known = fsspec.get_filesystem_class(protocol).protocol
    theirs: dict[str, Any] = {}
    for name in (known,) if isinstance(known, str) else known:
        theirs |= fsspec.config.conf.get(name, {})
    ours: dict[str, Any] = {"use_listings_cache": False}
    if kind == "s3":
        patience = {"connect_timeout": PATIENCE, "read_timeout": PATIENCE, "retries": {"total_max_attempts": 1}}
        ours |= {"config_kwargs": patience, "max_concurrency": 2}  # pieces of 50 MB that an upload holds
    elif kind in {"gs", "web"}:
        import aiohttp  # noqa: PLC0415 - comes with fsspec's http

        timeout = aiohttp.ClientTimeout(sock_connect=PATIENCE, sock_read=PATIENCE)
        plain = {"Accept-Encoding": "identity"}  # or the sizes that the server tells are not those that come
        ours |= (
            {"requests_timeout": timeout} if kind == "gs" else {"client_kwargs": {"timeout": timeout, "headers": plain}}
        )
    hint = ""
    if kind in ANONYMOUS and not for_writing and CREDENTIAL_OPTIONS.isdisjoint(theirs):
        ours |= ANONYMOUS[kind]
        hint = f"; asked without credentials: FSSPEC_{kind.upper()}='{CREDENTIALS[kind]}' in the environment uses yours"
    return {**ours, **theirs}, hint


_held: dict[Path, IO[bytes]] = {}  # the locks of the files that wait to be uploaded
_mine: set[bytes] = set()  # the locks that this process holds


@contextmanager
def _alone_on_this_machine() -> Iterator[None]:
    """Let one process of this user after the other look at locks: two must not take over the same one."""
    with (Path(tempfile.gettempdir()) / f"{STAGED}{os.getuid()}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _holder(lock: bytes) -> str:
    """Say who wrote a lock."""
    host, _, rest = lock.decode(errors="replace").partition(" ")
    return f"process {rest.partition(' ')[0]} of {host}"


def _is_gone(lock: bytes) -> bool:
    """Say whether the process that wrote a lock on this machine has ended; of another machine nobody knows."""
    host, pid, *_ = [*lock.decode(errors="replace").split(" "), "", ""]
    if host != socket.gethostname() or not pid.isdecimal():
        return False
    if int(pid) == os.getpid():  # a container that starts again has the same name and number
        return lock not in _mine
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False
