"""Robots are recognized, numbers overrule what is known of them, and one question is asked where several fit."""

import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.convert.convert import convert
from schemas.declarations import catalog
from schemas.declarations.spec import todos
from schemas.store.dataset import Dataset, open_dataset
from tests.pipelines.toy import oxe

pytest.importorskip("h5py", reason="the extra 'hdf5'")

from tests.pipelines.inspect.draft.recordings import (
    ALOHA,
    ALOHA_SIZES,
    EPISODES,
    LEFT,
    LEKIWI,
    MAIN,
    OPENARM,
    PANDA,
    PANDA_SIZES,
    RIGHT,
    SO,
    STEPS,
    Motion,
    aloha_hdf5,
    lerobot,
    so,
)

Record = Callable[[Path], Path]
SMALL, FULL, FAR = (70, 80, 60, 50, 60), (101, 105, 98, 95, 60), (70, 105, 90, 50, 150)
OLD = Motion.of([70, 80, 60, 50, 60, 45], [0, 90, 90, 0, 0, 50])
SHADOWS = [
    f"{side}_{joint}"
    for side in ("left", "right")
    for joint in (
        *("waist", "shoulder", "shoulder_shadow", "elbow", "elbow_shadow"),
        *("forearm_roll", "wrist_angle", "wrist_rotate", "gripper"),
    )
]
KOCHS = [f"{side}_{name.removeprefix('main_')}" for side in ("left", "right") for name in MAIN]
BASE = Motion.of([101, 105, 60, 50, 60, 45, 0.2, 0.1, 30], [0, 0, 0, 0, 0, 50, 0, 0, 0])
OPEN = Motion.of([*LEFT[0], *RIGHT[0]], [*LEFT[1], *RIGHT[1]])
COBOT = Motion.of([*ALOHA_SIZES[0][:6], 2.2] * 2, [*ALOHA_SIZES[1][:6], 2.3] * 2)


def clipped(motion: Motion) -> Motion:
    """Clip the six numbers of an SO arm as its software does."""
    low, high = [-100.0] * 5 + [0.0], [100.0] * 6
    state, action = (
        np.c_[np.clip(v[:, :6], low, high), v[:, 6:]].astype(np.float32) for v in (motion.state, motion.action)
    )
    return Motion(state, action)


def draft(source: Path) -> tuple[dict[str, Any], str]:
    """Draft a declaration; give it parsed, and its text."""
    done = oxe("inspect", source, "--draft", "-")
    assert done.code == 0, done.err
    return tomllib.loads(done.out), done.out


def converted(source: Path, text: str, folder: Path) -> Dataset:
    """Convert a source by a draft without TODOs."""
    (folder / "draft.toml").write_text(text)
    report = convert(catalog.dataset(str(folder / "draft.toml")), folder / "out", source=str(source))
    assert (report.kept, report.quarantined) == (EPISODES, {})
    return open_dataset(str(folder / "out"))


