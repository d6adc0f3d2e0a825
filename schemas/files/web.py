"""`WebFiles`: the files of a web server; its answers are compared with what was asked.

A server may redirect to another host, which then gets no credentials. It may not lead from https to http, or from the
internet into the network of this machine.
"""

import asyncio
import ipaddress
import logging
import re
import socket
import weakref
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import IO, Any, TypeAlias
from urllib.parse import urljoin

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from fsspec.asyn import sync
from fsspec.implementations.http import HTTPFileSystem
from yarl import URL

from schemas.files import network
from schemas.files.network import AnswerError, too_slow

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
USUAL_PAGE, MAX_PAGE = 2 << 20, 32 << 20  # bytes of a page that lists files
MAX_DOWNLOAD = 16 << 30  # bytes of a file that is downloaded whole because the server ignores ranges
MAX_REDIRECTS = 10
REDIRECTS = {301, 302, 303, 307, 308}
IDENTITY = {"Accept-Encoding": "identity"}  # a compressed answer differs in size from what the server reports
AS_SENT = {"allow_redirects": False, "auto_decompress": False}  # options of a request whose answer is checked here
CONNECTION = {"ssl", "proxy", "proxy_auth", "proxy_headers"}  # options that hold no credentials for the host
LINK = re.compile(r"""<a\s[^>]*?href\s*=\s*["']?([^"'\s>]+)""", re.IGNORECASE)
RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
PAGES = {"text/html", "application/xhtml+xml"}
PAGE_NAMES = (".html", ".htm", ".xhtml", ".xml", ".svg")
PAGE = re.compile(rb"(\xef\xbb\xbf)?\s*<(!doctype\s+html|html)[\s>]", re.IGNORECASE)
NAT64 = ipaddress.ip_network("64:ff9b::/96")


class RangesIgnoredError(Exception):
    """The server answers a request for a part of a file with the whole file."""


@dataclass(frozen=True, slots=True)
class FileVersion:
    """What a server says about a file, which must stay the same while the file is read."""

    size: int
    etag: str | None = None
    modified: str | None = None

    @classmethod
    def of(cls, size: int, headers: Mapping[str, str]) -> "FileVersion":
        """Return what the headers of an answer say."""
        etag = headers.get("ETag")
        return cls(size, etag and etag.removeprefix("W/"), headers.get("Last-Modified"))

    def check(self, later: "FileVersion") -> None:
        """Raise AnswerError if a later answer is about another version of the file."""
        values = {"size": (self.size, later.size), "ETag": (self.etag, later.etag)}
        if None in values["ETag"]:
            values["time"] = (self.modified, later.modified)
        for what, (before, now) in values.items():
            if before is not None and now is not None and before != now:
                raise AnswerError(f"it changed while it was read: its {what} was {before}, now it is {now}")


