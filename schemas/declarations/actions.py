"""The key `action` of a declaration: expressions for each part or, where none was recorded, its derivation."""

from typing import Annotated, Any, TypeAlias, get_args

from pydantic import Discriminator, Tag, ValidationError

from schemas.declarations.derive import Derivation, derived_space
from schemas.declarations.tables import Expression, Model, SpaceSpec

MISSING = (
    "action: missing; say where the commands are or, if none were recorded, how the state gives them: "
    "action = { derive = 'next_state' } (the state of the next step) or "
    "{ derive = 'achieved_delta' } (the change of the pose until the next step)"
)
TAGS = ("expressions", "derived")


class Derived(Model):
    """An action that the source does not hold, in place of its expressions."""

    derive: Derivation


def is_derived(action: Any) -> bool:
    """Say whether an action, parsed or as TOML has it, is derived."""
    return isinstance(action, Derived) or (isinstance(action, dict) and "derive" in action)


Action: TypeAlias = Annotated[
    Annotated[dict[str, Expression], Tag("expressions")] | Annotated[Derived, Tag("derived")],
    Discriminator(lambda action: TAGS[is_derived(action)]),
]


def with_derived_space(data: Any) -> Any:
    """Give a declaration's derived action the Space that follows from the state's, as the embodiment's `action`."""
    match data:
        case {"action": {"derive": word}, "embodiment": dict(embodiment)} if word in get_args(Derivation):
            action = _space(word, embodiment.get("state"))
            return {**data, "embodiment": {**embodiment, "action": action}} if action else data
        case dict() if "action" not in data:
            raise ValueError(MISSING)
    return data


def _space(derivation: Derivation, state: Any) -> dict[str, Any] | None:
    """Describe the Space of a derived action; None where the state's description is itself wrong."""
    if not state:
        raise ValueError(f"action.derive: '{derivation}' is made from the state, and the embodiment has none")
    try:
        declared = SpaceSpec.model_validate(state)
    except ValidationError:
        return None
    if derivation == "next_state":  # in the state's own parts
        return {**declared.model_dump(), "origin": "achieved"}
    space = derived_space(derivation, declared.space("state"))
    if isinstance(space, str):
        raise ValueError(f"action.derive: {space}")  # noqa: TRY004 - pydantic reports ValueErrors
    return SpaceSpec.of(space).model_dump()
