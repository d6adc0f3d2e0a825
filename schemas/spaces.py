"""`Space`: the meaning of a vector, with its dimensions (unit, mode, kind), frame, rotation, gripper and origin."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self, TypeAlias, get_args

from schemas.errors import SpecError, did_you_mean

Unit: TypeAlias = Literal["m", "rad", "m/s", "rad/s", "s", "1", "travel", "controller", "unknown"]
Mode: TypeAlias = Literal["delta", "absolute", "velocity", "unknown"]
Kind: TypeAlias = Literal["position", "rotation", "gripper", "joint", "base", "other"]
Frame: TypeAlias = Literal["base", "tool", "world", "none", "unknown"]
Rotation: TypeAlias = Literal["none", "euler_xyz", "rotvec", "quat_xyzw", "quat_wxyz", "unknown"]
Gripper: TypeAlias = Literal["none", "open_is_1", "closed_is_1", "unknown"]
Origin: TypeAlias = Literal["commanded", "achieved"]
ROTATION_DIMS: dict[str, tuple[int, Unit]] = {  # rotation -> number of dimensions and their unit
    "euler_xyz": (3, "rad"),
    "rotvec": (3, "rad"),
    "quat_xyzw": (4, "1"),
    "quat_wxyz": (4, "1"),
}


@dataclass(frozen=True, slots=True)
class Dim:
    """One dimension. Each has its own `mode`, because a delta action may have an absolute gripper."""

    name: str
    unit: Unit
    mode: Mode
    kind: Kind


DELTA = (  # a change of pose
    *(Dim(name, "m", "delta", "position") for name in ("x", "y", "z")),
    *(Dim(name, "rad", "delta", "rotation") for name in ("roll", "pitch", "yaw")),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """The meaning of one vector. Spaces that differ in more than their `name` are never merged.

    Positions and rotations are relative to `frame`. The rotation `euler_xyz` is roll, pitch, yaw about fixed axes
    (R = Rz Ry Rx). `origin` is `commanded` if the values are recorded commands, and `achieved` if they were measured.
    """

    name: str
    dims: tuple[Dim, ...]
    frame: Frame
    rotation: Rotation
    gripper: Gripper
    origin: Origin

    def __post_init__(self) -> None:
        """Raise SpecError for words outside the vocabulary."""
        for word, allowed in (
            (self.frame, Frame),
            (self.rotation, Rotation),
            (self.gripper, Gripper),
            (self.origin, Origin),
            *((dim.unit, Unit) for dim in self.dims),
            *((dim.mode, Mode) for dim in self.dims),
            *((dim.kind, Kind) for dim in self.dims),
        ):
            if word not in get_args(allowed):
                raise SpecError(f"space {self.name}: unknown word '{word}'{did_you_mean(word, get_args(allowed))}")

    def __len__(self) -> int:
        """Return the number of dimensions."""
        return len(self.dims)

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form used in the manifest and in Arrow field metadata."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read the result of `to_json`."""
        return cls(**{**data, "dims": tuple(Dim(**dim) for dim in data["dims"])})

    def digest(self) -> str:
        """Hash everything but the name."""
        meaning = {key: value for key, value in self.to_json().items() if key != "name"}
        return hashlib.sha256(json.dumps(meaning, sort_keys=True).encode()).hexdigest()

    def unknowns(self) -> list[str]:
        """List the conventions that are unknown."""
        words = [word for word in ("frame", "rotation", "gripper") if getattr(self, word) == "unknown"]
        for what in ("unit", "mode"):
            words += [f"the {what} of {dim.name}" for dim in self.dims if getattr(dim, what) == "unknown"]
        return words

    def indices(self, kind: Kind) -> list[int]:
        """Return the indices of the dimensions of one kind."""
        return [i for i, dim in enumerate(self.dims) if dim.kind == kind]


def why_not_pose(space: Space, modes: set[str]) -> str | None:
    """Return why a vector is not a pose in metres and radians, with a known frame and one of `modes`, or None."""
    position, rotation = ([space.dims[i] for i in space.indices(kind)] for kind in ("position", "rotation"))
    size, unit = ROTATION_DIMS.get(space.rotation, (0, ""))
    if len(position) != 3 or not size or len(rotation) != size:
        return f"has {len(position)} position and {len(rotation)} rotation dimensions, with rotation '{space.rotation}'"
    if {dim.unit for dim in position} != {"m"} or {dim.unit for dim in rotation} != {unit}:
        return f"has units {', '.join(sorted({dim.unit for dim in position + rotation}))}, not metres and radians"
    dim_modes = {dim.mode for dim in position + rotation}
    if len(dim_modes) > 1 or not dim_modes <= modes:
        return f"has mode {' and '.join(sorted(dim_modes))}"
    return None if space.frame in {"base", "tool", "world"} else f"is in frame '{space.frame}'"
