import json
import mmap
import struct
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from crc32c import crc32c
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import DatasetError
from schemas.source import Array
from schemas.store import index
from schemas.store.arrow import frames_to_arrow
from schemas.store.index import Checks, Index
from tests.version2 import encode_version_2

Frames = Sequence[bytes | None]


def lengths_of(columns: dict[str, Frames]) -> Array:
    """Return [rows, columns] lengths, -1 for a missing frame."""
    sizes = [[-1 if frame is None else len(frame) for frame in frames] for frames in columns.values()]
    return np.array(sizes, np.int64).reshape(len(columns), -1).T


def write(path: Path, columns: dict[str, Frames], **options: Any) -> memoryview:
    """Write columns of images between columns of numbers, as the format requires, and map the file."""
    rows = len(next(iter(columns.values())))
    arrays = {name: frames_to_arrow(frames) for name, frames in columns.items()}
    table = pa.table({"before": np.arange(rows), **arrays, "after": np.arange(rows) * 0.5})
    leaves = [f"{name}.{part}" for name in columns for part in ("bytes", "path")]
    pq.write_table(
        table,
        path,
        **{
            "compression": {"before": "zstd", "after": "zstd", **dict.fromkeys(leaves, "none")},
            "use_dictionary": ["before"],
            "write_statistics": ["before"],
            **options,
        },
    )
    with path.open("rb") as file:
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def assert_other_bytes_have_their_checksum(path: Path, data: bytes, built: Index, images: list[str]) -> None:
    assert built.checks
    metadata = pq.read_metadata(path)
    for group in range(metadata.num_row_groups):
        chunks = [metadata.row_group(group).column(i) for i in range(metadata.num_columns)]
        others = [chunk for chunk in chunks if not chunk.path_in_schema.startswith(tuple(f"{n}." for n in images))]
        assert built.checks.leaves == tuple(chunk.path_in_schema for chunk in others)
        for k, chunk in enumerate(others):
            start = chunk.dictionary_page_offset or chunk.data_page_offset
            assert built.checks.chunks[group, k] == crc32c(data[start : start + chunk.total_compressed_size])
    footer = int.from_bytes(data[-8:-4], "little") + 8
    assert built.checks.footer == crc32c(data[-footer:])


def slices(path: Path, data: memoryview, columns: dict[str, Frames]) -> dict[str, list[bytes | None]]:
    """Slice every image out of the file with the index built from it."""
    lengths = lengths_of(columns)
    built = index.build(path, columns=list(columns), lengths=lengths)
    offsets = built.offsets
    assert np.array_equal(built.lengths, lengths.clip(0))
    present = list(zip(*np.nonzero(lengths > 0), strict=True))
    assert [built.images[at]["crc"] for at in present] == [
        crc32c(bytes(data[int(offsets[at]) : int(offsets[at] + lengths[at])])) for at in present
    ]
    assert not built.images["crc"][lengths <= 0].any()
    assert_other_bytes_have_their_checksum(path, bytes(data), built, list(columns))
    return {
        name: [
            None if n < 0 else bytes(data[start : start + n])
            for start, n in zip(offsets[:, i].tolist(), lengths[:, i].tolist(), strict=True)
        ]
        for i, name in enumerate(columns)
    }


def make_frames(rows: int, *, seed: int, size: int = 400) -> Frames:
    rng = np.random.default_rng(seed)
    return [None if rng.random() < 0.2 else rng.bytes(int(rng.integers(0, size))) for _ in range(rows)]


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("page", [1, 1000, 1 << 20])
@pytest.mark.parametrize("group", [1, 7, 1000])
@pytest.mark.parametrize("batch", [1, 1024])
def test_every_slice_is_the_image_that_pyarrow_reads(
    tmp_path: Path, version: str, page: int, group: int, batch: int
) -> None:
    columns = {"a": make_frames(50, seed=0), "observation.images.b": make_frames(50, seed=1, size=3000)}
    path = tmp_path / "a.parquet"
    data = write(
        path, columns, data_page_version=version, data_page_size=page, row_group_size=group, write_batch_size=batch
    )
    found = slices(path, data, columns)
    table = pq.read_table(path)
    for name, frames in columns.items():
        assert [row and row["bytes"] for row in table[name].to_pylist()] == list(frames)
        assert found[name] == list(frames)


