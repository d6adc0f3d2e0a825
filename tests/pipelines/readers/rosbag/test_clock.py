"""Resampling, compared with plain implementations and with scipy's Slerp."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation, Slerp

from pipelines.readers.rosbag import clock
from pipelines.readers.rosbag.clock import NS, Policy
from schemas.errors import SourceError
from schemas.source import Array

TIME = st.integers(0, 200)
STAMPS = st.lists(TIME, min_size=1, max_size=12, unique=True).map(lambda held: np.array(sorted(held), np.int64))
STEPS = st.lists(TIME, max_size=12).map(lambda held: np.array(sorted(held), np.int64))
POLICIES: list[Policy] = ["nearest", "hold", "linear", "slerp"]


def covered(stamps: Array, steps: Array, policy: Policy) -> Array:
    kept: Array = steps[clock.coverage(stamps, steps, policy)]
    return kept


@given(STAMPS, STEPS)
def test_nearest_takes_the_nearest_message_and_of_two_the_earlier_one(stamps: Array, steps: Array) -> None:
    kept = covered(stamps, steps, "nearest")
    choice = clock.align(stamps, kept, "nearest")
    wanted = [int(np.argmin(np.abs(stamps - step))) for step in kept]
    assert choice.left.tolist() == choice.right.tolist() == wanted
    assert choice.skew.tolist() == [min(abs(stamps - step)) / NS for step in kept]


@given(STAMPS, STEPS)
def test_hold_takes_the_last_message_that_is_not_later(stamps: Array, steps: Array) -> None:
    kept = covered(stamps, steps, "hold")
    assert kept.tolist() == [step for step in steps if step >= stamps[0]]
    choice = clock.align(stamps, kept, "hold")
    wanted = [max(i for i, stamp in enumerate(stamps) if stamp <= step) for step in kept]
    assert choice.left.tolist() == wanted
    assert choice.skew.tolist() == [(step - stamps[i]) / NS for i, step in zip(wanted, kept, strict=True)]


@given(STAMPS, STEPS, st.integers(0, 2**31))
def test_linear_is_what_numpy_interpolates_and_exact_at_messages(stamps: Array, steps: Array, seed: int) -> None:
    kept = covered(stamps, steps, "linear")
    values = np.random.default_rng(seed).normal(size=(len(stamps), 2))
    made = clock.linear(values, clock.align(stamps, kept, "linear"))
    for column in range(2):
        assert np.allclose(made[:, column], np.interp(kept, stamps, values[:, column]), atol=1e-12)
    at = {int(stamp): i for i, stamp in enumerate(stamps)}
    for step, value in zip(kept, made, strict=True):
        if int(step) in at:
            assert value.tobytes() == values[at[int(step)]].tobytes()


@given(STAMPS, STEPS, st.integers(0, 2**31))
def test_slerp_is_scipys_with_the_sign_of_the_message_before(stamps: Array, steps: Array, seed: int) -> None:
    kept = covered(stamps, steps, "slerp")
    values = np.random.default_rng(seed).normal(size=(len(stamps), 4))
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    choice = clock.align(stamps, kept, "slerp")
    made = clock.slerp(values, choice)
    assert made.shape == (len(kept), 4)
    assert ((made * values[choice.left]).sum(axis=1) >= -1e-9).all()
    if len(stamps) > 1 and len(kept):
        wanted = Slerp(stamps.astype(float), Rotation.from_quat(values))(kept.astype(float))
        assert (Rotation.from_quat(made).inv() * wanted).magnitude().max() < 1e-6


@pytest.mark.parametrize("policy", POLICIES)
@given(stamps=STAMPS, steps=STEPS)
def test_every_covered_step_gets_messages_and_skew_is_never_negative(
    policy: Policy, stamps: Array, steps: Array
) -> None:
    kept = covered(stamps, steps, policy)
    choice = clock.align(stamps, kept, policy)
    for side in (choice.left, choice.right):
        assert ((side >= 0) & (side < len(stamps))).all()
    assert (choice.skew >= 0).all()
    assert ((choice.weight >= 0) & (choice.weight < 1)).all()
    used = np.unique(np.concatenate([choice.left, choice.right]))
    part = choice.restricted(used)
    assert used[part.left].tolist() == choice.left.tolist()
    assert used[part.right].tolist() == choice.right.tolist()


@given(st.lists(TIME, max_size=12))
def test_sorted_stamps_increase_and_of_equal_ones_the_last_counts(held: list[int]) -> None:
    stamps = np.array(held, np.int64)
    order = clock.stamp_order(stamps, "sort")
    assert stamps[order].tolist() == sorted(set(held))
    assert all(place == max(i for i, stamp in enumerate(held) if stamp == held[place]) for place in order)


@pytest.mark.parametrize(
    ("stamps", "words"),
    [
        ([1, 2, 2, 3], "message 2 has the same stamp as the one before it"),
        ([10, 30, 20], "message 2 is 1e-08 s earlier"),
    ],
)
def test_stamps_that_go_back_or_repeat_are_refused(stamps: list[int], words: str) -> None:
    with pytest.raises(SourceError, match=words) as caught:
        clock.stamp_order(np.array(stamps, np.int64), "refuse")
    assert caught.value.reason == "bad_timestamps"


@given(st.integers(0, 10**12), st.integers(0, 10**10), st.floats(0.5, 500))
def test_ticks_start_at_the_start_and_stay_within(start: int, length: int, hz: float) -> None:
    made = clock.ticks(start, start + length, hz)
    assert made[0] == start
    assert start + length - NS / hz - 2 <= made[-1] <= start + length
    assert (np.abs(np.diff(made) - NS / hz) <= 1).all()


def test_stamps_of_today_keep_every_nanosecond() -> None:
    now = 1_700_000_000_123_456_789
    choice = clock.align(np.array([now, now + 3]), np.array([now + 1, now + 2]), "nearest")
    assert choice.left.tolist() == [0, 1]
    assert choice.skew.tolist() == [1e-9, 1e-9]


def test_nothing_is_made_of_what_is_not_finite() -> None:
    choice = clock.align(np.array([0, 10]), np.array([0, 5]), "linear")
    assert np.isnan(clock.linear(np.array([[1.0], [np.nan]]), choice)[:, 0]).tolist() == [False, True]
    with pytest.raises(SourceError, match="not finite"):
        clock.slerp(np.array([[0, 0, 0, 1.0], [0, 0, np.nan, 1]]), choice)
    with pytest.raises(SourceError, match="length zero"):
        clock.slerp(np.array([[0, 0, 0, 1.0], [0, 0, 0, 0]]), choice)
