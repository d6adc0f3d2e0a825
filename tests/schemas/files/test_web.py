"""What a web server may answer, and what is refused: wrong parts, pages, changed files, slow answers, redirects."""

import ipaddress
import logging
import re
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any

import fsspec
import pytest
from fsspec.asyn import get_loop

from schemas.errors import UnreachableError
from schemas.files import network, remote, web
from schemas.files.folder import open_folder
from schemas.files.web import is_public_address
from tests.waiting import PATIENCE

DATA = bytes(range(256)) * 40
NAME = "shard.tfrecord"
LOGIN = b"<!DOCTYPE html><html><body>Log in</body></html>\n"
KIND = {"Content-Type": "application/octet-stream"}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(network, "TRIES", 3)
    monkeypatch.setattr(network, "BLOCK", 4096)
    monkeypatch.setattr(remote, "TIMEOUT", 5)
    monkeypatch.setattr(web, "_noted", set())


@dataclass(slots=True)
class Site:
    """A web server whose answers a test decides: `answer` returns the status, the headers and the body."""

    answer: Callable[["Request"], "Answer"]
    url: str = ""
    requests: list["Request"] = field(default_factory=list)
    halt: Event = field(default_factory=Event)

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])


@dataclass(frozen=True, slots=True)
class Request:
    method: str
    path: str
    headers: Mapping[str, str]

    @property
    def part(self) -> tuple[int, int] | None:
        match = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        return (int(match[1]), int(match[2]) + 1) if match else None


@dataclass(frozen=True, slots=True)
class Answer:
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    pause: float = 0  # seconds before each byte
    declared: int | None = None  # the length, if it is not that of the body


def served(request: Request, data: bytes = DATA, **headers: str) -> Answer:
    """Answer as a correct server does."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    if request.part is None or request.method == "HEAD":
        return Answer(200, {**KIND, **named}, data)
    start, end = request.part[0], min(request.part[1], len(data))
    return Answer(206, {**KIND, "Content-Range": f"bytes {start}-{end - 1}/{len(data)}", **named}, data[start:end])


def chunked(body: bytes) -> bytes:
    return (b"%x\r\n%s\r\n" % (len(body), body) if body else b"") + b"0\r\n\r\n"


class Handler(BaseHTTPRequestHandler):
    """Answers as its site says."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    own: Site

    def do_GET(self) -> None:
        request = Request(self.command, self.path, dict(self.headers))
        self.own.requests.append(request)
        given = self.own.answer(request)
        self.send_response(given.status)
        for name, value in given.headers.items():
            self.send_header(name, value)
        if "Transfer-Encoding" not in given.headers:
            self.send_header("Content-Length", str(len(given.body) if given.declared is None else given.declared))
        self.end_headers()
        with suppress(OSError):
            if self.command == "GET":
                self.send_body(given)
        self.close_connection = given.declared is not None or bool(given.pause)

    do_HEAD = do_GET  # noqa: N815 - the name that http.server calls

    def send_body(self, given: Answer) -> None:
        if not given.pause:
            self.wfile.write(chunked(given.body) if "Transfer-Encoding" in given.headers else given.body)
        for byte in given.body if given.pause else b"":
            if self.own.halt.wait(given.pause):
                break
            self.wfile.write(bytes([byte]))

    def log_message(self, *_: Any) -> None:
        """Log nothing."""


