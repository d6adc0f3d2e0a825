"""Folders behave the same on this machine, in a store and on a web server."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from schemas.errors import UsageError
from schemas.files.folder import Folder, LocalFolder, absolute, is_local, open_folder
from schemas.files.remote import RemoteFolder
from tests.servers import Bucket, Server

Make = Callable[[dict[str, bytes]], Folder]
FILES = {"top": b"0123456789", "meta/a": b"one", "meta/b": b"", "data/tmp-x-0": b"three"}


@pytest.fixture(params=["local", "s3"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    """Make a folder with some files."""

    def local(files: dict[str, bytes]) -> Folder:
        for name, content in files.items():
            (tmp_path / "out" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "out" / name).write_bytes(content)
        return open_folder(tmp_path / "out", for_writing=True)

    def s3(files: dict[str, bytes]) -> Folder:
        bucket: Bucket = request.getfixturevalue("bucket")
        for name, content in files.items():
            bucket.put(f"out/{name}", content)
        return open_folder(bucket.uri("out"), for_writing=True)

    return {"local": local, "s3": s3}[request.param]


def test_reading_tells_what_is_there_and_what_is_not(make: Make) -> None:
    folder = make(FILES)
    assert [folder.size(name) for name in ("top", "meta/b", "none", "meta/none", "none/none")] == [
        10,
        0,
        None,
        None,
        None,
    ]
    assert folder.sizes(["meta/a", "none/a", "top"]) == {"meta/a": 3, "none/a": None, "top": 10}
    assert folder.names() == ("data", "meta", "top")
    assert folder.names("meta") == ("a", "b")
    assert folder.names("none") == ()
    assert folder.read("top") == b"0123456789"
    assert folder.read_many(["meta/b", "none", "top"]) == {"meta/b": b"", "top": b"0123456789"}
    assert folder.tails(["meta/a", "none", "top"], 4) == {"meta/a": b"one", "top": b"6789"}
    for missing in (folder.read, folder.open, folder.open_parts):
        with pytest.raises(FileNotFoundError):
            missing("none")


def test_an_open_file_can_be_read_from_anywhere(make: Make) -> None:
    folder = make(FILES)
    for opened in (folder.open, folder.open_parts):
        with opened("top") as file:
            assert file.seek(0, 2) == 10
            assert file.seek(7) == 7
            assert file.read(2) == b"78"
            assert file.read() == b"9"
            file.seek(-10, 2)
            assert file.read(100) == b"0123456789"


def test_a_folder_below_is_a_folder(make: Make) -> None:
    folder = make(FILES)
    below = folder.child("meta")
    assert below.read("a") == b"one"
    assert below.uri == below.place("") == f"{folder.uri}/meta"
    assert below.place("a") == folder.place("meta/a") == f"{folder.uri}/meta/a"


def test_what_is_written_is_there_whole(make: Make) -> None:
    folder = make({})
    folder.write("meta/new", b"first")
    folder.write("meta/new", b"second")
    assert folder.read("meta/new") == b"second"
    staged = folder.staged("data")
    staged.write_bytes(b"large")
    assert folder.size("data/file") is None
    folder.adopt(staged, "data/file")
    assert folder.read("data/file") == b"large"
    assert not staged.exists()
    assert folder.names("data") == ("file",)


def test_a_staged_file_can_be_given_up(make: Make) -> None:
    folder = make({})
    staged = folder.staged("data")
    folder.drop(staged)
    folder.drop(staged)
    assert not staged.exists()
    assert folder.names("data") == ()


def test_removing_takes_a_file_or_all_below_a_name_and_nothing_else(make: Make) -> None:
    folder = make({"meta/a": b"", "meta/ab": b"", "meta/sub/x": b"", "meta/sub/deep/y": b"", "metal": b""})
    folder.remove("meta/a")
    folder.remove("none")
    assert folder.names("meta") == ("ab", "sub")
    folder.remove("meta/sub")
    assert folder.names("meta") == ("ab",)
    folder.remove("meta")
    assert folder.names() == ("metal",)


def test_a_lock_is_held_by_one(make: Make) -> None:
    folder = make({})
    with folder.exclusive("meta/lock"):
        assert folder.names("meta") == ("lock",)
        with pytest.raises(BlockingIOError), folder.exclusive("meta/lock"):
            pass
    assert folder.names("meta") == ()
    with folder.exclusive("meta/lock"):
        pass


def test_a_lock_is_let_go_after_an_error(make: Make) -> None:
    folder = make({})
    with pytest.raises(KeyError), folder.exclusive("meta/lock"):
        raise KeyError
    assert folder.names("meta") == ()


LEAVE = """
import os, sys
from schemas.files.folder import open_folder

