"""Vectors of several embodiments in one: dimensions are matched by name and meaning, and what is missing is masked."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict

from schemas.errors import SpecError
from schemas.mixture.spec import MixtureSpec
from schemas.spaces import Dim, Space

PROJECTS = {"openvla", "openvla_oft", "octo"}  # views that give a project's own labels, whatever each dataset's mean
CONVENTIONS = ("frame", "rotation", "gripper", "origin")


def unified(spec: MixtureSpec, spaces: Mapping[str, Space]) -> tuple[tuple[str, ...], list[str]]:
    """Name the dimensions of the mixture's action, and say what the sources' Spaces differ in.

    A dimension means the same in every source that has it, or the mixture is a SpecError. Other conventions may differ
    where `accept` says so. In the view of a project (`openvla`, `openvla_oft`, `octo`) all may differ but the number
    of dimensions, for that is how the project trains; the differences are told all the same.
    """
    name, space = next(iter(spaces.items()))
    is_project = spec.view in PROJECTS and not spec.dims
    dims = spec.dims or tuple(dim.name for dim in space.dims)
    differences = [*_of_dims(spaces, dims), *_of_conventions(spaces)]
    lacking = [source for source, found in spaces.items() if not spec.dims and len(found) != len(dims)]
    if lacking:
        raise SpecError(
            f"{spec.name}: {name} has {len(dims)} dimensions, {lacking[0]} has {len(spaces[lacking[0]])}; "
            "say which ones the mixture has: dims = [...]"
        )
    for source, found in spaces.items():
        if spec.dims and not {dim.name for dim in found.dims} <= {*dims}:
            more = sorted({dim.name for dim in found.dims} - {*dims})
            raise SpecError(f"{spec.name}: {source} has '{more[0]}', which dims does not name; it would be lost")
    for known in spec.dims:
        if not any(known == dim.name for found in spaces.values() for dim in found.dims):
            raise SpecError(f"{spec.name}: dims: no source has '{known}'")
    refused = [text for word, text in differences if word not in spec.accept and not is_project]
    if refused:
        raise SpecError(
            f"{spec.name}: the sources do not mean the same: {'; '.join(refused)}. Choose a view that they share, "
            "or say under accept which convention may differ"
        )
    return dims, [text for _, text in differences]


def _of_dims(spaces: Mapping[str, Space], dims: Sequence[str]) -> list[tuple[str, str]]:
    """Compare dimensions by name, or, where the mixture names none, by place."""
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
            out += [
                ("dim", f"{key} of {word} is {getattr(known, key)} in {where} and {getattr(dim, key)} in {source}")
                for key in differing
            ]
    return out


def _of_conventions(spaces: Mapping[str, Space]) -> list[tuple[str, str]]:
    """Compare what a whole vector has: frame, rotation, gripper sense, origin."""
    out = []
    for word in CONVENTIONS:
        found: dict[str, list[str]] = {}
        for source, space in spaces.items():
            found.setdefault(getattr(space, word), []).append(source)
        if len(found) > 1:
            said = ", ".join(f"{value} in {_few(sources)}" for value, sources in sorted(found.items()))
            out.append((word, f"{word} is {said}"))
    return out


def _few(sources: Sequence[str]) -> str:
    return ", ".join(sources[:3]) + (f" and {len(sources) - 3} more" if len(sources) > 3 else "")
