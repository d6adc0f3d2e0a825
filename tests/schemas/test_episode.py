from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from schemas.episode import Episode, take
from schemas.errors import SourceError
from schemas.source import Array, Ragged
from tests.makers import nested
from tests.schemas.makers import equal_columns, make_episode, make_space


@pytest.mark.parametrize(
    ("changes", "message", "reason"),
    [
        (
            {"action": np.zeros((3, 6), np.float32)},
            "episode toy-000000: action must be [T, 7] float32, got float32 [3, 6]",
            "wrong_shape",
        ),
        (
            {"action": np.zeros(3, np.float32)},
            "episode toy-000000: action must be [T, 7] float32, got float32 [3]",
            "wrong_shape",
        ),
        (
            {"state": np.zeros((3, 7))},
            "episode toy-000000: state must be [T, 7] float32, got float64 [3, 7]",
            "wrong_shape",
        ),
        (
            {"reward": np.zeros(2, np.float32)},
            "episode toy-000000: reward has 2 steps, action has 3",
            "unequal_lengths",
        ),
        (
            {"images": {"image": [b"a"] * 4}},
            "episode toy-000000: observation.images.image has 4 steps, action has 3",
            "unequal_lengths",
        ),
        (
            {"depth": {"d": []}},
            "episode toy-000000: observation.depth.d has 0 steps, action has 3",
            "unequal_lengths",
        ),
        (
            {"raw": {"a.b": Ragged(np.zeros(9), (np.array([4, 5]),))}},
            "episode toy-000000: raw.a.b has 2 steps, action has 3",
            "unequal_lengths",
        ),
    ],
)
def test_an_episode_that_does_not_fit_together_cannot_exist(changes: dict[str, Any], message: str, reason: str) -> None:
    with pytest.raises(SourceError) as error:
        make_episode(**changes)
    assert str(error.value) == message
    assert error.value.reason == reason


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("which", ["action", "state"])
def test_a_number_that_is_not_finite_is_named_by_step_and_dimension(which: str, number: float) -> None:
    vector = np.zeros((3, 7), np.float32)
    vector[2, 1] = number
    with pytest.raises(SourceError) as error:
        make_episode(**{which: vector})
    assert str(error.value) == f"episode toy-000000: {which} is {np.float32(number)} at step 2, dimension 'y'"
    assert error.value.reason == f"non_finite_{which}"


def test_raw_numbers_may_be_nan() -> None:
    assert np.isnan(make_episode(raw={"a": np.full(3, np.nan)}).raw["a"]).all()  # type: ignore[arg-type]


def test_its_length_is_its_number_of_steps() -> None:
    assert len(make_episode(4)) == 4
    assert len(make_episode(0)) == 0


def test_the_instruction_is_the_first_one_if_there_is_one() -> None:
    assert make_episode().instruction == "open the drawer"
    assert make_episode(instructions=(), instruction_index=None).instruction is None


MASKS = st.lists(st.booleans(), max_size=6)


@given(MASKS)
def test_select_takes_the_same_steps_of_every_column(mask: list[bool]) -> None:
    episode = make_episode(len(mask))
    kept = episode.select(np.array(mask, bool))
    rows = [i for i, keep in enumerate(mask) if keep]
    assert kept.columns().keys() == episode.columns().keys()
    for name, column in kept.columns().items():
        before = nested(episode.columns()[name])  # type: ignore[arg-type]
        after = nested(column)  # type: ignore[arg-type]
        assert str(after) == str([before[i] for i in rows]), name
    for name in ("id", "instructions", "metadata", "action_space"):
        assert getattr(kept, name) == getattr(episode, name)


def test_select_replaces_what_has_that_length_already() -> None:
    action = np.ones((1, 7), np.float32)
    kept = make_episode(3).select(np.array([False, True, False]), action=action)
    assert kept.action is action
    assert len(kept) == 1


@st.composite
def ragged(draw: st.DrawFn, *, steps: int | None = None) -> Ragged:
    """Draw nested sequences of numbers or bytes, up to three deep."""
    counts = st.integers(0, 3)
    count, levels = draw(st.integers(0, 4)) if steps is None else steps, []
    for _ in range(draw(st.integers(1, 3))):
        levels.append(np.array(draw(st.lists(counts, min_size=count, max_size=count)), np.int64))
        count = int(levels[-1].sum())
    if draw(st.booleans()):
        values: Any = draw(st.lists(st.binary(max_size=3), min_size=count, max_size=count))
        return Ragged(values, tuple(levels))
    return Ragged(np.arange(count * 2, dtype=np.float32).reshape(count, 2), tuple(levels))


@given(ragged(), st.data())
def test_take_of_nested_sequences_is_python_indexing(column: Ragged, data: st.DataObject) -> None:
    rows = data.draw(st.lists(st.integers(0, len(column) - 1), max_size=6)) if len(column) else []
    taken = take(column, np.array(rows, np.int64))
    before = nested(column)
    assert isinstance(taken, Ragged)
    assert str(nested(taken)) == str([before[i] for i in rows])


