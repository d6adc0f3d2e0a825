"""What is kept on this machine: whole or not there, bounded, and shared."""

import os
import random
import threading
from pathlib import Path

import pytest

from finetune.data import records
from finetune.data.cache import BLOCK, LEAST, BlockCache, RemoteRanges, default_folder, keep
from schemas.errors import DatasetError, UsageError
from schemas.files.folder import open_folder
from schemas.mixture import lock as locks
from tests.finetune.lab import first, locked, make_lab, make_loader
from tests.pipelines.mix.lab import made, make_datasets
from tests.pipelines.toy import oxe
from tests.servers import Server
from tests.version2 import downgrade


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


# --- damage ---


def damage(path: Path, how: str, *, at: int = 1000) -> None:
    data = bytearray(path.read_bytes())
    if how == "flip":
        data[at] ^= 1
    elif how == "zeros":
        data[:] = bytes(len(data))
    elif how == "cut":
        del data[-7:]
    elif how == "empty":
        data.clear()
    path.write_bytes(data)


@pytest.mark.parametrize("how", ["flip", "zeros", "cut", "empty"])
def test_a_damaged_block_is_fetched_again(tmp_path: Path, how: str) -> None:
    content = os.urandom(BLOCK)
    cache, fetched = BlockCache(tmp_path), list[int]()

    def fetch() -> bytes:
        fetched.append(1)
        return content

    for _ in range(2):
        assert cache.get("a/0", fetch, start=900, stop=1100) == content[900:1100]
    assert len(fetched) == 1
    damage(tmp_path / "a/0", how)
    for start, stop in ((900, 1100), (0, BLOCK), (BLOCK - 10, BLOCK)):
        assert cache.get("a/0", fetch, start=start, stop=stop) == content[start:stop]
    assert len(fetched) == 2


def test_every_bit_of_a_small_block_counts(tmp_path: Path) -> None:
    cache, path = BlockCache(tmp_path), tmp_path / "a"
    assert cache.get("a", lambda: b"content") == b"content"
    whole = path.read_bytes()
    for bit in range(8 * len(whole)):
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        assert cache.get("a", lambda: b"fetched") == b"fetched"


def test_a_block_in_the_place_of_another_is_noticed(tmp_path: Path) -> None:
    cache = BlockCache(tmp_path)
    for name in ("k/file/0", "k/file/1"):
        cache.get(name, lambda name=name: name.encode() * 20)  # type: ignore[misc]
    (tmp_path / "k/file/0").rename(tmp_path / "k/file/1")
    assert cache.get("k/file/1", lambda: b"fetched") == b"fetched"


@pytest.mark.parametrize("sources", ["version 2", "version 3"])
def test_a_flipped_bit_in_any_cached_file_changes_no_batch(web: Server, tmp_path: Path, sources: str) -> None:
    make_datasets(tmp_path)
    if sources == "version 2":
        for name in ("one", "two"):
            downgrade(tmp_path / name)
            assert oxe("stats", tmp_path / name).code == 0
    tables = f'[sources]\none = {{ uri = "{web.url}/one" }}\ntwo = {{ uri = "{web.url}/two" }}\n'
    remote = tmp_path / "remote" / "remote.lock"
    remote.parent.mkdir()
    locks.write(remote, *made(tmp_path, tables=tables))
    cache = tmp_path / "cache"
    expected = list(first(make_loader(remote, batch_size=4, state=True, cache=cache), 60))
    cached = [path for path in cache.rglob("*") if path.is_file()]
    assert {path.suffix for path in cached} == {".records", ""}
    rng = random.Random(0)  # noqa: S311 - not a secret
    for path in cached:
        for how in ("flip", "flip", "flip", "zeros", "cut"):
            damage(path, how, at=rng.randrange(path.stat().st_size))
            assert list(first(make_loader(remote, batch_size=4, state=True, cache=cache), 60)) == expected


def test_records_of_one_file_in_the_place_of_another_are_noticed(tmp_path: Path) -> None:
    make_datasets(tmp_path, {"one": (4, 4), "two": (4, 4)})
    path, cache = locked(tmp_path), tmp_path / "cache"
    expected = list(first(make_loader(path, batch_size=4, cache=cache), 60))
    one, other = cache.rglob("*.records")
    assert one.stat().st_size == other.stat().st_size
    one.write_bytes(other.read_bytes())
    assert list(first(make_loader(path, batch_size=4, cache=cache), 60)) == expected


def test_an_image_that_was_fetched_damaged_is_fetched_again(web: Server, tmp_path: Path) -> None:
    """The block has a checksum of its own, so only that of the image can tell."""
    make_datasets(tmp_path)
    tables = f'[sources]\none = {{ uri = "{web.url}/one" }}\ntwo = {{ uri = "{web.url}/two" }}\n'
    remote = tmp_path / "remote" / "remote.lock"
    remote.parent.mkdir()
    locks.write(remote, *made(tmp_path, tables=tables))
    expected = list(first(make_loader(remote, batch_size=4, cache=tmp_path / "cache"), 60))
    for block in [path for path in (tmp_path / "cache").rglob("*") if path.name == "0"]:
        name = str(block.relative_to(tmp_path / "cache/blocks"))
        content = bytearray(BlockCache(tmp_path / "cache/blocks").get(name, bytes))
        content[len(content) // 3 :: 400] = bytes(len(content[len(content) // 3 :: 400]))
        block.unlink()
        BlockCache(tmp_path / "cache/blocks").get(name, lambda content=content: bytes(content))  # type: ignore[misc]
    assert list(first(make_loader(remote, batch_size=4, cache=tmp_path / "cache"), 60)) == expected


def test_a_disk_that_damages_what_was_just_written_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_lab(tmp_path)

    def broken(place: Path, content: bytes) -> None:
        keep(place, bytes([content[0] ^ 1]) + content[1:])

    monkeypatch.setattr(records, "keep", broken)
    with pytest.raises(DatasetError, match=r"\.records: is damaged again right after it was written; check the disk"):
        list(first(make_loader(path, batch_size=4, cache=tmp_path / "cache"), 60))
