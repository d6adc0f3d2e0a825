"""Read one bag as one episode, decoding only the messages that its steps need."""

from collections.abc import Collection, Iterable, Sequence
from math import prod
from typing import Any

import numpy as np

from pipelines.readers.fields import or_ignore
from pipelines.readers.rosbag import clock, times
from pipelines.readers.rosbag.bag import Bag
from pipelines.readers.rosbag.clock import NS, Alignment
from pipelines.readers.rosbag.fields import MessageLeaf
from pipelines.readers.rosbag.storage import Channel
from pipelines.readers.rosbag.streams import Stream, decode_parts, is_read
from pipelines.readers.rosbag.times import StreamPlan, plan_steps, read_times
from pipelines.readers.rosbag.types import types_of
from schemas.declarations.formats import RosbagSource
from schemas.errors import SourceError
from schemas.limits import above_limit
from schemas.source import Column

LIMIT = 4 << 30  # bytes of one column of an episode


def read_episode(
    bag: Bag, streams: Sequence[Stream], source: RosbagSource, *, columns: Collection[str] | None
) -> tuple[dict[str, Column], dict[str, Any]]:
    """Read the columns and per-episode values of a bag; raise SourceError if it differs from the first bag."""
    topics = _matching_topics(bag, streams, source)
    types = types_of(tuple(channel for channel in bag.channels if channel.topic in topics), source.ros)
    stream_times = read_times(bag, streams, source, topics=topics, types=types)
    steps, plans, metadata = plan_steps(streams, stream_times, source)
    collected = {}
    for stream in streams:
        leaves = [leaf for leaf in stream.leaves if columns is None or leaf.path in columns]
        if leaves:
            values_type = VideoValues if stream.video else StreamValues
            collected[stream.name] = values_type(stream, leaves, plans.get(stream.name), images=source.images)
    read = {stream.topic: topics[stream.topic] for stream in streams if stream.name in collected}
    for message in bag.messages(read):
        topic_values = collected.get(message.topic)
        if topic_values and not topic_values.advance():
            continue
        for name, part in decode_parts(message, topics, types=types, splits=source.split):
            stream_values = collected.get(name)
            if stream_values and (stream_values is topic_values or stream_values.advance()):
                stream_values.add(part)
    result: dict[str, Column] = {}
    if columns is None or times.TIMESTAMP in columns:
        result[times.TIMESTAMP] = (steps - steps[0]) / NS
    for stream_values in collected.values():
        stream_values.store(result, metadata)
    return result, metadata


def _matching_topics(bag: Bag, streams: Sequence[Stream], source: RosbagSource) -> dict[str, Channel]:
    """Return the topics of a bag; raise SourceError if they differ from the first bag's."""
    topics = {name: channel for name, channel in bag.topics().items() if is_read(source, name) and channel.count}
    known = {stream.topic for stream in streams}
    if missing := sorted(known - topics.keys()):
        message = f"{missing[0]} has no messages, but the first bag has some"
        raise SourceError(message, reason="contradicts_fields")
    if more := sorted(topics.keys() - known):
        message = f"{more[0]} has messages, but the first bag has none; {or_ignore(more[0])}"
        raise SourceError(message, reason="contradicts_fields")
    bag.check_types(topics)
    return topics


class StreamValues:
    """The values of one stream, collected while its messages are read."""

    def __init__(self, stream: Stream, leaves: Sequence[MessageLeaf], plan: StreamPlan | None, *, images: str) -> None:
        """Allocate memory for the values; raise SourceError if they are too large.

        If `plan` is None, the stream has one value per episode, and all its messages must be equal.
        """
        self.stream, self.leaves, self.plan, self.images = stream, leaves, plan, images
        self.rows = {int(position): row for row, position in enumerate(plan.positions)} if plan else {}
        self.messages_seen, self.row = 0, 0
        count = len(self.rows) or 1
        self.values: dict[str, Any] = {}
        self.sizes = dict.fromkeys((leaf.path for leaf in leaves), 0)  # bytes
        for leaf in leaves:
            if leaf.form == "number":
                self._add_size(leaf, prod(leaf.shape) * count * np.dtype(leaf.dtype).itemsize)
            is_number = leaf.form == "number"
            self.values[leaf.path] = np.zeros((count, *leaf.shape), leaf.dtype) if is_number else [b""] * count

    def advance(self) -> bool:
        """Move to the next message; return whether it is needed."""
        self.row = self.rows.get(self.messages_seen, -1) if self.plan else 0
        self.messages_seen += 1
        return self.row >= 0

    def add(self, message: Any) -> None:
        """Store the values of a message; raise SourceError if they are not equal although they must be."""
        for leaf in self.leaves:
            value = leaf.value(message, self.images)
            if not self.plan and self.messages_seen > 1 and not np.array_equal(self.values[leaf.path][0], value):
                raise SourceError(
                    f"{leaf.path} is not the same in every message, but source.topics has '{self.stream.name}' = "
                    "'once'; use 'hold' for values that change",
                    reason="not_once",
                )
            self._set(leaf, self.row, value)

    def _set(self, leaf: MessageLeaf, row: int, value: Any) -> None:
        if isinstance(value, bytes):
            self._add_size(leaf, len(value))
        self.values[leaf.path][row] = value

    def _add_size(self, leaf: MessageLeaf, size: int) -> None:
        self.sizes[leaf.path] += size
        if self.sizes[leaf.path] > LIMIT:
            fix = "encode them as 'jpeg 90' (source.images), or leave" if leaf.form in {"image", "video"} else "leave"
            fix += " it out with source.ignore"
            raise above_limit(LIMIT, "bytes in one episode", what=leaf.path, fix=fix)

    def store(self, steps: dict[str, Column], metadata: dict[str, Any]) -> None:
        """Add the columns to `steps` and the per-episode values to `metadata`."""
        for leaf in self.leaves:
            values = self.values[leaf.path]
            if leaf.is_empty:
                continue
            if leaf.form == "labels":
                metadata[leaf.path] = list(leaf.labels)
            elif not self.plan:
                metadata[leaf.path] = values[0].tolist() if leaf.form == "number" else values[0].decode()
            else:
                steps[leaf.path] = _column(leaf, values, self.plan.alignment, is_mixed=self._is_mixed)

    @property
    def _is_mixed(self) -> bool:
        return self.stream.policy in {"linear", "slerp"}


