"""`RemoteFolder`: a folder that is accessed with fsspec. Requests are retried, and reads need no credentials.

The memory in use does not depend on the size of the files.
"""

import errno
import os
import socket
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Lock
from typing import IO, Any, TypeVar, cast

import fsspec
from fsspec.core import url_to_fs

from schemas.errors import MissingExtraError, UnreachableError, UsageError
from schemas.files import durable, network
from schemas.files.network import (
    BLOCK,
    BUGS,
    MISSING,
    AnswerError,
    Fetch,
    RemoteFile,
    is_refused,
    is_transient,
    status,
    with_retries,
    within,
)

T = TypeVar("T")
TIMEOUT = 30  # seconds without data after which a connection fails
REQUESTS = 16  # concurrent requests for small files
KINDS = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs", "hf": "hf", "http": "web", "https": "web"}
EXTRAS = {"s3": "s3fs", "gs": "gcsfs"}
ANONYMOUS: dict[str, dict[str, Any]] = {"s3": {"anon": True}, "gs": {"token": "anon"}, "hf": {"token": False}}
CREDENTIALS = {"s3": '{"anon": false}', "gs": '{"token": "google_default"}', "hf": '{"token": true}'}
CREDENTIAL_OPTIONS = {"anon", "key", "username", "profile", "session", "token"}