@contextmanager
def site(answer: Callable[[Request], Answer], tls: ssl.SSLContext | None = None) -> Iterator[Site]:
    own = Site(answer)
    with ThreadingHTTPServer(("127.0.0.1", 0), type("Answers", (Handler,), {"own": own})) as http:
        http.daemon_threads = True
        if tls:
            http.socket = tls.wrap_socket(http.socket, server_side=True)
        own.url = f"{'https' if tls else 'http'}://127.0.0.1:{http.server_address[1]}"
        thread = Thread(target=http.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield own
        finally:
            own.halt.set()
            http.shutdown()
            thread.join()


@pytest.fixture
def start() -> Iterator[Callable[..., Site]]:
    with ExitStack() as stack:
        yield lambda *arguments, **options: stack.enter_context(site(*arguments, **options))


def read(url: str, name: str = NAME) -> bytes:
    with open_folder(url).open(name) as file:
        return b"".join(iter(lambda: file.read(1000), b""))


def refusal(url: str, name: str = NAME) -> str:
    with pytest.raises(UnreachableError) as raised:
        read(url, name)
    assert str(raised.value).startswith(f"{url}/{name}: ")
    assert "\n" not in str(raised.value)
    return str(raised.value).removeprefix(f"{url}/{name}: ")


# --- requests ---


def test_a_file_takes_one_request_for_its_size_and_one_for_each_block(start: Callable[..., Site]) -> None:
    own = start(served)
    assert read(own.url) == DATA
    assert [request.method for request in own.requests] == ["HEAD", *["GET"] * 3]
    assert [request.part for request in own.requests[1:]] == [(0, 4096), (4096, 8192), (8192, 10240)]
    assert all(request.headers["Accept-Encoding"] == "identity" for request in own.requests)
    own.requests.clear()
    assert open_folder(own.url).read(NAME) == DATA
    assert [request.method for request in own.requests] == ["HEAD", "GET"]


# --- answers that do not fit the request ---


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"Content-Range": "bytes 1-4096/10240"}, "was asked for the bytes 0-4095 and sends 'bytes 1-4096/10240'"),
        ({"Content-Range": "bytes 0-9999/10240"}, "sends 'bytes 0-9999/10240'"),
        ({"Content-Range": "bytes */10240"}, "sends 'bytes */10240'"),
        ({"Content-Range": "bytes 0-0/"}, "sends 'bytes 0-0/'"),
        ({"Content-Range": "bytes 9-3/10240"}, "sends 'bytes 9-3/10240'"),
        ({"Content-Range": ""}, "sends a part without Content-Range"),
        ({"Content-Range": "bytes 0-4095/10241"}, "its size was 10240, now it is 10241"),
        ({"Content-Range": "bytes 0-999/10240"}, "sends 4096 bytes as 'bytes 0-999/10240'"),
        ({"Content-Encoding": "gzip"}, "compresses the file (gzip)"),
        ({"Content-Encoding": "br"}, "compresses the file (br)"),
        ({"Content-Type": "text/html; charset=utf-8"}, "a web page, not the file"),
        ({"Content-Type": "multipart/byteranges; boundary=x", "Content-Range": ""}, "a part without Content-Range"),
    ],
)
def test_a_part_that_is_not_the_one_that_was_asked_for_is_refused(
    start: Callable[..., Site], told: dict[str, str], message: str
) -> None:
    def answer(request: Request) -> Answer:
        right = served(request)
        return Answer(right.status, {**right.headers, **told}, right.body) if request.part else right

    own = start(answer)
    assert message in refusal(own.url)
    assert len(own.requests) <= 3  # asking again would not help


@pytest.mark.parametrize("status", [201, 203, 204, 300, 304, 399])
def test_a_status_that_is_not_that_of_a_file_is_refused(start: Callable[..., Site], status: int) -> None:
    own = start(lambda _: Answer(status, KIND, b"" if status in {204, 304} else DATA))
    assert f"the status {status}" in refusal(own.url)


def test_a_part_that_nobody_asked_for_is_refused(start: Callable[..., Site]) -> None:
    part = Answer(206, {**KIND, "Content-Range": "bytes 0-9/10240"}, DATA[:10])
    own = start(lambda _: part)
    assert "the status 206" in refusal(own.url)


@pytest.mark.parametrize("size", [4095, 4097, 0])
def test_an_answer_in_chunks_has_the_length_of_its_part(start: Callable[..., Site], size: int) -> None:
    def answer(request: Request) -> Answer:
        right = served(request)
        chunked = {**right.headers, "Transfer-Encoding": "chunked"}
        return Answer(206, chunked, bytes(size)) if request.part else right

    assert ("sends more than 4096 bytes" if size > 4096 else f"expected 4096 bytes, got {size}") in refusal(
        start(answer).url
    )


@pytest.mark.parametrize("ignored", [True, False])
def test_a_body_that_is_cut_off_is_an_error(start: Callable[..., Site], *, ignored: bool) -> None:
    def answer(request: Request) -> Answer:
        right = Answer(200, KIND, DATA) if ignored else served(request)
        return Answer(right.status, right.headers, right.body[:-1], declared=len(right.body))

    assert "Payload" in refusal(start(answer).url)


