import zlib

import numpy as np
import pytest

from oxe_tools import standardize
from schemas.declarations.hooks.kuka import LIMIT, zlib_float32
from schemas.errors import SourceError


def test_compressed_vectors_and_decoded_ones_are_the_same_state() -> None:
    pose = np.float32([[0.1, 0.2, 0.3, 0, 0, 0, 1], [0.2, 0.2, 0.3, 0, 0, 0.6, 0.8]])
    closed = np.float32([[0], [1]])
    action = {"world_vector": np.zeros((2, 3)), "rotation_delta": np.zeros((2, 3))}
    action["gripper_closedness_action"] = np.zeros((2, 1))
    key = "clip_function_input/base_pose_tool_reached"
    packed = [[zlib.compress(row.tobytes()) for row in rows] for rows in (pose, closed)]
    states = [
        standardize("kuka", {"action": action, "observation": {key: first, "gripper_closed": second}}).state
        for first, second in ((pose, closed), packed, [np.array(rows, object) for rows in packed])
    ]
    for state in states:
        np.testing.assert_array_equal(state, np.concatenate([pose, 1 - closed], axis=1))


def test_a_vector_that_inflates_without_end_is_refused() -> None:
    with pytest.raises(SourceError, match="a zlib-compressed vector: more than 65536 bytes") as error:
        zlib_float32([zlib.compress(bytes(LIMIT + 4))])
    assert error.value.reason == "too_large"


@pytest.mark.parametrize("item", [b"", b"no zlib", zlib.compress(b"123"), zlib.compress(bytes(400))[:12]])
def test_bytes_that_are_no_vector_are_refused(item: bytes) -> None:
    good = zlib.compress(np.float32([1, 2]).tobytes())
    with pytest.raises(SourceError, match="a zlib-compressed vector cannot be read") as error:
        zlib_float32([good, item])
    assert error.value.reason == "contradicts_features"


def test_no_steps_are_no_vectors() -> None:
    assert len(zlib_float32([])) == 0