@dataclass(frozen=True, slots=True)
class RemoteFolder:
    """A folder of an object store or a web server; implements `Folder`."""

    uri: str
    root: str
    fs: Any
    hint: str  # added to the error message when access is refused
    versions: dict[str, Any] = field(
        default_factory=dict, compare=False, repr=False
    )  # what a web server said first about each file

    @classmethod
    def at(cls, uri: str, *, for_writing: bool) -> "RemoteFolder":
        """Open the folder at a URI. Raises UsageError if the URI is invalid, MissingExtraError without its library."""
        protocol, _, rest = uri.partition("://")
        kind = KINDS.get(protocol, protocol)
        if not rest.strip("/"):
            raise UsageError(f"{uri}: has no bucket or host")
        if for_writing and kind == "web":
            raise UsageError(f"{uri}: a web server cannot be written to; use a folder, or a store such as s3://")
        if kind != "web" and not set("*?[").isdisjoint(rest):  # fsspec would use them as patterns
            raise UsageError(f"{uri}: must not contain '*', '?' or '['")
        try:
            options, hint = _options(protocol, kind, for_writing=for_writing)
            if kind == "web":
                from schemas.files.web import WebFiles  # noqa: PLC0415 - installed with fsspec's http

                fs, root = WebFiles(**options), uri.rstrip("/")
            else:
                fs, root = url_to_fs(uri.rstrip("/"), **options)
        except ImportError as error:
            if kind in EXTRAS:
                raise MissingExtraError(EXTRAS[kind], extra=kind) from error
            raise UsageError(f"{uri}: {error}") from error
        except ValueError as error:
            raise UsageError(f"{uri}: {error}") from error
        if kind == "s3":
            fs.retries = 1  # `with_retries` repeats the requests instead
        return cls(uri.rstrip("/"), root.rstrip("/"), fs, hint)

    @property
    def local(self) -> None:
        """None, because the folder is not on this machine."""

    @property
    def options(self) -> Mapping[str, Any]:
        """The options that its file system was created with."""
        options: Mapping[str, Any] = self.fs.storage_options
        return options

    def absolute(self) -> "RemoteFolder":
        """Return itself."""
        return self

    def child(self, name: str) -> "RemoteFolder":
        """Return a folder inside this one."""
        return RemoteFolder(self.place(name), self._path(name), self.fs, self.hint)

    def place(self, name: str) -> str:
        """Return a file's URI."""
        return f"{self.uri}/{name}" if name else self.uri

    def _path(self, name: str) -> str:
        return f"{self.root}/{name}" if name else self.root

    @property
    def _is_web(self) -> bool:
        return KINDS.get(self.uri.partition("://")[0]) == "web"

    def size(self, name: str) -> int | None:
        """Return a file's size in bytes, or None. Raises UnreachableError if the server does not report sizes."""
        info = self._found(name)
        return None if info is None else int(info["size"])

    def _found(self, name: str) -> dict[str, Any] | None:
        """Return what is known about a file, such as its size; None if it does not exist."""
        try:
            info: dict[str, Any] = self._with_retries(name, lambda: self.fs.info(self._path(name)))
        except FileNotFoundError:
            return None
        if self._is_web:
            self.versions.setdefault(name, info["version"])
        if info["size"] is None:
            raise UnreachableError(
                f"{self.place(name)}: the server does not report the file size; download the source first"
            )
        return info

    def sizes(self, names: Iterable[str]) -> dict[str, int | None]:
        """Return the sizes of files: from one listing per folder, or with one request per file from a web server."""
        files = list(names)
        if self._is_web:
            with ThreadPoolExecutor(REQUESTS) as pool:
                return dict(zip(files, pool.map(self.size, files), strict=True))
        known: dict[str, int] = {}
        for below in dict.fromkeys(name.rpartition("/")[0] for name in files):
            known |= {f"{below}/{leaf}".lstrip("/"): int(entry["size"] or 0) for leaf, entry in self._entries(below)}
        return {name: known.get(name) for name in files}

    def check_unchanged(self) -> None:
        """Ask again for each file of a web server whose size was asked for, concurrently."""

        def check(name: str) -> None:
            info = self._found(name)
            if info is not None:
                self._with_retries(name, lambda: self.versions[name].check(info["version"]))

        with ThreadPoolExecutor(REQUESTS) as pool:
            list(pool.map(check, [*self.versions]))

    def names(self, below: str = "") -> tuple[str, ...]:
        """List the names in a folder; on a web server, these are the links on the folder's page."""
        return tuple(sorted({leaf for leaf, _ in self._entries(below)}))

    def _entries(self, below: str) -> list[tuple[str, dict[str, Any]]]:
        """Return the entries of a folder, without the folder itself and without links that have a query."""
        start = self._path(below) + "/"
        try:
            entries = self._with_retries(below, lambda: self.fs.ls(self._path(below), detail=True))
        except (FileNotFoundError, NotADirectoryError):
            return []
        except UnreachableError as error:
            if self._is_web and error.__cause__ and is_refused(error.__cause__):  # many servers do not list files
                return []
            raise
        leaves = [(str(entry["name"]).removeprefix(start).rstrip("/"), entry) for entry in entries]
        return [(leaf, entry) for leaf, entry in leaves if leaf and set("/?#").isdisjoint(leaf)]

    def open(self, name: str) -> IO[bytes]:
        """Open a file to read it in order; the next block is fetched in advance."""
        return self._open(name, ahead=True)

    def open_parts(self, name: str) -> IO[bytes]:
        """Open a file; each read is one request."""
        return self._open(name, ahead=False)

    def _open(self, name: str, *, ahead: bool) -> IO[bytes]:
        info = self._found(name)
        if info is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self.place(name))
        fetch = self._web_fetcher(name, info["version"]) if self._is_web else self._fetcher(name)
        return cast("IO[bytes]", RemoteFile(fetch, int(info["size"]), ahead=ahead))

    def _fetcher(self, name: str) -> Fetch:
        """Return a function that fetches bytes `start` to `end` of an object, with retries."""
        handle: IO[bytes] | None = None

        def once(start: int, end: int) -> bytes:
            nonlocal handle
            if handle is None:
                handle = self.fs.open(self._path(name), "rb", cache_type="none", block_size=BLOCK)
            try:
                handle.seek(start)
                data = handle.read(end - start)
            except BaseException:
                handle = None  # open the file again next time, because the connection may be broken
                raise
            if not data:
                raise ConnectionError(f"expected {end - start} bytes, got none")
            return data

        return self._whole(name, once)

    def _web_fetcher(self, name: str, version: Any) -> Fetch:
        """Return a function that fetches bytes `start` to `end` of a file of a web server, with retries.

        If the server ignores ranges, the whole file is downloaded once.
        """
        from schemas.files.web import RangesIgnoredError  # noqa: PLC0415 - installed with fsspec's http

        whole: IO[bytes] | None = None

        def once(start: int, end: int) -> bytes:
            nonlocal whole
            if whole is None:
                try:
                    data: bytes = self.fs.fetch(self._path(name), start, end, version=version)
                except RangesIgnoredError:
                    file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by its reader
                    try:
                        self.fs.download(self._path(name), file, version=version)
                    except BaseException:
                        file.close()
                        raise
                    whole = cast("IO[bytes]", file)
                else:
                    return data
            whole.seek(start)
            return whole.read(end - start)

        return self._whole(name, once)

    def _whole(self, name: str, once: Callable[[int, int], bytes]) -> Fetch:
        """Return a function that calls `once` with retries until it has all bytes; one thread at a time."""
        lock = Lock()

        def fetch(start: int, end: int, closed: Event) -> bytes:
            data = b""
            with lock:
                while (at := start + len(data)) < end:
                    data += self._with_retries(name, lambda: once(at, end), size=end - at, closed=closed)
            return data

        return fetch

    def read(self, name: str) -> bytes:
        """Read a whole file."""
        with self.open_parts(name) as file:
            return file.read()

    def read_many(self, names: Iterable[str]) -> dict[str, bytes]:
        """Read the files that exist, concurrently."""
        return _read_concurrently(self.read, names)

    def tails(self, names: Iterable[str], count: int) -> dict[str, bytes]:
        """Read the ends of the files that exist, concurrently."""

        def tail(name: str) -> bytes:
            with self.open_parts(name) as file:
                file.seek(max(0, file.seek(0, 2) - count))
                return file.read()

        return _read_concurrently(tail, names)

    def write(self, name: str, content: bytes, *, sync: bool = True) -> None:  # noqa: ARG002 - always durable
        """Write an object; object stores do this atomically."""
        self._with_retries(name, lambda: self.fs.pipe_file(self._path(name), content), size=len(content))

    def staged(self, below: str) -> Path:  # noqa: ARG002 - all staged files are in one folder
        """Return a path in this machine's temporary folder."""
        self.sweep(())
        return durable.staged(Path(tempfile.gettempdir()))

    def adopt(self, staged: Path, name: str, *, sync: bool = True) -> None:  # noqa: ARG002 - always durable
        """Upload a staged file and delete it."""
        size = staged.stat().st_size
        self._with_retries(name, lambda: self.fs.put_file(str(staged), self._path(name)), size=size)
        self.drop(staged)

    def sync(self, below: Iterable[str]) -> None:
        """Do nothing, because a store answers only when an object is durable."""

    def drop(self, staged: Path) -> None:
        """Delete a staged file."""
        durable.drop(staged)

    def remove(self, name: str) -> None:
        """Remove an object, or all objects below a name, if there are any."""
        with suppress(FileNotFoundError):
            self._with_retries(name, lambda: self.fs.rm(self._path(name), recursive=True))

    def sweep(self, below: Iterable[str]) -> None:  # noqa: ARG002 - stores have no incomplete files
        """Remove files from the temporary folder that processes left when they were killed."""
        durable.sweep(Path(tempfile.gettempdir()))

    @contextmanager
    def exclusive(self, name: str) -> Iterator[None]:
        """Lock by creating an object. An object is replaced if it is from a process of this machine that has ended."""
        own = f"{socket.gethostname()} {os.getpid()} {uuid.uuid4().hex}".encode()
        with _one_process_at_a_time():
            owner = self.read_many([name]).get(name)
            if owner is not None and not _has_ended(owner):
                raise BlockingIOError(errno.EWOULDBLOCK, f"{self.place(name)} is locked by {_holder(owner)}")
            if owner is not None:
                self.remove(name)
            try:
                self._with_retries(name, lambda: self._create(name, own))
            except FileExistsError as error:
                owner = self.read_many([name]).get(name, b"")
                if owner != own:  # if equal, an earlier try created it, but its response was lost
                    raise BlockingIOError(
                        errno.EWOULDBLOCK, f"{self.place(name)} has just been locked by {_holder(owner)}"
                    ) from error
            _own_locks.add(own)
        try:
            yield
        except BaseException:
            with suppress(UnreachableError):  # so that an error raised inside the lock is the one reported
                self._release(name, own)
            raise
        else:
            self._release(name, own)
        finally:
            _own_locks.discard(own)

    def _release(self, name: str, own: bytes) -> None:
        if self.read_many([name]).get(name) == own:  # if it differs, another process has replaced the lock
            self.remove(name)

    def _create(self, name: str, content: bytes) -> None:
        try:
            self.fs.pipe_file(self._path(name), content, mode="create")
        except Exception as error:
            if status(error) == 412:  # the answer of all stores if the object exists already
                raise FileExistsError(self.place(name)) from error
            raise

    def _with_retries(self, name: str, work: Callable[[], T], *, size: int = 0, closed: Event | None = None) -> T:
        """Call `work`, which moves `size` bytes, with retries and a deadline for each try.

        Raises UnreachableError with the last error, or if a try takes too long.
        """
        seconds = network.CALL_PATIENCE + size / network.SLOWEST
        try:
            if self._is_web:  # its requests have deadlines
                return with_retries(work, closed=closed)
            return with_retries(lambda: within(seconds, work), closed=closed)
        except (*MISSING, *BUGS):
            raise
        except AnswerError as error:
            raise UnreachableError(f"{self.place(name)}: {error}") from error
        except Exception as error:
            hint = self.hint if is_refused(error) else "; try again later" if is_transient(error) else ""
            raise UnreachableError(f"{self.place(name)}: cannot be reached: {_message(error)}{hint}") from error


