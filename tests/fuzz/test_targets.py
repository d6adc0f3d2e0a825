"""Every parser of foreign bytes returns or raises one of our errors."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import TARGETS, run

NASTY = (
    b"",
    b"\xff\xfe\x00",
    b"[" * 5000,
    b'{"a":' * 3000,
    b'{"a": ' + b"9" * 5000 + b"}",
    b'{"a": 1e999}',
    b'{"a": "\\ud800"}',
    b"a = " + b"[" * 2000,
    b"a = " + b"9" * 5000,
    b"a = 1e999",
    b"name = 1979-05-27",
    b"name = 1979-05-27T07:32:00Z",
    b"a.b.c.d" * 500 + b" = 1",
    b"(" * 3000,
    b"x" * 100_000,
    b"x: &a [*a, *a]",
    b"\x93NUMPY\x01\x00\x10\x00{'descr': '<f8', ",
    b"\x89HDF\r\n\x1a\n" + b"\xff" * 64,
    b"\x89PNG\r\n\x1a\n" + b"\xff" * 40,
    b"\xff\xd8\xff\xc0\x00\x11\x08\xff\xff\xff\xff\x03" + b"\x00" * 40,
    b"\x89MCAP0\r\n" + b"\xff" * 40,
    b"SQLite format 3\x00" + b"\xff" * 100,
    b"#ROSBAG V2.0\n" + b"\xff" * 40,
    b"PK\x05\x06" + b"\xff" * 18,
    b"PAR1" + b"\xff" * 40 + b"PAR1",
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
DOCUMENTS = VALUES.map(lambda value: json.dumps(value).encode())
BYTES = st.one_of(
    st.binary(max_size=400),
    DOCUMENTS,
    st.builds(lambda start, rest: start[:200] + rest, st.sampled_from(NASTY), st.binary(max_size=60)),
)


@pytest.mark.parametrize("name", TARGETS)
def test_what_nobody_writes_is_an_error_of_ours(name: str) -> None:
    for data in NASTY:
        run(name, data)


@pytest.mark.parametrize("name", [name for name in TARGETS if not name.startswith("source")])
@given(data=BYTES)
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
def test_any_bytes_are_parsed_or_an_error_of_ours(name: str, data: bytes) -> None:
    run(name, data)
