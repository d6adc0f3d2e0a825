import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from schemas.declarations.grippers import binarize_gripper, rel2abs_gripper
from schemas.source import Array

# Outputs of OpenVLA's and Octo's functions, rounded to float32.
BINARIZED = [
    ([1, 1, 0.6, 0.3, 0, 0], [1, 1, 0, 0, 0, 0]),
    ([0, 0, 0.4, 0.9, 1], [0, 0, 1, 1, 1]),
    ([1, 0.5, 0.5], [1, 0.5, 0.5]),
    ([0.5, 0.5, 0.5], [0.5, 0.5, 0.5]),
    ([0.5, 1, 0.5, 0, 0.7], [1, 1, 0, 0, 0.7]),
    ([0.95, 0.05, 0.96, 0.04], [1, 1, 1, 0]),
    ([0], [0]),
    ([0.3], [0.3]),
    ([1, 0.5, 0, 0.5, 1, 0.2], [1, 0, 0, 1, 1, 0.2]),
    ([], []),
]
EDGES = np.float32([0, 0.05, 0.95, 1, 0.5, np.nan, -1, 2, 0.1, -0.1])
GRIPPERS = npst.arrays(
    np.float32,
    npst.array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=12),
    elements=st.sampled_from(
        EDGES.tolist() + [np.nextafter(e, d).item() for e in EDGES[1:3] for d in np.float32([0, 1])]
    )
    | st.floats(0, 1, width=32),
)


def binarized(x: Array) -> Array:
    """Scan backwards as the two projects do: values in between take the next binary value."""
    out = x.copy()
    for column in range(x.shape[1]):
        carry = x[-1, column] if len(x) else None
        for i in reversed(range(len(x))):
            value = x[i, column]
            if value > np.float32(0.95) or value < np.float32(0.05):
                carry = np.float32(value > np.float32(0.95))
            out[i, column] = carry
    return out


@given(GRIPPERS)
def test_binarize_gripper_is_the_backward_walk_in_every_column(x: Array) -> None:
    out = binarize_gripper(x)
    assert out.dtype == np.float32
    np.testing.assert_array_equal(out, binarized(x))


@pytest.mark.parametrize(("x", "expected"), BINARIZED)
def test_binarize_gripper_answers_as_openvla(x: list[float], expected: list[float]) -> None:
    out = binarize_gripper(np.array(x, np.float32).reshape(-1, 1))
    np.testing.assert_array_equal(out[:, 0], np.array(expected, np.float32))


@given(GRIPPERS)
def test_rel2abs_gripper_is_the_forward_walk_in_every_column(x: Array) -> None:
    out = rel2abs_gripper(x)
    assert out.dtype == np.float32
    np.testing.assert_array_equal(out, followed(x))


def followed(x: Array) -> Array:
    """Scan forwards as the two projects do, starting with the opposite of the first command."""
    out = np.empty_like(x)
    for column in range(x.shape[1]):
        events = [1.0 if v < np.float32(-0.1) else -1.0 if v > np.float32(0.1) else 0.0 for v in x[:, column]]
        state = -next((event for event in events if event), -1.0)
        for i, event in enumerate(events):
            state = event or state
            out[i, column] = state / 2 + 0.5
    return out