SURE: dict[str, tuple[str, Record]] = {
    "SO-101, travel": ("so101_travel", lambda p: lerobot(p, "so101_follower", so(*FULL), SO)),
    "SO-101, no end of the travel": ("so101_travel", lambda p: lerobot(p, "so101_follower", so(*SMALL), SO)),
    "SO-101, degrees": ("so101_degrees", lambda p: lerobot(p, "so101_follower", so(*FAR, is_travel=False), SO)),
    "SO-100, travel": ("so100_travel", lambda p: lerobot(p, "so100_follower", so(*FULL), SO)),
    "SO, travel": ("so_travel", lambda p: lerobot(p, "so_follower", so(*FULL), SO)),
    "SO, degrees": ("so_degrees", lambda p: lerobot(p, "so_follower", so(*FAR, is_travel=False), SO)),
    "SO-100, old zero": ("so100_main_degrees", lambda p: lerobot(p, "so100", OLD, MAIN)),
    "SO-101, other order": (
        "so101_travel",
        lambda p: lerobot(p, "so101_follower", so(*FULL), [SO[1], SO[0], *SO[2:]]),
    ),
    "Koch": ("koch_travel", lambda p: lerobot(p, "koch_follower", so(*SMALL), SO)),
    "Koch, old": (
        "koch_main_degrees",
        lambda p: lerobot(p, "koch", Motion.of([*SMALL, 15], [0, 90, 90, 0, 0, 18]), MAIN),
    ),
    "LeKiwi, travel": ("lekiwi_travel", lambda p: lerobot(p, "lekiwi_client", clipped(BASE), LEKIWI)),
    "OpenArm, left first": ("bi_openarm", lambda p: lerobot(p, "bi_openarm_follower", OPEN, OPENARM)),
    "ALOHA": ("aloha_bimanual", lambda p: lerobot(p, "aloha", Motion.of(*ALOHA_SIZES), ALOHA, fps=50)),
    "ALOHA, no names": (
        "aloha_bimanual",
        lambda p: lerobot(p, "aloha", Motion.of(*ALOHA_SIZES), [f"motor_{i}" for i in range(14)], fps=50),
    ),
    "ALOHA, HDF5": ("aloha_bimanual", lambda p: aloha_hdf5(p, Motion.of(*ALOHA_SIZES))),
    "Mobile ALOHA, HDF5": ("mobile_aloha", lambda p: aloha_hdf5(p, Motion.of(*ALOHA_SIZES), has_base=True)),
    "ALOHA, old, with shadow joints": (
        "aloha_main_degrees",
        lambda p: lerobot(p, "aloha", Motion.of(([60] * 8 + [45]) * 2, ([0] * 8 + [50]) * 2), SHADOWS),
    ),
    "two Koch, old": (
        "koch_bimanual_main_degrees",
        lambda p: lerobot(p, "koch_bimanual", Motion.of([*SMALL, 15] * 2, [0, 90, 90, 0, 0, 18] * 2), KOCHS),
    ),
    "DROID": ("droid_joint_position", lambda p: lerobot(p, "droid", Motion.of(*PANDA_SIZES), PANDA, fps=15)),
    "Franka, width in metres": (
        "franka_joint_width",
        lambda p: lerobot(p, "franka", Motion.of([0.5] * 7 + [0.04], [*PANDA_SIZES[1][:7], 0.04]), PANDA, fps=15),
    ),
}


@pytest.mark.parametrize("name", SURE)
def test_a_known_robot_needs_no_answers_and_converts(name: str, tmp_path: Path) -> None:
    embodiment, record = SURE[name]
    source = record(tmp_path / "source")
    declared, text = draft(source)
    known = catalog.embodiment(embodiment)
    assert todos(declared) == []
    assert declared["embodiment"]["name"] == embodiment
    assert (declared["embodiment"]["robot"], declared["embodiment"]["controller"]) == (known.robot, known.controller)
    assert "recognized by" in text
    dataset = converted(source, text, tmp_path)
    assert dataset.spec.embodiment == known


QUESTIONS: dict[str, tuple[tuple[str, ...], Record]] = {
    "SO, travel or degrees": (("so_degrees", "so_travel"), lambda p: lerobot(p, "so_follower", so(*SMALL), SO)),
    "two SO": (
        ("bi_so_degrees", "bi_so_travel"),
        lambda p: lerobot(
            p,
            "bi_so_follower",
            Motion.of([*SMALL, 45] * 2, [0, 0, 0, 0, 0, 50] * 2),
            [f"{side}_{name}" for side in ("left", "right") for name in SO],
        ),
    ),
    "LeKiwi": (
        ("lekiwi_degrees", "lekiwi_travel"),
        lambda p: lerobot(p, "lekiwi", Motion.of([*SMALL, 45, 0.2, 0.1, 30], [0, 0, 0, 0, 0, 50, 0, 0, 0]), LEKIWI),
    ),
    "Panda or DROID": (
        ("droid_joint_position", "franka_joint_open"),
        lambda p: lerobot(p, "Franka", Motion.of(*PANDA_SIZES), PANDA, fps=15),
    ),
    "no robot type": (
        ("koch_travel", "omx", "so_degrees", "so_travel"),
        lambda p: lerobot(p, "", so(*SMALL), SO),
    ),
}