class VideoValues(StreamValues):
    """The values of a stream whose messages are the packets of a video.

    Every packet is decoded. The frames, in presentation order, belong to the times of the messages in order.
    """

    def __init__(self, stream: Stream, leaves: Sequence[MessageLeaf], plan: StreamPlan | None, *, images: str) -> None:
        """Start a decoder."""
        from pipelines.readers.rosbag.video import FrameDecoder  # noqa: PLC0415 - only videos need its library

        super().__init__(stream, leaves, plan, images=images)
        assert stream.video and stream.video.image_format and plan  # noqa: S101, PT018 - `Stream` checked it
        self.video, self.stamps = stream.video, plan.stamps
        self.decoder = FrameDecoder(stream.video.image_format.encoding, stream.video.path)
        self.waiting: dict[int, list[tuple[MessageLeaf, Any]]] = {}  # the other values of packets, by number
        self.shown: list[int] = []  # the numbers of the packets, in the order of their frames
        self.declared: list[int] = []  # the presentation time that each packet declares, if they do

    def advance(self) -> bool:
        """Return True: every packet is needed."""
        return True

    def add(self, message: Any) -> None:
        """Decode one more packet, and store the values of the frames that follow."""
        number = self.decoder.packets
        frames = list(self.decoder.decode(self.video.value(message, self.images)))
        if self.decoder.packets > number:
            others = [leaf for leaf in self.leaves if leaf is not self.video]
            self.waiting[number] = [(leaf, leaf.value(message, self.images)) for leaf in others]
            self.declared += [int(message.pts)] if hasattr(message, "pts") else []
        self._add_frames(frames)

    def _add_frames(self, frames: Iterable[tuple[int, Any]]) -> None:
        from pipelines.readers.video import pixels  # noqa: PLC0415 - only videos need its library

        for number, frame in frames:
            row = self.rows.get(len(self.shown), -1)
            self.shown.append(number)
            others = self.waiting.pop(number)
            if row >= 0:
                for leaf, value in others:
                    self._set(leaf, row, value)
                if self.video in self.leaves:
                    self._set(self.video, row, pixels(frame, self.images))

    def store(self, steps: dict[str, Column], metadata: dict[str, Any]) -> None:
        """Decode the rest, and add the columns; raise SourceError if the frames' order contradicts their times."""
        self._add_frames(self.decoder.finish())
        if (np.diff(self.stamps) <= 0).any() and (np.diff(self.stamps[self.shown]) <= 0).any():
            message = f"{self.stream.name}: the times of the messages are not in the order of the video's frames"
            raise SourceError(message, reason="bad_timestamps")
        if (
            self.declared
            and len({*self.declared}) == len(self.declared)
            and (np.diff(np.array(self.declared)[self.shown]) <= 0).any()
        ):
            message = f"{self.stream.name}: the pts of the messages are not in the order of the video's frames"
            raise SourceError(message, reason="bad_timestamps")
        super().store(steps, metadata)


def _column(leaf: MessageLeaf, values: Any, alignment: Alignment, *, is_mixed: bool) -> Column:
    """Resample the values of messages to T steps.

    If `is_mixed`, floats are interpolated, and any other value is taken from the nearer of two messages. If not, each
    value is taken from the one message that was chosen for the step.
    """
    rows = np.where(alignment.weight > 1 / 2, alignment.right, alignment.left)
    if leaf.form != "number":
        return [values[row] for row in rows]
    if not is_mixed or np.dtype(leaf.dtype).kind != "f":
        column: Column = values[rows]
        return column
    return clock.slerp(values, alignment) if leaf.is_quaternion else clock.linear(values, alignment)
