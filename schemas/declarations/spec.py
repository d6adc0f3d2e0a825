"""`DatasetSpec`: the declaration of a dataset, which is one TOML file.

A declaration is checked when it is loaded. An invalid one raises SpecError with the file, the key and the likely fix.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from math import inf
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, Self, TypeVar

from pydantic import Field, StringConstraints, ValidationError, model_validator

from schemas.declarations import expr, toml
from schemas.declarations.actions import TAGS, Action, Derived, is_derived, with_derived_space
from schemas.declarations.calibration import with_radians
from schemas.declarations.derive import Derivation
from schemas.declarations.formats import BUILT_IN, PLUGIN, AnySource, RldsSource, check_format
from schemas.declarations.success import SuccessSpec
from schemas.declarations.tables import (
    CameraSpec,
    DepthSpec,
    EmbodimentSpec,
    Expression,
    FieldSpec,
    FilterSpec,
    Model,
    SizeSpec,
    SpaceSpec,
    ViewSpec,
)
from schemas.declarations.vocabulary import DECODERS
from schemas.errors import SpecError, did_you_mean
from schemas.limits import DECODED_PIXELS, MAX_PIXELS
from schemas.spaces import Space

EMPTY: Any = Field(default_factory=dict)
TODO = "TODO"  # marks a value of a draft that a person has to fill in
VECTORS: tuple[Literal["state", "action"], ...] = ("state", "action")
FREE = frozenset({"description", "license", "citation", "homepage", "errata"})  # texts that may contain TODO


class DatasetSpec(Model):
    """The declaration of one dataset. In TOML, `embodiment` may be a name from `schemas/embodiments/`."""

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
    aliases: tuple[str, ...] = ()
    tfds_name: str | None = None
    description: str = ""
    source: AnySource = RldsSource()
    size: SizeSpec = SizeSpec()
    embodiment: EmbodimentSpec
    control_hz: float | None = None
    language: str | tuple[str, ...] = ()
    cameras: dict[str, CameraSpec] = EMPTY
    depth: dict[str, DepthSpec] = EMPTY
    fields: dict[str, FieldSpec] = EMPTY  # types of the source's other fields
    decode: dict[str, str] = EMPTY  # path -> decoder of its values
    filters: dict[str, FilterSpec] = EMPTY  # drop reason -> condition that episodes must meet to be kept
    success: SuccessSpec | None = None  # how an episode's outcome is recorded
    state: dict[str, Expression] = EMPTY
    action: Action
    last_action: Literal["recorded", "placeholder"] = "recorded"  # a placeholder is dropped by views that read it
    views: dict[str, ViewSpec] = EMPTY
    timestamp: str | None = None  # per-step path of times in seconds
    id: str | None = None  # per-episode path of the episode's name
    max_pixels: Annotated[int, Field(gt=0, le=DECODED_PIXELS)] = MAX_PIXELS  # larger images are quarantined
    raw: str | None = None  # fields with this prefix are kept as `raw.*`; None: all fields
    license: str | None = None
    citation: str | None = None
    homepage: str | None = None
    errata: tuple[str, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _views_by_name(cls, data: Any) -> Any:
        if isinstance(data, dict) and isinstance(data.get("views"), dict):
            views = data["views"]
            return {**data, "views": {name: _resolved_view(view, name, views) for name, view in views.items()}}
        return data

    @model_validator(mode="before")
    @classmethod
    def _vectors_of_robots(cls, data: Any) -> Any:
        for which in VECTORS:
            if isinstance(data, dict) and isinstance(data.get(which), str):
                fix = "give an expression for each part, or name an embodiment, whose file says how to read them"
                raise ValueError(f"{which}: {fix}")  # noqa: TRY004 - pydantic reports ValueErrors
        return data

    @model_validator(mode="before")
    @classmethod
    def _derived_space(cls, data: Any) -> Any:
        return with_derived_space(data)

    @model_validator(mode="after")
    def _parts_match(self) -> Self:
        for path, decoder in self.decode.items():
            if decoder not in DECODERS:
                raise ValueError(f"decode.{path}: unknown decoder '{decoder}'{did_you_mean(decoder, DECODERS)}")
            if path not in self.fields or self.fields[path].shape is None:
                raise ValueError(
                    f"decode.{path}: its decoded type is required in [fields], such as 'float32 [7]' or 'text'"
                )
        if not self.derived:
            _check_parts("action", self.expressions, self.embodiment.action)
        _check_parts("state", self.state, self.embodiment.state)
        if self.control_hz is not None and not 0 < self.control_hz < inf:
            raise ValueError("control_hz: must be a number above 0; leave it out if it is unknown")
        for name, view in self.views.items():
            self.view_space(name)
            self.view_state_space(name)
            if view.control_hz:
                _check_rate(f"views.{name}.control_hz", view.control_hz, self)
        return self

    @property
    def derived(self) -> Derivation | None:
        """How the action is derived from the state; None if it is recorded."""
        return self.action.derive if isinstance(self.action, Derived) else None

    @property
    def expressions(self) -> Mapping[str, expr.Expr]:
        """The action's expressions by part; empty if the action is derived."""
        return {} if isinstance(self.action, Derived) else self.action

    @property
    def action_parts(self) -> list[expr.Expr]:
        """The action's expressions in the order of its Space; empty if the action is derived."""
        return [self.expressions[part] for part in self.embodiment.action.parts] if self.expressions else []

    @property
    def has_last_action(self) -> bool:
        """Whether the last stored action of an episode was recorded, rather than filled in."""
        return not self.derived and self.last_action == "recorded"

    @property
    def state_parts(self) -> list[expr.Expr]:
        """The state's expressions in the order of its Space."""
        return [self.state[part] for part in self.embodiment.state.parts] if self.embodiment.state else []

    @property
    def language_keys(self) -> tuple[str, ...]:
        """The paths of the instruction fields; the first one is stored per step."""
        return (self.language,) if isinstance(self.language, str) else self.language

    @property
    def action_space(self) -> Space:
        """The Space of the stored action."""
        return self.embodiment.action.space("action")

    @property
    def state_space(self) -> Space | None:
        """The Space of the stored state, if there is one."""
        return self.embodiment.state.space("state") if self.embodiment.state else None

    def read_paths(self) -> frozenset[str]:
        """Return the path of every source field that the declaration and its views read."""
        prefix = f"{self.raw}." if self.raw else ""
        read = set[str]().union(*(expr.paths() for expr in (*self.expressions.values(), *self.state.values())))
        for view in self.views.values():
            read |= {prefix + path.removeprefix("raw.") for path in view.paths() if path.startswith("raw.")}
        read |= {camera.key for camera in (*self.cameras.values(), *self.depth.values())}
        read |= {condition.key for condition in self.filters.values()}
        return frozenset(
            read
            | {
                *self.language_keys,
                *filter(None, (self.timestamp, self.id, self.success.key if self.success else None)),
            }
        )

    def view_space(self, name: str) -> Space:
        """Return the Space of a declared view's action."""
        changed = self.views[name].space
        return _changed(self.embodiment.action, changed, where=f"views.{name}.space").space(name)

    def view_state_space(self, name: str) -> Space | None:
        """Return the Space of a declared view's state: its own, or that of the stored state."""
        view = self.views[name]
        if not view.state:
            return self.state_space
        return _changed(self.embodiment.state, view.state_space, where=f"views.{name}.state_space").space("state")

    def to_json(self) -> dict[str, Any]:
        """Return the self-contained JSON form used in the manifest and in exports."""
        return self.model_dump(mode="json", exclude_defaults=True)

    def digest(self) -> str:
        """Hash the declaration's content; comments and formatting do not matter."""
        return hashlib.sha256(json.dumps(self.to_json()).encode()).hexdigest()