@pytest.mark.parametrize("name", QUESTIONS)
def test_where_several_fit_one_question_names_them_and_each_answer_converts(name: str, tmp_path: Path) -> None:
    names, record = QUESTIONS[name]
    source = record(tmp_path / "source")
    declared, text = draft(source)
    assert todos(declared) == ["embodiment"]
    question = next(line for line in text.splitlines() if line.startswith("embodiment"))
    assert all(re.search(rf"\b{embodiment} \(", question) for embodiment in names)
    for embodiment in names:
        (tmp_path / embodiment).mkdir()
        dataset = converted(source, text.replace('"TODO"', f'"{embodiment}"'), tmp_path / embodiment)
        known = catalog.robot(embodiment)
        assert dataset.spec.embodiment == known.embodiment
        assert {part: str(text) for part, text in dataset.spec.state.items()} == known.expressions(
            "state", "observation.state"
        )


def test_names_and_not_positions_say_which_arm_is_left(tmp_path: Path) -> None:
    left = lerobot(tmp_path / "left", "bi_openarm_follower", OPEN, OPENARM)
    turned = Motion(*(np.c_[values[:, 8:], values[:, :8]] for values in (OPEN.state, OPEN.action)))
    right = lerobot(tmp_path / "right", "bi_openarm_follower", turned, [*OPENARM[8:], *OPENARM[:8]])
    episodes = []
    for source in (left, right):
        declared, text = draft(source)
        assert todos(declared) == []
        (source.parent / f"{source.name}_out").mkdir()
        episodes.append(converted(source, text, source.parent / f"{source.name}_out").episode(0))
    assert np.array_equal(episodes[0].action, episodes[1].action)
    assert np.array_equal(episodes[0].state, episodes[1].state)
    assert np.allclose(episodes[0].state[:, :7], np.deg2rad(OPEN.state[:STEPS, :7]), atol=1e-6)


def test_a_gripper_is_never_converted_with_joints_in_degrees(tmp_path: Path) -> None:
    motion = so(*FAR, is_travel=False)
    source = lerobot(tmp_path / "source", "so101_follower", motion, SO)
    _, text = draft(source)
    state = converted(source, text, tmp_path).episode(0).state
    assert np.allclose(state[:, :5], np.deg2rad(motion.state[:STEPS, :5]), atol=1e-5)
    assert np.allclose(state[:, 5], motion.state[:STEPS, 5] / 100, atol=1e-6)


def test_the_grippers_of_a_cobot_magic_have_a_scale_each(tmp_path: Path) -> None:
    declared, _ = draft(aloha_hdf5(tmp_path / "source", COBOT, has_base=True))
    assert declared["embodiment"]["name"] == "cobot_magic"
    assert declared["action"]["left_gripper"] != declared["action"]["right_gripper"].replace("13:14", "6:7")
    assert todos(declared) == ["control_hz"]  # 30 or 25; the files do not tell


def test_numbers_that_contradict_the_robot_leave_both_readings_open(tmp_path: Path) -> None:
    radians = Motion.of([1.2, 1.3, 1.5, 1, 2, 0.5], [0, 0, 0, 0, 0, 0.5])
    declared, text = draft(lerobot(tmp_path / "source", "so101_follower", radians, SO))
    assert {"state.joints", "state.gripper", "action.joints", "action.gripper"} <= {*todos(declared)}
    line = next(line for line in text.splitlines() if line.startswith("joints = "))
    assert "deg2rad" in line
    assert "looks like radians" in line
    line = next(line for line in text.splitlines() if line.startswith("gripper = "))
    assert "scale(1/100)" in line
    assert "looks normalized already" in line