class WebFiles(HTTPFileSystem):  # type: ignore[misc] # fsspec has no types
    """A file system of fsspec that reads and lists files, and checks every answer.

    Its errors are FileNotFoundError, AnswerError, and those of aiohttp.
    """

    def __init__(self, **options: Any) -> None:
        """Accept the options of `HTTPFileSystem`."""
        super().__init__(**options)
        self._others: dict[bool, aiohttp.ClientSession] = {}  # without credentials, by: public addresses only
        self._public: set[str] = set()  # hosts that had a public address when they were connected to
        if "connector" not in self.client_kwargs and "get_client" not in options:
            self.get_client = self._client

    async def _client(self, *, public_only: bool = False, **options: Any) -> aiohttp.ClientSession:
        """Open a session that looks up hosts with `Resolver`."""
        uses_proxy = bool(self.client_kwargs.get("trust_env"))  # then the proxy looks up the hosts
        resolver = None if uses_proxy else Resolver(self._public, public_only=public_only)
        return aiohttp.ClientSession(connector=aiohttp.TCPConnector(resolver=resolver), **options)

    async def _info(self, url: str, **_: Any) -> dict[str, Any]:
        """Ask for the version of a file; the size is None if the server does not say it."""
        version = await self._version(url, "HEAD")
        if version is None or not version.size:  # some servers do not answer HEAD, or say that every file is empty
            version = await self._version(url, "GET")
        return {"name": url, "type": "file", "size": version and version.size, "version": version}

    async def _version(self, url: str, method: str) -> FileVersion | None:
        async with self._asked(method, url) as answer:
            if method == "HEAD" and answer.status != 200:
                return None
            try:
                _check(answer, url)
            except AnswerError:
                if method == "GET":
                    raise
                return None
            length = answer.headers.get("Content-Length", "")
            is_number = length.isascii() and length.isdecimal()
            return FileVersion.of(int(length), answer.headers) if is_number else None

    async def _ls_real(self, url: str, detail: bool = True, **_: Any) -> list[Any]:  # noqa: FBT001, FBT002 - fsspec's
        """List the links of a page to what is below it."""
        async with self._asked("GET", url, size=USUAL_PAGE) as answer:
            _check_status(answer, url)
            kind = answer.headers.get("Content-Type", "text/html").partition(";")[0]
            page = (await _body(answer, MAX_PAGE, is_limit=True)).decode(errors="ignore") if kind in PAGES else ""
        base = URL(f"{url.rstrip('/')}/", encoded=True)
        links = {urljoin(str(base), link) for link in LINK.findall(page)}
        below = sorted(link for link in links if link.startswith(str(base)) and link != str(base))
        return [{"name": link, "size": None, "type": "file"} for link in below] if detail else below

    def fetch(self, url: str, start: int, end: int, *, version: FileVersion) -> bytes:
        """Fetch bytes `start` to `end`, or the first part of them.

        Raises RangesIgnoredError if the server sends the whole file, AnswerError if its answer does not fit the
        request, and ConnectionError if the answer is incomplete.
        """
        data: bytes = sync(self.loop, self._fetch, url, (start, end), version)
        return data

    async def _fetch(self, url: str, part: tuple[int, int], version: FileVersion) -> bytes:
        start, end = part
        async with self._asked("GET", url, size=end - start, part=f"bytes={start}-{end - 1}") as answer:
            if answer.status == 416:
                raise AnswerError(f"it changed while it was read: it is smaller than {version.size} bytes now")
            _check(answer, url)
            if answer.status == 206:
                count = _range(answer, start, end=end, version=version)
            else:
                version.check(FileVersion.of(_length(answer, version.size), answer.headers))
                if (start, end) != (0, version.size):
                    raise RangesIgnoredError
                count = version.size
            data = await _body(answer, count)
        _check_content(data, url, is_start=start == 0, is_end=start + len(data) == version.size)
        return data

    def download(self, url: str, file: IO[bytes], *, version: FileVersion) -> None:
        """Download a whole file, in order; the errors are those of `fetch`."""
        if version.size > MAX_DOWNLOAD:
            limit = f"{MAX_DOWNLOAD >> 30} GiB"
            raise AnswerError(f"the server ignores ranges, and the file is larger than {limit}; download it first")
        sync(self.loop, self._download, url, file, version)

    async def _download(self, url: str, file: IO[bytes], version: FileVersion) -> None:
        async with self._asked("GET", url, size=version.size) as answer:
            _check(answer, url)
            version.check(FileVersion.of(_length(answer, version.size), answer.headers))
            count = 0
            async for block in answer.content.iter_chunked(1 << 20):
                if not count:
                    _check_content(block, url, is_start=True, is_end=False)
                count += len(block)
                if count > version.size:
                    raise AnswerError(f"it is longer than the {version.size} bytes that the server said")
                file.write(block)
        if count != version.size:
            raise ConnectionError(f"expected {version.size} bytes, got {count}")

    @asynccontextmanager
    async def _asked(
        self, method: str, url: str, *, size: int = 0, part: str | None = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Yield the answer to a request for `size` bytes, which must arrive within a time that depends on `size`."""
        loop = asyncio.get_running_loop()
        seconds = network.PATIENCE + size / network.SLOWEST
        end = loop.time() + seconds
        try:
            answer = await self._follow(method, self.encode_url(url), end=end, part=part)
            try:
                yield answer
            finally:
                answer.release()
        except TimeoutError as error:
            if loop.time() < end:  # a pause without data; another try may succeed
                raise
            raise too_slow(seconds) from error

    async def _follow(self, method: str, url: URL, *, end: float, part: str | None) -> aiohttp.ClientResponse:
        """Send a request, and again where the server redirects it."""
        first, options, is_public = url, dict(self.kwargs), False
        session = own = await self.set_session()
        ranges = {} if part is None else {"Range": part}
        for _ in range(MAX_REDIRECTS + 1):
            options |= {"headers": {**options.get("headers", {}), **ranges}, "timeout": self._timeout(end), **AS_SENT}
            answer: aiohttp.ClientResponse = await session.request(method, url, **options)
            if answer.status not in REDIRECTS or "Location" not in answer.headers:
                return answer
            answer.release()
            target = _target(url, answer.headers["Location"])
            is_public = is_public or _is_public(url, self._public)
            if is_public and _is_address(target) and not _is_public(target, self._public):
                raise _private_error(target.host)
            if session is not own or not _is_same(url, target):
                _note(first, target)
                session = await self._other(public_only=is_public)
                options = {key: value for key, value in options.items() if key in CONNECTION}
            url = target.with_user(url.user).with_password(url.password) if session is own else target
        raise AnswerError(f"it is redirected more than {MAX_REDIRECTS} times")

    def _timeout(self, end: float) -> aiohttp.ClientTimeout:
        pauses = self.client_kwargs.get("timeout") or aiohttp.ClientTimeout()
        seconds = max(0.001, end - asyncio.get_running_loop().time())
        return aiohttp.ClientTimeout(seconds, sock_connect=pauses.sock_connect, sock_read=pauses.sock_read)

    async def _other(self, *, public_only: bool) -> aiohttp.ClientSession:
        """Return a session without credentials; with `public_only`, it connects to public addresses only."""
        if public_only not in self._others:
            session = self._others[public_only] = await self._client(
                public_only=public_only,
                cookie_jar=aiohttp.DummyCookieJar(),
                headers=IDENTITY,
                trust_env=bool(self.client_kwargs.get("trust_env")),
            )
            weakref.finalize(self, self.close_session, self.loop, session)
        return self._others[public_only]


def _target(url: URL, location: str) -> URL:
    """Return where an answer redirects to, without credentials; raise AnswerError for a place that is refused."""
    try:
        target = url.join(URL(location, encoded=True))
        if target.scheme not in {"http", "https"} or not target.host:
            raise ValueError
        target = target.with_user(None).with_fragment(None)
    except ValueError as error:
        raise AnswerError(f"it is redirected to '{location[:80]}', which is not an address of a web server") from error
    if url.scheme == "https" and target.scheme == "http":
        raise AnswerError(f"it is redirected from https to http, to {target.host}: refused")
    return target


def _private_error(host: str | None) -> AnswerError:
    return AnswerError(f"it is redirected to {host}, which is not a public address: refused")


def _check_status(answer: aiohttp.ClientResponse, url: str) -> None:
    if answer.status in {404, 410}:
        raise FileNotFoundError(url)
    answer.raise_for_status()
    if answer.status != 200 and not (answer.status == 206 and "Range" in answer.request_info.headers):
        raise AnswerError(f"the server answers with the status {answer.status}, which is not that of a file")


def _check(answer: aiohttp.ClientResponse, url: str) -> None:
    """Raise an error if an answer is not a file: FileNotFoundError, or AnswerError for a web page, for example."""
    _check_status(answer, url)
    if _is_page(answer, url):
        raise _page_error()
    encoding = answer.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in {"", "identity"}:
        raise AnswerError(
            f"the server compresses the file ({encoding[:40]}), though it was asked not to; download it first"
        )


def _is_page(answer: aiohttp.ClientResponse, url: str) -> bool:
    kind = answer.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    return kind in PAGES and not URL(url).path.lower().endswith(PAGE_NAMES)


def _check_content(data: bytes, url: str, *, is_start: bool, is_end: bool) -> None:
    """Raise AnswerError if bytes are those of a web page, whatever the server calls them."""
    if not URL(url).path.lower().endswith(PAGE_NAMES) and (
        (is_start and PAGE.match(data[:256])) or (is_end and data[-64:].rstrip().lower().endswith(b"</html>"))
    ):
        raise _page_error()


def _page_error() -> AnswerError:
    return AnswerError("the server sends a web page, not the file: a page to log in, or an error; check the address")


def _length(answer: aiohttp.ClientResponse, otherwise: int) -> int:
    """Return the declared length of an answer."""
    return otherwise if answer.content_length is None else answer.content_length


def _range(answer: aiohttp.ClientResponse, start: int, *, end: int, version: FileVersion) -> int:
    """Return the number of bytes in a part of a file; raise AnswerError if it is not the part that was asked for."""
    header = answer.headers.get("Content-Range", "")
    match = RANGE.fullmatch(header.strip())
    first, last = (int(match[1]), int(match[2])) if match else (-1, -1)
    if not match or first != start or not start <= last < end:
        sent = f"'{header[:80]}'" if header else "a part without Content-Range"
        raise AnswerError(f"the server was asked for the bytes {start}-{end - 1} and sends {sent}")
    size = version.size if match[3] == "*" else int(match[3])
    version.check(FileVersion.of(size, answer.headers))
    count = last - first + 1
    if _length(answer, count) != count:
        raise AnswerError(f"the server sends {answer.content_length} bytes as '{header}'")
    return count


async def _body(answer: aiohttp.ClientResponse, count: int, *, is_limit: bool = False) -> bytes:
    """Read an answer of `count` bytes, or of at most so many."""
    if answer.content_length == count:
        return await answer.read()
    blocks, total = [], 0
    async for block in answer.content.iter_chunked(1 << 20):
        blocks.append(block)
        total += len(block)
        if total > count:
            raise AnswerError(f"the server sends more than {count} bytes")
    if total != count and not is_limit:
        raise ConnectionError(f"expected {count} bytes, got {total}")
    return b"".join(blocks)


class Resolver(AbstractResolver):
    """Looks up hosts for connections, and records which of them are on the internet."""

    def __init__(self, public: set[str], *, public_only: bool) -> None:
        """Add the hosts with a public address to `public`; with `public_only`, any other address is an error."""
        self.public, self.public_only = public, public_only

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return the addresses of a host."""
        addresses = await look_up(host, port)
        if self.public_only and not all(map(is_public_address, addresses)):
            raise _private_error(host)
        if any(map(is_public_address, addresses)):
            self.public.add(host)
        families = [(socket.AF_INET if address.version == 4 else socket.AF_INET6, address) for address in addresses]
        return [
            ResolveResult(hostname=host, host=str(address), port=port, family=own, proto=0, flags=socket.AI_NUMERICHOST)
            for own, address in families
            if family in {socket.AF_UNSPEC, own}
        ]

    async def close(self) -> None:
        """Do nothing."""


async def look_up(host: str, port: int) -> list[Address]:
    """Return the addresses of a host."""
    answers = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [*dict.fromkeys(ipaddress.ip_address(str(address[0])) for *_, address in answers)]


def _is_address(url: URL) -> bool:
    """Whether the host of a URL is an address, which is not looked up."""
    try:
        ipaddress.ip_address(url.host or "")
    except ValueError:
        return False
    return True


def _is_public(url: URL, hosts: Collection[str]) -> bool:
    """Whether the host of a URL is on the internet: a public address, or one of `hosts`."""
    return is_public_address(ipaddress.ip_address(url.host or "")) if _is_address(url) else url.host in hosts


def is_public_address(address: Address) -> bool:
    """Whether an address is one of the internet.

    >>> is_public_address(ipaddress.ip_address("::ffff:127.0.0.1"))
    False
    """
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo and address.teredo[1])
        if inner is None and address in NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return is_public_address(inner)
        if address.is_site_local:
            return False
    return address.is_global and not address.is_multicast and not address.is_reserved


def _is_same(url: URL, other: URL) -> bool:
    """Whether credentials for one URL may be sent to another: it is the same server, or its https."""
    ports = (url.port, other.port)
    return url.host == other.host and (ports == (80, 443) or (url.scheme, url.port) == (other.scheme, other.port))


_noted: set[tuple[str | None, str | None]] = set()


def _note(url: URL, target: URL) -> None:
    """Warn once for each pair of hosts that one redirects to the other."""
    pair = (url.host, target.host)
    if pair not in _noted:
        _noted.add(pair)
        logging.getLogger(__name__).warning("note: %s redirects to %s, which gets no credentials", *pair)
