"""The views `openvla` and `octo` of all datasets, compared with the operations of each project's code.

`tests/golden/oxe/action_transforms.json` lists the operations, which were read from the code of the two projects and
validated against it. This test executes them with plain loops and scipy, without our ops. `test_goldens.py` has the
outputs of the projects' code for 46 of the datasets.
"""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from oxe_tools import standardize
from schemas.declarations import catalog
from schemas.source import Array
from tests.docs.toy import ROOT
from tests.oxe_tools.recordings import numbers

LISTED = json.loads((ROOT / "tests/golden/oxe/action_transforms.json").read_text())
GIVEN = [one for one in LISTED if not catalog.dataset(one["dataset"]).views[one["project"]].unavailable]
STEPS = 17


def binarized(x: Array) -> Array:
    out, carry = x.copy(), x[-1]
    for i in reversed(range(len(x))):
        if x[i] > np.float32(0.95) or x[i] < np.float32(0.05):
            carry = np.float32(x[i] > np.float32(0.95))
        out[i] = carry
    return out


def followed(x: Array) -> Array:
    events = [1.0 if v < np.float32(-0.1) else -1.0 if v > np.float32(0.1) else 0.0 for v in x]
    state, out = -next((event for event in events if event), -1.0), []
    for event in events:
        state = event or state
        out.append(state / 2 + 0.5)
    return np.array(out)


OPS: dict[str, Callable[[Array], Array]] = {
    "index:0": lambda x: x.reshape(len(x), -1)[:, 0],
    "newaxis": lambda x: x.reshape(len(x), 1),
    "cast_f32": lambda x: x,
    "clip01": lambda x: np.minimum(np.maximum(x, 0), 1),
    "invert": lambda x: 1 - x,
    "scale:1/255": lambda x: x / 255,
    "binarize_gripper": lambda x: binarized(x.ravel()),
    "rel2abs_gripper": lambda x: followed(x.ravel()),
    "quat_xyzw_to_euler": lambda x: Rotation.from_quat(x).as_euler("xyz"),
}


def part(listed: Mapping[str, Any], steps: Mapping[str, Array], length: int) -> Array:
    if "const" in listed:
        return np.full((length, listed["dim"]), listed["const"], np.float32)
    x = steps[listed["from"]].astype(np.float32)
    x = x[..., slice(*listed["slice"])] if "slice" in listed else x
    for op in listed.get("ops", []):
        x = OPS[op](x)
    return x.reshape(length, -1).astype(np.float32)


def carried_out(listed: Mapping[str, Any], steps: Mapping[str, Array]) -> Array:
    for op in listed["pre"]:
        word, count = re.fullmatch(r"(drop_first|stride)\((\d+)\)", op).groups()  # type: ignore[union-attr]
        rows = slice(int(count), None) if word == "drop_first" else slice(None, None, int(count))
        steps = {path: column[rows] for path, column in steps.items()}
    length = len(next(iter(steps.values())))
    action = np.concatenate([part(one, steps, length) for one in listed["concat"]], axis=1)
    for op in listed["post"]:
        if op.startswith("waypoint_local"):
            return waypoints(action, steps)
        path, size = re.match(r"(?:relabel_achieved_delta|diff_state)\(state=([\w.]+)\[0:(\d)\]", op).groups()  # type: ignore[union-attr]
        state = steps[path][:, : int(size)].astype(np.float32)
        action = np.concatenate([np.diff(state, axis=0), action[:-1, -1:]], axis=1)
    return action


def waypoints(action: Array, steps: Mapping[str, Array]) -> Array:
    position, yaw = (steps[f"observation.{name}"].astype(np.float32) for name in ("position", "yaw"))
    unit = np.hypot(*action[0]) / np.hypot(*(position[1] - position[0]))
    out = []
    for now in range(0, len(action) - 3, 3):
        (dx, dy), (cos, sin) = position[now + 3] - position[now], (np.cos(yaw[now, 0]), np.sin(yaw[now, 0]))
        out.append([unit * (cos * dx + sin * dy), unit * (-sin * dx + cos * dy)])
    return np.float32(out)


def raw(listed: Mapping[str, Any]) -> dict[str, Array]:
    """Create numbers for every field: grippers on and between their thresholds, unit quaternions."""
    rng = np.random.default_rng(7)
    steps = {}
    for path, (dtype, shape) in numbers(catalog.dataset(listed["dataset"])).items():
        values = rng.uniform(-1.2, 1.2, (STEPS, *shape))
        values = np.round(values * 2) / 2 if "grip" in path or "close" in path else values
        steps[path] = values.astype(dtype) if dtype.startswith("float") else (values > 0).astype(dtype)
    for one in listed["concat"]:
        if "quat_xyzw_to_euler" in one.get("ops", []):
            turned = steps[one["from"]][:, slice(*one["slice"])]
            turned /= np.linalg.norm(turned, axis=1, keepdims=True)
    if "observation.ee_states" in steps:
        steps["observation.ee_states"] = np.tile(np.eye(4, dtype=np.float32).ravel(), (STEPS, 1))
    return steps


@pytest.mark.parametrize("listed", GIVEN, ids=lambda one: f"{one['dataset']}-{one['project']}")
def test_a_view_does_what_the_projects_transform_is_listed_to_do(listed: dict[str, Any]) -> None:
    steps = raw(listed)
    found = standardize(listed["dataset"], steps, view=listed["project"]).action
    expected = carried_out(listed, steps)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, atol=2e-5, rtol=2e-5)


def test_the_list_has_every_dataset() -> None:
    assert len(GIVEN) == 137
    assert {one["dataset"] for one in GIVEN} == {n for n in catalog.dataset_names() if not n.startswith("demo_")}