def test_commands_that_are_changes_of_the_state_are_not_positions(tmp_path: Path) -> None:
    moved = so(*FULL)
    rng = np.random.default_rng(0)
    steps = rng.normal(size=moved.state.shape) * [3, 3, 3, 3, 3, 1]
    state = np.concatenate([np.cumsum(part, axis=0) for part in np.split(steps, EPISODES)])
    state[:, 5] = 50 + state[:, 5]
    ahead = np.concatenate([np.r_[part[1:], part[-1:]] for part in np.split(steps, EPISODES)])
    ahead[:, 5] = state[:, 5]
    motion = Motion(state.astype(np.float32), ahead.astype(np.float32))
    declared, text = draft(lerobot(tmp_path / "source", "koch_follower", motion, SO))
    assert "action.joints" in todos(declared)
    assert "changes of the state, and no positions" in text


def test_a_gripper_that_is_commanded_the_other_way_is_a_question(tmp_path: Path) -> None:
    motion = so(*FULL)
    turned = Motion(motion.state, np.c_[motion.action[:, :5], 100 - motion.action[:, 5]].astype(np.float32))
    declared, text = draft(lerobot(tmp_path / "source", "so101_follower", turned, SO))
    assert todos(declared) == ["action.gripper"]
    assert "it closes where the state opens" in text


@pytest.mark.parametrize("count", [7, 14])
def test_a_robot_type_that_contradicts_the_number_of_joints_is_a_question(count: int, tmp_path: Path) -> None:
    names = [f"motor_{i}" for i in range(count)]
    motion = Motion.of([50] * count, [0] * count)
    declared, text = draft(lerobot(tmp_path / "source", "so101_follower", motion, names))
    assert "embodiment.robot" in todos(declared)
    assert "'so101_follower', whose recordings have 6 numbers in the state" in text
    assert f"but this one has {count} in the state" in text


def test_the_state_is_known_even_if_the_action_is_another(tmp_path: Path) -> None:
    known = so(*SMALL)
    motion = Motion(known.state, Motion.of([0.5, 0.5, 0.5, 1], [0, 0, 0, 1]).action)
    names = ("delta_x", "delta_y", "delta_z", "gripper")
    source = lerobot(tmp_path / "source", "so100_follower_end_effector", motion, SO, action_names=names)
    declared, _ = draft(source)
    assert declared["embodiment"]["state"]["parts"]["joints"].endswith("wrist_flex, travel, absolute")
    assert "embodiment.action.parts.xyz" in todos(declared)


def test_a_pose_is_not_taken_for_joints(tmp_path: Path) -> None:
    names = ("x", "y", "z", "qx", "qy", "qz", "qw", "gripper")
    motion = Motion.of([0.2] * 3 + [0] * 4 + [0.5], [0.4, 0, 0.3, 0, 0, 0, 1, 0.5])
    declared, _ = draft(lerobot(tmp_path / "source", "franka", motion, names, fps=15))
    assert "joint" not in str(declared["embodiment"])


def test_numbered_names_alone_tell_no_robot(tmp_path: Path) -> None:
    declared, _ = draft(lerobot(tmp_path / "source", "my_arm", Motion.of(*PANDA_SIZES), PANDA))
    assert declared["embodiment"]["robot"] == "my_arm"


def test_the_question_is_in_the_json(tmp_path: Path) -> None:
    source = lerobot(tmp_path / "source", "so_follower", so(*SMALL), SO)
    shown = oxe("inspect", source, "--draft", tmp_path / "d.toml", "--json").json()["draft"]
    assert shown["todo"] == ["embodiment"]
    assert shown["claims"]["embodiment"]["value"] == "TODO"
    assert shown["vectors"] == {"state": "observation.state", "action": "action"}
