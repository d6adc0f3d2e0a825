"""Unify the actions of several embodiments: match dimensions by name and check that they mean the same."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict

from schemas.errors import SpecError
from schemas.mixture.spec import MixtureSpec
from schemas.spaces import Dim, Space

PROJECTS = {"openvla", "openvla_oft", "octo"}  # views with a project's own actions, whose meanings may differ
CONVENTIONS = ("frame", "rotation", "gripper", "origin")


def unified(spec: MixtureSpec, spaces: Mapping[str, Space]) -> tuple[tuple[str, ...], list[str]]:
    """Return the dimensions of the mixture's action and the differences between the sources' Spaces.

    Raises SpecError if a dimension has different meanings in two sources, or if another convention differs and is not
    in `accept`. In the view of a project (`openvla`, `openvla_oft`, `octo`), the sources may differ in everything but
    the number of dimensions, because the project trains on such data.
    """
    name, first = next(iter(spaces.items()))
    is_project = spec.view in PROJECTS and not spec.dims
    dims = spec.dims or tuple(dim.name for dim in first.dims)
    differences = [*_of_dims(spaces, dims), *_of_conventions(spaces)]
    lacking = [source for source, space in spaces.items() if not spec.dims and len(space) != len(dims)]
    if lacking:
        raise SpecError(
            f"{spec.name}: {name} has {len(dims)} dimensions, {lacking[0]} has {len(spaces[lacking[0]])}; "
            "list the dimensions of the mixture: dims = [...]"
        )
    for source, space in spaces.items():
        if spec.dims and not {dim.name for dim in space.dims} <= {*dims}:
            more = sorted({dim.name for dim in space.dims} - {*dims})
            raise SpecError(f"{spec.name}: dims: '{more[0]}' of {source} is missing; add it")
    for known in spec.dims:
        if not any(known == dim.name for space in spaces.values() for dim in space.dims):
            raise SpecError(f"{spec.name}: dims: '{known}' is not in any source")
    travel = [text for word, text in differences if word == "travel"]
    if travel:
        raise SpecError(
            f"{spec.name}: {travel[0]}: a share of an arm's calibrated travel is no angle; convert that dataset with "
            "the calibration file of its arm, or leave it out"
        )
    refused = [text for word, text in differences if word not in spec.accept and not is_project]
    if refused:
        raise SpecError(
            f"{spec.name}: the sources' actions have different meanings: {'; '.join(refused)}; choose a view that all "
            "of them have; accept mixes them as they are, which is right only if their numbers mean the same"
        )
    return dims, [text for _, text in differences]


def _of_dims(spaces: Mapping[str, Space], dims: Sequence[str]) -> list[tuple[str, str]]:
    """Compare the dimensions of all Spaces: by name, or by index if the Space has none of that name."""
    first: dict[str, tuple[str, Dim]] = {}
    out = []
    for source, space in spaces.items():
        by_name = {dim.name: dim for dim in space.dims}
        for i, word in enumerate(dims):
            dim = by_name.get(word) or (space.dims[i] if len(space) == len(dims) else None)
            if dim is None:
                continue
            where, known = first.setdefault(word, (source, dim))
            differing = [key for key, value in asdict(known).items() if value != getattr(dim, key)]
            is_travel = known.unit != dim.unit and "travel" in {known.unit, dim.unit}
            out += [
                (
                    "travel" if is_travel and key == "unit" else "dim",
                    f"{key} of {word} is {getattr(known, key)} in {where} and {getattr(dim, key)} in {source}",
                )
                for key in differing
            ]
    return out


def _of_conventions(spaces: Mapping[str, Space]) -> list[tuple[str, str]]:
    """Compare the conventions of whole vectors: frame, rotation, gripper sense, origin."""
    out = []
    for word in CONVENTIONS:
        values: dict[str, list[str]] = {}
        for source, space in spaces.items():
            values.setdefault(getattr(space, word), []).append(source)
        if len(values) > 1:
            listing = ", ".join(f"{value} in {_shortened(sources)}" for value, sources in sorted(values.items()))
            out.append((word, f"{word} is {listing}"))
    return out


def _shortened(sources: Sequence[str]) -> str:
    return ", ".join(sources[:3]) + (f" and {len(sources) - 3} more" if len(sources) > 3 else "")