@given(ragged())
def test_taking_all_steps_changes_nothing(column: Ragged) -> None:
    assert equal_columns(take(column, np.arange(len(column))), column)


# The hash


def with_raw(column: Any) -> Episode:
    return make_episode(len(column), raw={"a": column})


def flipped(values: Array, at: int) -> Array:
    """Change one bit of one value."""
    out = np.frombuffer(bytearray(np.ascontiguousarray(values).tobytes()), np.uint8)
    out[at % len(out)] ^= 1
    return out.view(values.dtype).reshape(values.shape)


@given(st.sampled_from(["action", "state", "timestamp", "reward", "instruction_index"]), st.integers(0, 500))
def test_the_hash_differs_for_one_changed_bit(name: str, at: int) -> None:
    episode = make_episode()
    changes: dict[str, Any] = {name: flipped(getattr(episode, name), at)}
    assert replace(episode, **changes).content_hash() != episode.content_hash()


@given(st.integers(0, 500), npst.arrays(st.sampled_from([np.uint8, np.int64, np.float16, np.float64]), (3, 2)))
def test_the_hash_differs_for_one_changed_bit_of_a_raw_column(at: int, column: Array) -> None:
    assert with_raw(flipped(column, at)).content_hash() != with_raw(column).content_hash()


EPISODE = make_episode()
FRAMES = EPISODE.images["image"]
TORQUE, NOTE, POINTS = EPISODE.raw["torque"], EPISODE.raw["note"], EPISODE.raw["points"]
CHANGES: Mapping[str, Mapping[str, Any]] = {
    "id": {"id": "other"},
    "split": {"split": "val"},
    "instructions": {"instructions": ("open the drawer", "close this")},
    "no language": {"instructions": (), "instruction_index": None},
    "rate": {"control_hz": 6.0},
    "unknown rate": {"control_hz": None},
    "metadata value": {"metadata": {"file_path": "/a/c"}},
    "metadata name": {"metadata": {"path": "/a/b"}},
    "first": {"is_first": np.array([True, True, False])},
    "unknown terminal": {"is_terminal": None},
    "image byte": {"images": {"image": [b"frame O", *FRAMES[1:]]}},
    "missing image": {"images": {"image": [None, *FRAMES[1:]]}},
    "empty image": {"images": {"image": [b"", *FRAMES[1:]]}},
    "image name": {"images": {"wrist": FRAMES}},
    "image as depth": {"images": {}, "depth": {**EPISODE.depth, "image": FRAMES}},
    "bytes moved to the next image": {"images": {"image": [b"frame ", b"0frame 1", b"frame 2"]}},
    "raw name": {"raw": {"torqe": TORQUE, "note": NOTE, "points": POINTS}},
    "raw type": {"raw": {"torque": TORQUE.view(np.int64), "note": NOTE, "points": POINTS}},  # type: ignore[union-attr]
    "raw shape": {"raw": {"torque": TORQUE.reshape(3, 2, 1), "note": NOTE, "points": POINTS}},  # type: ignore[union-attr]
    "raw lengths": {
        "raw": {"torque": TORQUE, "note": NOTE, "points": Ragged(POINTS.values, (np.array([1, 3, 2]),))},  # type: ignore[union-attr]
    },
    "fewer columns": {"raw": {"torque": TORQUE, "note": NOTE}},
}


@pytest.mark.parametrize("what", CHANGES)
def test_the_hash_differs_for(what: str) -> None:
    assert replace(EPISODE, **CHANGES[what]).content_hash() != EPISODE.content_hash()


def test_no_two_changes_give_one_hash() -> None:
    hashes = {replace(EPISODE, **change).content_hash() for change in CHANGES.values()}
    assert len(hashes) == len(CHANGES)


def test_the_hash_does_not_depend_on_how_the_bytes_are_held() -> None:
    held = replace(
        EPISODE,
        images={"image": [memoryview(frame) for frame in FRAMES]},  # type: ignore[arg-type]
        action=np.asfortranarray(EPISODE.action),
        raw={name: EPISODE.raw[name] for name in sorted(EPISODE.raw, reverse=True)},
    )
    assert held.content_hash() == EPISODE.content_hash()


def test_the_hash_does_not_know_the_schema_that_the_manifest_holds() -> None:
    hashed: dict[str, Any] = {
        "index": 7,
        "dataset": "other",
        "embodiment": "other",
        "action_space": make_space(frame="world"),
    }
    assert hashed.keys() <= {field.name for field in fields(Episode)}
    assert replace(EPISODE, **hashed).content_hash() == EPISODE.content_hash()


@given(st.integers(0, 3), st.data())
def test_an_episode_of_any_size_has_a_hash(steps: int, data: st.DataObject) -> None:
    column = data.draw(ragged(steps=steps) | npst.arrays(np.bool_, (steps, 0)) | npst.arrays(np.bool_, (steps,)))
    assert len(with_raw(column).content_hash()) == 32
