"""The checksums of cached records: whatever changes in a record is noticed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.data.records import RecordSums
from schemas.source import Array

DTYPE = np.dtype([("action", "<f4", (7,)), ("text", "<i4"), ("masked", "<u4"), ("check", "<u8")])
ROWS, SEED = 5, 0xDEADBEEF


@pytest.fixture(scope="module")
def table() -> Array:
    table = np.zeros(ROWS, DTYPE)
    table["action"] = np.random.default_rng(0).normal(size=(ROWS, 7))
    table["text"] = np.arange(ROWS)
    RecordSums(DTYPE, SEED).add_to(table)
    return table


def noticed(records: Array, *, rows: Array | None = None, seed: int = SEED) -> list[bool]:
    """Check records as windows of one step."""
    places = np.arange(len(records)) if rows is None else rows
    damaged = RecordSums(DTYPE, seed).damaged(records[:, None], places[:, None])
    return [False] * len(records) if damaged is None else list(damaged.tolist())


def test_sound_records_pass(table: Array) -> None:
    assert noticed(table) == [False] * ROWS
    rows = np.array([[0, 0, 1], [3, 4, 4]])
    assert RecordSums(DTYPE, SEED).damaged(table[rows], rows) is None


def test_each_single_bit_counts(table: Array) -> None:
    bits = 8 * DTYPE.itemsize
    flipped = np.tile(np.frombuffer(table[2].tobytes(), np.uint8), (bits, 1))
    flipped[np.arange(bits), np.arange(bits) // 8] ^= (1 << np.arange(bits) % 8).astype(np.uint8)
    records = np.ascontiguousarray(flipped).view(DTYPE)[:, 0]
    assert noticed(records, rows=np.full(bits, 2)) == [True] * bits


@given(st.lists(st.tuples(st.integers(0, DTYPE.itemsize - 1), st.integers(1, 255)), min_size=1, max_size=9))
def test_any_other_bytes_are_noticed(table: Array, changes: list[tuple[int, int]]) -> None:
    data = bytearray(table[1].tobytes())
    for at, mask in changes:
        data[at] ^= mask
    changed = np.frombuffer(bytes(data), DTYPE)
    assert noticed(changed, rows=np.array([1])) == [bytes(data) != table[1].tobytes()]


def test_records_of_other_rows_or_datasets_and_zeros_are_noticed(table: Array) -> None:
    assert noticed(table, rows=np.arange(ROWS)[::-1].copy()) == [True, True, False, True, True]
    assert noticed(table, seed=SEED + 1) == [True] * ROWS
    assert noticed(np.zeros(ROWS, DTYPE)) == [True] * ROWS


def test_one_damaged_step_condemns_its_window_alone(table: Array) -> None:
    rows = np.array([[0, 1, 2], [2, 3, 4]])
    windows = table[rows]
    windows["action"][1, 2, 3] += 1
    damaged = RecordSums(DTYPE, SEED).damaged(windows, rows)
    assert damaged is not None
    assert damaged.tolist() == [False, True]
