"""Split messages into leaves: numbers, texts and images, each with a dotted path."""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Literal, TypeAlias

import numpy as np
from rosbags.interfaces import Nodetype
from rosbags.typesys.base import normalize_fieldname

from pipelines.readers.names import covers
from pipelines.readers.rosbag import images
from pipelines.readers.rosbag.types import MessageTypes
from pipelines.readers.sidecars import video_type
from schemas.errors import SourceError
from schemas.source import Array, Field

NUMBERS = {"bool", "float32", "float64", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))}
ALIASES = {"byte": "uint8", "char": "uint8", "octet": "uint8"}
EACH = "*"  # as an attribute: every item of a list of messages
EMPTY_MESSAGE = "structure_needs_at_least_one_member"  # the placeholder field of a message without fields
AXES = (["x", "y", "z"], ["x", "y", "z", "w"])
BASE64 = re.compile(r"(?=.{128})[A-Za-z0-9+/]+={0,2}", re.DOTALL)  # in a text, such a long word is encoded bytes
MAX_DEPTH, VALUE_LIMIT = 32, 1 << 28  # levels of nesting of messages; bytes of one value
MAX_LEAVES = 4096
IDENTITIES = {"name", "id", "frame_id", "child_frame_id", "joint", "joint_name", "arm", "side", "robot", "device"}

Form: TypeAlias = Literal["number", "text", "labels", "image", "video"]


@dataclass(frozen=True, slots=True)
class MessageLeaf:
    """A single value inside a message, and the attributes that lead to it."""

    path: str  # dotted, starting with the topic
    form: Form  # labels: a list of texts, the same in every message
    attributes: tuple[str, ...]  # names, from the message to the value
    dtype: str = "object"
    shape: tuple[int, ...] = ()
    axes: tuple[str, ...] = ()  # the attributes with the numbers of a vector or quaternion
    image_format: images.ImageFormat | None = None
    labels: tuple[str, ...] = ()  # such as names of joints, in the order that all messages must have
    is_sequence: bool = False  # an array of any length; it must be the same in every message

    @property
    def is_quaternion(self) -> bool:
        """Whether the value is a quaternion."""
        return len(self.axes) == 4

    @property
    def is_identity(self) -> bool:
        """Whether the value is a text that names the sender or the frame of a message."""
        return self.form == "text" and self.attributes[-1] in IDENTITIES and EACH not in self.attributes

    @property
    def is_empty(self) -> bool:
        """Whether the value is an empty array; it is not stored, but must be empty in every message."""
        return 0 in self.shape

    def field(self, *, per_step: bool) -> Field:
        """Return the field of the source that this leaf becomes."""
        if self.form in {"image", "video"} and self.image_format:
            known = self.image_format
            shape = (None, None, known.channels)
            return Field(path=self.path, kind="image", dtype=known.dtype, shape=shape, encoding=known.encoding)
        if self.form == "labels":
            return Field(path=self.path, kind="text", ragged=1, per_step=False)
        kind: Literal["number", "text"] = "number" if self.form == "number" else "text"
        return Field(path=self.path, kind=kind, dtype=self.dtype, shape=self.shape, per_step=per_step)

    def value(self, message: Any, images_as: str) -> Any:
        """Return the value in a message as an array or bytes.

        Raises SourceError if its form or shape differs from that in the first message.
        """
        content = self.content(message)
        if self.form == "number":
            return self.number(content)
        if self.form == "image":
            if images.image_format(content, self.path) != self.image_format:
                raise self.mismatch("an image in another format")
            return images.encode_image(content, self.path, images_as)
        if self.form == "video":
            codec = images.video_codec(content, self.path, is_declared=True)
            if not self.image_format or codec != self.image_format.encoding:
                raise self.mismatch("a video in another format")
            return images.image_bytes(content, self.path)
        if self.form == "labels":
            return b""  # `PublisherCheck` has compared the labels of all messages
        if not isinstance(content, str):
            raise self.mismatch(type(content).__name__)
        return content.encode(errors="surrogatepass")  # invalid UTF-8 is kept here and refused later

    def content(self, message: Any) -> Any:
        """Return the value in a message as it was decoded."""
        return _get(message, self.attributes, self)

    def texts(self, content: Any) -> tuple[str, ...]:
        """Return the texts in a decoded value of the form `labels`."""
        return tuple(_flat(content))

    def number(self, content: Any) -> Array:
        """Return a decoded value as an array; raise SourceError if its shape differs from that in the first message."""
        try:
            values = np.asarray(content, self.dtype)
        except (ValueError, TypeError, OverflowError) as error:
            raise self.mismatch("lists of unequal length, or other values than numbers") from error
        if values.shape != self.shape and not (values.size == 0 and self.is_empty):
            raise self.mismatch(f"{list(values.shape)} numbers")
        return values.reshape(self.shape)

    def mismatch(self, actual: str) -> SourceError:
        """Return the error for a message whose value differs from the first message's."""
        expected = f"{list(self.shape)} numbers" if self.form == "number" else f"a {self.form}"
        fix = f"if it is not needed, leave it out with source.ignore = ['{self.path}']"
        if self.form == "number" and self.dtype == "uint8":
            fix = f"images and videos are read from messages of the types {', '.join(images.KNOWN)}; {fix}"
        elif self.form == "number":
            fix = f"if several publishers share the topic, record each on a topic of its own; else, {fix}"
        return SourceError(
            f"{self.path} contains {actual} in one message and {expected} in the first, but must be the same in all: "
            f"{fix}",
            reason="changing_length",
        )


