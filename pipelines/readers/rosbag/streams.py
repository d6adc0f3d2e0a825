"""What is read of a bag, and how: topics as streams of messages, their fields, and where their times come from."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.readers.names import covers
from pipelines.readers.rosbag.bag import Bag
from pipelines.readers.rosbag.clock import Policy
from pipelines.readers.rosbag.fields import Leaf, leaves
from pipelines.readers.rosbag.storage import Channel, Message
from pipelines.readers.rosbag.types import Types, type_name, types_of
from schemas.declarations.formats import RosbagSource
from schemas.errors import SourceError, SpecError, did_you_mean
from schemas.source import Field

TRANSFORMS = {"tf2_msgs/msg/TFMessage", "tf/msg/tfMessage"}


def is_read(source: RosbagSource, topic: str) -> bool:
    """Whether a topic is read."""
    path = dotted(topic)
    wanted = not source.only or covers([dotted(word) for word in source.only], path)
    return wanted and not covers(ignored(source), path)


def ignored(source: RosbagSource) -> tuple[str, ...]:
    """Return the paths that are not read."""
    return tuple(dotted(word) for word in source.ignore)


def has_header(source: RosbagSource, topic: str) -> bool:
    """Whether the times of a topic are those that its messages carry."""
    return (source.stamp if isinstance(source.stamp, str) else source.stamp.get(topic, "log")) == "header"


def dotted(topic: str) -> str:
    """Make a path of a topic.

    >>> dotted("/camera/color/image_raw")
    'camera.color.image_raw'
    """
    return ".".join(word for word in topic.split("/") if word)


@dataclass(frozen=True, slots=True)
class Stream:
    """Messages that are resampled together: a topic, or one child frame of a topic of transforms."""

    name: str
    topic: str
    is_once: bool
    policy: Policy
    leaves: tuple[Leaf, ...]

    @property
    def path(self) -> str:
        """Give its dotted path."""
        return dotted(self.name)

    def fields(self) -> Iterator[Field]:
        """Describe what it becomes."""
        for leaf in self.leaves:
            if not leaf.is_empty:
                yield leaf.field(per_step=not self.is_once)


def split(name: str, channel: Channel, message: Any) -> Iterator[tuple[str, Any]]:
    """Give the messages in a message, by the stream that each belongs to: transforms are told apart by their child."""
    if type_name(channel) in TRANSFORMS:
        for transform in message.transforms:
            yield f"{name}/{transform.child_frame_id.strip('/')}", transform
    else:
        yield name, message


def stamp(message: Any, topic: str) -> int:
    """Give the nanoseconds of `header.stamp`; a message that has none is a SourceError."""
    held: Any = getattr(getattr(message, "header", None), "stamp", None)
    if not hasattr(held, "nanosec"):
        raise SourceError(
            f"{topic} has no header.stamp: give its messages their log time, and name the others, such as "
            "source.stamp = { '/joint_states' = 'header' }",
            reason="bad_timestamps",
        )
    return int(held.sec) * 1_000_000_000 + int(held.nanosec)


def check_topics(source: RosbagSource, known: Mapping[str, Channel]) -> None:
    """Refuse topics in a declaration that the first bag does not have."""
    stamps = () if isinstance(source.stamp, str) else source.stamp
    clock = [source.clock] if isinstance(source.clock, str) else []
    for key, topics in (("clock", clock), ("topics", source.topics), ("stamp", stamps)):
        for topic in topics:
            if topic not in known:
                raise SpecError(f"source.{key}: the bag has no topic '{topic}'{did_you_mean(topic, known)}")
            if not is_read(source, topic):
                raise SpecError(f"source.{key}: '{topic}' is left out by source.ignore or source.only")


def first_streams(bag: Bag, source: RosbagSource) -> tuple[Stream, ...]:
    """Describe what the first bag holds by the first message of each topic; what is no field is a SourceError."""
    channels = {name: c for name, c in bag.topics().items() if is_read(source, name) and c.count}
    bag.check_types(channels)
    types = types_of(tuple(c for c in bag.channels if c.topic in channels), source.ros)
    found: dict[str, Stream] = {}
    for name, (channel, message) in _first(bag, channels, types).items():
        found[name] = _stream(name, channel, message, types=types, source=source)
    if isinstance(source.clock, str) and source.clock not in found:
        raise SourceError(f"the clock {source.clock} has no messages", reason="no_clock")
    return tuple(found[name] for name in sorted(found))


def _first(bag: Bag, channels: Mapping[str, Channel], types: Types) -> dict[str, tuple[Channel, Any]]:
    """Find the first message of each stream; those of transforms are known at the end of the bag alone."""
    missing, found = set(channels), dict[str, tuple[Channel, Any]]()
    is_growing = any(type_name(channel) in TRANSFORMS for channel in channels.values())
    for message in bag.messages(channels):
        channel = channels[message.topic]
        if message.topic in missing or type_name(channel) in TRANSFORMS:
            missing.discard(message.topic)
            for name, held in parts(message, channels, types):
                if found.setdefault(name, (channel, held))[0] is not channel:
                    raise SourceError(f"two topics are called {name}; leave one out", reason="unsupported_field")
        if not missing and not is_growing:
            break
    return found


def _stream(name: str, channel: Channel, message: Any, *, types: Types, source: RosbagSource) -> Stream:
    policy: Any = source.topics.get(channel.topic, "nearest")
    kind = type_name(channel)
    if kind in TRANSFORMS:
        transforms = dict(types.fields(kind))["transforms"]
        kind = transforms[1][0][1]
    made = tuple(leaves(types, kind, message, prefix=dotted(name), ignore=ignored(source)))
    turning, pictures = any(leaf.is_quaternion for leaf in made), any(leaf.form == "image" for leaf in made)
    wrong = {
        "linear": "holds rotations: 'slerp' turns them, and interpolates the rest" if turning else "",
        "slerp": "" if turning else "holds no quaternion: 'linear' is for numbers",
    }.get(policy, "")
    if pictures and policy in {"linear", "slerp", "once"}:
        wrong = "holds images: 'nearest' and 'hold' are for them"
    if wrong and name != source.clock:
        raise SpecError(f"source.topics: {channel.topic} = '{policy}', but it {wrong}")
    is_once = policy == "once" or not (made or name == source.clock)  # without a field it takes no part
    return Stream(name, channel.topic, is_once, "nearest" if is_once else policy, made)


def parts(message: Message, topics: Mapping[str, Channel], types: Types) -> Iterator[tuple[str, Any]]:
    """Decode a message, and give its parts by the stream that each belongs to."""
    channel = topics[message.topic]
    return split(message.topic, channel, types.decode(channel, message.data))


def check_paths(fields: Sequence[Field]) -> None:
    """Refuse two fields of one path."""
    seen: set[str] = set()
    for field in fields:
        if field.path in seen:
            message = f"two fields are called {field.path}; leave one out with source.ignore"
            raise SourceError(message, reason="unsupported_field")
        seen.add(field.path)