def _resolved_view(view: Any, name: str, views: Mapping[str, Any]) -> Any:
    """Replace a view that is given as a word: `action` (the stored action) or the name of another view."""
    if not isinstance(view, str):
        return view
    if view == "action":
        return {}
    if isinstance(views.get(view), str):
        return _resolved_view(views[view], name, {k: v for k, v in views.items() if k != view})
    if view not in views:
        raise ValueError(f"views.{name}: '{view}' is neither 'action' nor another view")
    return views[view]


def _changed(stored: SpaceSpec | None, changed: Mapping[str, Any], *, where: str) -> SpaceSpec:
    """Replace keys of a stored Space. Raises ValueError if the result is not a Space."""
    try:
        return SpaceSpec.model_validate({**(stored.model_dump() if stored else {}), **changed})
    except ValidationError as error:
        raise ValueError(f"{where}: {_explain(error)}") from None


def _check_rate(place: str, hz: float, spec: DatasetSpec) -> None:
    if spec.control_hz is None and spec.timestamp is None:
        raise ValueError(f"{place}: the stored rate is unknown; declare control_hz or timestamp")
    if spec.control_hz is not None and hz > spec.control_hz:
        raise ValueError(
            f"{place}: {hz:g} Hz is more than the recorded {spec.control_hz:g} Hz; give a lower rate and let the "
            "controller interpolate"
        )


