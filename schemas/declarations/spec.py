"""Declarations: one TOML file says what a dataset's numbers are and where they lie.

Read and checked at load time; a wrong one is a SpecError that names file, key and likely fix.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from math import inf
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import Field, StringConstraints, ValidationError, model_validator

from schemas.declarations import expr, toml
from schemas.declarations.actions import TAGS, Action, Derived, is_derived, with_derived_space
from schemas.declarations.derive import Derivation
from schemas.declarations.formats import OURS, PLUGIN, AnySource, RldsSource, check_format
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
from schemas.spaces import Space

EMPTY: Any = Field(default_factory=dict)
TODO = "TODO"  # stands for a word that a draft leaves to a person
FREE = frozenset({"description", "license", "citation", "homepage", "errata"})  # texts that may hold any word


class DatasetSpec(Model):
    """One declaration. `embodiment` may be written as a name of `schemas/embodiments/`."""

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
    fields: dict[str, FieldSpec] = EMPTY  # what the source's other fields hold
    decode: dict[str, str] = EMPTY  # a path to the decoder that its values need first
    filters: dict[str, FilterSpec] = EMPTY  # episodes that fail one are dropped under its name
    success: SuccessSpec | None = None  # what makes an episode's outcome
    state: dict[str, Expression] = EMPTY
    action: Action
    last_action: Literal["recorded", "placeholder"] = "recorded"  # the latter: views that read the action leave it out
    views: dict[str, ViewSpec] = EMPTY
    timestamp: str | None = None  # a per-step path, in seconds
    id: str | None = None  # a per-episode path that names each episode
    raw: str | None = None  # a prefix: only what lies under it is kept as `raw.*`
    license: str | None = None
    citation: str | None = None
    homepage: str | None = None
    errata: tuple[str, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _views_by_name(cls, data: Any) -> Any:
        if isinstance(data, dict) and isinstance(data.get("views"), dict):
            views = data["views"]
            return {**data, "views": {name: _same_as(given, name, views) for name, given in views.items()}}
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
                raise ValueError(f"decode.{path}: say in [fields] what it holds then, such as 'float32 [7]' or 'text'")
        if not self.derived:
            _check_parts("action", self.expressions, self.embodiment.action)
        _check_parts("state", self.state, self.embodiment.state)
        if self.control_hz is not None and not 0 < self.control_hz < inf:
            raise ValueError("control_hz: must be a number above 0; leave it out if it is unknown")
        for name, declared in self.views.items():
            self.view_space(name)
            if declared.control_hz:
                _check_rate(f"views.{name}.control_hz", declared.control_hz, self)
        return self

    @property
    def derived(self) -> Derivation | None:
        """Say how the state gives the action, where the source does not hold it."""
        return self.action.derive if isinstance(self.action, Derived) else None

    @property
    def expressions(self) -> Mapping[str, expr.Expr]:
        """Give the action's expressions by part; none where it is derived."""
        return {} if isinstance(self.action, Derived) else self.action

    @property
    def action_parts(self) -> list[expr.Expr]:
        """Give the action's expressions in the order of its Space; none where it is derived."""
        return [self.expressions[part] for part in self.embodiment.action.parts] if self.expressions else []

    @property
    def has_last_action(self) -> bool:
        """Say whether what is stored as an episode's last action is one."""
        return not self.derived and self.last_action == "recorded"

    @property
    def state_parts(self) -> list[expr.Expr]:
        """Give the state's expressions in the order of its Space."""
        return [self.state[part] for part in self.embodiment.state.parts] if self.embodiment.state else []

    @property
    def language_keys(self) -> tuple[str, ...]:
        """Name the instruction fields; the first one is stored per step."""
        return (self.language,) if isinstance(self.language, str) else self.language

    @property
    def action_space(self) -> Space:
        """Say what the stored action means."""
        return self.embodiment.action.space("action")

    @property
    def state_space(self) -> Space | None:
        """Say what the stored state means, where there is one."""
        return self.embodiment.state.space("state") if self.embodiment.state else None

    def read_paths(self) -> frozenset[str]:
        """Name every field of the source that the declaration reads, its views included."""
        prefix = f"{self.raw}." if self.raw else ""
        read = set[str]().union(*(expr.paths() for expr in (*self.expressions.values(), *self.state.values())))
        for declared in self.views.values():
            words = [expr.paths() for expr in declared.action]
            words += [call.paths() for call in (*declared.before, *declared.after)]
            read |= {prefix + path.removeprefix("raw.") for paths in words for path in paths if path.startswith("raw.")}
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
        """Say what a declared view's action means."""
        changed = {**self.embodiment.action.model_dump(), **self.views[name].space}
        try:
            return SpaceSpec.model_validate(changed).space(name)
        except ValidationError as error:
            raise ValueError(f"views.{name}.space: {_explain(error)}") from None

    def to_json(self) -> dict[str, Any]:
        """Give the self-contained form that stands in the manifest and in exports."""
        return self.model_dump(mode="json", exclude_defaults=True)

    def digest(self) -> str:
        """Hash the declaration's content, not its comments."""
        return hashlib.sha256(json.dumps(self.to_json()).encode()).hexdigest()


