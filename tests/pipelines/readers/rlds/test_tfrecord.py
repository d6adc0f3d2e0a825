import gzip
import io
import struct
import zlib
from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.readers.rlds import tfrecord
from schemas.errors import SourceError

RECORDS = st.lists(st.binary(max_size=300), max_size=5)


def read(data: bytes) -> list[bytes]:
    """Read and verify every record."""
    records = tfrecord.RecordFile(io.BytesIO(data), "shard")
    found = []
    while (length := records.next_length()) is not None:
        found.append(bytes(records.data(length)))
    return found


def flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


@given(RECORDS)
def test_records_read_as_they_were_framed(records: list[bytes]) -> None:
    assert read(b"".join(map(tfrecord.frame, records))) == records


def test_frames_are_tensorflows_to_the_byte(tmp_path: object) -> None:
    tf = pytest.importorskip("tensorflow")
    path = f"{tmp_path}/shard"
    records = [b"", b"a", bytes(range(256)) * 300]
    with tf.io.TFRecordWriter(path) as file:
        for record in records:
            file.write(record)
    with open(path, "rb") as file:  # noqa: PTH123
        assert file.read() == b"".join(map(tfrecord.frame, records))


@given(RECORDS)
def test_offsets_are_those_of_the_records(records: list[bytes]) -> None:
    data = b"".join(map(tfrecord.frame, records))
    found = list(tfrecord.offsets(io.BytesIO(data), "shard"))
    assert [data[at + 12 : at + 12 + length] for at, length in found] == records


@given(st.binary(max_size=50), st.binary(min_size=1, max_size=50), st.data())
def test_a_file_that_ends_inside_a_record_is_truncated(first: bytes, last: bytes, data: st.DataObject) -> None:
    whole = tfrecord.frame(first) + tfrecord.frame(last)
    start = len(tfrecord.frame(first))
    end = data.draw(st.integers(start + 1, len(whole) - 1))
    with pytest.raises(SourceError, match="the file ends") as caught:
        read(whole[:end])
    assert (caught.value.reason, caught.value.offset, caught.value.file) == ("truncated", start, "shard")


@given(st.binary(min_size=1, max_size=50), st.data())
def test_a_flipped_bit_anywhere_is_found(record: bytes, data: st.DataObject) -> None:
    framed = tfrecord.frame(record)
    with pytest.raises(SourceError, match="wrong CRC") as caught:
        read(flip(framed, data.draw(st.integers(0, len(framed) - 1))))
    assert caught.value.reason == "wrong_crc"


@pytest.mark.parametrize("length", [1 << 63, (1 << 64) - 1, 1 << 40, 6])
def test_a_length_with_a_right_crc_that_reaches_beyond_the_file_allocates_nothing(length: int) -> None:
    header = struct.pack("<Q", length)
    data = header + struct.pack("<I", tfrecord.masked_crc(header)) + b"x" * 9
    with pytest.raises(SourceError, match=f"the record declares {length} bytes"):
        read(data)


def test_a_git_lfs_pointer_is_named_as_such() -> None:
    with pytest.raises(SourceError, match="git lfs pull") as caught:
        read(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n")
    assert caught.value.reason == "lfs_pointer"


def test_an_empty_file_has_no_records() -> None:
    assert read(b"") == []


@given(st.binary(max_size=200))
def test_random_bytes_raise_only_source_errors(data: bytes) -> None:
    with suppress(SourceError):
        read(data)


@pytest.mark.parametrize(("compress", "said"), [(gzip.compress, "gzip; .*gunzip"), (zlib.compress, "zlib")])
def test_a_compressed_file_is_named_as_such(compress: Callable[[bytes], bytes], said: str) -> None:
    data = compress(b"".join(map(tfrecord.frame, [b"a" * 50, b"b"])))
    for function in (read, lambda data: list(tfrecord.offsets(io.BytesIO(data), "shard"))):
        with pytest.raises(SourceError, match=f"compressed with {said}") as caught:
            function(data)
        assert (caught.value.reason, caught.value.file) == ("compressed_file", "shard")


def test_a_record_whose_length_looks_like_a_compressed_file_is_read() -> None:
    record = bytes(0x8B1F)
    framed = tfrecord.frame(record)
    assert framed[:2] == b"\x1f\x8b"
    assert read(framed) == [record]