def _check_parts(which: str, expressions: Mapping[str, object], space: SpaceSpec | None) -> None:
    parts = space.parts if space else {}
    for name in expressions:
        if name not in parts:
            raise ValueError(f"{which}.{name}: the embodiment has no such part{did_you_mean(name, parts)}")
    for name in parts:
        if name not in expressions:
            raise ValueError(f"{which}.{name}: is required; the embodiment's {which} has this part")


def _explain(error: ValidationError) -> str:
    lines = []
    for item in error.errors(include_url=False):
        words = [str(word) for word in item["loc"]]
        tags = {"source": (*BUILT_IN, PLUGIN), "action": TAGS}.get(words[0], ()) if words else ()
        if words[1:2] and words[1] in tags:
            del words[1]  # the tag of the class that pydantic chose
        place = ".".join(words)
        message = item["msg"].removeprefix("Value error, ")
        lines.append(f"{place}: {message}" if place else message)
    return "; ".join(lines)


class KnownRobot(Protocol):
    """An embodiment from a file of its own, and how recordings store its vectors (`robots.py`)."""

    @property
    def embodiment(self) -> EmbodimentSpec:
        """The embodiment."""
        ...

    def expressions(self, which: Literal["state", "action"], path: str) -> dict[str, str]:
        """Return the expression of each part, for a vector recorded at `path`."""
        ...


def load(
    text: str,
    *,
    where: str,
    robot: Callable[[str], KnownRobot],
    like: Callable[[str], dict[str, Any]] | None = None,
    folder: Path = Path(),
) -> DatasetSpec:
    """Parse a declaration.

    `where` is its name in errors. `robot` loads the embodiment that it names, and `like` the declaration; the name of
    its calibration file is relative to `folder`.
    """
    data = merged(text, where=where, like=like)
    check_no_todo(data, where)
    if isinstance(data.get("embodiment"), str):
        try:
            data = _of_robot(data, robot(data["embodiment"]))
        except SpecError as error:
            raise SpecError(f"{where}: embodiment: {error}") from error
    dataset_spec = validated(DatasetSpec, with_radians(data, where=where, folder=folder), where)
    check_format(dataset_spec.source.format, where=where)
    return dataset_spec


def _of_robot(data: Mapping[str, Any], robot: KnownRobot) -> dict[str, Any]:
    """Replace the name of an embodiment by its tables, and a vector that is one text by an expression for each part."""
    vectors: dict[str, Any] = {}
    for which in VECTORS:
        if isinstance(data.get(which), str):
            vectors[which] = robot.expressions(which, data[which])
    return {**data, **vectors, "embodiment": robot.embodiment.model_dump()}


def merged(text: str, *, where: str, like: Callable[[str], dict[str, Any]] | None) -> dict[str, Any]:
    """Parse a declaration's tables; if it has `like = NAME`, merge them into the tables of the declaration NAME."""
    data = toml.tables(text, where)
    if "like" not in data or like is None:
        return data
    base = like(data.pop("like"))
    both = {
        key: {**base[key], **data[key]}
        for key in data
        if isinstance(data[key], dict)
        and isinstance(base.get(key), dict)
        and not (key == "action" and is_derived({**base[key], **data[key]}))
    }
    return {**base, **data, **both}


def from_json(data: Mapping[str, Any], *, where: str) -> DatasetSpec:
    """Read the result of `DatasetSpec.to_json`."""
    return validated(DatasetSpec, dict(data), where)


M = TypeVar("M", bound=Model)


def validated(model: type[M], data: dict[str, Any], where: str) -> M:
    """Build a model from parsed TOML. Raises SpecError with `where` and the key if it does not fit."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise SpecError(f"{where}: {_explain(error)}") from None


def todos(data: Mapping[str, Any]) -> list[str]:
    """List the keys of parsed TOML whose values contain the word TODO.

    >>> todos({"name": "lab", "embodiment": {"robot": "TODO"}, "state": {"gripper": "width | scale(1/TODO)"}})
    ['embodiment.robot', 'state.gripper']
    """
    return list(dict.fromkeys(place for key, value in data.items() if key not in FREE for place in _todos(value, key)))


def _todos(value: Any, place: str) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _todos(item, f"{place}.{key}")
    elif isinstance(value, list):
        for item in value:
            yield from _todos(item, place)
    elif isinstance(value, str) and re.search(rf"\b{TODO}\b", value):
        yield place


def check_no_todo(data: Mapping[str, Any], where: str) -> None:
    """Raise SpecError if a value of parsed TOML contains the word TODO."""
    if left := todos(data):
        keys = f"{len(left)} key{'s' * (len(left) != 1)}"
        raise SpecError(f"{where}: {TODO} is left in {keys}: {', '.join(left)}; replace it with the real value")