path = open_folder(sys.argv[1], for_writing=True).staged("data")
path.write_bytes(b"half")
print(path, flush=True)
if sys.argv[2] == "die":
    os.kill(os.getpid(), 9)
sys.stdin.read()
"""


def test_what_a_killed_process_staged_is_swept_and_what_a_live_one_did_is_not_remotely(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    folder = open_folder(bucket.uri("out"), for_writing=True)
    dead = subprocess.run([sys.executable, "-c", LEAVE, folder.uri, "die"], capture_output=True, text=True, check=False)
    left = Path(dead.stdout.strip())
    assert left.read_bytes() == b"half"
    arguments = [sys.executable, "-c", LEAVE, folder.uri, "live"]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as live:
        assert live.stdout
        held = Path(live.stdout.readline().strip())
        ours = folder.staged("data")
        folder.sweep(["data"])
        assert sorted(tmp_path.glob("tmp-oxe-*")) == sorted([held, ours])
        live.communicate("")
    folder.drop(ours)


def test_what_a_killed_process_staged_is_swept_and_what_a_live_one_did_is_not_locally(tmp_path: Path) -> None:
    folder = LocalFolder(tmp_path)
    command = [sys.executable, "-c", LEAVE, folder.uri]
    dead = subprocess.run([*command, "die"], capture_output=True, text=True, check=False)
    left = Path(dead.stdout.strip())
    assert left.read_bytes() == b"half"
    (tmp_path / "data" / "tmp-00000-of-00001.parquet").write_bytes(b"of a split called tmp")
    with subprocess.Popen([*command, "live"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as live:
        assert live.stdout
        held = Path(live.stdout.readline().strip())
        folder.sweep(["data", "index"])
        assert folder.names("data") == ("tmp-00000-of-00001.parquet", held.name)
        live.communicate("")
    folder.write("data/new", b"")  # the next write sweeps too
    assert folder.names("data") == ("new", "tmp-00000-of-00001.parquet")


# --- web servers only ---


def test_a_web_server_is_read_like_a_folder(web: Server, tmp_path: Path) -> None:
    for name, content in FILES.items():
        (tmp_path / "out" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "out" / name).write_bytes(content)
    folder = open_folder(f"{web.url}/out/")
    assert folder.names() == ("data", "meta", "top")
    assert folder.names("none") == ()
    assert [folder.size(name) for name in ("top", "meta/b", "none")] == [10, 0, None]
    assert folder.sizes(["top", "none"]) == {"top": 10, "none": None}
    assert folder.read_many(["top", "meta/b", "none"]) == {"top": FILES["top"], "meta/b": b""}
    assert folder.tails(["top"], 3) == {"top": b"789"}
    with folder.open("top") as file:
        assert file.read() == FILES["top"]


# --- places of folders ---


@pytest.mark.parametrize(
    ("uri", "told"),
    [
        ("s3://", "has no bucket"),
        ("gs:///", "has no bucket"),
        ("nonsense://x/y", "Protocol not known"),
        ("s3://bucket/run[1]", "must not contain"),
        ("s3://bucket/data*", "must not contain"),
        ("https://host/out", "cannot be written to"),
    ],
)
def test_a_place_that_cannot_be_is_refused(uri: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        open_folder(uri, for_writing=True)


def test_a_file_uri_is_a_path(tmp_path: Path) -> None:
    assert open_folder(f"file://{tmp_path}") == LocalFolder(tmp_path)
    assert is_local(f"file://{tmp_path}")
    assert absolute(f"file://{tmp_path}") == str(tmp_path)
    assert not is_local("s3://bucket")


def test_any_other_file_system_of_fsspec_works_too() -> None:
    folder = open_folder("memory://somewhere/out", for_writing=True)
    assert isinstance(folder, RemoteFolder)
    with folder.exclusive("meta/lock"):
        folder.write("meta/a", json.dumps([1]).encode())
    assert folder.names("meta") == ("a",)
    assert folder.tails(["meta/a"], 2) == {"meta/a": b"1]"}
    folder.remove("meta")
    assert folder.names() == ()
