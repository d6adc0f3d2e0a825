"""What the convention check says about a simulated hand: sound recordings, and each fault by its name."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from pipelines.conventions.check import conventions, of_dataset
from pipelines.conventions.trajectories import Trajectories
from pipelines.conventions.verdicts import ASPECTS
from schemas.spaces import Dim
from schemas.store.dataset import open_dataset
from tests.pipelines.conventions.arm import CHANGES, STATE, Recorded, record, space, targets, turns
from tests.pipelines.toy import oxe


def words(one: Recorded, **options: Any) -> dict[str, str]:
    return {aspect: found.verdict for aspect, found in one.judged(**options).items()}


def contradicted(one: Recorded) -> set[str]:
    return {aspect for aspect, word in words(one).items() if word == "contradicts"}


@pytest.mark.parametrize("seed", range(5))
def test_sound_commands_are_not_contradicted(seed: int) -> None:
    changes = words(record(seed))
    assert {aspect for aspect, word in changes.items() if word != "pass"} <= {"rotation"}  # small angles have no order
    whole = words(targets(record(seed)))
    assert {aspect for aspect, word in whole.items() if word != "pass"} == {"frame"}  # an origin is not seen


FAULTS: dict[str, tuple[str, Callable[[Recorded], Recorded]]] = {
    "y is negated": ("axes", lambda one: one.changed(place=lambda a, _: a[:, :3] * [1, -1, 1])),
    "x and y are exchanged": ("axes", lambda one: one.changed(place=lambda a, _: a[:, [1, 0, 2]])),
    "yaw is negated": ("axes", lambda one: one.changed(turn=lambda a, _: a[:, 3:6] * [1, 1, -1])),
    "millimetres": ("scale", lambda one: one.changed(place=lambda a, _: 1000 * a[:, :3])),
    "degrees": ("scale", lambda one: one.changed(turn=lambda a, _: np.rad2deg(a[:, 3:6]))),
    "frame of the tool": (
        "frame",
        lambda one: one.changed(
            place=lambda a, s: turns(s).inv().apply(a[:, :3]), turn=lambda a, s: turns(s).inv().apply(a[:, 3:6])
        ),
    ),
    "1 is closed": ("gripper", lambda one: one.changed(grip=lambda a, _: 1 - a[:, 6:])),
    "targets": ("kind", lambda one: one.changed(place=lambda a, s: a[:, :3] + s[:, :3])),
    "late": ("lag", lambda one: replace(one, action=[np.r_[a[:1].repeat(4, axis=0), a[:-4]] for a in one.action])),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("seed", range(3))
def test_each_fault_is_named_and_nothing_else(fault: str, seed: int) -> None:
    aspect, inject = FAULTS[fault]
    assert contradicted(inject(record(seed))) == {aspect}


@pytest.mark.parametrize("fault", ["y is negated", "x and y are exchanged", "millimetres", "1 is closed", "late"])
def test_each_fault_of_targets_is_named_and_nothing_else(fault: str) -> None:
    aspect, inject = FAULTS[fault]
    late = {"lag"} if fault == "late" else set()  # in targets, what comes late has other values as well
    assert {aspect} <= contradicted(inject(targets(record()))) <= {aspect} | late


def test_targets_in_degrees_in_another_order_and_as_changes_are_named() -> None:
    one = targets(record())
    assert contradicted(one.changed(turn=lambda a, _: np.rad2deg(a[:, 3:6]))) == {"scale"}
    turned = one.changed(turn=lambda a, _: Rotation.from_euler("xyz", a[:, 3:6]).as_euler("zyx")[:, ::-1])
    assert contradicted(turned) == {"rotation"}
    assert "as XYZ 100%" in turned.judged()["rotation"].evidence
    assert contradicted(replace(record(), space=one.space)) >= {"kind"}


def test_the_evidence_says_what_is_wrong() -> None:
    evidence = {name: inject(record()).judged()[aspect].evidence for name, (aspect, inject) in FAULTS.items()}
    assert "y is negated" in evidence["y is negated"]
    assert "x moves by the command of y" in evidence["x and y are exchanged"]
    assert "as for millimetres and metres" in evidence["millimetres"]
    assert "as for degrees and radians" in evidence["degrees"]
    assert "before its command" in evidence["late"]


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 3), st.floats(0.3, 1.2))
def test_the_delay_is_reported_and_no_sound_recording_is_contradicted(seed: int, delay: int, gain: float) -> None:
    one = record(seed, delay=delay, gain=gain)
    assert contradicted(one) == set()
    assert one.judged()["lag"].evidence.startswith(f"position: the motion comes {delay} steps")


def joints(sign: float = 1.0, factor: float = 1.0, *, absolute: bool = True) -> Recorded:
    one = record()
    dims = tuple(Dim(f"joint_{i}", "rad", "absolute", "joint") for i in range(3))
    states = [np.c_[20 * state[:, :3], state[:, 7:]] for state in one.state]
    actions = [
        20 * action[:, :3] + (state[:, :3] if absolute else 0) for action, state in zip(one.action, states, strict=True)
    ]
    actions = [
        np.c_[factor * action * [1, sign, 1], grip[:, 6:]] for action, grip in zip(actions, one.action, strict=True)
    ]
    mode = "absolute" if absolute else "delta"
    commands = space(tuple(replace(dim, mode=mode) for dim in dims), "none", frame="none")
    return Recorded(actions, states, commands, space(dims, "none", frame="none", origin="achieved"))


def test_joints() -> None:
    assert contradicted(joints()) == set()
    assert contradicted(joints(absolute=False)) == set()
    assert contradicted(joints(-1.0)) == {"axes"}
    assert "joint_1" in joints(-1.0).judged()["axes"].evidence
    assert contradicted(joints(factor=180 / np.pi)) == {"scale"}


def test_what_cannot_be_judged_is_undetermined_with_the_reason() -> None:
    one = record()
    steps = Trajectories.of(one.action, one.state)
    cases = {
        "there are no states": conventions(CHANGES, None, None, hz=10),
        "computed from the states": conventions(CHANGES, STATE, steps, hz=10, is_derived=True),
        "2 episodes": record(episodes=2).judged(),
        "steps move": replace(one, state=[np.tile(state[:1], (len(state), 1)) for state in one.state]).judged(),
    }
    for why, judged in cases.items():
        assert {found.verdict for found in judged.values()} == {"undetermined"}, why
        assert why in judged["axes"].evidence
    achieved = replace(one, space=replace(CHANGES, origin="achieved"))
    assert set(words(achieved).values()) == {"undetermined"}


def test_commands_that_equal_the_motion_are_derived_and_never_pass() -> None:
    one = record().changed(place=lambda _, s: np.diff(s[:, :3], axis=0, append=s[-1:, :3]))
    judged = one.judged()
    assert judged["axes"].verdict == "undetermined"
    assert "position: derived" in judged["axes"].evidence


def test_unknown_words_are_undetermined() -> None:
    dims = tuple(replace(dim, unit="controller") for dim in CHANGES.dims[:6])
    unknown = space(dims, "rotvec", frame="unknown", gripper="unknown")
    found = words(replace(record(), space=unknown))
    assert found["scale"] == found["frame"] == found["gripper"] == "undetermined"
    assert found["axes"] == found["lag"] == "pass"
    modes = space(tuple(replace(dim, mode="unknown") for dim in CHANGES.dims[:6]), "rotvec")
    assert words(replace(record(), space=modes))["kind"] == "undetermined"


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_short_and_still_recordings_have_an_answer(steps: int) -> None:
    one = record()
    short = replace(one, action=[a[:steps] for a in one.action], state=[s[:steps] for s in one.state])
    assert not contradicted(short)
    still = replace(one, action=[0 * a for a in one.action])
    assert not contradicted(still)
    assert set(one.judged()) == set(ASPECTS)


def test_rotations_of_length_zero_are_left_out() -> None:
    broken = [state * ([1.0] * 3 + [0.0] * 4 + [1.0]) for state in record().state]
    judged = replace(record(), state=broken).judged()
    assert judged["rotation"].verdict == "undetermined"
    assert judged["axes"].verdict != "contradicts"
    one = record()
    for state in one.state:
        state[5, 3:7] = 0
    assert words(one) == words(record())


@pytest.mark.realdata
def test_bridge_is_not_contradicted_and_its_faults_are_found(realdata: Path, tmp_path: Path) -> None:
    source = realdata / "rlds/octo_debug_bridge"
    run = oxe("convert", "bridge_dataset", "--source", source, "--out", tmp_path / "bridge", "--json")
    assert run.code == 0
    assert run.json()["contradictions"] == []
    dataset = open_dataset(tmp_path / "bridge")
    assert "contradicts" not in {one.verdict for one in of_dataset(dataset).values()}
    report = oxe("check", tmp_path / "bridge", "--json").json()
    assert report["conventions"]["bridge_dataset"]["action"]["axes"]["verdict"] == "pass"
    counts: dict[str, int] = {}
    for finding in report["findings"]:
        counts[finding["rule"]] = counts.get(finding["rule"], 0) + 1
    assert counts == {"split_leak": 25, "black_camera": 50, "noop_first": 50, "outcome_unknown": 1}
    assert {tuple(f["dims"]) for f in report["findings"] if f["rule"] == "black_camera"} == {("image_3",)}
    assert oxe("datasets", "check", "bridge_dataset", "--source", source, "--limit", "25", "--json").code == 0
