"""Which dimensions of a command and a state describe the same thing: the position or rotation of an arm, joints."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

from schemas.spaces import ROTATION_DIMS, Space, Unit

PartKind: TypeAlias = Literal["position", "rotation", "joint"]
PER_POSITION = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class BodyPart:
    """Dimensions of an action and of a state; their order is the same."""

    name: str  # "position", or "position of arm 2"
    kind: PartKind
    action: tuple[int, ...]
    state: tuple[int, ...]
    arm: int | None = None  # its number, unless the part is joints
    turn: tuple[int, ...] = ()  # dimensions of the state with the rotation of the tool, if the part is of an arm


def parts(action: Space, state: Space) -> list[BodyPart]:
    """Return the parts that both vectors have. Arms are paired by their order, joints by their names."""
    return [*_arms(action, state), *_joints(action, state)]


def grippers(action: Space, state: Space) -> list[tuple[int, int]]:
    """Pair the grippers of both vectors by their order; a state may have two fingers for each command."""
    commands, measured = action.indices("gripper"), state.indices("gripper")
    if not commands or not measured or len(measured) % len(commands):
        return []
    return list(zip(commands, measured[:: len(measured) // len(commands)], strict=True))


def _arms(action: Space, state: Space) -> Iterator[BodyPart]:
    sizes = {"position": (PER_POSITION, PER_POSITION), "rotation": (_width(action), _width(state))}
    turns = _chunks(state.indices("rotation"), sizes["rotation"][1])
    kinds: tuple[PartKind, ...] = ("position", "rotation")
    for kind in kinds:
        ours, theirs = (
            _chunks(space.indices(kind), size) for space, size in zip((action, state), sizes[kind], strict=True)
        )
        if not ours or len(ours) != len(theirs):
            continue
        for number, (commands, measured) in enumerate(zip(ours, theirs, strict=True)):
            yield BodyPart(
                name=kind if len(ours) == 1 else f"{kind} of arm {number + 1}",
                kind=kind,
                action=commands,
                state=measured,
                arm=number,
                turn=turns[number] if len(turns) == len(ours) else (),
            )


def _width(space: Space) -> int:
    return ROTATION_DIMS.get(space.rotation, (0, ""))[0]


def _chunks(indices: list[int], size: int) -> list[tuple[int, ...]]:
    if not size or len(indices) % size:
        return []
    return [tuple(indices[at : at + size]) for at in range(0, len(indices), size)]


def _joints(action: Space, state: Space) -> Iterator[BodyPart]:
    named = {dim.name: i for i, dim in enumerate(state.dims) if dim.kind == "joint" and dim.mode == "absolute"}
    pairs = [(i, named[dim.name]) for i, dim in enumerate(action.dims) if dim.kind == "joint" and dim.name in named]
    if pairs:
        yield BodyPart(name="joints", kind="joint", action=tuple(i for i, _ in pairs), state=tuple(i for _, i in pairs))


def unit(space: Space, dims: tuple[int, ...]) -> Unit:
    """Return the unit that all these dimensions have; `unknown` if they differ."""
    units = {space.dims[i].unit for i in dims}
    return units.pop() if len(units) == 1 else "unknown"


def mode(space: Space, dims: tuple[int, ...]) -> str:
    """Return the mode that all these dimensions have; `unknown` if they differ."""
    modes = {space.dims[i].mode for i in dims}
    return modes.pop() if len(modes) == 1 else "unknown"
