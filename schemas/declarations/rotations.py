"""Rotations, all through scipy, in the conventions the Spaces name. Every function keeps the leading axis T."""

from typing import TYPE_CHECKING, Literal

import numpy as np

from schemas.errors import SourceError
from schemas.source import Array

if TYPE_CHECKING:
    from scipy.spatial.transform import Rotation

EULER: Literal["xyz"] = "xyz"  # scipy's lower case: about fixed axes, roll then pitch then yaw


def _scipy() -> "type[Rotation]":
    """Import scipy's rotations with the first of them: that takes a third of what `oxe --help` does."""
    from scipy.spatial.transform import Rotation  # noqa: PLC0415

    return Rotation


def to_rotation(x: Array, representation: str) -> "Rotation":
    """Read [T, k] numbers as rotations; quaternions of length zero are a SourceError."""
    values = np.asarray(x, np.float64)
    if representation == "euler_xyz":
        return from_euler(values, EULER)
    if representation == "rotvec":
        return _scipy().from_rotvec(values)
    if representation in {"quat_xyzw", "quat_wxyz"}:
        if not np.linalg.norm(values, axis=-1).all():
            raise SourceError("a quaternion of length zero", reason="bad_rotation")
        return _scipy().from_quat(values, scalar_first=representation == "quat_wxyz")
    raise ValueError(representation)


def from_euler(x: Array, order: str) -> "Rotation":
    """Read [T, 3] angles about the axes that `order` names, in scipy's spelling, as rotations."""
    return _scipy().from_euler(order, np.asarray(x, np.float64))


def matrices(x: Array) -> "Rotation":
    """Read [T, 3, 3] numbers as rotation matrices; what is none is a SourceError."""
    try:
        return _scipy().from_matrix(np.asarray(x, np.float64))
    except ValueError as error:
        raise SourceError(f"not a rotation matrix ({error})".replace("\n", ""), reason="bad_rotation") from error


def from_rotation(rotation: "Rotation", representation: str) -> Array:
    """Give [T, k] float32 numbers that `to_rotation` reads as these rotations."""
    if representation == "euler_xyz":
        return to_euler(rotation)
    if representation == "rotvec":
        return np.asarray(rotation.as_rotvec(), np.float32)
    return np.asarray(rotation.as_quat(scalar_first=representation == "quat_wxyz"), np.float32)


def to_euler(rotation: "Rotation") -> Array:
    """Give [T, 3] roll, pitch, yaw in radians, float32."""
    return np.asarray(rotation.as_euler(EULER, suppress_warnings=True), np.float32)


def between(left: Array, right: Array, weight: Array) -> Array:
    """Turn by a part `weight` [T] of the shorter way from quaternions `left` to `right` [T, 4], x y z w."""
    for side in (left, right):
        if not np.isfinite(side).all():
            raise SourceError("a quaternion that is not finite", reason="bad_rotation")
    start, end = to_rotation(left, "quat_xyzw"), to_rotation(right, "quat_xyzw")
    way = (start.inv() * end).as_rotvec()
    return np.asarray((start * _scipy().from_rotvec(way * weight[:, None])).as_quat(), np.float64)
