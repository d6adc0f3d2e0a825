"""Folders without recordings of a known format: the error says what was looked for and what they contain."""

import gzip
import tarfile
from pathlib import Path

import numpy as np
import pytest

from pipelines.readers.reader import plan
from pipelines.readers.registry import open_source
from pipelines.readers.rlds.reader import RldsReader
from pipelines.readers.rlds.tfrecord import frame
from schemas.errors import SourceError, UsageError
from tests.makers import write_video
from tests.pipelines.toy import columns, oxe, write_source

LOOKED_FOR = ("features.json", ".hdf5", "meta/info.json", ".zarr", ".mcap", ".npz")


def message(uri: Path | str) -> str:
    """Return the error of a folder, and check that it names every format."""
    with pytest.raises(UsageError, match="no recordings are recognized here") as caught:
        open_source(str(uri))
    text = str(caught.value)
    assert all(word in text for word in LOOKED_FOR)
    return text


def fill(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    return folder


def test_an_empty_folder_contains_no_files(tmp_path: Path) -> None:
    assert "it contains no files" in message(tmp_path)
    done = oxe("inspect", tmp_path)
    assert (done.code, done.err.count("\n")) == (2, 1)


def test_files_are_counted_by_ending_with_an_example(tmp_path: Path) -> None:
    fill(tmp_path, "a/x.bin", "a/y.bin", "notes.md", "LICENSE", ".hidden", "deep/er/z.bin")
    assert (
        "it contains 3 .bin (such as a/x.bin), 1 files without an ending (such as LICENSE), 1 .md (such as notes.md)"
        in message(tmp_path)
    )


def test_many_endings_are_cut(tmp_path: Path) -> None:
    fill(tmp_path, *(f"x.e{i}" for i in range(9)))
    assert "1 .e5 (such as x.e5), and 3 other types of files" in message(tmp_path)


@pytest.mark.parametrize(
    ("names", "hint"),
    [
        (["cam.mp4"], "videos alone hold no actions"),
        (["meta_data/info.json", "train/data-00000-of-00001.arrow", "train/state.json"], "LeRobot before v2"),
        (["toy-train.tfrecord.gz"], "toy-train.tfrecord.gz is compressed or an archive: unpack it"),
        (["1.0.0/toy-train.tfrecord-00000-of-00001.gz"], "00000-of-00001.gz is compressed or an archive"),
        (["toy-train.tfrecord-00000-of-00002"], "the RLDS shards have no features.json"),
        (["demo.hdf5.gz"], "1 .hdf5.gz (such as demo.hdf5.gz); demo.hdf5.gz is compressed"),
        (["recordings.tar"], "recordings.tar is compressed or an archive"),
        (["data.zip", "readme.txt"], "data.zip is compressed or an archive"),
        (["0.pt", "1.pt"], "pickles, also as .pt or .pth, are never read"),
        (["data.json", "colors/000000_color_0.jpg"], "if this folder is one episode, name the folder above it"),
        (["demo_0.json", "demo_1.json"], "episodes = '*.json'"),
    ],
)
def test_a_layout_that_is_known_but_not_read_is_named(tmp_path: Path, names: list[str], hint: str) -> None:
    assert hint in message(fill(tmp_path, *names))


@pytest.mark.parametrize(
    "names",
    [
        ["data/chunk-000/file-000.parquet", "videos/front/chunk-000/file-000.mp4"],
        ["chunk-000/episode_000000.parquet", "chunk-001/episode_000001.parquet"],
    ],
)
def test_lerobot_without_its_folder_meta_is_named(tmp_path: Path, names: list[str]) -> None:
    with pytest.raises(SourceError, match="a data file of a LeRobotDataset without its folder 'meta': copy that too"):
        open_source(str(fill(tmp_path, *names)))


def test_pickles_are_answered_as_such(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="a pickle, which is never read"):
        open_source(str(fill(tmp_path, "0.pkl", "1.pkl")))


def test_a_file_of_another_type_is_named_with_its_hint(tmp_path: Path) -> None:
    write_video(tmp_path / "cam.mp4", frames=2)
    assert "videos alone" in message(tmp_path / "cam.mp4")
    with tarfile.open(tmp_path / "a.tar", "w") as file:
        file.add(tmp_path / "cam.mp4", "cam.mp4")
    assert "a.tar is compressed or an archive" in message(tmp_path / "a.tar")


def test_a_name_that_does_not_exist_is_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file or folder"):
        open_source(str(tmp_path / "nowhere"))


# --- compressed TFRecord files in an RLDS dataset ---


@pytest.mark.parametrize("is_listed", [True, False])
def test_shards_that_were_packed_with_gzip_are_named(tmp_path: Path, *, is_listed: bool) -> None:
    write_source(tmp_path / "toy", [columns(0)])
    (shard,) = (tmp_path / "toy").glob("*.tfrecord*")
    Path(f"{shard}.gz").write_bytes(gzip.compress(shard.read_bytes()))
    shard.unlink()
    if not is_listed:
        (tmp_path / "toy/dataset_info.json").unlink()
        with pytest.raises(SourceError, match=r"no splits.*\.gz is compressed with gzip: unpack it with gunzip"):
            RldsReader(str(tmp_path / "toy")).files()
        return
    reader = RldsReader(str(tmp_path / "toy"))
    (value,) = [value for ref in plan(reader.files()) for value in reader.read(ref)]
    assert "unpack" in getattr(value, "detail", "")
    assert ".gz with gunzip" in getattr(value, "detail", "")


@pytest.mark.parametrize("kind", ["gzip", "zlib"])
def test_shards_that_hold_compressed_records_are_named(tmp_path: Path, kind: str) -> None:
    import zlib

    write_source(tmp_path / "toy", [columns(0)])
    (shard,) = (tmp_path / "toy").glob("*.tfrecord*")
    pack = {"gzip": gzip.compress, "zlib": zlib.compress}[kind]
    shard.write_bytes(pack(shard.read_bytes()))
    reader = RldsReader(str(tmp_path / "toy"))
    (value,) = [value for ref in plan(reader.files()) for value in reader.read(ref)]
    assert f"compressed with {kind}" in getattr(value, "detail", "")


def test_records_that_start_like_zlib_are_read(tmp_path: Path) -> None:
    from pipelines.readers.rlds import tfrecord

    data = np.zeros(0x9C78, np.uint8).tobytes()
    (tmp_path / "x").write_bytes(frame(data))
    with (tmp_path / "x").open("rb") as file:
        assert list(tfrecord.offsets(file, "x")) == [(0, len(data))]
