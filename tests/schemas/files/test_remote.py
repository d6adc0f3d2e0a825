"""Remote folders: refusals, faults, locks, and the options passed to fsspec."""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, cast

import aiohttp
import fsspec
import pytest
from fsspec.registry import _registry

from schemas.errors import MissingExtraError, UnreachableError
from schemas.files import network, remote
from schemas.files.folder import open_folder
from schemas.files.remote import RemoteFolder
from schemas.store.ranges import Fetched
from tests.servers import Bucket, Fault, Server
from tests.waiting import PATIENCE, wait_until

DATA = bytes(range(256)) * 4000  # 1 MB


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(network, "TRIES", 4)
    monkeypatch.setattr(network, "BLOCK", 100_000)
    monkeypatch.setattr(remote, "BLOCK", 100_000)
    monkeypatch.setattr(remote, "TIMEOUT", 0.3)


@pytest.fixture
def site(web: Server, tmp_path: Path) -> Server:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "file").write_bytes(DATA)
    return web


def read(server: Server) -> bytes:
    with open_folder(f"{server.url}/d").open("file") as file:
        return b"".join(iter(lambda: file.read(33_333), b""))


# --- a web server that fails ---


@pytest.mark.parametrize("methods", [("GET",), ("HEAD", "GET")])
@pytest.mark.parametrize("kind", ["cut", "503", "429", "drop", "short", "stall"])
def test_a_fault_that_passes_is_survived(site: Server, kind: str, methods: tuple[str, ...]) -> None:
    site.faults.append(Fault(kind, times=2, methods=methods))
    site.faults.append(Fault(kind, times=1, after=6, methods=methods))
    assert read(site) == DATA


@pytest.mark.parametrize("kind", ["short", "no range"])
def test_what_a_server_may_do_for_ever_is_survived(site: Server, kind: str) -> None:
    site.faults.append(Fault(kind))
    assert read(site) == DATA


def test_a_download_that_breaks_off_begins_again(site: Server) -> None:
    site.faults.append(Fault("cut", times=2, after=2))
    site.faults.append(Fault("no range"))
    assert read(site) == DATA


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("503", "503"),
        ("cut", "Payload"),
        ("drop", "Disconnected"),
        ("stall", "Timeout"),
        ("403", "403"),
    ],
)
def test_a_fault_that_lasts_is_one_line_that_says_where_and_what(site: Server, kind: str, told: str) -> None:
    site.faults.append(Fault(kind))
    with pytest.raises(UnreachableError) as raised:
        read(site)
    assert str(raised.value).startswith(f"{site.url}/d/file: cannot be reached: ")
    assert told in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("kind", ["503", "403", "drop"])
def test_a_server_that_fails_does_not_say_that_a_file_is_missing(site: Server, kind: str) -> None:
    site.faults.append(Fault(kind, methods=("HEAD", "GET")))
    folder = open_folder(f"{site.url}/d")
    for ask in (folder.size, folder.read, folder.open, folder.open_parts):
        with pytest.raises(UnreachableError):
            ask("file")
    for ask_many in (folder.sizes, folder.read_many, lambda names: folder.tails(names, 10)):
        with pytest.raises(UnreachableError):
            ask_many(["file"])


def test_a_refusal_is_not_asked_twice(site: Server) -> None:
    folder = open_folder(f"{site.url}/d")
    assert folder.size("file")
    site.faults.append(Fault("403", methods=("HEAD", "GET")))
    before = len(site.requests)
    with pytest.raises(UnreachableError):
        folder.size("file")
    assert len(site.requests) - before == 2  # HEAD, and GET for servers without HEAD


def test_a_server_that_does_not_tell_the_size_is_named(site: Server) -> None:
    site.faults.append(Fault("no length", methods=("HEAD", "GET")))
    with pytest.raises(UnreachableError, match="does not report the file size; download the source first"):
        read(site)


def test_a_server_that_knows_no_head_is_asked_otherwise(site: Server) -> None:
    site.faults.append(Fault("405", methods=("HEAD",)))
    assert read(site) == DATA


def test_where_listing_is_refused_nothing_is_listed(site: Server) -> None:
    site.faults.append(Fault("403"))
    assert open_folder(f"{site.url}/d").names() == ()


def test_a_listing_that_fails_for_a_while_is_not_an_empty_one(site: Server) -> None:
    site.faults.append(Fault("503", times=2))
    assert open_folder(f"{site.url}/d").names() == ("file",)
    site.faults.append(Fault("503"))
    with pytest.raises(UnreachableError):
        open_folder(f"{site.url}/d").names()


