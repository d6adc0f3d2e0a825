"""`standardize` returns the same for random episodes as OpenVLA's and Octo's own transforms.

`tests/golden/oxe/` was computed with the two projects' code under TensorFlow 2.21 and tensorflow-graphics.
"""

import json
from typing import Any

import numpy as np
import pytest

from oxe_tools import standardize
from schemas.declarations.hooks.droid import Q01, Q99, drop_idle
from schemas.declarations.ops import ROW
from schemas.declarations.rotations import to_rotation
from schemas.declarations.vocabulary import ARRAY_OPS, DECODERS, STEP_OPS
from schemas.source import Array
from tests.docs.toy import ROOT

FOLDER = ROOT / "tests/golden/oxe"
GOLDENS = json.loads((FOLDER / "action_goldens.json").read_text())
VECTORS = json.loads((FOLDER / "op_vectors.json").read_text())
TOLERANCE = 2e-5


def named(case: dict[str, Any]) -> str:
    return f"{case['dataset']}-{case['reference'].split()[0]}"


@pytest.mark.parametrize("case", GOLDENS, ids=named)
def test_a_view_gives_what_the_project_it_is_named_after_trains_on(case: dict[str, Any]) -> None:
    view = case["reference"].split()[0]
    episode = standardize(case["dataset"], case["input"], view=view)
    expected = np.float32(case["expected_action"])
    assert episode.action.shape == expected.shape
    np.testing.assert_allclose(episode.action, expected, atol=TOLERANCE, rtol=0)
    assert episode.is_first is not None
    assert episode.is_first.tolist() == [True, *[False] * (len(expected) - 1)]


@pytest.mark.parametrize("case", GOLDENS, ids=named)
def test_the_keys_may_be_flat_with_dots_or_slashes_and_the_numbers_of_another_type(case: dict[str, Any]) -> None:
    view = case["reference"].split()[0]
    nested = standardize(case["dataset"], case["input"], view=view).action
    for mark in "./":
        flat = {path.replace("|", mark): np.asarray(column) for path, column in leaves(case["input"])}
        np.testing.assert_array_equal(standardize(case["dataset"], flat, view=view).action, nested)


