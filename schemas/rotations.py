"""Rotations, all through scipy, in the conventions the Spaces name. Every function keeps the leading axis T."""

from typing import Literal

import numpy as np
from scipy.spatial.transform import Rotation

from schemas.errors import SourceError
from schemas.source import Array

EULER: Literal["xyz"] = "xyz"  # scipy's lower case: about fixed axes, roll then pitch then yaw


def to_rotation(x: Array, representation: str) -> Rotation:
    """Read [T, k] numbers as rotations; quaternions of length zero are a SourceError."""
    values = np.asarray(x, np.float64)
    if representation == "euler_xyz":
        return Rotation.from_euler(EULER, values)
    if representation == "rotvec":
        return Rotation.from_rotvec(values)
    if representation in {"quat_xyzw", "quat_wxyz"}:
        if not np.linalg.norm(values, axis=-1).all():
            raise SourceError("a quaternion of length zero", reason="bad_rotation")
        return Rotation.from_quat(values, scalar_first=representation == "quat_wxyz")
    raise ValueError(representation)


def matrices(x: Array) -> Rotation:
    """Read [T, 3, 3] numbers as rotation matrices; what is none is a SourceError."""
    try:
        return Rotation.from_matrix(np.asarray(x, np.float64))
    except ValueError as error:
        raise SourceError(f"not a rotation matrix ({error})".replace("\n", ""), reason="bad_rotation") from error


def to_euler(rotation: Rotation) -> Array:
    """Give [T, 3] roll, pitch, yaw in radians, float32."""
    return np.asarray(rotation.as_euler(EULER, suppress_warnings=True), np.float32)
