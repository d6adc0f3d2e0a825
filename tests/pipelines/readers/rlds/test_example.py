import struct
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from pipelines.readers.rlds import example
from schemas.errors import SourceError

INTS = npst.arrays(np.int64, st.integers(0, 40), elements=st.integers(-(2**63), 2**63 - 1) | st.integers(-2, 200))
FLOATS = npst.arrays(np.float32, st.integers(0, 40))
BLOBS = st.lists(st.binary(max_size=10) | st.just(b"x" * 20_000), max_size=6)
EXAMPLES = st.dictionaries(st.text(max_size=200), INTS | FLOATS | BLOBS, max_size=6)


def decoded(record: bytes) -> dict[str, Any]:
    return {key: decode(value) for key, value in example.parse(memoryview(record)).items()}


def decode(value: example.Value) -> Any:
    match value[0]:
        case example.BYTES:
            return [bytes(item) for item in example.blobs(value)]
        case example.FLOATS:
            return example.floats(value)
        case _:
            return example.ints(value)


def equal(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return one.keys() == other.keys() and all(
        one[k] == other[k] if isinstance(one[k], list) else one[k].tobytes() == other[k].tobytes() for k in one
    )


def proto(features: Mapping[str, Any]) -> Any:
    tf = pytest.importorskip("tensorflow")
    made = tf.train.Example()
    made.features.SetInParent()
    for key, values in features.items():
        feature = made.features.feature[key]
        if isinstance(values, list):
            feature.bytes_list.value[:] = values
            feature.bytes_list.SetInParent()
        elif values.dtype == np.float32:
            feature.float_list.value[:] = values
            feature.float_list.SetInParent()
        else:
            feature.int64_list.value[:] = values
            feature.int64_list.SetInParent()
    return made


@given(EXAMPLES)
def test_what_protobuf_writes_is_read(features: dict[str, Any]) -> None:
    assert equal(decoded(proto(features).SerializeToString()), features)


@given(EXAMPLES)
def test_what_is_written_protobuf_reads(features: dict[str, Any]) -> None:
    assert type(made := proto(features)).FromString(example.encode(features)) == made


@given(
    npst.arrays(st.sampled_from([np.bool_, np.uint8, np.int32, np.uint32, np.uint64, np.float64]), st.integers(0, 9))
)
def test_every_dtype_is_stored_as_tfds_does(values: Any) -> None:
    with np.errstate(over="ignore"):  # float32 has no number for the largest float64: infinity
        stored = decoded(example.encode({"a": values}))["a"]
        single = values.astype(np.float32)
    if values.dtype == np.float64:
        assert stored.tobytes() == single.tobytes()
    else:
        assert stored.view(np.uint64).tolist() == values.astype(np.int64).view(np.uint64).tolist()


def test_unpacked_numbers_are_read_too() -> None:
    ints = b"\x08\x01\x08\xac\x02\x08" + b"\xff" * 9 + b"\x01"
    floats = b"\x0d" + struct.pack("<f", 1.5) + b"\x0a\x08" + struct.pack("<ff", 2, 3)
    assert example.ints((example.INTS, memoryview(ints))).tolist() == [1, 300, -1]
    assert example.floats((example.FLOATS, memoryview(floats))).tolist() == [1.5, 2, 3]


def test_unknown_fields_are_ignored_as_protobuf_does() -> None:
    assert example.ints((example.INTS, memoryview(b"\x10\x07\x08\x01"))).tolist() == [1]


def test_items_are_views_into_the_record() -> None:
    record = memoryview(example.encode({"image": [b"jpeg"]}))
    (item,) = example.blobs(example.parse(record)["image"])
    assert isinstance(item, memoryview)
    assert item.obj is record.obj


@pytest.mark.parametrize(
    ("decode", "held", "words"),
    [
        (example.floats, np.array([1], np.int64), "declares floats, but the record contains integers"),
        (example.ints, [b"a"], "declares integers, but the record contains bytes"),
        (example.blobs, np.array([1], np.float32), "declares bytes, but the record contains floats"),
    ],
)
def test_a_list_of_another_kind_contradicts(decode: Any, held: Any, words: str) -> None:
    value = example.parse(memoryview(example.encode({"a": held})))["a"]
    with pytest.raises(SourceError, match=words) as caught:
        decode(value)
    assert caught.value.reason == "contradicts_features"


@pytest.mark.parametrize(
    ("record", "words"),
    [
        (b"\x0a", "ends inside a number"),
        (b"\x0a\x05abc", "extends beyond its message"),
        (b"\x0a" + b"\xff" * 9 + b"\x7f", "extends beyond its message"),
        (b"\xff" * 11, "more than 10 bytes"),
        (b"\x0b", "wire type 3"),
        (b"\x0a\x06\x0a\x04\x0a\x02\xff\xfe", "utf-8"),
    ],
)
def test_a_record_that_is_not_an_example_says_why(record: bytes, words: str) -> None:
    with pytest.raises(SourceError, match=words) as caught:
        example.parse(memoryview(record))
    assert caught.value.reason == "malformed_record"


def raises_only_source_errors(record: bytes) -> None:
    try:
        parsed = example.parse(memoryview(record))
    except SourceError:
        return
    for _, content in parsed.values():
        for kind, read in ((1, example.blobs), (2, example.floats), (3, example.ints)):
            with suppress(SourceError):
                read((kind, content))


@given(st.binary(max_size=300))
def test_random_bytes_raise_only_source_errors(record: bytes) -> None:
    raises_only_source_errors(record)
    raises_only_source_errors(b"".join([b"\x0a", bytes([min(len(record), 127)]), record]))


@given(EXAMPLES, st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=4))
def test_a_damaged_example_raises_only_source_errors(
    features: dict[str, Any], changes: list[tuple[float, int]]
) -> None:
    record = bytearray(example.encode(features))
    for place, byte in changes:
        if record:
            record[int(place * len(record))] = byte
    raises_only_source_errors(bytes(record))
    raises_only_source_errors(bytes(record[: int(changes[0][0] * len(record))]))