def message_leaves(
    types: MessageTypes, name: str, message: Any, *, prefix: str, ignore: Collection[str]
) -> tuple[list[MessageLeaf], list[MessageLeaf]]:
    """Return the leaves of a message whose paths are not in `ignore`, and those that say who published it.

    `message` is the first message of its topic, `name` its type, and `prefix` the path of the topic. Raises SourceError
    if a value cannot become a field.
    """
    candidates = list(islice(_candidates(types, name, prefix), MAX_LEAVES + 1))
    if len(candidates) > MAX_LEAVES:
        raise SourceError(f"{prefix}: more than {MAX_LEAVES} fields in one message", reason="too_large")
    leaves = [_with_shape(leaf, message) for leaf in candidates if not covers(ignore, leaf.path)]
    ignored = [leaf for leaf in candidates if covers(ignore, leaf.path)]
    return leaves, [
        *_identities(leaves, ignored, message),
        *(leaf for leaf in leaves if leaf.form == "number" and leaf.is_sequence),
    ]


def _candidates(types: MessageTypes, name: str, prefix: str) -> Iterator[MessageLeaf]:
    fields = [field for field in types.fields(name) if field[0] != EMPTY_MESSAGE]
    if [field[0] for field in fields] == ["data"]:  # the only value of a message gets the path of the topic
        yield from _field(types, fields[0][1], MessageLeaf(prefix, "text", ("data",)))
    else:
        yield from _message(types, name, MessageLeaf(prefix, "text", ()))


def _identities(leaves: list[MessageLeaf], ignored: list[MessageLeaf], message: Any) -> Iterator[MessageLeaf]:
    """Yield the lists of names, and the texts such as `header.frame_id`, by which publishers differ.

    An ignored one is included if values that are read belong to its names.
    """
    values = [
        leaf for leaf in leaves if leaf.form in {"number", "image", "video"} and leaf.attributes[:1] != ("header",)
    ]
    for leaf in leaves:
        if leaf.form == "labels" or (leaf.is_identity and values):
            yield leaf
    for leaf in ignored:
        if leaf.form == "labels":
            named = replace(leaf, labels=leaf.texts(leaf.content(message)))
            if any(_belongs(value, named) for value in values):
                yield named
        elif leaf.is_identity and values:
            yield leaf


def _belongs(value: MessageLeaf, names: MessageLeaf) -> bool:
    """Whether the numbers of a leaf belong to a list of names: both are in the same items, or have the same length."""
    if EACH in names.attributes:
        items = len(names.attributes) - names.attributes[::-1].index(EACH)
        return value.attributes[:items] == names.attributes[:items]
    parent = names.attributes[:-1]
    return value.attributes[: len(parent)] == parent and len(names.labels) in value.shape


def _message(types: MessageTypes, name: str, leaf: MessageLeaf) -> Iterator[MessageLeaf]:
    if len(leaf.attributes) > MAX_DEPTH:
        raise SourceError(f"{leaf.path}: messages are nested more than {MAX_DEPTH} levels deep", reason="too_large")
    fields = [field for field in types.fields(name) if field[0] != EMPTY_MESSAGE]
    dtypes = {field_type[1][0] for _, field_type in fields if field_type[0] == Nodetype.BASE}
    if [field_name for field_name, _ in fields] in AXES and dtypes in ({"float32"}, {"float64"}) and len(dtypes) == 1:
        axes = tuple(field_name for field_name, _ in fields)
        yield replace(leaf, form="number", dtype=dtypes.pop(), axes=axes)
        return
    left_out: Collection[str] = ()
    if name in images.TYPES:
        yield replace(leaf, form="image")
        left_out = images.TYPES[name]
    elif images.is_video(name) and "data" in dict(fields):
        yield replace(leaf, form="video")
        left_out = images.VIDEO_FIELDS
    for field_name, field_type in fields:
        if field_name not in left_out:
            attributes = (*leaf.attributes, normalize_fieldname(field_name))
            yield from _field(types, field_type, replace(leaf, path=f"{leaf.path}.{field_name}", attributes=attributes))