def _same_as(given: Any, name: str, views: Mapping[str, Any]) -> Any:
    """Resolve a view that is written as a word: `action`, the stored one as it is, or another view's name."""
    if not isinstance(given, str):
        return given
    if given == "action":
        return {}
    if isinstance(views.get(given), str):
        return _same_as(views[given], name, {k: v for k, v in views.items() if k != given})
    if given not in views:
        raise ValueError(f"views.{name}: '{given}' is neither 'action' nor another view")
    return views[given]


def _check_rate(place: str, hz: float, spec: DatasetSpec) -> None:
    if spec.control_hz is None and spec.timestamp is None:
        raise ValueError(f"{place}: the stored rate is not known; declare control_hz or timestamp")
    if spec.control_hz is not None and hz > spec.control_hz:
        raise ValueError(
            f"{place}: {hz:g} is more than the {spec.control_hz:g} that are recorded, and what was not recorded is not "
            "made up; give a lower one, and let the controller interpolate"
        )


def _check_parts(which: str, given: Mapping[str, object], declared: SpaceSpec | None) -> None:
    parts = declared.parts if declared else {}
    for name in given:
        if name not in parts:
            raise ValueError(f"{which}.{name}: the embodiment has no such part{did_you_mean(name, parts)}")
    for name in parts:
        if name not in given:
            raise ValueError(f"{which}.{name}: missing; the embodiment's {which} has this part")


def _explain(error: ValidationError) -> str:
    lines = []
    for item in error.errors(include_url=False):
        words = [str(word) for word in item["loc"]]
        chosen = {"source": (*OURS, PLUGIN), "action": TAGS}.get(words[0], ()) if words else ()
        if words[1:2] and words[1] in chosen:
            del words[1]  # pydantic names the class that it chose
        place = ".".join(words)
        message = item["msg"].removeprefix("Value error, ")
        lines.append(f"{place}: {message}" if place else message)
    return "; ".join(lines)


def load(
    text: str,
    *,
    where: str,
    embodiment: Callable[[str], EmbodimentSpec],
    like: Callable[[str], dict[str, Any]] | None = None,
) -> DatasetSpec:
    """Read a declaration; `where` names it in errors, `embodiment` and `like` find what it refers to by name."""
    data = merged(text, where=where, like=like)
    _check_done(data, where)
    if isinstance(data.get("embodiment"), str):
        try:
            data["embodiment"] = embodiment(data["embodiment"]).model_dump()
        except SpecError as error:
            raise SpecError(f"{where}: embodiment: {error}") from error
    declared = validated(DatasetSpec, data, where)
    check_format(declared.source.format, where=where)
    return declared


def merged(text: str, *, where: str, like: Callable[[str], dict[str, Any]] | None) -> dict[str, Any]:
    """Read a declaration's tables; where it says `like = NAME`, on top of those of that other declaration."""
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


def load_embodiment(text: str, *, where: str) -> EmbodimentSpec:
    """Read an embodiment's declaration."""
    data = toml.tables(text, where)
    _check_done(data, where)
    return validated(EmbodimentSpec, data, where)


def from_json(data: Mapping[str, Any], *, where: str) -> DatasetSpec:
    """Read `DatasetSpec.to_json` back."""
    return validated(DatasetSpec, dict(data), where)


M = TypeVar("M", bound=Model)


def validated(model: type[M], data: dict[str, Any], where: str) -> M:
    """Make a model of parsed TOML; what does not fit is a SpecError that names `where` and the key."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise SpecError(f"{where}: {_explain(error)}") from None


def todos(data: Mapping[str, Any]) -> list[str]:
    """List the keys of parsed TOML whose values still hold the word TODO.

    >>> todos({"name": "lab", "embodiment": {"robot": "TODO"}, "state": {"gripper": "width | scale(1/TODO)"}})
    ['embodiment.robot', 'state.gripper']
    """
    return list(dict.fromkeys(place for key, value in data.items() if key not in FREE for place in _todos(value, key)))


def _todos(value: Any, place: str) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, held in value.items():
            yield from _todos(held, f"{place}.{key}")
    elif isinstance(value, list):
        for held in value:
            yield from _todos(held, place)
    elif isinstance(value, str) and re.search(rf"\b{TODO}\b", value):
        yield place


def _check_done(data: Mapping[str, Any], where: str) -> None:
    if left := todos(data):
        keys = f"{len(left)} key{'s' * (len(left) != 1)}"
        raise SpecError(f"{where}: {TODO} still stands for {keys}: {', '.join(left)}; put what is true in its place")
