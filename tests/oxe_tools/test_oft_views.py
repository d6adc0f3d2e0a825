"""The view `openvla_oft` has the actions and states that OpenVLA-OFT trains on: LIBERO, ALOHA and BridgeData."""

from pathlib import Path

import numpy as np
import pytest

from oxe_tools import open_dataset, standardize
from pipelines.convert.convert import convert
from pipelines.statistics.numbers import Selection
from pipelines.statistics.statistics import statistics
from schemas.declarations import catalog
from schemas.source import Array
from schemas.views.views import view
from stats.formats import openvla
from tests.oxe_tools.recordings import episode

POSE = [("x", "m"), ("y", "m"), ("z", "m")]
LIBERO = [*POSE, ("rx", "rad"), ("ry", "rad"), ("rz", "rad"), ("finger_1", "m"), ("finger_2", "m")]
BRIDGE = [*POSE, ("roll", "rad"), ("pitch", "rad"), ("yaw", "rad"), ("gripper", "1")]
ARMS = {
    side: [*((f"{side}_j{i}", "rad") for i in range(1, 7)), (f"{side}_gripper", "unknown")]
    for side in ("left", "right")
}
ALOHA = [*ARMS["left"], *ARMS["right"]]
STATES = {
    name: LIBERO if name.startswith("libero") else ALOHA if name.startswith("aloha") else BRIDGE
    for name in catalog.dataset_names()
    if name.startswith(("libero_", "aloha1_", "bridge_"))
}


def proprio(name: str, state: Array) -> Array:
    """Compute openvla-oft's proprio from `observation.state`: transforms.py, and the sizes of constants.py."""
    if name.startswith("libero"):  # EEF_state, gripper_state
        return np.concatenate([state[:, :6], state[:, -2:]], axis=1)
    if name.startswith("bridge"):
        return np.concatenate([state[:, :6], state[:, -1:]], axis=1)
    return state


def test_all_datasets_of_the_three_robots_are_covered() -> None:
    assert {len(dims) for dims in STATES.values()} == {7, 8, 14}
    assert len(STATES) == 5 + 4 + 3


@pytest.mark.parametrize("word", ["openvla_oft", "openvla-oft"])
@pytest.mark.parametrize("name", STATES)
def test_its_states_are_the_proprio_of_oft(name: str, word: str) -> None:
    declared = catalog.dataset(name)
    made = episode(declared, 6)
    viewed = standardize(name, made, view=word)
    space = view(declared, word).state_space
    assert space is not None
    assert viewed.state_space == space
    assert [(dim.name, dim.unit) for dim in space.dims] == STATES[name]
    assert {dim.mode for dim in space.dims} == {"absolute"}
    wanted = proprio(name, np.asarray(made["observation.state"], np.float32))
    kept = slice(1, -1) if name.startswith("bridge") else slice(None)
    np.testing.assert_array_equal(viewed.state, wanted[kept])
    assert viewed.action.shape == (len(wanted[kept]), 14 if name.startswith("aloha") else 7)


@pytest.mark.realdata
def test_the_debug_set_of_bridge_has_the_seven_numbers_of_oft(realdata: Path, tmp_path: Path) -> None:
    source = realdata / "rlds/octo_debug_bridge/bridge_dataset/1.0.0"
    convert(catalog.dataset("bridge_dataset"), tmp_path / "bridge", source=str(source))
    dataset = open_dataset(tmp_path / "bridge")
    states = []
    for i in range(len(dataset)):
        viewed, stored = dataset.episode(i, view="openvla-oft"), dataset.episode(i)
        recorded = np.asarray(stored.raw["observation.state"])
        np.testing.assert_array_equal(viewed.state, proprio("bridge", recorded)[1:-1])
        states.append(np.asarray(viewed.state, np.float64))
    entry = openvla(statistics(dataset, selection=Selection(view="openvla-oft")))["bridge_dataset"]["proprio"]
    values = np.concatenate(states)
    for name, wanted in (
        ("min", values.min(axis=0)),
        ("max", values.max(axis=0)),
        ("mean", values.mean(axis=0)),
        ("std", values.std(axis=0)),
        ("q01", np.quantile(values, 0.01, axis=0)),
        ("q99", np.quantile(values, 0.99, axis=0)),
    ):
        np.testing.assert_allclose(entry[name], wanted, rtol=1e-6, atol=1e-9)