def test_reading_on_asks_for_each_byte_once_and_ahead(site: Server) -> None:
    assert read(site) == DATA
    asked = [r.range for r in site.requests if r.range]
    assert asked == [f"bytes={start}-{min(start + 100_000, len(DATA)) - 1}" for start in range(0, len(DATA), 100_000)]


def test_compression_on_the_way_is_declined(site: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    folder: Any = open_folder(f"{site.url}/d")
    assert folder.fs.client_kwargs["headers"] == {"Accept-Encoding": "identity"}


# --- a store that fails ---


@pytest.mark.parametrize(
    "kind", ["503", pytest.param("500", marks=pytest.mark.slow), pytest.param("0.5 s", marks=pytest.mark.slow)]
)
def test_a_fault_of_a_store_that_passes_is_survived(bucket: Bucket, kind: str) -> None:
    folder = open_folder(bucket.uri("out"), for_writing=True)
    for method in ("PUT", "HEAD", "GET", "POST"):
        bucket.server.faults.append(Fault(kind, path=f"/{bucket.name}*", times=2, methods=(method,)))
    folder.write("meta/a", b"one")
    assert folder.read("meta/a") == b"one"
    assert folder.names("meta") == ("a",)
    staged = folder.staged("data")
    staged.write_bytes(DATA)
    folder.adopt(staged, "data/x")
    assert folder.read("data/x") == DATA
    folder.remove("data")
    assert folder.names() == ("meta",)


def test_a_store_that_fails_for_good_is_one_line(bucket: Bucket) -> None:
    folder = open_folder(bucket.uri("out"), for_writing=True)
    bucket.server.faults.append(Fault("503", path=f"/{bucket.name}/*", methods=("PUT",)))
    with pytest.raises(UnreachableError, match=f"{bucket.uri('out/a')}: cannot be reached: .*Service Unavailable"):
        folder.write("a", b"one")
    tried = [r for r in bucket.server.requests if r.path == f"/{bucket.name}/out/a"]
    assert len(tried) == 4


def test_a_bucket_that_is_not_there_has_no_files(bucket: Bucket) -> None:
    assert open_folder(f"s3://{bucket.name}-none/x", for_writing=True).names() == ()
    with pytest.raises((FileNotFoundError, UnreachableError)):
        open_folder(f"s3://{bucket.name}-none/x", for_writing=True).write("a", b"")


def test_a_folder_that_a_console_made_is_empty(bucket: Bucket) -> None:
    bucket.put("out/", b"")
    assert open_folder(bucket.uri("out"), for_writing=True).names() == ()


# --- threads ---


@pytest.fixture
def restless() -> Iterator[None]:
    """Make threads switch far more often than usual."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(usual)


def test_threads_may_fetch_slices_of_one_file(restless: None) -> None:
    def fetch(start: int, end: int, _: threading.Event) -> bytes:
        time.sleep(0)
        return DATA[start:end]

    fetched = Fetched(cast("IO[bytes]", network.RemoteFile(fetch, len(DATA), ahead=False)))
    slices = [slice(start, start + start % 800 + 1) for start in range(0, 300_000, 97)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(fetched.__getitem__, slices)) == [DATA[part] for part in slices]


# --- credentials ---


def test_reading_sends_no_credentials(bucket: Bucket) -> None:
    bucket.put("d/file", DATA, public=True)
    before = len(bucket.server.requests)
    folder = open_folder(bucket.uri("d"))
    assert folder.read("file") == DATA
    assert folder.sizes(["file"]) == {"file": len(DATA)}
    asked = bucket.server.requests[before:]
    assert asked
    assert [r for r in asked if r.authorization] == []


def test_a_refusal_says_how_to_give_credentials(bucket: Bucket) -> None:
    bucket.put("d/file", DATA)
    with pytest.raises(UnreachableError) as raised:
        open_folder(bucket.uri("d")).read("file")
    assert str(raised.value) == (
        f"{bucket.uri('d/file')}: cannot be reached: PermissionError: Forbidden; to use your credentials, "
        """set the environment variable FSSPEC_S3='{"anon": false}'"""
    )


@pytest.mark.parametrize("theirs", [{"anon": False}, {"key": "key", "secret": "secret"}])
def test_the_users_own_configuration_goes_first(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, theirs: dict[str, Any]
) -> None:
    bucket.put("d/file", DATA)
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    monkeypatch.setitem(fsspec.config.conf, "s3", {**theirs, "endpoint_url": bucket.server.url})
    assert open_folder(bucket.uri("d")).read("file") == DATA


def test_configuration_in_the_environment_is_read(bucket: Bucket) -> None:
    bucket.put("d/file", b"private")
    script = "import sys; from schemas.files.folder import open_folder; print(open_folder(sys.argv[1]).read('file'))"
    environment = {name: value for name, value in os.environ.items() if name != "AWS_ENDPOINT_URL"}
    told = {"FSSPEC_S3": '{"anon": false}', "FSSPEC_S3_ENDPOINT_URL": bucket.server.url}
    arguments = [sys.executable, "-c", script, bucket.uri("d")]
    done = subprocess.run(arguments, env=environment | told, capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("b'private'\n", 0), done.stderr


def test_without_credentials_writing_fails_at_once(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    monkeypatch.setitem(fsspec.config.conf, "s3", {"skip_instance_cache": True})
    began = time.monotonic()
    monkeypatch.setattr(network, "FIRST_PAUSE", 60)
    with pytest.raises(UnreachableError, match="NoCredentialsError: Unable to locate credentials"):
        open_folder(bucket.uri("out"), for_writing=True).write("a", b"")
    assert time.monotonic() - began < network.FIRST_PAUSE


@pytest.mark.parametrize(
    ("uri", "options"),
    [
        ("s3://b/x", {"anon": True}),
        ("hf://datasets/user/name", {"token": False}),
    ],
)
def test_reading_is_anonymous_and_writing_is_not(uri: str, options: dict[str, Any]) -> None:
    reading: Any = open_folder(uri)
    writing: Any = open_folder(uri, for_writing=True)
    for name, value in options.items():
        assert getattr(reading.fs, name) is value
        assert getattr(writing.fs, name) is not value


@pytest.mark.parametrize("protocol", ["gs", "gcs", "s3", "s3a"])
def test_a_missing_package_is_named(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    package = {"g": "gcsfs", "s": "s3fs"}[protocol[0]]
    monkeypatch.setitem(sys.modules, package, None)
    for name in ("gs", "gcs", "s3", "s3a"):
        monkeypatch.delitem(_registry, name, raising=False)
    with pytest.raises(MissingExtraError, match=rf"'{package}': pip install 'oxe-tools\[{package[0]}"):
        open_folder(f"{protocol}://bucket/x")


def test_google_storage_is_told_the_same() -> None:
    gcsfs = pytest.importorskip("gcsfs")
    folder: Any = open_folder("gs://bucket/x")
    assert isinstance(folder.fs, gcsfs.GCSFileSystem)
    assert folder.fs.credentials.token == "anon"  # noqa: S105 - means no credentials
    assert folder.fs.requests_timeout == aiohttp.ClientTimeout(sock_connect=0.3, sock_read=0.3)


# --- a deadline for a whole request ---


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "CALL_PATIENCE", 0.5)


@pytest.mark.parametrize("call", ["read", "names", "sizes"])
def test_a_store_whose_bytes_drip_is_an_error_after_a_deadline(bucket: Bucket, impatient: None, call: str) -> None:
    bucket.put("d/file", DATA[:1000], public=True)
    folder = open_folder(bucket.uri("d"), for_writing=True)
    calls = {"read": lambda: folder.read("file"), "names": folder.names, "sizes": lambda: folder.sizes(["file"])}
    bucket.server.faults.append(Fault("drip", path=f"/{bucket.name}*"))
    began = time.monotonic()
    with pytest.raises(UnreachableError, match=r"no complete answer within \d+ s: the server is too slow"):
        calls[call]()
    assert time.monotonic() - began < PATIENCE


def test_large_answers_and_uploads_have_more_time(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    allowed: list[float] = []

    def spy(seconds: float, work: Callable[[], Any]) -> Any:
        allowed.append(seconds)
        return network.within(seconds, work)

    monkeypatch.setattr(remote, "within", spy)
    folder = open_folder(bucket.uri("d"), for_writing=True)
    folder.write("file", DATA)
    staged = folder.staged("data")
    staged.write_bytes(DATA)
    folder.adopt(staged, "data/x")
    assert folder.read("file") == DATA
    megabyte = network.CALL_PATIENCE + len(DATA) / network.SLOWEST
    assert allowed == [megabyte, megabyte, network.CALL_PATIENCE, megabyte]  # the third asks for the size


@pytest.fixture
def dripping() -> Iterator[str]:
    """Answer every request with an endless header, 20 bytes a second."""
    ended = threading.Event()

    def answer(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nX-Endless: ")
            while not ended.wait(0.05):
                connection.sendall(b"a")

    def accept() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=answer, args=(server.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        ended.set()
        server.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize(
    ("protocol", "option", "rest"),
    [("s3", "endpoint_url", "bucket/d"), ("gs", "endpoint_url", "bucket/d"), ("hf", "endpoint", "datasets/lab/name")],
)
@pytest.mark.parametrize("call", ["read", "names"])
def test_each_kind_of_store_has_the_same_deadline(
    dripping: str, impatient: None, monkeypatch: pytest.MonkeyPatch, protocol: str, option: str, rest: str, call: str
) -> None:
    pytest.importorskip({"s3": "s3fs", "gs": "gcsfs", "hf": "huggingface_hub"}[protocol])
    monkeypatch.setitem(fsspec.config.conf, protocol, {option: dripping, "skip_instance_cache": True})
    folder = open_folder(f"{protocol}://{rest}")
    began = time.monotonic()
    with pytest.raises(UnreachableError, match="no complete answer within 0 s: the server is too slow"):
        folder.names() if call == "names" else folder.read("file")
    assert time.monotonic() - began < PATIENCE


def test_an_error_of_the_work_itself_comes_out_of_a_deadline() -> None:
    def slow() -> None:
        raise TimeoutError("a pause")

    with pytest.raises(TimeoutError, match="a pause"):
        network.within(60, slow)
    assert network.within(60, lambda: 7) == 7


# --- the lock ---


def lock(bucket: Bucket, content: str) -> Any:
    bucket.put("out/lock", content.encode())
    return open_folder(bucket.uri("out"), for_writing=True)


def ended() -> int:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


def test_the_lock_of_a_dead_process_of_this_machine_is_taken_over(bucket: Bucket) -> None:
    folder = lock(bucket, f"{socket.gethostname()} {ended()} abc")
    with folder.exclusive("lock"):
        assert f" {os.getpid()} " in folder.read("lock").decode()
    assert folder.names() == ()


def test_the_lock_of_a_container_that_was_started_again_is_taken_over(bucket: Bucket) -> None:
    folder = lock(bucket, f"{socket.gethostname()} {os.getpid()} of-a-former-life")
    with folder.exclusive("lock"):
        pass


@pytest.mark.parametrize("holder", ["elsewhere 1 abc", f"{socket.gethostname()} 1 abc", "", "what is this", "\udcff"])
def test_the_lock_of_anybody_else_is_respected(bucket: Bucket, holder: str) -> None:
    bucket.put("out/lock", holder.encode(errors="surrogateescape"))
    folder = open_folder(bucket.uri("out"), for_writing=True)
    with pytest.raises(BlockingIOError, match=r"out/lock is locked by process"), folder.exclusive("lock"):
        pass
    assert folder.names() == ("lock",)


def test_a_lock_that_another_takes_after_our_look_is_left_to_it(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder: Any = open_folder(bucket.uri("out"), for_writing=True)
    look = RemoteFolder.read_many

    def late(self: RemoteFolder, names: Any) -> dict[str, bytes]:
        seen = look(self, names)
        if not seen:
            bucket.put("out/lock", b"elsewhere 1 abc")
        return seen

    monkeypatch.setattr(RemoteFolder, "read_many", late)
    with (
        pytest.raises(BlockingIOError, match="has just been locked by process 1 of elsewhere"),
        folder.exclusive("lock"),
    ):
        pass
    assert folder.read("lock") == b"elsewhere 1 abc"


def test_a_lock_that_somebody_took_from_us_is_left_to_him(bucket: Bucket) -> None:
    folder = open_folder(bucket.uri("out"), for_writing=True)
    with folder.exclusive("lock"):
        bucket.put("out/lock", b"elsewhere 1 abc")
    assert folder.read("lock") == b"elsewhere 1 abc"


def test_a_lock_whose_answer_got_lost_is_ours(bucket: Bucket) -> None:
    folder = open_folder(bucket.uri("out"), for_writing=True)
    bucket.server.faults.append(Fault("lost answer", path=f"/{bucket.name}/out/lock", times=1, methods=("PUT",)))
    with folder.exclusive("lock"):
        assert folder.names() == ("lock",)
    assert folder.names() == ()


def test_of_many_who_want_a_dead_ones_lock_one_gets_it(bucket: Bucket) -> None:
    lock(bucket, f"{socket.gethostname()} {ended()} abc")
    got, done = [], threading.Event()

    def want() -> None:
        folder = open_folder(bucket.uri("out"), for_writing=True)
        try:
            with folder.exclusive("lock"):
                got.append(True)
                done.wait(PATIENCE)
        except BlockingIOError:
            got.append(False)

    threads = [threading.Thread(target=want) for _ in range(6)]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(got) == 6)
    done.set()
    for thread in threads:
        thread.join()
    assert sorted(got) == [False] * 5 + [True]


def test_an_error_under_the_lock_is_not_hidden_by_a_dead_network(bucket: Bucket) -> None:
    folder = open_folder(bucket.uri("out"), for_writing=True)

    def work() -> None:
        with folder.exclusive("lock"):
            every = ("GET", "HEAD", "POST", "DELETE")
            bucket.server.faults.append(Fault("503", path=f"/{bucket.name}*", methods=every))
            raise KeyError

    with pytest.raises(KeyError):
        work()