@pytest.mark.parametrize("kind", ["text/html", "application/octet-stream", "text/plain"])
@pytest.mark.parametrize("page", [LOGIN, b"\xef\xbb\xbf\n <HTML>\n" + DATA, DATA + b"</body></html>\n"])
def test_a_page_to_log_in_is_not_the_file(start: Callable[..., Site], kind: str, page: bytes) -> None:
    own = start(lambda request: served(request, page, Content_Type=kind))
    assert "a web page, not the file" in refusal(own.url)
    folder = open_folder(own.url)
    with pytest.raises(UnreachableError, match="a web page"):
        folder.tails([NAME], 4096 if b"<" in page[-20:] else len(page))
    if kind == "text/html":
        with pytest.raises(UnreachableError, match="a web page"):
            folder.size(NAME)


def test_a_file_that_is_a_page_is_read(start: Callable[..., Site]) -> None:
    own = start(lambda request: served(request, LOGIN, Content_Type="text/html"))
    assert read(own.url, "notes.html") == LOGIN


def test_a_head_that_is_a_page_or_empty_is_asked_otherwise(start: Callable[..., Site]) -> None:
    packed = Answer(200, {**KIND, "Content-Encoding": "gzip"}, b"packed")
    for wrong in (
        Answer(200, {"Content-Type": "text/html"}, LOGIN),
        packed,
        Answer(200, KIND),
        Answer(405),
        Answer(501),
    ):
        own = start(lambda request, wrong=wrong: wrong if request.method == "HEAD" else served(request))
        assert read(own.url) == DATA


# --- servers that ignore ranges ---


def test_a_file_of_a_server_that_ignores_ranges_is_downloaded_once(start: Callable[..., Site]) -> None:
    own = start(lambda _: Answer(200, KIND, DATA))
    assert read(own.url) == DATA
    assert [request.method for request in own.requests] == ["HEAD", "GET", "GET"]


def test_a_download_has_a_size_limit(start: Callable[..., Site], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "MAX_DOWNLOAD", len(DATA) - 1)
    own = start(lambda _: Answer(200, KIND, DATA))
    assert "ignores ranges, and the file is larger than" in refusal(own.url)


@pytest.mark.parametrize("chunked", [True, False])
def test_a_download_does_not_exceed_the_size_that_was_declared(start: Callable[..., Site], *, chunked: bool) -> None:
    def answer(request: Request) -> Answer:
        more = {"Transfer-Encoding": "chunked"} if chunked else {}
        return Answer(200, {**KIND, **more}, 3 * DATA) if request.method == "GET" else served(request)

    message = refusal(start(answer).url)
    assert ("longer than the 10240 bytes" if chunked else "its size was 10240, now it is 30720") in message


def test_a_page_that_lists_files_has_a_size_limit(start: Callable[..., Site], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "MAX_PAGE", 1000)
    endless = b"<a href='x'>x</a>" * 100
    own = start(lambda _: Answer(200, {"Content-Type": "text/html", "Transfer-Encoding": "chunked"}, endless))
    with pytest.raises(UnreachableError, match="more than 1000 bytes"):
        open_folder(own.url).names()


# --- files that change ---


@pytest.mark.parametrize(
    ("before", "after", "what"),
    [
        ({"ETag": '"a"'}, {"ETag": '"b"'}, "ETag"),
        ({"ETag": 'W/"a"'}, {"ETag": '"b"'}, "ETag"),
        (
            {"Last-Modified": "Mon, 01 Jan 2024 00:00:00 GMT"},
            {"Last-Modified": "Mon, 01 Jan 2024 00:00:01 GMT"},
            "time",
        ),
        ({"ETag": '"a"'}, {"ETag": '"a"', "Content-Range": "bytes {}-{}/99999"}, "size"),
    ],
)
@pytest.mark.parametrize("ranges", [True, False])
def test_a_file_that_changes_while_it_is_read_is_noticed(
    start: Callable[..., Site], before: dict[str, str], after: dict[str, str], what: str, *, ranges: bool
) -> None:
    def answer(request: Request) -> Answer:
        right = served(request) if ranges else Answer(200, KIND, DATA)
        told = before if len(own.requests) <= 2 else after
        if request.part and ranges:
            told = {name: value.format(request.part[0], request.part[1] - 1) for name, value in told.items()}
        body = right.body + b"." if what == "size" and not ranges and len(own.requests) > 2 else right.body
        return Answer(right.status, {**right.headers, **told}, body)

    own = start(answer)
    assert f"it changed while it was read: its {what} was" in refusal(own.url)


