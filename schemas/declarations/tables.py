"""The tables of a declaration: spaces, cameras, filters, fields and views. `formats.py` has the table `source`."""

import re
from collections.abc import Callable
from math import inf
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    model_serializer,
    model_validator,
)

from schemas.declarations import expr
from schemas.errors import SpecError, did_you_mean
from schemas.spaces import Dim, Frame, Gripper, Kind, Mode, Origin, Rotation, Space, Unit

Parsed = TypeVar("Parsed")


def _parsed(parse: Callable[[str], Parsed]) -> Callable[[object], Parsed]:
    def validate(text: object) -> Parsed:
        if not isinstance(text, str):
            raise ValueError("must be a string")  # noqa: TRY004 - pydantic reports ValueErrors
        try:
            return parse(text)
        except SpecError as error:
            raise ValueError(str(error)) from None

    return validate


Expression = Annotated[expr.Expr, PlainValidator(_parsed(expr.parse)), PlainSerializer(str)]
StepOp = Annotated[expr.Call, PlainValidator(_parsed(expr.parse_step_op)), PlainSerializer(str)]


class Model(BaseModel):
    """Base class of a declaration's tables. They are frozen and refuse unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, data: Any) -> Any:
        for key in data if isinstance(data, dict) else ():
            if key not in cls.model_fields:
                raise ValueError(f"unknown key '{key}'{did_you_mean(key, cls.model_fields)}")
        return data


class Part(Model):
    """The dimensions of one expression, written as a table or as a text such as `xyz = "position x y z, m, delta"`."""

    kind: Kind
    dims: tuple[str, ...]
    unit: Unit
    mode: Mode

    @model_validator(mode="before")
    @classmethod
    def _read(cls, data: Any) -> Any:
        if not isinstance(data, str):
            return data
        words = [word.split() for word in data.split(",")]
        if len(words) != 3 or not words[0] or len(words[1]) != 1 or len(words[2]) != 1:
            raise ValueError(f"expected a part such as 'position x y z, m, delta', got '{data}'")
        (kind, *dims), (unit,), (mode,) = words
        return {"kind": kind, "dims": tuple(dims) or (kind,), "unit": unit, "mode": mode}


class SpaceSpec(Model):
    """A Space as an embodiment declares it, divided into named parts."""

    origin: Origin
    frame: Frame = "none"
    rotation: Rotation = "none"
    gripper: Gripper = "none"
    parts: dict[str, Part]

    def space(self, name: str) -> Space:
        """Return the Space, with this name."""
        dims = tuple(Dim(d, part.unit, part.mode, part.kind) for part in self.parts.values() for d in part.dims)
        return Space(
            name=name, dims=dims, frame=self.frame, rotation=self.rotation, gripper=self.gripper, origin=self.origin
        )

    @classmethod
    def of(cls, space: Space) -> Self:
        """Describe a Space; neighbouring dimensions with the same meaning become one part."""
        parts: dict[str, Part] = {}
        for dim in space.dims:
            last = next(reversed(parts.values()), None)
            if last and (last.kind, last.unit, last.mode) == (dim.kind, dim.unit, dim.mode):
                parts[next(reversed(parts))] = last.model_copy(update={"dims": (*last.dims, dim.name)})
            else:
                name = dim.kind if dim.kind not in parts else f"{dim.kind}_{len(parts)}"
                parts[name] = Part(kind=dim.kind, dims=(dim.name,), unit=dim.unit, mode=dim.mode)
        return cls(origin=space.origin, frame=space.frame, rotation=space.rotation, gripper=space.gripper, parts=parts)

    def columns(self) -> dict[str, slice]:
        """Return the columns of each part in the whole vector."""
        spans, start = {}, 0
        for name, part in self.parts.items():
            spans[name] = slice(start, start + len(part.dims))
            start = spans[name].stop
        return spans

    def slices(self, path: str) -> dict[str, str]:
        """Return an expression for each part, which slices the part out of the whole vector at `path`."""
        return {name: f"{path}[{span.start}:{span.stop}]" for name, span in self.columns().items()}


class EmbodimentSpec(Model):
    """A robot and its controller: what its state and action vectors mean."""

    name: str
    robot: str
    controller: str
    morphology: str = "single_arm"
    state: SpaceSpec | None = None
    action: SpaceSpec


class SizeSpec(Model):
    """The size of a dataset, if known."""

    episodes: int | None = None  # in the source, before filters
    kept: int | None = None  # after the declaration's filters
    transitions: int | None = None  # in OpenVLA's published statistics, after its transform
    gib: float | None = None


class CameraSpec(Model):
    """A camera, written as its key alone, or as a table with the key and what is known about the images."""

    key: str
    shape: tuple[int, ...] = ()  # height, width, channels
    channels: Literal["rgb", "bgr"] = "rgb"

    @model_validator(mode="before")
    @classmethod
    def _read(cls, data: Any) -> Any:
        return {"key": data} if isinstance(data, str) else data


class DepthSpec(CameraSpec):
    """A depth camera, with the keys of a camera and the scale of its values."""

    metres_per_unit: float | None = None  # metres per count of a stored value; None: unknown


class FilterSpec(Model):
    """A condition on a per-episode field: its value must be `equals`, or its text must contain `contains`."""

    key: str
    equals: bool | int | str | None = None
    contains: str | None = None

    @model_validator(mode="after")
    def _one_condition(self) -> Self:
        if (self.equals is None) == (self.contains is None):
            raise ValueError("needs either 'equals' or 'contains'")
        return self

    def keeps(self, value: Any) -> bool:
        """Whether an episode with this value of the field is kept."""
        return value == self.equals if self.contains is None else self.contains in str(value)


class FieldSpec(Model):
    """The type of one field of the source, written as `"float64 [3] position (m)"`."""

    dtype: str = "float32"
    shape: tuple[int, ...] | None = None  # None: unknown
    doc: str = ""

    @model_validator(mode="before")
    @classmethod
    def _read(cls, data: Any) -> Any:
        if not isinstance(data, str):
            return data
        match = re.fullmatch(r"(?:(bool|text|u?int\d+|float\d+) ?)?(?:\[((?:\d+(?:, ?\d+)*)?)\] ?)?(.*)", data)
        dtype, shape, doc = match.groups() if match else (None, None, data)
        sizes = None if shape is None else tuple(int(size) for size in shape.split(",") if size)
        return {"dtype": dtype or "float32", "shape": () if dtype == "text" else sizes, "doc": doc}

    @model_serializer
    def _write(self) -> str:
        shape = None if self.shape is None or self.dtype == "text" else f"[{', '.join(map(str, self.shape))}]"
        words = (self.dtype if self.dtype != "float32" else None, shape, self.doc)
        return " ".join(word for word in words if word)


class ViewSpec(Model):
    """A view of the stored columns.

    The step ops in `before` are applied first. Then the expressions of the action and the state are computed, the step
    ops in `after` are applied, and the steps are resampled to `control_hz`. `space` replaces keys or `parts` of the
    stored action's Space, and `state_space` does so for the state. If the dataset does not have the view, `unavailable`
    is the reason.
    """

    before: tuple[StepOp, ...] = ()
    action: tuple[Expression, ...] = ()
    state: tuple[Expression, ...] = ()  # empty: the stored state
    after: tuple[StepOp, ...] = ()
    space: dict[str, Any] = {}
    state_space: dict[str, Any] = {}
    control_hz: Annotated[float, Field(gt=0, lt=inf)] | None = None  # steps per second, at most the stored rate
    unavailable: str = ""

    @model_validator(mode="after")
    def _state_is_described(self) -> Self:
        if self.state_space and not self.state:
            raise ValueError("state_space: describes the view's own state; add its expressions, state = [...]")
        return self

    def calls(self) -> list[expr.Call]:
        """Return all ops: step ops, and the ops of its expressions."""
        of_expressions = [call for expression in (*self.action, *self.state) for call in expression.ops]
        return [*self.before, *of_expressions, *self.after]

    def paths(self) -> frozenset[str]:
        """Return the columns that its expressions and step ops read."""
        of_expressions = [expression.paths() for expression in (*self.action, *self.state)]
        return frozenset().union(*of_expressions, *(call.paths() for call in (*self.before, *self.after)))
