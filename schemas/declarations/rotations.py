"""Convert between the rotation conventions of Spaces, with scipy. Every function keeps the leading axis T."""

from typing import TYPE_CHECKING, Literal

import numpy as np

from schemas.errors import SourceError
from schemas.source import Array

if TYPE_CHECKING:
    from scipy.spatial.transform import Rotation

EULER: Literal["xyz"] = "xyz"  # lower case means fixed axes in scipy: roll, then pitch, then yaw


def _scipy() -> "type[Rotation]":
    """Import scipy's rotations on first use, because the import would take a third of the time of `oxe --help`."""
    from scipy.spatial.transform import Rotation  # noqa: PLC0415

    return Rotation


def to_rotation(x: Array, representation: str) -> "Rotation":
    """Convert [T, k] numbers to rotations. Raises SourceError for quaternions of length zero."""
    values = np.asarray(x, np.float64)
    if representation == "euler_xyz":
        return from_euler(values, EULER)
    if representation == "rotvec":
        return _scipy().from_rotvec(values)
    if representation in {"quat_xyzw", "quat_wxyz"}:
        if not np.linalg.norm(values, axis=-1).all():
            raise SourceError("a quaternion has length zero", reason="bad_rotation")
        return _scipy().from_quat(values, scalar_first=representation == "quat_wxyz")
    raise ValueError(representation)


def from_euler(x: Array, order: str) -> "Rotation":
    """Convert [T, 3] angles about the axes of `order`, spelled as in scipy, to rotations."""
    return _scipy().from_euler(order, np.asarray(x, np.float64))


def matrices(x: Array) -> "Rotation":
    """Convert [T, 3, 3] matrices to rotations. Raises SourceError if one is not a rotation matrix."""
    try:
        return _scipy().from_matrix(np.asarray(x, np.float64))
    except ValueError as error:
        raise SourceError(f"not a rotation matrix ({error})", reason="bad_rotation") from error


def from_rotation(rotation: "Rotation", representation: str) -> Array:
    """Convert rotations to [T, k] float32 numbers, the inverse of `to_rotation`."""
    if representation == "euler_xyz":
        return to_euler(rotation)
    if representation == "rotvec":
        return np.asarray(rotation.as_rotvec(), np.float32)
    return np.asarray(rotation.as_quat(scalar_first=representation == "quat_wxyz"), np.float32)


def to_euler(rotation: "Rotation") -> Array:
    """Convert rotations to [T, 3] roll, pitch, yaw in radians, float32."""
    return np.asarray(rotation.as_euler(EULER, suppress_warnings=True), np.float32)


def between(left: Array, right: Array, weight: Array) -> Array:
    """Interpolate between quaternions `left` and `right` [T, 4] (x, y, z, w) along the shorter arc.

    `weight` [T] is the place between them: 0 gives `left`, 1 gives `right`.
    """
    for side in (left, right):
        if not np.isfinite(side).all():
            raise SourceError("a quaternion is not finite", reason="bad_rotation")
    start, end = to_rotation(left, "quat_xyzw"), to_rotation(right, "quat_xyzw")
    way = (start.inv() * end).as_rotvec()
    return np.asarray((start * _scipy().from_rotvec(way * weight[:, None])).as_quat(), np.float64)