def test_a_file_that_becomes_shorter_is_noticed(start: Callable[..., Site]) -> None:
    own = start(lambda request: Answer(416, {"Content-Range": "bytes */10"}) if request.part else served(request))
    assert "it is smaller than 10240 bytes now" in refusal(own.url)


def test_an_etag_that_stays_is_worth_more_than_a_time(start: Callable[..., Site]) -> None:
    clock = iter(range(100))
    own = start(lambda request: served(request, ETag='W/"a"', Last_Modified=str(next(clock))))
    assert read(own.url) == DATA


# --- slow servers ---


def dripping(right: Answer) -> Answer:
    return Answer(right.status, right.headers, right.body, pause=0.05)


@pytest.mark.parametrize("ranges", [True, False])
def test_a_request_has_a_deadline_though_bytes_drip(
    start: Callable[..., Site], monkeypatch: pytest.MonkeyPatch, *, ranges: bool
) -> None:
    monkeypatch.setattr(network, "PATIENCE", 0.3)
    own = start(
        lambda request: (
            served(request)
            if request.method == "HEAD"
            else dripping(served(request) if ranges else Answer(200, KIND, DATA))
        )
    )
    began = time.monotonic()
    assert "no complete answer within" in refusal(own.url)
    assert time.monotonic() - began < PATIENCE


def test_a_page_has_a_deadline(start: Callable[..., Site], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "PATIENCE", 0.3)
    monkeypatch.setattr(web, "USUAL_PAGE", 0)
    own = start(lambda _: dripping(Answer(200, {"Content-Type": "text/html"}, LOGIN)))
    with pytest.raises(UnreachableError, match="no complete answer within"):
        open_folder(own.url).names()


def test_a_long_answer_has_more_time(monkeypatch: pytest.MonkeyPatch, start: Callable[..., Site]) -> None:
    monkeypatch.setattr(network, "PATIENCE", 0.1)
    monkeypatch.setattr(network, "SLOWEST", 20)
    own = start(
        lambda request: (
            Answer(200, KIND, DATA[:200], pause=0.002) if request.method == "GET" else Answer(200, KIND, DATA[:200])
        )
    )
    began = time.monotonic()
    assert read(own.url) == DATA[:200]
    assert time.monotonic() - began > 0.2


# --- redirects ---

PUBLIC, MIRROR = "93.184.216.34", "151.101.1.1"


@dataclass(slots=True)
class Internet:
    """Names and public addresses that lead to servers on this machine."""

    names: dict[str, str]
    connected: list[str] = field(default_factory=list)


@pytest.fixture
def internet(monkeypatch: pytest.MonkeyPatch) -> Internet:
    """Resolve some names as if they were on the internet; connections to their addresses reach this machine."""
    own = Internet({"data.test": PUBLIC, "mirror.test": MIRROR, "inner.test": "127.0.0.1", "ten.test": "10.1.2.3"})
    loop = get_loop()
    look_up, connect = loop.getaddrinfo, loop.sock_connect

    async def resolve(host: str, port: int, **options: Any) -> Any:
        return await look_up(own.names.get(host, host), port, **options)

    async def reach(sock: Any, address: Any) -> None:
        own.connected.append(address[0])
        await connect(sock, ("127.0.0.1", address[1]) if address[0] in {PUBLIC, MIRROR} else address)

    monkeypatch.setattr(loop, "getaddrinfo", resolve)
    monkeypatch.setattr(loop, "sock_connect", reach)
    monkeypatch.setattr(fsspec.config, "conf", {"http": {"skip_instance_cache": True}})
    return own


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a certificate for the names of the tests."""
    file = tmp_path_factory.mktemp("tls") / "both.pem"
    names = "subjectAltName=DNS:data.test,DNS:mirror.test,DNS:inner.test,IP:127.0.0.1"
    words = (
        f"req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=data.test -addext {names} -keyout {file} -out {file}.crt"
    )
    subprocess.run(["openssl", *words.split()], check=True, capture_output=True)
    with file.open("ab") as both:
        both.write(Path(f"{file}.crt").read_bytes())
    return file


@pytest.fixture
def tls(certificate: Path, internet: Internet, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """Return the context of a server; clients trust its certificate."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate)
    trusting = ssl.create_default_context(cafile=str(certificate))
    monkeypatch.setitem(fsspec.config.conf["http"], "ssl", trusting)
    return server


