"""`oxe upgrade` and repairs of a dataset in an object store."""

from pathlib import Path

import pytest

from schemas.files import network
from schemas.store.dataset import open_dataset
from tests.pipelines.convert.test_remote import assert_one_line, make, same, with_credentials
from tests.pipelines.toy import files, oxe
from tests.schemas.store.test_damage import content
from tests.servers import Bucket, Fault
from tests.version2 import written

__all__ = ["with_credentials"]  # a fixture

CHANGES = ("PUT", "POST", "DELETE")  # s3fs removes objects with POST


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the pauses before a request is repeated."""
    monkeypatch.setattr(network, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(network, "TRIES", 2)
    monkeypatch.setattr("pipelines.beam.shards.PAUSES", (0.001, 0.001))


@pytest.fixture
def out(tmp_path: Path, bucket: Bucket, with_credentials: None) -> str:
    """Put a dataset of version 2 into a store."""
    return bucket.upload(written(tmp_path), "out")


@pytest.fixture
def expected(tmp_path: Path) -> dict[str, bytes]:
    """Upgrade the same dataset on this machine."""
    local = written(tmp_path / "local")
    assert oxe("upgrade", local).code == 0
    return same(files(local))


def test_an_upgrade_in_a_store_is_the_same_and_uploads_no_data(
    out: str, bucket: Bucket, expected: dict[str, bytes]
) -> None:
    stored, before = list(content(open_dataset(out))), open_dataset(out)
    planned = oxe("upgrade", out, "--dry-run", "--json").json()
    assert [name for name in bucket.files("out") if "pending" in name] == []
    requests = len(bucket.server.requests)
    done = oxe("upgrade", out, "--json")
    assert done.code == 0, done.err
    assert {**done.json(), "dry_run": True, "seconds": 0} == {**planned, "seconds": 0}
    assert [name for name in bucket.written("out", since=requests) if name.startswith("data/")] == []
    assert same(bucket.files("out")) == expected
    assert open_dataset(out).digest == before.digest
    assert list(content(open_dataset(out))) == list(content(before)) == stored
    assert oxe("verify", out).code == 0
    assert oxe("upgrade", out).out == f"{out}: has schema version 3 already; nothing was written\n"


@pytest.mark.slow
def test_an_upgrade_in_a_store_that_fails_at_any_request_is_completed(
    tmp_path: Path, out: str, bucket: Bucket, expected: dict[str, bytes]
) -> None:
    stored, versions = list(content(open_dataset(out))), []
    for number in range(0, 100, 2):
        copy = bucket.upload(written(tmp_path / f"{number}"), f"copy{number}")
        bucket.server.faults[:] = [Fault("503", path=f"/{bucket.name}*", after=number, methods=CHANGES)]
        failed = oxe("upgrade", copy)
        bucket.server.faults.clear()
        if failed.code == 0:
            break
        assert_one_line(failed, "Service Unavailable")
        dataset = open_dataset(copy)
        versions.append(dataset.version)
        assert list(content(dataset)) == stored, number
        assert oxe("upgrade", copy).code == 0
        assert same(bucket.files(f"copy{number}")) == expected
    assert set(versions) == {2, 3}
    assert len(versions) > 5


def test_a_damaged_object_is_not_given_checksums(out: str, bucket: Bucket) -> None:
    name = "data/val-00000-of-00001.parquet"
    data = bytearray(bucket.files("out")[name])
    data[len(data) // 3] ^= 1
    bucket.put(f"out/{name}", bytes(data))
    assert_one_line(oxe("upgrade", out), f"{out}/{name}: damaged (its digest is not that of the manifest)")
    assert open_dataset(out).version == 2


def test_an_upgrade_without_the_right_to_write_changes_nothing(out: str, bucket: Bucket) -> None:
    before = bucket.files("out")
    bucket.server.faults.append(Fault("403", path=f"/{bucket.name}/out/*", methods=CHANGES))
    assert_one_line(oxe("upgrade", out), "cannot be reached", "Forbidden")
    bucket.server.faults.clear()
    assert bucket.files("out") == before


# --- repairs ---


def test_a_dataset_in_a_store_is_repaired(tmp_path: Path, bucket: Bucket, with_credentials: None) -> None:
    toy, out = make(tmp_path), bucket.uri("out")
    arguments = ("convert", toy.spec, "--source", toy.source, "--out", out)
    assert oxe(*arguments).code == 0
    expected = same(bucket.files("out"))
    lost = ["data/s1-00000-of-00001.parquet", "index/s2-00000-of-00001.idx", "meta/episodes.idx"]
    bucket.put(f"out/{lost[0]}", b"short")
    for name in lost[1:]:
        bucket.fs.rm(f"{bucket.name}/out/{name}")
    before = len(bucket.server.requests)
    done = oxe(*arguments, "--json")
    assert (done.code, done.json()["repaired"]) == (0, lost), done.err
    shards = {name for name in bucket.written("out", since=before) if name.startswith(("data", "index"))}
    assert {name.partition("-")[0] for name in shards} == {"data/s1", "index/s1", "data/s2", "index/s2"}
    assert same(bucket.files("out")) == expected
    assert oxe("verify", out).code == 0