def leaves(steps: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found = []
    for key, value in steps.items():
        found += leaves(value, f"{prefix}{key}|") if isinstance(value, dict) else [(prefix + key, value)]
    return found


def column(values: list[Any]) -> Array:
    return np.array(values, np.float32).reshape(len(values), -1)


SCANS = {
    "binarize_gripper_actions": ARRAY_OPS["binarize_gripper"],
    "rel2abs_gripper_actions": ARRAY_OPS["rel2abs_gripper"],
    "remix.rel2abs_gripper_actions (1=closed)": lambda x: ARRAY_OPS["invert"](ARRAY_OPS["rel2abs_gripper"](x)),
    "remix.binarize_gripper_actions (1=closed)": lambda x: ARRAY_OPS["binarize_gripper"](x, 0.0),
    "remix.gripper_state_from_width(max 0.079)": lambda x: ARRAY_OPS["invert"](
        ARRAY_OPS["clip"](ARRAY_OPS["scale"](x, 1 / 0.079), 0, 1)
    ),
}


@pytest.mark.parametrize(("name", "case"), [(name, case) for name in SCANS for case in VECTORS[name]])
def test_a_gripper_op_gives_the_reference_for_each_column_by_itself(name: str, case: dict[str, Any]) -> None:
    x, expected = column(case["input"]), column(case["output"])
    np.testing.assert_allclose(SCANS[name](x), expected, atol=1e-6)
    both = np.concatenate([x, x[::-1]], axis=1)
    np.testing.assert_allclose(SCANS[name](both)[:, :1], expected, atol=1e-6)


@pytest.mark.parametrize("case", VECTORS["quat_xyzw_to_euler (tfg.euler.from_quaternion)"])
def test_quaternions_become_the_angles_of_tensorflow_graphics(case: dict[str, Any]) -> None:
    found = ARRAY_OPS["quat_xyzw_to_euler"](np.float32([case["input"]]))
    np.testing.assert_allclose(found, np.float32([case["output"]]), atol=TOLERANCE)


@pytest.mark.parametrize("case", VECTORS["euler_to_rmat (tfg.rotation_matrix_3d.from_euler)"])
def test_our_euler_angles_are_those_of_tensorflow_graphics(case: dict[str, Any]) -> None:
    found = to_rotation(np.float32([case["input"]]), "euler_xyz").as_matrix()
    np.testing.assert_allclose(found[0], np.float32(case["output"]), atol=1e-6)


@pytest.mark.parametrize("case", VECTORS["quat_from_euler (tfg)"])
def test_our_quaternions_are_those_of_tensorflow_graphics(case: dict[str, Any]) -> None:
    found = to_rotation(np.float32([case["input"]]), "euler_xyz").as_quat()
    np.testing.assert_allclose(found[0], np.float32(case["output"]), atol=1e-6)


@pytest.mark.parametrize("case", VECTORS["velocity_act_to_wrist_frame"])
def test_droid_velocities_in_the_wrist_frame(case: dict[str, Any]) -> None:
    found = ARRAY_OPS["to_wrist_frame"](np.float32(case["velocity"]), np.float32(case["pose"]))
    np.testing.assert_allclose(found, np.float32(case["output_9d"]), atol=1e-6)


@pytest.mark.parametrize("case", VECTORS["relabel_bridge_actions"])
def test_bridge_actions_are_relabelled_without_wrapping(case: dict[str, Any]) -> None:
    steps = {"action": np.float32(case["action"]), ROW: np.arange(len(case["action"]))}
    found = STEP_OPS["relabel_achieved_delta"](steps, np.float32(case["state"])[:, :6])
    np.testing.assert_allclose(found["action"], np.float32(case["output_action"]), atol=1e-6)
    assert found[ROW].tolist() == [0, 1]


@pytest.mark.parametrize("case", VECTORS["language_table_decode"])
def test_code_points_become_texts(case: dict[str, Any]) -> None:
    assert DECODERS["code_points"](np.int32(case["input"])) == [text.encode() for text in case["output"]]
    steps = {"action": np.zeros((len(case["input"]), 2)), "observation": {"instruction": np.int32(case["input"])}}
    episode = standardize("language_table", steps)
    assert episode.instruction_index is not None
    assert [episode.instructions[i] for i in episode.instruction_index] == case["output"]


def test_droids_idle_steps_are_those_that_openvla_leaves_out() -> None:
    case = VECTORS["droid_zero_action_filter"]
    low, high = np.array(case["q01"]), np.array(case["q99"])
    np.testing.assert_array_equal([Q01, Q99], [low, high])
    np.testing.assert_allclose(-2 * low / (high - low + 1e-8) - 1, case["normalized_zero"], atol=1e-7)
    raw_zero = np.zeros(6)
    literal_zero = (0 + 1) / 2 * (high - low + 1e-8) + low  # normalized to zero
    steps = {"action": np.float32([raw_zero, literal_zero])}
    assert drop_idle(steps)["action"].tolist() == np.float32([literal_zero]).tolist()
    kept = case["keep_if_action_equals_normalized_zero"], case["keep_if_action_is_literal_zero"]
    assert kept == (False, True)


def test_every_vector_is_tested_here_or_has_no_place_in_a_declaration() -> None:
    elsewhere = {
        "rel_open_or_closed(octo, buggy)",  # unused in Octo, where it returns 0 for every input
        "allocate_threads",  # a function of Octo's loader, not of a dataset
    }
    single = {
        "quat_xyzw_to_euler (tfg.euler.from_quaternion)",
        "euler_to_rmat (tfg.rotation_matrix_3d.from_euler)",
        "quat_from_euler (tfg)",
        "velocity_act_to_wrist_frame",
        "relabel_bridge_actions",
        "language_table_decode",
        "droid_zero_action_filter",
    }
    assert set(VECTORS) == elsewhere | single | SCANS.keys()
