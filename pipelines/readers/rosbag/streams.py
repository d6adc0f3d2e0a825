"""Describe the streams of messages in a bag: their topics, their fields, and where their stamps come from."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.readers.names import covers
from pipelines.readers.rosbag.bag import Bag
from pipelines.readers.rosbag.clock import Policy
from pipelines.readers.rosbag.fields import MessageLeaf, message_leaves
from pipelines.readers.rosbag.publishers import Splits, publisher_name
from pipelines.readers.rosbag.storage import Channel, Message
from pipelines.readers.rosbag.types import MessageTypes, type_name, types_of
from schemas.declarations.formats import RosbagSource
from schemas.errors import SourceError, SpecError, did_you_mean
from schemas.source import Field

LOGS = ("/rosout", "/rosout_agg", "/parameter_events", "/diagnostics")  # topics of ROS itself, for all nodes
TRANSFORMS = {"tf2_msgs/msg/TFMessage", "tf/msg/tfMessage"}


def is_read(source: RosbagSource, topic: str) -> bool:
    """Whether a topic is read, given the keys `only` and `ignore` of the source."""
    path = topic_path(topic)
    is_selected = not source.only or covers([topic_path(word) for word in source.only], path)
    return is_selected and not covers(ignored_paths(source), path)


def ignored_paths(source: RosbagSource) -> tuple[str, ...]:
    """Return the paths of ignored topics and fields."""
    return tuple(topic_path(word) for word in source.ignore)


def has_header(source: RosbagSource, topic: str) -> bool:
    """Whether a topic is stamped by the headers of its messages, not by their log times."""
    return (source.stamp if isinstance(source.stamp, str) else source.stamp.get(topic, "log")) == "header"


def topic_path(topic: str) -> str:
    """Return the dotted path of a topic.

    >>> topic_path("/camera/color/image_raw")
    'camera.color.image_raw'
    """
    return ".".join(word for word in topic.split("/") if word)


@dataclass(frozen=True, slots=True)
class Stream:
    """Messages that are resampled together: those of one topic, of one child frame, or of one publisher of a topic."""

    name: str
    topic: str
    is_once: bool
    policy: Policy
    leaves: tuple[MessageLeaf, ...]
    identities: tuple[MessageLeaf, ...]  # what shows that messages come from different publishers

    @property
    def path(self) -> str:
        """The dotted path of the stream."""
        return topic_path(self.name)

    @property
    def video(self) -> MessageLeaf | None:
        """The field whose values are the packets of a video, which depend on each other; None if there is none."""
        return next((leaf for leaf in self.leaves if leaf.form == "video"), None)

    def fields(self) -> Iterator[Field]:
        """Yield the fields of the stream."""
        for leaf in self.leaves:
            if not leaf.is_empty:
                yield leaf.field(per_step=not self.is_once)


def messages_by_stream(name: str, channel: Channel, message: Any, *, splits: Splits) -> Iterator[tuple[str, Any]]:
    """Yield the name of a stream and the part of the message that belongs to it.

    A message with transforms has one part per transform, whose stream is named after the child frame. Any other message
    is one part, whose stream is the topic. If `source.split` tells publishers apart, their names are added.
    """
    parts = [(name, message)]
    if type_name(channel) in TRANSFORMS:
        parts = [(f"{name}/{part.child_frame_id.strip('/')}", part) for part in message.transforms]
    for stream, part in parts:
        publisher = publisher_name(splits, topic_path(stream), part)
        yield (stream if publisher is None else f"{stream}/{publisher}"), part


def header_stamp(message: Any, topic: str) -> int:
    """Return `header.stamp` in nanoseconds; raise SourceError if a message has none."""
    time: Any = getattr(getattr(message, "header", None), "stamp", None)
    if not hasattr(time, "nanosec"):
        raise SourceError(
            f"{topic} has no header.stamp: use the log times of all topics (source.stamp = 'log'); or, if the clocks "
            "of recorder and sensors agree, list the topics with stamps, such as source.stamp = { '/tf' = 'header' }",
            reason="bad_timestamps",
        )
    return int(time.sec) * 1_000_000_000 + int(time.nanosec)


def check_topics(source: RosbagSource, known: Mapping[str, Channel]) -> None:
    """Raise SpecError if a declaration names a topic that the first bag does not have, or that is not read."""
    stamps = () if isinstance(source.stamp, str) else source.stamp
    clock = [source.clock] if isinstance(source.clock, str) else []
    publishers = {
        f"{topic}/{name}"
        for path, names in source.split.items()
        for topic in known
        if path.startswith(f"{topic_path(topic)}.")
        for name in names
    }
    for path in source.split:
        if not any(path.startswith(f"{topic_path(topic)}.") and is_read(source, topic) for topic in known):
            raise SpecError(f"source.split: no topic that is read has the field '{path}'")
    for key, topics in (("clock", clock), ("topics", source.topics), ("stamp", stamps)):
        for topic in topics:
            if key != "stamp" and topic in publishers:
                continue
            if topic not in known:
                raise SpecError(f"source.{key}: the bag has no topic '{topic}'{did_you_mean(topic, known)}")
            if not is_read(source, topic):
                raise SpecError(f"source.{key}: '{topic}' is left out by source.ignore or source.only")


def describe_streams(bag: Bag, source: RosbagSource) -> tuple[Stream, ...]:
    """Describe each stream of the first bag from its first message; raise SourceError if one cannot be read."""
    channels = {name: channel for name, channel in bag.topics().items() if is_read(source, name) and channel.count}
    bag.check_types(channels)
    types = types_of(tuple(channel for channel in bag.channels if channel.topic in channels), source.ros)
    streams: dict[str, Stream] = {}
    for name, (channel, message) in _first_messages(bag, channels, types=types, source=source).items():
        streams[name] = _stream(name, channel, message, types=types, source=source)
    if isinstance(source.clock, str) and source.clock not in streams:
        if parts := sorted(name for name, stream in streams.items() if stream.topic == source.clock):
            raise SpecError(f"source.clock: {source.clock} is split: name one of {', '.join(parts)}")
        raise SourceError(f"the clock {source.clock} has no messages", reason="no_clock")
    return tuple(streams[name] for name in sorted(streams))


def _first_messages(
    bag: Bag, channels: Mapping[str, Channel], *, types: MessageTypes, source: RosbagSource
) -> dict[str, tuple[Channel, Any]]:
    """Return the first message of each stream.

    If a topic has several streams, the whole bag is read, because a new one can appear in any message.
    """
    missing, first = set(channels), dict[str, tuple[Channel, Any]]()
    growing = {
        topic
        for topic, channel in channels.items()
        if type_name(channel) in TRANSFORMS or any(path.startswith(f"{topic_path(topic)}.") for path in source.split)
    }
    for message in bag.messages(channels):
        channel = channels[message.topic]
        if message.topic in missing or message.topic in growing:
            missing.discard(message.topic)
            for name, part in decode_parts(message, channels, types=types, splits=source.split):
                if first.setdefault(name, (channel, part))[0] is not channel:
                    raise SourceError(
                        f"two topics are called {name}, and source.ignore = ['{name}'] leaves both out",
                        reason="unsupported_field",
                    )
        if not missing and not growing:
            break
    return first


def _stream(name: str, channel: Channel, message: Any, *, types: MessageTypes, source: RosbagSource) -> Stream:
    policy: Any = source.topics.get(name, source.topics.get(channel.topic, "nearest"))
    kind = type_name(channel)
    if kind in TRANSFORMS:
        transforms = dict(types.fields(kind))["transforms"]
        kind = transforms[1][0][1]
    leaves, identities = message_leaves(types, kind, message, prefix=topic_path(name), ignore=ignored_paths(source))
    if channel.topic in LOGS:
        identities = [leaf for leaf in identities if leaf.form != "text"]
    has_rotations, has_images = (
        any(leaf.is_quaternion for leaf in leaves),
        any(leaf.form in {"image", "video"} for leaf in leaves),
    )
    videos = [leaf.path for leaf in leaves if leaf.form == "video"]
    if len(videos) > 1:
        message = f"{videos[1]} is a second video in the messages of {name}; leave it out with source.ignore"
        raise SourceError(message, reason="unsupported_field")
    problem = {
        "linear": "contains rotations: use 'slerp', which interpolates the other numbers linearly"
        if has_rotations
        else "",
        "slerp": "" if has_rotations else "contains no quaternion: use 'linear'",
    }.get(policy, "")
    if has_images and policy in {"linear", "slerp", "once"}:
        problem = "contains images: use 'nearest' or 'hold'"
    if problem and name != source.clock:
        raise SpecError(f"source.topics: {channel.topic} = '{policy}', but it {problem}")
    is_once = policy == "once" or not (leaves or name == source.clock)  # a stream without fields must not limit steps
    return Stream(name, channel.topic, is_once, "nearest" if is_once else policy, tuple(leaves), tuple(identities))


def decode_parts(
    message: Message, topics: Mapping[str, Channel], *, types: MessageTypes, splits: Splits
) -> Iterator[tuple[str, Any]]:
    """Decode a message, and yield its parts like `messages_by_stream`."""
    channel = topics[message.topic]
    return messages_by_stream(message.topic, channel, types.decode(channel, message.data), splits=splits)


def check_paths(fields: Sequence[Field]) -> None:
    """Raise SourceError if two fields have the same path."""
    seen: set[str] = set()
    for field in fields:
        if field.path in seen:
            message = f"two fields are called {field.path}, and source.ignore = ['{field.path}'] leaves both out"
            raise SourceError(message, reason="unsupported_field")
        seen.add(field.path)
