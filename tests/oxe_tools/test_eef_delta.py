"""One motion, recorded in the conventions of each dataset with `eef_delta`: the view returns the motion."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from oxe_tools import standardize
from schemas.declarations import catalog
from schemas.source import Array
from schemas.views.views import view_names

N = "_converted_externally_to_rlds"


@dataclass(frozen=True)
class Motion:
    """T commands that each move the arm from one pose to the next; `grip` is 1 if the gripper is open."""

    p: Array  # [T + 1, 3] metres
    r: Rotation  # T + 1 rotations
    grip: Array  # [T, 1]

    @property
    def dp(self) -> Array:
        return np.diff(self.p, axis=0)

    @property
    def dr(self) -> Rotation:
        return self.r[1:] * self.r[:-1].inv()

    def expected(self) -> Array:
        return np.concatenate([self.dp, self.dr.as_euler("xyz"), self.grip], axis=1)

    def events(self) -> Array:
        """Return 1 to close, -1 to open, 0 to stay; the gripper is open at the start."""
        return -np.diff(np.concatenate([[[1.0]], self.grip]), axis=0)

    def matrices(self) -> Array:
        """Return the measured poses as 4x4 matrices in column-major order."""
        out = np.tile(np.eye(4), (len(self.grip), 1, 1))
        out[:, :3, :3], out[:, :3, 3] = self.r[:-1].as_matrix(), self.p[:-1]
        return out.transpose(0, 2, 1).reshape(-1, 16)


def motion(steps: int = 12) -> Motion:
    rng = np.random.default_rng(4)
    turns = Rotation.from_rotvec(rng.normal(size=(steps + 1, 3)) * 0.1)
    poses = [Rotation.from_euler("xyz", [3.0, 0.2, -0.5])]
    for turn in turns[1:]:
        poses.append(turn * poses[-1])
    p = 0.4 + np.cumsum(rng.normal(size=(steps + 1, 3)) * 0.02, axis=0)
    grip = np.repeat([1.0, 0.0, 1.0, 0.0], -(-steps // 4))[:steps, None]
    return Motion(p, Rotation.concatenate(poses), grip)


def row(*parts: Array) -> Array:
    return np.concatenate(parts, axis=1)


def zeros(m: Motion, count: int) -> Array:
    return np.zeros((len(m.grip), count))


def rtx(m: Motion) -> dict[str, Any]:
    arm = {"world_vector": m.dp, "rotation_delta": m.dr.as_euler("xyz")}
    return {"action": {**arm, "gripper_closedness_action": m.events()}}


def plain(m: Motion) -> dict[str, Any]:
    return {"action": row(m.dp, m.dr.as_euler("xyz"), m.grip)}


def maniskill(m: Motion) -> dict[str, Any]:
    at = m.r[:-1]
    tool = row(at.inv().apply(m.dp), (at.inv() * m.r[1:]).as_rotvec()) * 10
    state = {"tcp_pose": row(m.p[:-1], at.as_quat(scalar_first=True)), "state": zeros(m, 18)}
    return {"action": row(tool, 2 * m.grip - 1), "observation": state}


def bc_z(m: Motion) -> dict[str, Any]:
    turned = m.r.as_rotvec()
    future = {
        "xyz_residual": row(m.dp, zeros(m, 27)),
        "axis_angle_residual": row(np.diff(turned, axis=0), zeros(m, 27)),
    }
    future["target_close"] = row(1 - m.grip, zeros(m, 9)).astype(np.int64)
    present = {"xyz": m.p[:-1], "axis_angle": turned[:-1], "sensed_close": 1 - m.grip}
    return {
        "action": {f"future/{key}": value for key, value in future.items()},
        "observation": {f"present/{key}": value for key, value in present.items()},
    }


def toto(m: Motion) -> dict[str, Any]:
    target = {"world_vector": m.p[1:], "rotation_delta": m.r[1:].as_euler("xyz"), "open_gripper": m.grip[:, 0] > 0}
    return {"action": target}


def droid(m: Motion) -> dict[str, Any]:
    command = {"cartesian_velocity": zeros(m, 6), "cartesian_position": row(m.p[1:], m.r[1:].as_euler("xyz"))}
    measured = {"cartesian_position": row(m.p[:-1], m.r[:-1].as_euler("xyz")), "joint_position": zeros(m, 7)}
    return {
        "action_dict": {**command, "gripper_position": 1 - m.grip},
        "observation": {**measured, "gripper_position": 1 - m.grip},
    }


def osc(m: Motion) -> Array:
    return row(zeros(m, 6), 1 - 2 * m.grip)


def viola(m: Motion) -> dict[str, Any]:
    command = {"world_vector": zeros(m, 3), "rotation_delta": zeros(m, 3)}
    command["gripper_closedness_action"] = 1 - 2 * m.grip[:, 0]
    return {"action": command, "observation": {"ee_states": m.matrices()}}


def with_matrix(m: Motion) -> dict[str, Any]:
    return {"action": osc(m), "observation": {"state": row(zeros(m, 8), m.matrices())}}


def sailor(m: Motion) -> dict[str, Any]:
    return {"action": osc(m), "observation": {"state": row(m.p[:-1], m.r[:-1].as_quat(), m.grip)}}


def libero(m: Motion) -> dict[str, Any]:
    return {"action": osc(m), "observation": {"state": row(m.p[:-1], m.r[:-1].as_rotvec(), zeros(m, 2))}}


RECORDED: dict[str, Callable[[Motion], dict[str, Any]]] = {
    "austin_buds_dataset" + N: with_matrix,
    "austin_sailor_dataset" + N: sailor,
    "bc_z": bc_z,
    "berkeley_autolab_ur5": rtx,
    "bridge_dataset": plain,
    "bridge_orig": plain,
    "bridge_oxe": lambda m: {"action": {**rtx(m)["action"], "open_gripper": m.grip[:, 0] > 0}},
    "cmu_play_fusion": lambda m: {"action": row(m.dp, m.dr.as_quat(), m.grip, zeros(m, 1))},
    "cmu_stretch": lambda m: {"action": row(plain(m)["action"], zeros(m, 1))},
    "dlr_edan_shared_control" + N: lambda m: {"action": row(m.dp, m.dr.as_euler("zxy"), 1 - m.grip)},
    "droid": droid,
    "droid_wipe": droid,
    "fractal20220817_data": rtx,
    "furniture_bench_dataset" + N: lambda m: {"action": row(m.dp, m.dr.as_quat(), 1 - 2 * m.grip)},
    "iamlab_cmu_pickup_insert" + N: lambda m: {"action": row(m.p[1:], m.r[1:].as_quat(), m.grip)},
    "kuka": rtx,
    "libero_10_no_noops": libero,
    "libero_4_task_suites_no_noops": libero,
    "libero_goal_no_noops": libero,
    "libero_object_no_noops": libero,
    "libero_spatial_no_noops": libero,
    "maniskill_dataset" + N: maniskill,
    "nyu_franka_play_dataset" + N: lambda m: {
        "action": row(zeros(m, 7), m.dp, m.dr.as_euler("xyz"), 2 * m.grip - 1, zeros(m, 1))
    },
    "stanford_hydra_dataset" + N: lambda m: {"action": row(m.dp, m.dr.as_euler("xyz"), 1 - m.grip)},
    "toto": toto,
    "utaustin_mutex": with_matrix,
    "viola": viola,
}
SINCE_THE_COMMAND_BEFORE = {"toto", "iamlab_cmu_pickup_insert" + N}  # the first step has none


def test_every_dataset_that_gives_eef_delta_is_tested_here() -> None:
    names = [name for name in catalog.dataset_names() if not name.startswith("demo_")]
    assert [name for name in names if "eef_delta" in view_names(catalog.dataset(name))] == sorted(RECORDED)


@pytest.mark.parametrize("name", RECORDED)
def test_eef_delta_gives_the_motion_back(name: str) -> None:
    m = motion()
    episode = standardize(name, RECORDED[name](m), view="eef_delta")
    expected = m.expected()
    if name in SINCE_THE_COMMAND_BEFORE:
        expected = expected[1:]
    elif episode.action_space.origin == "achieved":  # no pose is measured after the last step
        expected = expected[:-1]
    np.testing.assert_allclose(episode.action, expected, atol=2e-6)
    assert [dim.unit for dim in episode.action_space.dims] == ["m"] * 3 + ["rad"] * 3 + ["1"]
    assert (episode.action_space.rotation, episode.action_space.gripper) == ("euler_xyz", "open_is_1")
