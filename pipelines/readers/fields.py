"""What a field is in the file that holds it, and how large it may be: the same limits for every format of arrays."""

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Literal, TypeAlias, TypeVar

import numpy as np

from schemas.errors import SourceError
from schemas.images import PNG
from schemas.source import Field

NUMBERS = {
    "bool",
    "float16",
    "float32",
    "float64",
    *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
}
STARTS = (b"\xff\xd8\xff", PNG)  # of a JPEG and of a PNG
LIMIT = 1 << 30  # bytes of one column of an episode, and of one chunk
FRAMES_LIMIT = 1 << 35  # bytes of one camera's raw frames in an episode; they are encoded one block after the other
VALUE_LIMIT = 16 << 20  # bytes of what an episode has once
BLOCK = 1 << 19  # bytes that are read at a time: they stay in the cache of a core
MAX_STEPS = 10_000_000
IN_ALL = {"no_definition", "unsupported_field", "unsupported_image"}  # reasons that most likely hold for every episode

T = TypeVar("T")
Form: TypeAlias = Literal["numbers", "texts", "frames", "padded", "blobs", "video", "value"]


@dataclass(frozen=True, slots=True)
class Leaf:
    """A field, and the form in which the file holds it."""

    field: Field
    form: Form  # frames: raw pixels; padded, blobs: encoded images in rows of one length, or each of its own


def encoded_leaf(path: str, start: bytes, form: Form) -> Leaf | None:
    """Describe encoded images, if what the first one starts with says that it is one."""
    if not start.startswith(STARTS):
        return None
    encoding = "png" if start.startswith(PNG) else "jpeg"
    return Leaf(Field(path=path, kind="image", dtype="uint8", shape=(None, None, 3), encoding=encoding), form)


def array_leaf(path: str, kind: np.dtype, shape: tuple[int, ...], *, is_value: bool) -> Leaf:
    """Describe an array of NumPy's types, the first axis being the step; what is an object is a SourceError."""
    if is_value and kind.itemsize * int(np.prod(shape, dtype=object)) > VALUE_LIMIT:
        raise SourceError(f"{path}: more than {VALUE_LIMIT} bytes for one value of an episode", reason="too_large")
    name, rest = kind.name, shape if is_value else shape[1:]
    if name == "uint8" and not is_value and len(rest) == 3 and rest[-1] in {1, 3} and 0 not in rest:
        field = Field(path=path, kind="image", dtype="uint8", shape=(None, None, rest[-1]), encoding="raw")
        return Leaf(field, "frames")
    if name in NUMBERS:
        field = Field(path=path, kind="number", dtype=name, shape=rest, per_step=not is_value)
        return Leaf(field, "value" if is_value else "numbers")
    if kind.kind in "SUT" and len(rest) <= is_value:
        field = Field(path=path, kind="text", ragged=len(rest), per_step=not is_value)
        return Leaf(field, "value" if is_value else "texts")
    held = "Python objects" if kind.hasobject else f"'{kind}'"
    raise SourceError(
        f"{path} holds {held}: neither numbers nor texts nor images, and what may be a pickle is never read; "
        f"leave it out with source.ignore = ['{path}']",
        reason="unsupported_field",
    )


def digest(fields: Sequence[Field]) -> str:
    """Hash what the fields of a source are."""
    return hashlib.sha256(json.dumps([asdict(field) for field in fields]).encode()).hexdigest()


def check_size(leaf: Leaf, *, rows: int, size: int) -> None:
    """Refuse a column of more steps or bytes than an episode may have, before memory is taken for it."""
    limit = FRAMES_LIMIT if leaf.form == "frames" else LIMIT
    if size > limit or rows > MAX_STEPS:
        message = f"{leaf.field.path}: {rows} steps of {size} bytes together; the limit is {MAX_STEPS} and {limit}"
        raise SourceError(message, reason="too_large")


def check_same(wanted: Leaf, found: Leaf) -> None:
    """Refuse a field that is not in every episode what it is in the first one; narrower numbers are widened."""
    ours, theirs = wanted.field, found.field
    kinds = np.dtype(ours.dtype), np.dtype(theirs.dtype)
    narrower = kinds[0].kind == kinds[1].kind and np.can_cast(kinds[1], kinds[0], "safe")
    shapes = (len(ours.shape), len(theirs.shape)) if ours.per_step is False else (ours.shape, theirs.shape)
    if (
        wanted.form != found.form
        or ours.kind != theirs.kind
        or not narrower
        or shapes[0] != shapes[1]
        or ours.ragged != theirs.ragged
    ):
        says = [f"{leaf.form} {leaf.field.dtype} {list(leaf.field.shape)}" for leaf in (found, wanted)]
        raise SourceError(
            f"{ours.path} is {says[0]} here and {says[1]} in the first episode", reason="contradicts_fields"
        )


def first_readable(names: Iterable[str], describe: Callable[[str], T], *, otherwise: Exception) -> T:
    """Describe the first that can be read; where none can, the first error stands for all.

    `otherwise` is raised where there are no names.
    """
    failure = None
    for name in names:
        try:
            return describe(name)
        except SourceError as error:
            if error.reason in IN_ALL:
                raise
            failure = failure or error
    raise failure or otherwise
