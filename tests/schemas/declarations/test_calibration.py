"""An arm's calibration file turns shares of its travel into the angles that LeRobot would have recorded."""

import json
from math import radians
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from schemas.declarations import catalog
from schemas.errors import SpecError

NAMES = ("shoulder_pan", "shoulder_lift", "wrist_roll")
RANGES = ((700, 3400), (900, 3100), (0, 4095))


def motors(**changes: Any) -> dict[str, dict[str, int]]:
    """Return a calibration as LeRobot writes it."""
    written = {
        name: {"id": i + 1, "drive_mode": 0, "homing_offset": -17, "range_min": low, "range_max": high}
        for i, (name, (low, high)) in enumerate(zip(NAMES, RANGES, strict=True))
    }
    for name, change in changes.items():
        written[name] = written[name] | change
    return written


def declare(folder: Path, *, calibration: str = 'calibration = "arm.json"', unit: str = "rad", dims: str = "") -> Path:
    path = folder / "arm.toml"
    path.write_text(f"""
name        = "arm"
{calibration}
action      = {{ joints = "action | scale(1/100) | travel2rad" }}
[embodiment]
name = "arm"
robot = "arm"
controller = "joint_position"
[embodiment.action]
origin = "commanded"
parts.joints = "joint {dims or " ".join(NAMES)}, {unit}, absolute"
""")
    return path


def normalized(ticks: np.ndarray[Any, Any], low: int, high: int, drive_mode: int) -> np.ndarray[Any, Any]:
    """Normalize as LeRobot does in its mode RANGE_M100_100 (motors_bus.py)."""
    share = (ticks - low) / (high - low) * 200 - 100
    return -share if drive_mode else share


@pytest.mark.parametrize("drive_mode", [0, 1])
def test_the_angles_are_those_of_lerobots_degrees(tmp_path: Path, drive_mode: int) -> None:
    (tmp_path / "arm.json").write_text(json.dumps(motors(**{name: {"drive_mode": drive_mode} for name in NAMES})))
    ticks = np.linspace([low for low, _ in RANGES], [high for _, high in RANGES], 9)
    recorded = [normalized(ticks[:, i], *RANGES[i], drive_mode) for i in range(3)]
    middle = np.array([(low + high) / 2 for low, high in RANGES])
    degrees = (ticks - middle) * 360 / 4095  # mode DEGREES
    action = catalog.dataset(str(declare(tmp_path))).expressions["joints"]
    found = action({"action": np.stack(recorded, axis=1).astype(np.float32)})
    np.testing.assert_allclose(found, np.vectorize(radians)(degrees), atol=1e-5)


def test_the_declaration_that_is_stored_needs_no_file(tmp_path: Path) -> None:
    (tmp_path / "arm.json").write_text(json.dumps(motors()))
    text = json.dumps(catalog.dataset(str(declare(tmp_path))).to_json())
    assert "travel2rad" not in text
    assert "arm.json" not in text


def test_each_arm_of_a_bimanual_robot_has_its_own_file(tmp_path: Path) -> None:
    (tmp_path / "l.json").write_text(json.dumps(motors()))
    (tmp_path / "r.json").write_text(json.dumps(motors(shoulder_pan={"range_max": 800})))
    dims = "left_shoulder_pan left_shoulder_lift right_shoulder_pan right_shoulder_lift"
    path = declare(tmp_path, calibration='calibration = { left = "l.json", right = "r.json" }', dims=dims)
    found = catalog.dataset(str(path)).expressions["joints"]({"action": np.full((1, 4), 100, np.float32)})
    assert found[0].tolist() == pytest.approx([radians(ticks / 2 * 360 / 4095) for ticks in (2700, 2200, 100, 2200)])


def test_a_declaration_that_is_like_another_finds_its_calibration(tmp_path: Path) -> None:
    (tmp_path / "arm.json").write_text(json.dumps(motors()))
    declare(tmp_path)
    (tmp_path / "more").mkdir()
    (tmp_path / "more/other.toml").write_text('name = "other"\nlike = "../arm.toml"\n')
    assert "scale" in str(catalog.dataset(str(tmp_path / "more/other.toml")).expressions["joints"])


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        (
            {"waist": {**motors()["wrist_roll"]}},
            {},
            "has no motor 'shoulder_pan'. (known: waist): it is the file of another arm",
        ),
        (motors(shoulder_pan={"id": 3}), {}, "'shoulder_pan' the id 3 and 'shoulder_lift', the next joint, the id 2"),
        (motors(wrist_roll={"range_min": 4095}), {}, "wrist_roll: range_min 4095 is not below range_max 4095"),
        (motors(wrist_roll={"range_min": None}), {}, "wrist_roll: Input should be a valid integer"),
        ([], {}, "expected LeRobot's calibration file"),
        (motors(), {"unit": "travel"}, "travel2rad returns radians, but the unit of the part is 'travel'"),
        (motors(), {"calibration": ""}, 'name the calibration file of this arm: calibration = "FILE.json"'),
        (motors(), {"calibration": 'calibration = "no.json"'}, "calibration: no.json: no such file"),
        (motors(), {"calibration": "calibration = 3"}, "calibration: must be a file, or a table"),
    ],
)
def test_a_file_that_is_not_that_of_this_arm_is_refused(
    tmp_path: Path, content: Any, options: dict[str, str], message: str
) -> None:
    (tmp_path / "arm.json").write_text(json.dumps(content))
    with pytest.raises(SpecError) as error:
        catalog.dataset(str(declare(tmp_path, **options)))
    assert message in str(error.value)