def _field(types: MessageTypes, field_type: Any, leaf: MessageLeaf) -> Iterator[MessageLeaf]:
    kind, arguments = field_type
    if kind in {Nodetype.ARRAY, Nodetype.SEQUENCE}:
        inner, _ = arguments
        is_sequence = kind == Nodetype.SEQUENCE
        if inner[0] != Nodetype.BASE:
            item = replace(leaf, attributes=(*leaf.attributes, EACH), is_sequence=leaf.is_sequence or is_sequence)
            yield from _field(types, inner, item)
        elif inner[1][0] == "string":
            yield replace(leaf, form="labels")
        else:
            dtype = ALIASES.get(inner[1][0], inner[1][0])
            yield replace(leaf, form="number", dtype=dtype, is_sequence=leaf.is_sequence or is_sequence)
    elif kind == Nodetype.NAME:
        yield from _message(types, arguments, leaf)
    elif arguments[0] == "string":
        yield replace(leaf, form="labels" if EACH in leaf.attributes else "text")
    else:
        yield replace(leaf, form="number", dtype=ALIASES.get(arguments[0], arguments[0]))


def _with_shape(leaf: MessageLeaf, message: Any) -> MessageLeaf:
    """Add what the type does not say, from a message: the shape of an array, the format of an image, or the labels."""
    if leaf.form in {"labels", "image", "video"} and leaf.attributes.count(EACH) > (leaf.form == "labels"):
        raise SourceError(
            f"{leaf.path} contains lists of {leaf.form}; leave it out with source.ignore = ['{leaf.path}']",
            reason="unsupported_field",
        )
    content = _get(message, leaf.attributes, leaf)
    if leaf.form in {"image", "video"}:
        return _camera(leaf, content)
    if leaf.form == "labels":
        return replace(leaf, labels=leaf.texts(content))
    if leaf.form == "text" and isinstance(content, str) and BASE64.fullmatch(content):
        raise SourceError(
            f"{leaf.path} contains bytes as base64, which are read only in messages of the types "
            f"{', '.join(images.KNOWN)}; leave it out with source.ignore = ['{leaf.path}']",
            reason="unsupported_field",
        )
    if leaf.form != "number":
        return leaf
    if leaf.dtype not in NUMBERS:
        raise SourceError(
            f"{leaf.path} contains values of type '{leaf.dtype}', which is not supported; "
            f"leave it out with source.ignore = ['{leaf.path}']",
            reason="unsupported_field",
        )
    try:
        values = np.asarray(content, leaf.dtype)
    except (ValueError, TypeError, OverflowError) as error:
        raise leaf.mismatch("lists of unequal length, or other values than numbers") from error
    if values.nbytes > VALUE_LIMIT:
        message = f"{leaf.path}: a value has {values.nbytes} bytes; leave it out with source.ignore = ['{leaf.path}']"
        raise SourceError(message, reason="too_large")
    return replace(leaf, shape=values.shape)


def _camera(leaf: MessageLeaf, content: Any) -> MessageLeaf:
    """Add the format of the images, or the codec of the video."""
    raw = hasattr(content, "step")
    codec = None if raw else images.video_codec(content, leaf.path, is_declared=leaf.form == "video")
    if codec is None:
        return replace(leaf, form="image", image_format=images.image_format(content, leaf.path))
    video_type()  # raises MissingExtraError now rather than on a worker
    return replace(leaf, form="video", image_format=images.ImageFormat("uint8", 3, codec))


def _flat(content: Any) -> Iterator[str]:
    if isinstance(content, str):
        yield content
    else:
        for item in content:
            yield from _flat(item)


def _get(content: Any, attributes: tuple[str, ...], leaf: MessageLeaf) -> Any:
    for depth, attribute in enumerate(attributes):
        if attribute == EACH:
            return [_get(item, attributes[depth + 1 :], leaf) for item in content]
        if not hasattr(content, attribute):  # JSON messages may lack fields
            raise SourceError(f"a message has no {leaf.path}", reason="malformed_message")
        content = getattr(content, attribute)
    return [getattr(content, axis) for axis in leaf.axes] if leaf.axes else content
