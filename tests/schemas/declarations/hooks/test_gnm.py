import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from schemas.declarations.hooks.gnm import waypoint_local
from schemas.source import Array


@given(npst.arrays(np.float32, (10, 3), elements=st.floats(-3, 3, width=32)), st.integers(1, 4))
def test_waypoints_are_the_loop_that_they_replace(track: Array, count: int) -> None:
    position, yaw = track[:, :2] + np.arange(10, dtype=np.float32)[:, None], track[:, 2:]
    action = np.ones((10, 2), np.float32)
    unit = np.sqrt(2) / np.linalg.norm(position[1] - position[0])
    expected = []
    for now, then in zip(range(0, 10, count), range(count, 10, count), strict=False):
        turn = np.array([[np.cos(yaw[now, 0]), np.sin(yaw[now, 0])], [-np.sin(yaw[now, 0]), np.cos(yaw[now, 0])]])
        expected.append(turn @ (position[then] - position[now]) * unit)
    found = waypoint_local({"action": action}, position, yaw, count)["action"]
    if np.isfinite(unit):
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3 * max(1, unit))


@pytest.mark.parametrize("steps", [0, 1, 2, 3])
def test_three_steps_or_fewer_leave_nothing_at_every_third(steps: int) -> None:
    columns = {"action": np.ones((steps, 2), np.float32), "row": np.arange(steps)}
    found = waypoint_local(columns, np.zeros((steps, 2), np.float32), np.zeros((steps, 1), np.float32), 3)
    assert found["action"].shape == (0, 2)
    assert len(found["row"]) == 0