SIZES = st.lists(st.none() | st.integers(0, 300) | st.just(70_000), min_size=1, max_size=30)


@settings(max_examples=60)
@given(
    sizes=SIZES,
    version=st.sampled_from(["1.0", "2.0"]),
    page=st.sampled_from([1, 200, 1 << 26]),
    group=st.integers(1, 40),
    batch=st.integers(1, 40),
    stats=st.booleans(),
)
def test_every_slice_is_its_image_whatever_the_sizes(
    tmp_path_factory: pytest.TempPathFactory,
    sizes: list[int | None],
    version: str,
    page: int,
    group: int,
    batch: int,
    *,
    stats: bool,
) -> None:
    frames = [None if size is None else bytes([i % 256]) * size for i, size in enumerate(sizes)]
    columns = {"a": frames, "b": frames[::-1]}
    path = tmp_path_factory.mktemp("index") / "a.parquet"
    data = write(
        path,
        columns,
        data_page_version=version,
        data_page_size=page,
        row_group_size=group,
        write_batch_size=batch,
        write_statistics=stats,
        write_page_index=stats,
        write_page_checksum=stats,
    )
    assert slices(path, data, columns) == {name: list(column) for name, column in columns.items()}


@pytest.mark.parametrize("frames", [[None, None], [b"", b""], [b""], [None, b""]])
def test_a_column_may_hold_no_image(tmp_path: Path, frames: Frames) -> None:
    data = write(tmp_path / "a.parquet", {"a": frames})
    assert slices(tmp_path / "a.parquet", data, {"a": frames}) == {"a": list(frames)}


def test_a_file_may_have_no_cameras(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"before": [1, 2]}), path)
    assert index.build(path, columns=[], lengths=np.zeros((2, 0), np.int64)).images.shape == (2, 0)


@pytest.mark.parametrize("wrong", [-1, 0, 9, 11, 10_000, 1 << 40])
@pytest.mark.parametrize("row", [0, 1, 4])
def test_a_wrong_length_is_found(tmp_path: Path, wrong: int, row: int) -> None:
    columns: dict[str, Frames] = {"a": [bytes([i + 1]) * 10 for i in range(5)]}
    path = tmp_path / "a.parquet"
    write(path, columns)
    lengths = lengths_of(columns)
    lengths[row, 0] = wrong
    with pytest.raises(DatasetError) as error:
        index.build(path, columns=["a"], lengths=lengths)
    assert str(error.value) == f"{path}: a: the images are not at the expected offsets"


def test_swapped_lengths_are_found_though_they_fill_the_page(tmp_path: Path) -> None:
    columns: dict[str, Frames] = {"a": [b"x" * 10] * 3, "b": [b"y" * n for n in (10, 20, 30)]}
    path = tmp_path / "a.parquet"
    write(path, columns)
    lengths = lengths_of(columns)
    lengths[[1, 2], 1] = lengths[[2, 1], 1]
    with pytest.raises(DatasetError, match=r"a\.parquet: b: the images are not at"):
        index.build(path, columns=["a", "b"], lengths=lengths)


def test_an_image_that_would_end_behind_the_file_is_found(tmp_path: Path) -> None:
    columns: dict[str, Frames] = {"a": [b"x" * 70_000]}
    path = tmp_path / "a.parquet"
    data = write(path, columns)
    path.write_bytes(bytes(data[:1000]) + bytes(data[61_000:]))
    with pytest.raises(DatasetError, match="the images are not at"):
        index.build(path, columns=["a"], lengths=lengths_of(columns))