def _message(error: Exception) -> str:
    """Return the type of an error and its message, if it has one."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _read_concurrently(read: Callable[[str], bytes], names: Iterable[str]) -> dict[str, bytes]:
    """Read files concurrently; missing ones are left out."""

    def one(name: str) -> tuple[str, bytes | None]:
        try:
            return name, read(name)
        except FileNotFoundError:
            return name, None

    with ThreadPoolExecutor(REQUESTS) as pool:
        return {name: data for name, data in pool.map(one, names) if data is not None}


def _options(protocol: str, kind: str, *, for_writing: bool) -> tuple[dict[str, Any], str]:
    """Return the file system's options and a hint on how to use credentials; the user's fsspec configuration wins."""
    known = fsspec.get_filesystem_class(protocol).protocol
    configured: dict[str, Any] = {}
    for name in (known,) if isinstance(known, str) else known:
        configured |= fsspec.config.conf.get(name, {})
    defaults: dict[str, Any] = {"use_listings_cache": False}
    if kind == "s3":
        patience = {"connect_timeout": TIMEOUT, "read_timeout": TIMEOUT, "retries": {"total_max_attempts": 1}}
        defaults |= {"config_kwargs": patience, "max_concurrency": 2}  # an upload keeps two parts of 50 MB in memory
    elif kind in {"gs", "web"}:
        import aiohttp  # noqa: PLC0415 - installed with fsspec's http

        timeout = aiohttp.ClientTimeout(sock_connect=TIMEOUT, sock_read=TIMEOUT)
        plain = {"Accept-Encoding": "identity"}  # a compressed response differs in size from what the server reports
        defaults |= (
            {"requests_timeout": timeout} if kind == "gs" else {"client_kwargs": {"timeout": timeout, "headers": plain}}
        )
    hint = ""
    if kind in ANONYMOUS and not for_writing and CREDENTIAL_OPTIONS.isdisjoint(configured):
        defaults |= ANONYMOUS[kind]
        hint = f"; to use your credentials, set the environment variable FSSPEC_{kind.upper()}='{CREDENTIALS[kind]}'"
    return {**defaults, **configured}, hint


_own_locks: set[bytes] = set()  # contents of the locks that this process owns


def _one_process_at_a_time() -> AbstractContextManager[None]:
    """Let only one process of this user check locks at a time, so that no two processes replace the same lock."""
    return durable.locked(Path(tempfile.gettempdir()) / f"oxe-tools-{os.getuid()}.lock", wait=True)


def _holder(lock: bytes) -> str:
    """Describe the process that wrote a lock."""
    host, _, rest = lock.decode(errors="replace").partition(" ")
    return f"process {rest.partition(' ')[0]} of {host}"


def _has_ended(lock: bytes) -> bool:
    """Whether the process that wrote a lock has ended; False if it ran on another machine."""
    host, pid, *_ = [*lock.decode(errors="replace").split(" "), "", ""]
    if host != socket.gethostname() or not pid.isdecimal():
        return False
    if int(pid) == os.getpid():  # a restarted container may reuse the host name and the process number
        return lock not in _own_locks
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False
