"""Servers on this machine: an S3 store, and a web server with declared faults."""

import re
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from fnmatch import fnmatch
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from typing import Any
from wsgiref.types import StartResponse, WSGIEnvironment

FOREVER = 10**9


@dataclass(slots=True)
class Fault:
    """A fault of the next `times` requests for paths like `path`, after the first `after` requests."""

    kind: str
    path: str = "*"
    times: int = FOREVER
    after: int = 0
    methods: tuple[str, ...] = ("GET",)
    seen: Iterator[int] = field(default_factory=count, repr=False)

    def strikes(self, method: str, path: str) -> bool:
        return method in self.methods and fnmatch(path, self.path) and 0 <= next(self.seen) - self.after < self.times


@dataclass(frozen=True, slots=True)
class Request:
    """One request to a server."""

    method: str
    path: str
    range: str | None
    authorization: str | None


@dataclass(slots=True)
class Server:
    """A server: its URL, its requests and its faults."""

    url: str = ""
    faults: list[Fault] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    halt: threading.Event = field(default_factory=threading.Event)  # ends stalled requests

    def fault(self, method: str, path: str) -> str | None:
        struck = [fault.kind for fault in self.faults if fault.strikes(method, path)]
        return struck[0] if struck else None


# A web server


class Handler(BaseHTTPRequestHandler):
    """Answers requests according to the server's faults."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    folder: Path
    told: Server

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def log_message(self, *_: Any) -> None:
        """Log nothing."""

    def answer(self) -> None:
        headers = self.headers
        self.told.requests.append(Request(self.command, self.path, headers["Range"], headers["Authorization"]))
        fault = self.told.fault(self.command, self.path)
        path = self.folder / self.path.lstrip("/")
        if fault == "drop":
            self.close_connection = True
        elif fault and fault.isdecimal():
            self.small(int(fault), b"")
        elif fault == "login":
            self.small(200, b"<!DOCTYPE html><html><body>Log in to go on</body></html>")
        elif path.is_dir():
            links = "".join(f'<a href="{entry.name}">{entry.name}</a> ' for entry in sorted(path.iterdir()))
            self.small(200, f'<html><a href="?C=N;O=D">Name</a> <a href="../">Up</a> {links}</html>'.encode())
        elif not path.is_file():
            self.small(404, b"")
        else:
            self.file(path, fault)

    def small(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body if self.command == "GET" else b"")

    def file(self, path: Path, fault: str | None) -> None:
        size = path.stat().st_size
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers["Range"] or "")
        start, end = (int(asked[1]), min(int(asked[2]) + 1, size)) if asked and fault != "no range" else (0, size)
        if fault == "short" and asked:  # a partial answer, declared as such
            end = start + (end - start + 1) // 2
        is_part = (start, end) != (0, size)
        self.send_response(206 if is_part else 200)
        if is_part:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{size}")
        if fault == "no length":
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Content-Length", str(end - start))
        self.end_headers()
        if self.command == "GET":
            self.body(path, start, end=end, fault=fault)

    def body(self, path: Path, start: int, *, end: int, fault: str | None) -> None:
        stop = (start + end) // 2 if fault in {"cut", "stall"} else end
        with path.open("rb") as file, suppress(ConnectionError):
            file.seek(start)
            while data := file.read(min(1 << 20, stop - file.tell())):
                self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n" if fault == "no length" else data)
            if fault == "no length":
                self.wfile.write(b"0\r\n\r\n")
        if fault == "stall":
            self.told.halt.wait(60)
        self.close_connection = stop < end


@contextmanager
def web_server(folder: Path) -> Iterator[Server]:
    """Serve a folder over HTTP."""
    server = Server()
    answers = type("Answers", (Handler,), {"folder": folder, "told": server})
    with ThreadingHTTPServer(("127.0.0.1", 0), answers) as http:
        http.daemon_threads = True
        server.url = f"http://127.0.0.1:{http.server_address[1]}"
        thread = threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.halt.set()
            http.shutdown()
            thread.join()


# An S3 store


@contextmanager
def s3_server() -> Iterator[Server]:
    """Serve the S3 protocol with moto; a fault is a status, a delay ("2 s"), or "drip": 20 bytes a second."""
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Silent(WSGIRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def log(self, *_: Any) -> None:
            """Log nothing."""

    server, moto = Server(), DomainDispatcherApplication(create_backend_app)

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        range_, authorization = environ.get("HTTP_RANGE"), environ.get("HTTP_AUTHORIZATION")
        server.requests.append(Request(method, path, range_, authorization))
        fault = server.fault(method, path)
        if fault and fault.isdecimal():
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            start_response(f"{fault} Told To", [("Content-Length", "0")])
            return []
        if fault == "lost answer":
            moto(environ, lambda *_: None)
            start_response("500 Told To", [("Content-Length", "0")])
            return []
        if fault == "drip":
            return dripping(b"".join(moto(environ, start_response)))
        if fault:
            server.halt.wait(float(fault.removesuffix(" s")))
        return moto(environ, start_response)  # type: ignore[no-any-return]

    def dripping(body: bytes) -> Iterator[bytes]:
        for byte in body:
            server.halt.wait(0.05)
            yield bytes([byte])

    http = make_server("127.0.0.1", 0, app, threaded=True, request_handler=Silent)
    server.url = f"http://127.0.0.1:{http.server_port}"
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.halt.set()
        http.shutdown()
        thread.join()


@dataclass(frozen=True, slots=True)
class Bucket:
    """A bucket for one test."""

    server: Server
    name: str
    fs: Any  # credentials with all rights

    def uri(self, path: str) -> str:
        return f"s3://{self.name}/{path}"

    def put(self, path: str, content: bytes, *, public: bool = False) -> None:
        self.fs.pipe_file(f"{self.name}/{path}", content, **({"ACL": "public-read"} if public else {}))

    def upload(self, folder: Path, path: str, *, public: bool = False) -> str:
        """Upload the files below a folder, and return their URI."""
        for file in sorted(entry for entry in folder.rglob("*") if entry.is_file()):
            self.put(f"{path}/{file.relative_to(folder).as_posix()}", file.read_bytes(), public=public)
        return self.uri(path)

    def files(self, path: str) -> dict[str, bytes]:
        """Read every object below a path, by relative name."""
        start = f"{self.name}/{path}/"
        return {name.removeprefix(start): self.fs.cat_file(name) for name in self.fs.find(start)}

    def written(self, path: str, *, since: int) -> list[str]:
        """List the objects that were put below a path, after the first requests."""
        start = f"/{self.name}/{path}/"
        asked = self.server.requests[since:]
        return [r.path.removeprefix(start) for r in asked if r.method == "PUT" and r.path.startswith(start)]