@pytest.mark.parametrize("size", [1, 1361, 4093, 4096, 70_000])
def test_the_chunks_are_the_file_and_a_length_may_lie_across_two(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(index, "CHUNK", mmap.ALLOCATIONGRANULARITY)
    columns: dict[str, Frames] = {"a": [b"x" * size] * 40, "b": make_frames(40, seed=2)}
    path, chunks = tmp_path / "a.parquet", list[bytes]()
    data = write(path, columns)
    lengths = lengths_of(columns)
    built = index.build(path, columns=["a", "b"], lengths=lengths, chunk=lambda chunk: chunks.append(bytes(chunk)))
    offsets = built.offsets
    assert b"".join(chunks) == data
    assert built.images["crc"][:, 0].tolist() == [crc32c(b"x" * size)] * 40  # also of those that lie across two
    for row, (offset, length) in enumerate(zip(offsets[:, 0].tolist(), lengths[:, 0].tolist(), strict=True)):
        broken = bytearray(data)
        broken[offset - 1 - row % 4] ^= 1  # one of the four bytes before the image
        path.write_bytes(broken)
        with pytest.raises(DatasetError, match=": a: "):
            index.build(path, columns=["a", "b"], lengths=lengths)
        assert data[offset : offset + length] == b"x" * size


MEMORY = """
import sys, pathlib, numpy as np, xxhash
from schemas.store import index

def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))

path, lengths = pathlib.Path(sys.argv[1]), np.full((int(sys.argv[2]), 1), int(sys.argv[3]))
before = peak()
index.build(path, columns=["a"], lengths=lengths, chunk=xxhash.xxh3_128().update)
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of a process is read from /proc")
def test_the_memory_that_it_takes_is_not_the_file(tmp_path: Path) -> None:
    rows, size = 100, 1 << 20
    write(tmp_path / "a.parquet", {"a": [b"x" * size] * rows}, row_group_size=1)
    command = [sys.executable, "-c", MEMORY, str(tmp_path / "a.parquet"), str(rows), str(size)]
    grown_kb = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert grown_kb < 40_000  # the file has 100 MB


# The file


IMAGES = np.array([[(10, 3, 7), (2**40, 5, 2**32 - 1)], [(0, 0, 0), (30, 2, 9)]], index.IMAGE)


def make(images: Array = IMAGES, *, columns: Sequence[str] = ("a", "b"), groups: int = 2, leaves: int = 3) -> Index:
    chunks = np.arange(groups * leaves, dtype=np.uint32).reshape(groups, leaves)
    checks = Checks(leaves=tuple(f"leaf {i}" for i in range(leaves)), chunks=chunks, footer=2**32 - 2)
    return Index(columns=tuple(columns), images=images, checks=checks)


def make_index(folder: Path) -> Path:
    path = folder / "a.idx"
    path.write_bytes(make().encode()[0])
    return path


def opened(path: Path) -> Index:
    return Index.decode(path.read_bytes(), str(path))


def test_an_index_is_read_as_it_was_written(tmp_path: Path) -> None:
    read = opened(make_index(tmp_path))
    assert read.columns == ("a", "b")
    assert read.offsets.tolist() == [[10, 2**40], [0, 30]]
    assert read.lengths.tolist() == [[3, 5], [0, 2]]
    assert read.images["crc"].tolist() == [[7, 2**32 - 1], [0, 9]]
    assert read.checks
    assert (read.checks.leaves, read.checks.footer) == (("leaf 0", "leaf 1", "leaf 2"), 2**32 - 2)
    assert read.checks.chunks.tolist() == [[0, 1, 2], [3, 4, 5]]


def test_an_index_of_version_2_has_no_checksums(tmp_path: Path) -> None:
    path = tmp_path / "a.idx"
    path.write_bytes(encode_version_2(["a", "b"], IMAGES["offset"], IMAGES["length"]))
    read = opened(path)
    assert (read.columns, read.checks) == (("a", "b"), None)
    assert read.offsets.tolist() == [[10, 2**40], [0, 30]]
    assert read.lengths.tolist() == [[3, 5], [0, 2]]
    for content in (path.read_bytes()[:-1], path.read_bytes() + b"\0"):
        path.write_bytes(content)
        with pytest.raises(DatasetError, match="bytes, expected"):
            opened(path)


def test_an_index_is_laid_out_as_the_docs_say(tmp_path: Path) -> None:
    data = make_index(tmp_path).read_bytes()
    assert data[:8] == b"OXEIDX02"
    size = int.from_bytes(data[8:12], "little")
    assert (12 + size) % 8 == 0
    assert make().encode()[1] == 12 + size
    leaves = ["leaf 0", "leaf 1", "leaf 2"]
    assert json.loads(data[12 : 12 + size]) == {"rows": 2, "columns": ["a", "b"], "groups": 2, "chunks": leaves}
    numbers = data[12 + size :]
    assert [struct.unpack_from("<QII", numbers, 16 * i) for i in range(4)] == [
        image for row in IMAGES.tolist() for image in row
    ]
    assert struct.unpack_from("<7I", numbers, 64) == (0, 1, 2, 3, 4, 5, 2**32 - 2)
    assert len(numbers) == 64 + 28


@pytest.mark.parametrize("columns", [[], ["a"], ["camera " + "x" * n for n in range(9)]])
@pytest.mark.parametrize("rows", [0, 1, 3])
def test_an_index_may_have_any_shape(tmp_path: Path, columns: list[str], rows: int) -> None:
    images = np.zeros((rows, len(columns)), index.IMAGE)
    images["length"] = np.arange(rows * len(columns)).reshape(rows, len(columns))
    (tmp_path / "a.idx").write_bytes(make(images, columns=columns, groups=rows, leaves=len(columns)).encode()[0])
    read = opened(tmp_path / "a.idx")
    assert read.columns == tuple(columns)
    assert np.array_equal(read.images, images)


def test_no_cut_of_an_index_is_taken_for_one(tmp_path: Path) -> None:
    path = make_index(tmp_path)
    whole = path.read_bytes()
    for end in range(len(whole)):
        path.write_bytes(whole[:end])
        with pytest.raises(DatasetError, match=f"^{path}: "):
            opened(path)
    path.write_bytes(whole + b"\0")
    with pytest.raises(DatasetError, match=f"{len(whole) + 1} bytes, expected {len(whole)}"):
        opened(path)


def headed(header: bytes) -> bytes:
    return index.MAGIC + len(header).to_bytes(4, "little") + header


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"not an index file"),
        (b"PAR1" * 10, "not an index file"),
        (b"OXEIDX03" + b"\0" * 20, "not an index file"),
        (headed(b"{broken"), "the index has a broken header"),
        (headed(b"\xff\xfe\xff"), "the index has a broken header"),
        (headed(b"[]"), "the index has a broken header"),
        (headed(b'{"rows": 1}'), "the index has a broken header"),
        (headed(b'{"rows": "many", "columns": []}'), "the index has a broken header"),
        (headed(b'{"rows": -1, "columns": [], "groups": 0, "chunks": []}'), "bytes, expected"),
        (headed(b'{"rows": 99999999999, "columns": ["a"], "groups": 1, "chunks": []}'), "bytes, expected"),
        (headed(b'{"rows": 1, "columns": ["a"], "groups": 99999999999, "chunks": ["a"]}'), "bytes, expected"),
        (headed(b'{"rows": 1, "columns": []}'), "the index has a broken header"),
    ],
)
def test_a_file_that_is_no_index_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.idx").write_bytes(content)
    with pytest.raises(DatasetError, match=f"^{tmp_path}/a.idx: .*{message}"):
        opened(tmp_path / "a.idx")