def to(place: str) -> Callable[[Request], Answer]:
    return lambda request: Answer(302, {"Location": f"{place}{request.path}"})


def named(own: Site, host: str, user: str = "") -> str:
    return own.url.replace("127.0.0.1", f"{user}{host}")


def test_a_redirect_between_https_hosts_is_followed_without_credentials_and_noted_once(
    start: Callable[..., Site], tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    secrets = {"Authorization": "Bearer token", "X-Api-Key": "key", "Cookie": "session=1", **web.IDENTITY}
    monkeypatch.setitem(fsspec.config.conf["http"], "client_kwargs", {"headers": secrets, "cookies": {"who": "me"}})
    mirror = start(served, tls=tls)
    own = start(to(named(mirror, "mirror.test", user="eve:word@")), tls=tls)
    with caplog.at_level(logging.WARNING):
        assert read(named(own, "data.test")) == DATA
        assert open_folder(named(own, "data.test")).read("other") == DATA
    assert [record.message for record in caplog.records] == [
        "note: data.test redirects to mirror.test, which gets no credentials"
    ]
    assert all(request.headers["Authorization"] == "Bearer token" for request in own.requests)
    assert mirror.requests
    for request in mirror.requests:
        assert {"Authorization", "X-Api-Key", "Cookie", "Referer"}.isdisjoint(request.headers)
        assert request.headers["Accept-Encoding"] == "identity"


def test_a_password_in_the_address_stays_with_its_host(start: Callable[..., Site], internet: Internet) -> None:
    mirror = start(served)
    own = start(to(named(mirror, "mirror.test")))
    assert read(named(own, "data.test", user="me:word@")) == DATA
    assert all("Authorization" in request.headers for request in own.requests)
    assert not any("Authorization" in request.headers for request in mirror.requests)


def test_a_redirect_on_the_same_host_keeps_credentials_and_is_not_noted(
    start: Callable[..., Site], internet: Internet, caplog: pytest.LogCaptureFixture
) -> None:
    own = start(
        lambda request: served(request) if "/new/" in request.path else Answer(307, {"Location": "/new" + request.path})
    )
    assert read(named(own, "data.test", user="me:word@")) == DATA
    assert all("Authorization" in request.headers for request in own.requests)
    assert caplog.records == []


def test_credentials_do_not_come_back_with_a_second_redirect(start: Callable[..., Site], internet: Internet) -> None:
    own = start(served)
    mirror = start(to(named(own, "data.test")))
    away = to(named(mirror, "mirror.test"))
    own.answer = lambda request: away(request) if "Authorization" in request.headers else served(request)
    assert read(named(own, "data.test", user="me:word@")) == DATA
    assert {request.headers.get("Authorization") is None for request in own.requests} == {True, False}


def test_a_redirect_from_https_to_http_is_refused(start: Callable[..., Site], tls: ssl.SSLContext) -> None:
    plain = start(served)
    for host in ("mirror.test", "data.test"):
        own = start(to(named(plain, host)), tls=tls)
        assert f"redirected from https to http, to {host}: refused" in refusal(named(own, "data.test"))
    assert plain.requests == []


def test_a_redirect_from_http_to_https_is_followed(start: Callable[..., Site], tls: ssl.SSLContext) -> None:
    secure = start(served, tls=tls)
    own = start(to(named(secure, "data.test")))
    assert read(named(own, "data.test")) == DATA


INNER = [
    "127.0.0.1",
    "inner.test",
    "localhost",
    "127.1",
    "2130706433",
    "0x7f.0.0.1",
    "0.0.0.0",  # noqa: S104
    "[::1]",
    "[::ffff:127.0.0.1]",
]


@pytest.mark.parametrize("host", [*INNER, "ten.test", "169.254.169.254", "[fe80::1]", "[fd00::1]", "100.64.0.1"])
def test_a_redirect_from_the_internet_into_a_private_network_is_refused(
    start: Callable[..., Site], internet: Internet, host: str
) -> None:
    inner = start(served)
    own = start(to(named(inner, host)))
    refused = (
        "is not a canonical IPv4 address" if host in {"127.1", "2130706433"} else "is not a public address: refused"
    )
    assert refused in refusal(named(own, "data.test"))
    assert inner.requests == []
    assert set(internet.connected) == {PUBLIC}


def test_a_second_redirect_is_no_way_in(start: Callable[..., Site], internet: Internet) -> None:
    inner = start(served)
    mirror = start(to(named(inner, "inner.test")))
    own = start(to(named(mirror, "mirror.test")))
    assert "inner.test, which is not a public address" in refusal(named(own, "data.test"))
    assert inner.requests == []


@pytest.mark.parametrize("then", ["127.0.0.1", "10.0.0.1", None])
def test_a_name_that_leads_elsewhere_the_second_time_is_no_way_in(
    start: Callable[..., Site], internet: Internet, monkeypatch: pytest.MonkeyPatch, then: str | None
) -> None:
    """A server counts as one of the internet if it was one when it was connected to."""
    inner = start(served)
    own = start(to(named(inner, "inner.test")))
    look_up, answers = web.look_up, iter([PUBLIC])

    async def changing(host: str, port: int) -> Any:
        if host != "data.test":
            return await look_up(host, port)
        if (address := next(answers, then)) is None:
            raise OSError("no such host")
        return [ipaddress.ip_address(address)]

    monkeypatch.setattr(web, "look_up", changing)
    assert "inner.test, which is not a public address" in refusal(named(own, "data.test"))
    assert inner.requests == []


def test_a_server_with_a_public_and_a_private_address_is_one_of_the_internet(
    start: Callable[..., Site], internet: Internet, monkeypatch: pytest.MonkeyPatch
) -> None:
    look_up = web.look_up

    async def both(host: str, port: int) -> Any:
        found = await look_up(host, port)
        return [*found, ipaddress.ip_address("10.0.0.1")] if host == "data.test" else found

    monkeypatch.setattr(web, "look_up", both)
    inner = start(served)
    assert "inner.test, which is not a public address" in refusal(
        named(start(to(named(inner, "inner.test"))), "data.test")
    )


def test_a_host_with_one_private_address_is_not_public(
    start: Callable[..., Site], internet: Internet, monkeypatch: pytest.MonkeyPatch
) -> None:
    look_up = web.look_up

    async def both(host: str, port: int) -> Any:
        found = await look_up(host, port)
        return [*found, ipaddress.ip_address("10.0.0.1")] if host == "mirror.test" else found

    monkeypatch.setattr(web, "look_up", both)
    mirror = start(served)
    own = start(to(named(mirror, "mirror.test")))
    assert "mirror.test, which is not a public address" in refusal(named(own, "data.test"))


def test_a_server_of_the_own_network_may_redirect_inside_it(start: Callable[..., Site]) -> None:
    mirror = start(served)
    assert read(start(to(named(mirror, "localhost"))).url) == DATA


@pytest.mark.parametrize("place", ["file:///etc/passwd?", "ftp://data.test", "javascript:x", "http://[::1"])
def test_a_redirect_to_something_else_is_refused(start: Callable[..., Site], place: str) -> None:
    assert "is not an address of a web server" in refusal(start(to(place)).url)


def test_a_loop_of_redirects_ends(start: Callable[..., Site]) -> None:
    own = start(lambda request: Answer(302, {"Location": request.path}))
    assert "redirected more than 10 times" in refusal(own.url)


def test_a_page_that_lists_files_may_be_redirected(start: Callable[..., Site]) -> None:
    page = Answer(
        200, {"Content-Type": "text/html"}, b"<a href='a.h5'>a</a> <A HREF=\"sub/\">sub</A> <a href=../>up</a>"
    )
    own = start(lambda request: page if request.path == "/d/" else Answer(301, {"Location": "/d/"}))
    assert open_folder(f"{own.url}/d").names() == ("a.h5", "sub")


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("8.8.8.8", True),
        ("2606:4700::1111", True),
        ("::ffff:8.8.8.8", True),
        *((address, False) for address in ("127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254")),
        *((address, False) for address in ("0.0.0.0", "100.64.0.1", "224.0.0.1", "255.255.255.255", "192.0.0.1")),  # noqa: S104
        *((address, False) for address in ("::1", "::", "fe80::1", "fc00::1", "fd12::1", "fec0::1", "ff02::1")),
        *((address, False) for address in ("::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::")),
        *((address, False) for address in ("::127.0.0.1", "2002:a00:1::", "64:ff9b::a9fe:a9fe", "fe80::1%lo")),
    ],
)
def test_which_addresses_are_public(address: str, *, expected: bool) -> None:
    assert is_public_address(ipaddress.ip_address(address)) is expected
