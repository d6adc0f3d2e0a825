"""Describe how a source stores its fields, and define the size limits that all array formats share."""

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Literal, TypeAlias, TypeVar

import numpy as np

from schemas.errors import SourceError
from schemas.images import PNG
from schemas.limits import COLUMN_BYTES, FRAMES_BYTES, MAX_STEPS, VALUE_BYTES, check_limit
from schemas.source import Field

NUMBERS = {
    "bool",
    "float16",
    "float32",
    "float64",
    *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
}
IMAGE_SIGNATURES = (b"\xff\xd8\xff", PNG)  # the first bytes of a JPEG and of a PNG
BLOCK = 1 << 19  # bytes read at a time; they fit into a core's cache
SOURCE_WIDE_REASONS = {
    "no_definition",
    "several_episodes",
    "unsupported_field",
    "unsupported_image",
}  # probably in all episodes

T = TypeVar("T")
Form: TypeAlias = Literal["numbers", "texts", "frames", "padded", "blobs", "video", "value"]


@dataclass(frozen=True, slots=True)
class Leaf:
    """A field and how the file stores it."""

    field: Field
    form: Form  # frames: raw pixels; padded: encoded images in rows of one length; blobs: in rows of any length


def encoded_leaf(path: str, start: bytes, form: Form) -> Leaf | None:
    """Describe a column of encoded images; None if `start`, the first bytes of the first row, are not an image's."""
    if not start.startswith(IMAGE_SIGNATURES):
        return None
    encoding = "png" if start.startswith(PNG) else "jpeg"
    return Leaf(Field(path=path, kind="image", dtype="uint8", shape=(None, None, 3), encoding=encoding), form)


def array_leaf(path: str, kind: np.dtype, shape: tuple[int, ...], *, is_value: bool) -> Leaf:
    """Describe a NumPy array whose first axis is the step, or, with `is_value`, a value of the whole episode.

    Raises SourceError if it holds neither numbers, texts nor images, or if a value is too large.
    """
    if is_value:
        check_limit(kind.itemsize * int(np.prod(shape, dtype=object)), VALUE_BYTES, "bytes for one value", what=path)
    name, value_shape = kind.name, shape if is_value else shape[1:]
    if (
        name == "uint8"
        and not is_value
        and len(value_shape) == 3
        and value_shape[-1] in {1, 3}
        and 0 not in value_shape
    ):
        field = Field(path=path, kind="image", dtype="uint8", shape=(None, None, value_shape[-1]), encoding="raw")
        return Leaf(field, "frames")
    if name in NUMBERS:
        field = Field(path=path, kind="number", dtype=name, shape=value_shape, per_step=not is_value)
        return Leaf(field, "value" if is_value else "numbers")
    if kind.kind in "SUT" and len(value_shape) <= is_value:
        field = Field(path=path, kind="text", ragged=len(value_shape), per_step=not is_value)
        return Leaf(field, "value" if is_value else "texts")
    content = "Python objects" if kind.hasobject else f"'{kind}'"
    raise SourceError(
        f"{path} contains {content}: expected numbers, texts or images, and data that may be a pickle is never read; "
        f"leave it out with source.ignore = ['{path}']",
        reason="unsupported_field",
    )


def digest(fields: Sequence[Field]) -> str:
    """Return the SHA-256 of the descriptions of a source's fields."""
    return hashlib.sha256(json.dumps([asdict(field) for field in fields]).encode()).hexdigest()


def check_size(leaf: Leaf, *, rows: int, size: int) -> None:
    """Raise SourceError for a column with too many steps or bytes, before memory is allocated for it."""
    limit = FRAMES_BYTES if leaf.form == "frames" else COLUMN_BYTES
    if size > limit or rows > MAX_STEPS:
        total = f"{rows} steps with {size} bytes in total"
        message = f"{leaf.field.path}: {total}; the limit is {MAX_STEPS} steps and {limit} bytes"
        raise SourceError(message, reason="too_large")


def check_same(expected: Leaf, actual: Leaf) -> None:
    """Raise SourceError if a field differs from the first episode's.

    Narrower number types are allowed; their values are widened when they are read.
    """
    first, here = expected.field, actual.field
    kinds = np.dtype(first.dtype), np.dtype(here.dtype)
    narrower = kinds[0].kind == kinds[1].kind and np.can_cast(kinds[1], kinds[0], "safe")
    shapes = (len(first.shape), len(here.shape)) if first.per_step is False else (first.shape, here.shape)
    if (
        expected.form != actual.form
        or first.kind != here.kind
        or not narrower
        or shapes[0] != shapes[1]
        or first.ragged != here.ragged
    ):
        forms = [f"{leaf.form} {leaf.field.dtype} {list(leaf.field.shape)}" for leaf in (actual, expected)]
        raise SourceError(
            f"{first.path} is {forms[0]} here and {forms[1]} in the first episode", reason="contradicts_fields"
        )


def or_ignore(path: str) -> str:
    """Return the advice for a field that only some episodes have."""
    return f"convert these as a source of their own, or leave it out of all with source.ignore = ['{path}']"


def first_readable(names: Iterable[str], describe: Callable[[str], T], *, otherwise: Exception) -> T:
    """Return the description of the first of `names` that can be read.

    If none can be read, raises the SourceError of the first one; if there are no names, raises `otherwise`.
    """
    failure = None
    for name in names:
        try:
            return describe(name)
        except SourceError as error:
            if error.reason in SOURCE_WIDE_REASONS:
                raise
            failure = failure or error
    raise failure or otherwise
