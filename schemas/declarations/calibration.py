"""Calibration files, which turn shares of an arm's calibrated travel into angles.

LeRobot records a joint as a share of the travel that was found when this very arm was calibrated. Only the calibration
file of that arm tells the angle: `angle = share * (range_max - range_min) / 2 * 2 pi / 4095`, and the opposite sign if
`drive_mode` is 1 (huggingface/lerobot, `motors_bus.py`: `_normalize`). The op `travel2rad` of a declaration is replaced
by `scale` with these factors when the declaration is loaded, so that the manifest needs no further file.
"""

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import pi
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from schemas.declarations import toml
from schemas.declarations.tables import EmbodimentSpec, Model, Part
from schemas.errors import SpecError, did_you_mean
from schemas.parsing import parse_json

TICKS = 4095  # a full turn, for motors with a resolution of 4096
OP = re.compile(r"\btravel2rad\b(\s*\(\s*\))?")


class Motor(Model):
    """What LeRobot's calibration found for one motor; ranges are in ticks."""

    id: int
    drive_mode: int
    homing_offset: int
    range_min: int
    range_max: int

    @property
    def factor(self) -> float:
        """Radians at the end of the travel: the angle of a share of 1."""
        return (self.range_max - self.range_min) / 2 * 2 * pi / TICKS * (-1 if self.drive_mode else 1)


def with_radians(data: dict[str, Any], *, where: str, folder: Path) -> dict[str, Any]:
    """Return the tables of a declaration without `calibration`, and with each `travel2rad` replaced by `scale`.

    The files that `calibration` names are relative to `folder`. Raises SpecError if a file is not that of this arm.
    """
    data = dict(data)
    files = data.pop("calibration", None)
    try:
        embodiment = EmbodimentSpec.model_validate(data.get("embodiment"))
    except ValidationError:
        return data  # the whole declaration is validated later, with a better message
    motors = None if files is None else _motors(files, where=where, folder=folder)
    for which, space in (("state", embodiment.state), ("action", embodiment.action)):
        expressions = data.get(which)
        if isinstance(expressions, dict) and space:
            data[which] = {
                name: _with_factors(text, space.parts.get(name), motors, place=f"{where}: {which}.{name}")
                for name, text in expressions.items()
            }
    return data


def _with_factors(text: Any, part: Part | None, motors: Mapping[str, Motor] | None, *, place: str) -> Any:
    if not isinstance(text, str) or part is None or not OP.search(text):
        return text
    if motors is None:
        fix = 'name the calibration file of this arm: calibration = "FILE.json"'
        raise SpecError(f"{place}: travel2rad turns shares of this arm's travel into angles; {fix}")
    if part.unit != "rad":
        raise SpecError(f"{place}: travel2rad returns radians, but the unit of the part is '{part.unit}'")
    return OP.sub(f"scale({', '.join(repr(motor.factor) for motor in _of_joints(part.dims, motors, place))})", text)


def _of_joints(dims: Sequence[str], motors: Mapping[str, Motor], place: str) -> list[Motor]:
    """Return the motor of each joint; raise SpecError if a joint has none, or if the ids are in another order."""
    for name in dims:
        if name not in motors:
            raise SpecError(
                f"{place}: the calibration has no motor '{name}'{did_you_mean(name, motors)}: it is the file of "
                "another arm, or the joints have other names"
            )
    own = [motors[name] for name in dims]
    for (name, motor), (other, following) in pairwise(zip(dims, own, strict=True)):
        if motor.id >= following.id and _side(name) == _side(other):
            raise SpecError(
                f"{place}: the calibration gives '{name}' the id {motor.id} and '{other}', the next joint, the id "
                f"{following.id}: it is the file of another arm"
            )
    return own


def _side(name: str) -> str:
    """Return the arm of a joint of a bimanual robot."""
    return name.partition("_")[0] if name.startswith(("left_", "right_")) else ""


def _motors(files: Any, *, where: str, folder: Path) -> dict[str, Motor]:
    """Read the motors of one file, or of one file for each arm: `{ left = "left.json", right = "right.json" }`."""
    if isinstance(files, str):
        return _motors_of_file(files, where=where, folder=folder)
    if not isinstance(files, dict) or not all(isinstance(file, str) for file in files.values()):
        raise SpecError(f"{where}: calibration: must be a file, or a table of a file for each arm")
    return {
        f"{side}_{name}": motor
        for side, file in files.items()
        for name, motor in _motors_of_file(file, where=where, folder=folder).items()
    }


def _motors_of_file(file: str, *, where: str, folder: Path) -> dict[str, Motor]:
    place = f"{where}: calibration: {file}"
    try:
        content = parse_json(toml.read(folder / file, missing=f"{place}: no such file"))
    except ValueError as error:
        raise SpecError(f"{place}: is not JSON ({error})") from error
    if not isinstance(content, dict) or not content:
        raise SpecError(f"{place}: expected LeRobot's calibration file, a JSON object with an entry for each motor")
    motors = {}
    for name, entry in content.items():
        try:
            motors[name] = Motor.model_validate(entry)
        except ValidationError as error:
            raise SpecError(f"{place}: {name}: {error.errors(include_url=False)[0]['msg']}") from error
        if motors[name].range_min >= motors[name].range_max:
            low, high = motors[name].range_min, motors[name].range_max
            raise SpecError(f"{place}: {name}: range_min {low} is not below range_max {high}; calibrate the arm again")
    return motors
