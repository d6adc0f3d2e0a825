"""Check a declaration against the fields of a source, before any episode is read."""

from collections.abc import Mapping

import numpy as np

from schemas.declarations.spec import DatasetSpec
from schemas.errors import SourceError, SpecError, ViewError, did_you_mean
from schemas.source import Array, Field
from schemas.views.views import view

NOT_RECORDED = (
    "; if no actions were recorded, derive them from the state: "
    "action = { derive = 'next_state' } or { derive = 'achieved_delta' }"
)


def check_fit(spec: DatasetSpec, steps: Mapping[str, Field], episodes: Mapping[str, Field]) -> None:
    """Check a declaration against the fields that a source has per step and per episode.

    Raises SpecError if a key is missing, a field has the wrong kind, or an expression has the wrong width.
    """
    anywhere = {**steps, **episodes}
    wanted: list[tuple[str, set[str], Mapping[str, Field]]] = [
        *((f"action.{part}", set(expr.paths()), steps) for part, expr in spec.expressions.items()),
        *((f"state.{part}", set(expr.paths()), steps) for part, expr in spec.state.items()),
        *((f"cameras.{role}", {camera.key}, steps) for role, camera in spec.cameras.items()),
        *((f"depth.{role}", {depth.key}, steps) for role, depth in spec.depth.items()),
        ("success", {spec.success.key} if spec.success else set(), anywhere),
        ("language", set(spec.language_keys), anywhere),
        ("timestamp", {spec.timestamp} if spec.timestamp else set(), steps),
        ("id", {spec.id} if spec.id else set(), episodes),
        *((f"filters.{name}", {declared.key}, episodes) for name, declared in spec.filters.items()),
    ]
    for key, paths, known in wanted:
        for path in sorted(paths):
            if path not in known:
                hint = NOT_RECORDED if key.startswith("action.") and not any("action" in p for p in known) else ""
                raise SpecError(f"{spec.name}: {key}: the source has no '{path}'{did_you_mean(path, known)}{hint}")
            if expected := misfit(key.partition(".")[0], known[path]):
                actual = f"{'sequences of ' if known[path].ragged else ''}{known[path].kind}s of {known[path].dtype}"
                shape = list(known[path].shape)
                raise SpecError(f"{spec.name}: {key}: '{path}' contains {actual} {shape}; expected {expected}")
    _check_success(spec, anywhere)
    _check_widths(spec, steps)
    _check_views(spec, steps)


def misfit(use: str, field: Field) -> str | None:
    """Return the kind of field that `use` needs if `field` is of another kind, else None."""
    single, scalar = not field.ragged, not field.shape
    text, number = field.kind in {"text", "bytes"}, field.kind == "number"
    listed = not field.per_step and field.ragged == 1
    fits = {
        "depth": (
            "images, or a matrix of numbers per step",
            single and (field.kind == "image" or len(field.shape) > 1),
        ),
        "cameras": ("images", field.kind == "image" and single and not field.dtype.startswith("float")),
        "language": ("texts", text and scalar and (single or listed)),
        "id": ("one value", scalar and single),
        "filters": ("one value", scalar and single),
        "success": ("one value", field.shape in {(), (1,)} and single and (text or number)),
        "action": ("numbers of fixed shape", number and single and None not in field.shape),
        "flag": ("one number per step", number and single and scalar),
    }
    expected, is_fit = fits[{"state": "action", "timestamp": "flag"}.get(use, use)]
    return None if is_fit else expected


def _check_success(spec: DatasetSpec, fields: Mapping[str, Field]) -> None:
    """Raise SpecError if the success condition compares texts with a field of numbers, or numbers with texts.

    Such a condition would never be true.
    """
    if spec.success and spec.success.takes:
        kind = "number" if fields[spec.success.key].kind == "number" else "text"
        if kind != spec.success.takes:
            raise SpecError(
                f"{spec.name}: success: '{spec.success.key}' contains {kind}s, "
                f"its condition is for {spec.success.takes}s"
            )


def _check_widths(spec: DatasetSpec, steps: Mapping[str, Field]) -> None:
    """Raise SpecError unless each expression returns one number per dimension of its part.

    The expressions are evaluated on one step whose values are all 1.
    """
    spaces = ((spec.expressions, spec.embodiment.action), (spec.state, spec.embodiment.state))
    for which, (exprs, space) in zip(("action", "state"), spaces, strict=True):
        for part, expr in exprs.items():
            ones = {path: np.ones([1, *map(int, filter(None, steps[path].shape))]) for path in expr.paths()}
            dims = space.parts[part].dims if space else ()
            try:
                width = expr(ones).shape[1]
            except SourceError:
                continue  # an op does not accept ones; the real values may be valid
            except SpecError as error:
                raise SpecError(f"{spec.name}: {which}.{part}: {error}") from error
            if width != len(dims):
                raise SpecError(
                    f"{spec.name}: {which}.{part}: '{expr}' returns {width} numbers, "
                    f"the embodiment expects {len(dims)} ({', '.join(dims)})"
                )


def _check_views(spec: DatasetSpec, steps: Mapping[str, Field]) -> None:
    """Evaluate each declared view on three steps whose values are all 1."""
    prefix = f"{spec.raw}." if spec.raw else ""
    blank: dict[str, Array] = {
        f"raw.{path.removeprefix(prefix)}": np.ones([3, *map(int, filter(None, field.shape))])
        for path, field in steps.items()
        if field.kind == "number" and not field.ragged and path.startswith(prefix)
    }
    blank |= {"action": np.ones([3, len(spec.action_space)], np.float32), "timestamp": np.zeros(3)}
    if spec.state_space:
        blank["observation.state"] = np.ones([3, len(spec.state_space)], np.float32)
    for name in (name for name, declared in spec.views.items() if not declared.unavailable):
        try:
            view(spec, name).of_columns(blank, length=3)
        except SourceError:
            continue  # an op does not accept ones; the real values may be valid
        except ViewError as error:
            raise SpecError(f"{spec.name}: views.{name}: {error}") from error
