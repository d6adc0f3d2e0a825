"""The key `action` of a declaration: an expression for each part, or how to derive the action from the state."""

from typing import Annotated, Any, TypeAlias, get_args

from pydantic import Discriminator, Tag, ValidationError

from schemas.declarations.derive import Derivation, derived_space
from schemas.declarations.tables import Expression, Model, SpaceSpec

MISSING = (
    "action: is required; give an expression for each part or, if no commands were recorded, derive it from the state: "
    "action = { derive = 'next_state' } (the state of the next step) or "
    "{ derive = 'achieved_delta' } (the change of pose until the next step)"
)
TAGS = ("expressions", "derived")


class Derived(Model):
    """An action that is derived from the state, because the source does not record actions."""

    derive: Derivation


def is_derived(action: Any) -> bool:
    """Whether an action, parsed or as read from TOML, is derived."""
    return isinstance(action, Derived) or (isinstance(action, dict) and "derive" in action)


Action: TypeAlias = Annotated[
    Annotated[dict[str, Expression], Tag("expressions")] | Annotated[Derived, Tag("derived")],
    Discriminator(lambda action: TAGS[is_derived(action)]),
]


def with_derived_space(data: Any) -> Any:
    """Set the embodiment's `action` Space from its `state` Space, if the declaration derives the action."""
    match data:
        case {"action": {"derive": word}, "embodiment": dict(embodiment)} if word in get_args(Derivation):
            action = _space(word, embodiment.get("state"))
            return {**data, "embodiment": {**embodiment, "action": action}} if action else data
        case dict() if "action" not in data:
            raise ValueError(MISSING)
    return data


def _space(derivation: Derivation, state: Any) -> dict[str, Any] | None:
    """Return the Space of a derived action, as in TOML; None if the state's Space is invalid."""
    if not state:
        raise ValueError(f"action.derive: '{derivation}' needs a state, and the embodiment has none")
    try:
        declared = SpaceSpec.model_validate(state)
    except ValidationError:
        return None
    if derivation == "next_state":  # the next state has the same parts as the state
        return {**declared.model_dump(), "origin": "achieved"}
    space = derived_space(derivation, declared.space("state"))
    if isinstance(space, str):
        raise ValueError(f"action.derive: {space}")  # noqa: TRY004 - pydantic reports ValueErrors
    return SpaceSpec.of(space).model_dump()
