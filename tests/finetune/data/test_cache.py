"""What is kept on this machine: whole or not there, bounded, and shared."""

import os
import threading
from pathlib import Path

import pytest

from finetune.data.cache import BLOCK, LEAST, BlockCache, RemoteRanges, default_folder, keep
from schemas.errors import UsageError
from schemas.files.folder import open_folder
from schemas.mixture import lock as locks
from tests.finetune.lab import first, make_lab, make_loader
from tests.pipelines.mix.lab import made
from tests.servers import Server


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_a_block_is_fetched_once(tmp_path: Path) -> None:
    cache = BlockCache(tmp_path)
    fetched: list[int] = []

    def fetch() -> bytes:
        fetched.append(1)
        return b"content"

    assert [cache.get("a/b", fetch) for _ in range(3)] == [b"content"] * 3
    assert BlockCache(tmp_path).get("a/b", fetch) == b"content"
    assert len(fetched) == 1


def test_the_blocks_that_were_not_used_for_the_longest_time_make_room(tmp_path: Path) -> None:
    cache = BlockCache(tmp_path, LEAST)
    for number in range(200):
        cache.get(str(number), lambda: bytes(BLOCK))
        os.utime(tmp_path / str(number), (number, number))
        cache.get("0", lambda: pytest.fail("it is used all the time"))
        assert size_of(tmp_path) <= LEAST + LEAST // 16 + BLOCK
    assert not (tmp_path / "1").exists()
    assert (tmp_path / "199").exists()


def test_threads_share_a_cache_that_is_always_too_small(tmp_path: Path) -> None:
    def work(seed: int) -> None:
        cache = BlockCache(tmp_path, LEAST)
        for step in range(150):
            number = (seed * 31 + step * 7) % 97
            if cache.get(str(number), lambda n=number: bytes([n]) * BLOCK) != bytes([number]) * BLOCK:  # type: ignore[misc]
                wrong.append(number)

    wrong: list[int] = []
    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_cache_that_cannot_be_written_says_how_to_name_another(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UsageError, match=r"cannot write .*OXE_TOOLS_CACHE"):
        keep(tmp_path / "file" / "below" / "x", b"")
    with pytest.raises(UsageError, match="at least"):
        BlockCache(tmp_path, 10)


def test_the_users_own_folder_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    monkeypatch.delenv("OXE_TOOLS_CACHE")
    assert default_folder() == Path("/somewhere/oxe-tools")


def test_ranges_of_a_remote_file_are_put_together_from_blocks(tmp_path: Path) -> None:
    content = os.urandom(3 * BLOCK + 1000)
    folder = open_folder("memory://ranges", for_writing=True)
    folder.write("file", content)
    ranges = RemoteRanges(folder, "file", key="k", cache=BlockCache(tmp_path))
    for start, count in ((0, 1), (BLOCK - 5, 10), (BLOCK, BLOCK), (10, 3 * BLOCK), (3 * BLOCK + 990, 10)):
        assert ranges.read(start, count) == content[start : start + count]


def test_a_remote_mixture_gives_the_same_samples_and_is_fetched_once(web: Server, tmp_path: Path) -> None:
    local = make_lab(tmp_path)
    tables = f'[sources]\none = {{ uri = "{web.url}/one" }}\ntwo = {{ uri = "{web.url}/two" }}\n'
    remote = tmp_path / "remote" / "remote.lock"
    remote.parent.mkdir()
    locks.write(remote, *made(tmp_path, tables=tables))
    expected = list(first(make_loader(local, batch_size=4), 40))
    for _ in range(2):
        loader = make_loader(remote, batch_size=4, threads=2, cache=tmp_path / "cache")
        assert list(first(loader, 40)) == expected
    asked = [request for request in web.requests if request.path.endswith(".parquet") and "/data/" in request.path]
    fetched = [request for request in asked if request.method == "GET"]
    web.requests.clear()
    assert list(first(make_loader(remote, batch_size=4, cache=tmp_path / "cache"), 40)) == expected
    again = [r for r in web.requests if r.method == "GET" and "/data/" in r.path]
    assert fetched
    assert not again
