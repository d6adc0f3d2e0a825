"""What a message holds, taken apart into numbers, texts and images: one leaf each, under a dotted path."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np
from rosbags.interfaces import Nodetype
from rosbags.typesys.base import normalize_fieldname

from pipelines.readers.names import covers
from pipelines.readers.rosbag import images
from pipelines.readers.rosbag.types import Types
from schemas.errors import SourceError
from schemas.source import Array, Field

NUMBERS = {"bool", "float32", "float64", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))}
SAME = {"byte": "uint8", "char": "uint8", "octet": "uint8"}
EACH = "*"  # in a way: into every message of a list
EMPTY = "structure_needs_at_least_one_member"  # what stands in a message that has no fields
AXES = (["x", "y", "z"], ["x", "y", "z", "w"])
MAX_DEPTH, VALUE_LIMIT = 32, 1 << 28  # messages in messages; bytes of one value
MAX_LEAVES = 4096

Form: TypeAlias = Literal["number", "text", "labels", "image"]


@dataclass(frozen=True, slots=True)
class Leaf:
    """One value of a message, and the way to it."""

    path: str  # dotted, with the topic
    form: Form  # labels: a list of texts, the same in every message
    way: tuple[str, ...]  # attributes
    dtype: str = "object"
    shape: tuple[int, ...] = ()
    axes: tuple[str, ...] = ()  # of a vector or quaternion: the attributes that are its numbers
    look: images.Look | None = None  # of an image
    words: tuple[str, ...] = ()  # of labels: joints in another order would be other numbers

    @property
    def is_quaternion(self) -> bool:
        """Say whether it holds rotations."""
        return len(self.axes) == 4

    @property
    def is_empty(self) -> bool:
        """Say whether it is an array without numbers: there is nothing to store, but it must stay so."""
        return 0 in self.shape

    def field(self, *, per_step: bool) -> Field:
        """Describe it as a field of the source."""
        if self.form == "image" and self.look:
            look = self.look
            shape = (None, None, look.channels)
            return Field(path=self.path, kind="image", dtype=look.dtype, shape=shape, encoding=look.encoding)
        if self.form == "labels":
            return Field(path=self.path, kind="text", ragged=1, per_step=False)
        kind: Literal["number", "text"] = "number" if self.form == "number" else "text"
        return Field(path=self.path, kind=kind, dtype=self.dtype, shape=self.shape, per_step=per_step)

    def value(self, message: Any, images_as: str) -> Any:
        """Take it out of a message: numbers, or bytes; what is not as in the first message is a SourceError."""
        held = _follow(message, self.way, self)
        if self.form == "number":
            return self._number(held)
        if self.form == "image":
            if images.look(held, self.path) != self.look:
                raise self.unlike("an image that is held otherwise")
            return images.encoded(held, self.path, images_as)
        if self.form == "labels":
            if tuple(held) != self.words:
                raise self.unlike(f"{list(held)}"[:200])
            return b""
        if not isinstance(held, str):
            raise self.unlike(type(held).__name__)
        return held.encode(errors="surrogatepass")  # which is no UTF-8, and is refused as such

    def _number(self, held: Any) -> Array:
        try:
            values = np.asarray(held, self.dtype)
        except (ValueError, TypeError, OverflowError) as error:
            raise self.unlike("lists of unequal length, or no numbers") from error
        if values.shape != self.shape and not (values.size == 0 and self.is_empty):
            raise self.unlike(f"{list(values.shape)} numbers")
        return values.reshape(self.shape)

    def unlike(self, found: str) -> SourceError:
        """Say that a message does not hold what the first one does."""
        first = f"{list(self.shape)} numbers" if self.form == "number" else f"a {self.form}"
        first = f"{list(self.words)}"[:200] if self.form == "labels" else first
        return SourceError(
            f"{self.path} holds {found} in one message and {first} in the first; a step needs the same every time: "
            f"leave it out with source.ignore = ['{self.path}']",
            reason="changing_length",
        )


def leaves(types: Types, name: str, message: Any, *, prefix: str, ignore: Collection[str]) -> list[Leaf]:
    """Take a message of type `name` apart, the first of its topic; what cannot be a field is a SourceError."""
    fields = [told for told in types.fields(name) if told[0] != EMPTY]
    if [told[0] for told in fields] == ["data"]:  # a number or a text, and nothing else: the topic itself
        found = _field(types, fields[0][1], Leaf(prefix, "text", ("data",)))
    else:
        found = _message(types, name, Leaf(prefix, "text", ()))
    made: list[Leaf] = []
    for leaf in found:
        if not covers(ignore, leaf.path):
            made.append(_measured(leaf, message))
        if len(made) > MAX_LEAVES:
            raise SourceError(f"{prefix}: more than {MAX_LEAVES} fields in one message", reason="too_large")
    return made


def _message(types: Types, name: str, at: Leaf) -> Iterator[Leaf]:
    if len(at.way) > MAX_DEPTH:
        raise SourceError(f"{at.path}: messages in messages, more than {MAX_DEPTH} deep", reason="too_large")
    fields = [told for told in types.fields(name) if told[0] != EMPTY]
    dtypes = {desc[1][0] for _, desc in fields if desc[0] == Nodetype.BASE}
    if [word for word, _ in fields] in AXES and dtypes in ({"float32"}, {"float64"}) and len(dtypes) == 1:
        axes = tuple(word for word, _ in fields)
        yield replace(at, form="number", dtype=dtypes.pop(), axes=axes)
        return
    left_out: Collection[str] = ()
    if name in images.TYPES:
        yield replace(at, form="image")
        left_out = images.TYPES[name]
    for word, desc in fields:
        if word not in left_out:
            below = f"{at.path}.{word}"
            yield from _field(types, desc, replace(at, path=below, way=(*at.way, normalize_fieldname(word))))


def _field(types: Types, desc: Any, at: Leaf) -> Iterator[Leaf]:
    kind, what = desc
    if kind in {Nodetype.ARRAY, Nodetype.SEQUENCE}:
        inner, _ = what
        if inner[0] != Nodetype.BASE:
            yield from _field(types, inner, replace(at, way=(*at.way, EACH)))
        elif inner[1][0] == "string":
            yield replace(at, form="labels")
        else:
            yield replace(at, form="number", dtype=_dtype(inner[1][0], at.path))
    elif kind == Nodetype.NAME:
        yield from _message(types, what, at)
    elif what[0] == "string":
        yield replace(at, form="labels" if EACH in at.way else "text")
    else:
        yield replace(at, form="number", dtype=_dtype(what[0], at.path))


def _dtype(word: str, path: str) -> str:
    dtype = SAME.get(word, word)
    if dtype not in NUMBERS:
        raise SourceError(
            f"{path} holds values of type '{word}', which are not read; leave it out with source.ignore = ['{path}']",
            reason="unsupported_field",
        )
    return dtype


def _measured(leaf: Leaf, message: Any) -> Leaf:
    """Fill in what only a message can tell: the lengths of its arrays, the form of its images."""
    if leaf.form in {"labels", "image"} and leaf.way.count(EACH) > (leaf.form == "labels"):
        raise SourceError(
            f"{leaf.path} holds lists of {leaf.form}; leave it out with source.ignore = ['{leaf.path}']",
            reason="unsupported_field",
        )
    held = _follow(message, leaf.way, leaf)
    if leaf.form == "image":
        return replace(leaf, look=images.look(held, leaf.path))
    if leaf.form == "labels":
        return replace(leaf, words=tuple(held))
    if leaf.form != "number":
        return leaf
    try:
        values = np.asarray(held, leaf.dtype)
    except (ValueError, TypeError, OverflowError) as error:
        raise leaf.unlike("lists of unequal length, or no numbers") from error
    if values.nbytes > VALUE_LIMIT:
        message = f"{leaf.path}: a value of {values.nbytes} bytes; leave it out with source.ignore = ['{leaf.path}']"
        raise SourceError(message, reason="too_large")
    return replace(leaf, shape=values.shape)


def _follow(held: Any, way: tuple[str, ...], leaf: Leaf) -> Any:
    for at, word in enumerate(way):
        if word == EACH:
            return [_follow(item, way[at + 1 :], leaf) for item in held]
        if not hasattr(held, word):  # JSON holds what it wants
            raise SourceError(f"a message without {leaf.path}", reason="malformed_message")
        held = getattr(held, word)
    return [getattr(held, word) for word in leaf.axes] if leaf.axes else held
