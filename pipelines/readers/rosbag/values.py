"""One bag as one episode: the messages that its steps need are decoded, everything else is passed over."""

from collections.abc import Collection, Sequence
from math import prod
from typing import Any

import numpy as np

from pipelines.readers.rosbag import clock, times
from pipelines.readers.rosbag.bag import Bag
from pipelines.readers.rosbag.clock import NS, Choice
from pipelines.readers.rosbag.fields import Leaf
from pipelines.readers.rosbag.storage import Channel
from pipelines.readers.rosbag.streams import Stream, is_read, parts
from pipelines.readers.rosbag.times import Plan, plans_of, tracks_of
from pipelines.readers.rosbag.types import types_of
from schemas.declarations.formats import RosbagSource
from schemas.errors import SourceError
from schemas.source import Column

LIMIT = 4 << 30  # bytes of one column of an episode


def episode(
    bag: Bag, streams: Sequence[Stream], source: RosbagSource, *, columns: Collection[str] | None
) -> tuple[dict[str, Column], dict[str, Any]]:
    """Read a bag: what it has per step, and what it has once; one unlike the first bag is a SourceError."""
    topics = _same_topics(bag, streams, source)
    types = types_of(tuple(c for c in bag.channels if c.topic in topics), source.ros)
    tracks = tracks_of(bag, streams, source, topics=topics, types=types)
    steps, plans, metadata = plans_of(streams, tracks, source)
    wanted = {}
    for stream in streams:
        leaves = [leaf for leaf in stream.leaves if columns is None or leaf.path in columns]
        if leaves:
            wanted[stream.name] = Collected(stream, leaves, plans.get(stream.name), images=source.images)
    read = {stream.topic: topics[stream.topic] for stream in streams if stream.name in wanted}
    for message in bag.messages(read):
        whole = wanted.get(message.topic)
        if whole and not whole.takes():
            continue
        for name, part in parts(message, topics, types):
            held = wanted.get(name)
            if held and (held is whole or held.takes()):
                held.add(part)
    made: dict[str, Column] = {}
    if columns is None or times.TIMESTAMP in columns:
        made[times.TIMESTAMP] = (steps - steps[0]) / NS
    for held in wanted.values():
        held.give(made, metadata)
    return made, metadata


def _same_topics(bag: Bag, streams: Sequence[Stream], source: RosbagSource) -> dict[str, Channel]:
    """Compare the topics with those of the first bag."""
    here = {name: channel for name, channel in bag.topics().items() if is_read(source, name) and channel.count}
    known = {stream.topic for stream in streams}
    if missing := sorted(known - here.keys()):
        message = f"there is no message on {missing[0]}, on which the first bag has some"
        raise SourceError(message, reason="contradicts_fields")
    if more := sorted(here.keys() - known):
        message = f"{more[0]} has messages, but none in the first bag; leave it out with source.ignore = ['{more[0]}']"
        raise SourceError(message, reason="contradicts_fields")
    bag.check_types(here)
    return here


class Collected:
    """The values of one stream's messages, taken as the messages come by."""

    def __init__(self, stream: Stream, leaves: Sequence[Leaf], plan: Plan | None, *, images: str) -> None:
        """Make room for them; too many are a SourceError. Without a plan, every message must hold the same."""
        self.stream, self.leaves, self.plan, self.images = stream, leaves, plan, images
        self.rows = {int(place): row for row, place in enumerate(plan.places)} if plan else {}
        self.seen, self.row = 0, 0
        count = len(self.rows) or 1
        self.values: dict[str, Any] = {}
        self.sizes = dict.fromkeys((leaf.path for leaf in leaves), 0)  # bytes
        for leaf in leaves:
            if leaf.form == "number":
                self._grow(leaf, prod(leaf.shape) * count * np.dtype(leaf.dtype).itemsize)
            is_number = leaf.form == "number"
            self.values[leaf.path] = np.zeros((count, *leaf.shape), leaf.dtype) if is_number else [b""] * count

    def takes(self) -> bool:
        """Go to the next message, and say whether it is needed."""
        self.row = self.rows.get(self.seen, -1) if self.plan else 0
        self.seen += 1
        return self.row >= 0

    def add(self, message: Any) -> None:
        """Take the leaves out of a message."""
        for leaf in self.leaves:
            value = leaf.value(message, self.images)
            if not self.plan and self.seen > 1 and not np.array_equal(self.values[leaf.path][0], value):
                raise SourceError(
                    f"{leaf.path} is not the same in every message, as '{self.stream.name}' = 'once' says; "
                    "'hold' is for values that change",
                    reason="not_once",
                )
            if isinstance(value, bytes):
                self._grow(leaf, len(value))
            self.values[leaf.path][self.row] = value

    def _grow(self, leaf: Leaf, size: int) -> None:
        self.sizes[leaf.path] += size
        if self.sizes[leaf.path] > LIMIT:
            fix = "encode them as 'jpeg 90' (source.images), or leave" if leaf.form == "image" else "leave"
            message = f"{leaf.path}: more than {LIMIT} bytes in one episode; {fix} it out with source.ignore"
            raise SourceError(message, reason="too_large")

    def give(self, steps: dict[str, Column], metadata: dict[str, Any]) -> None:
        """Enter a column for each leaf, or a value where there is one for the episode."""
        for leaf in self.leaves:
            values = self.values[leaf.path]
            if leaf.is_empty:
                continue
            if leaf.form == "labels":
                metadata[leaf.path] = list(leaf.words)
            elif not self.plan:
                metadata[leaf.path] = values[0].tolist() if leaf.form == "number" else values[0].decode()
            else:
                steps[leaf.path] = _column(leaf, values, self.plan.choice, is_mixed=self._is_mixed)

    @property
    def _is_mixed(self) -> bool:
        return self.stream.policy in {"linear", "slerp"}


def _column(leaf: Leaf, values: Any, choice: Choice, *, is_mixed: bool) -> Column:
    """Make T values of those of the messages; between floats is mixed, between anything else chosen."""
    rows = np.where(choice.weight > 1 / 2, choice.right, choice.left)
    if leaf.form != "number":
        return [values[row] for row in rows]
    if not is_mixed or np.dtype(leaf.dtype).kind != "f":
        column: Column = values[rows]
        return column
    return clock.slerp(values, choice) if leaf.is_quaternion else clock.linear(values, choice)
