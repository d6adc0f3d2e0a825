"""Choose the steps of an episode, and the messages for each step, from the times of the messages in a bag."""

from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipelines.readers.fields import or_ignore
from pipelines.readers.rosbag import clock
from pipelines.readers.rosbag.bag import Bag
from pipelines.readers.rosbag.clock import NS, Alignment
from pipelines.readers.rosbag.nal import PacketScan
from pipelines.readers.rosbag.publishers import PublisherCheck
from pipelines.readers.rosbag.storage import Channel
from pipelines.readers.rosbag.streams import Stream, decode_parts, has_header, header_stamp, is_read
from pipelines.readers.rosbag.types import MessageTypes
from schemas.declarations.formats import RosbagSource
from schemas.errors import SourceError
from schemas.limits import MAX_STEPS
from schemas.source import Array, Field

MAX_STAMP = 1 << 62  # nanoseconds (146 years); differences of smaller stamps do not overflow
TIMESTAMP = "timestamp"
CLOCK_FIELDS = ("clock.start_ns", "clock.cut_start", "clock.cut_end")


def fields(streams: Sequence[Stream], source: RosbagSource) -> Iterator[Field]:
    """Yield the fields that describe the times of an episode: step times, clock, skews and lags."""
    yield Field(path=TIMESTAMP, kind="number", dtype="float64", doc="seconds since the first step")
    for path in CLOCK_FIELDS:
        yield Field(path=path, kind="number", dtype="int64", per_step=False)
    for stream in streams:
        paths = [f"skew.{stream.path}.max_s", f"skew.{stream.path}.median_s"] if _is_resampled(stream, source) else []
        if has_header(source, stream.topic):
            paths += [f"lag.{stream.path}.median_s", f"lag.{stream.path}.drift_s"]
        for path in paths:
            yield Field(path=path, kind="number", dtype="float64", per_step=False)
        if stream.video:
            yield Field(path=_before_key(stream), kind="number", dtype="int64", per_step=False)


def _before_key(stream: Stream) -> str:
    return f"video.{stream.path}.before_key"


def _is_resampled(stream: Stream, source: RosbagSource) -> bool:
    return not stream.is_once and stream.name != source.clock


@dataclass(slots=True)
class StreamTimes:
    """The times of one stream's messages, in stored order."""

    stamps: Any = field(default_factory=lambda: array("q"))  # nanoseconds
    lags: Any = field(default_factory=lambda: array("q"))  # log time minus stamp, in nanoseconds
    before_key: int = 0  # packets of a video that cannot be decoded; they have no stamp here


@dataclass(frozen=True, slots=True)
class StreamPlan:
    """The messages of a stream that an episode needs, and their alignment with its steps."""

    positions: Array  # [M] positions of the needed messages in the stream
    alignment: Alignment  # its positions count only these M messages
    stamps: Array  # [N] of all messages, in stored order


def read_times(
    bag: Bag, streams: Sequence[Stream], source: RosbagSource, *, topics: Mapping[str, Channel], types: MessageTypes
) -> dict[str, StreamTimes]:
    """Read the time of every message; raise SourceError if there is a stream that the first bag does not have.

    Also raises SourceError if the messages of a stream come from several publishers.
    """
    times = {stream.name: StreamTimes() for stream in streams}
    checks = {stream.name: PublisherCheck(stream.name, stream.identities) for stream in streams}
    scans = {
        stream.name: (stream.video, PacketScan(stream.video.image_format.encoding, stream.video.path))
        for stream in streams
        if stream.video and stream.video.image_format
    }
    plain = {
        stream.name
        for stream in streams
        if stream.name == stream.topic
        and not has_header(source, stream.topic)
        and not (checks[stream.name] or stream.video)
    }
    counts = Counter[str]()
    for message in bag.messages(topics):
        counts[message.topic] += 1
        if message.topic in plain:
            times[message.topic].stamps.append(message.time)
            continue
        for name, part in decode_parts(message, topics, types=types, splits=source.split):
            if name not in times:
                text = f"{name} is not in the first bag; {or_ignore(name)}"
                if is_read(source, name):
                    raise SourceError(text, reason="contradicts_fields")
                continue
            time = header_stamp(part, message.topic) if has_header(source, message.topic) else message.time
            checks[name].add(part)
            if name in scans:
                leaf, scan = scans[name]
                if scan.add(leaf.value(part, source.images)) != "frame":
                    times[name].before_key = scan.before_key
                    continue
            times[name].stamps.append(time)
            times[name].lags.append(message.time - time)
    for leaf, scan in scans.values():
        if not scan.has_key:
            raise SourceError(f"{leaf.path}: no message of the video has a key frame", reason="bad_video")
    bag.check_counts({topic: counts[topic] for topic in topics})
    return times


def plan_steps(
    streams: Sequence[Stream], times: Mapping[str, StreamTimes], source: RosbagSource
) -> tuple[Array, dict[str, StreamPlan], dict[str, Any]]:
    """Return the times of an episode's steps [T], the messages to read for each stream, and the per-episode values."""
    metadata: dict[str, Any] = {}
    orders, stamps, stored = dict[str, Array](), dict[str, Array](), dict[str, Array]()
    for stream in streams:
        stream_times = times[stream.name]
        recorded = np.frombuffer(stream_times.stamps, np.int64) if stream_times.stamps else np.zeros(0, np.int64)
        if has_header(source, stream.topic):
            metadata |= _lag(stream.path, np.frombuffer(stream_times.lags, np.int64))
        if stream.is_once:
            continue
        if (np.abs(recorded) > MAX_STAMP).any():
            raise SourceError(f"{stream.name}: a stamp is more than {MAX_STAMP} ns from 1970", reason="bad_timestamps")
        stored[stream.name] = recorded
        if stream.video:  # the decoder returns the frames in the order of their times
            metadata[_before_key(stream)] = stream_times.before_key
            recorded = np.sort(recorded)
        try:
            orders[stream.name] = clock.stamp_order(recorded, source.disorder)
        except SourceError as error:
            raise error.at(prefix=stream.name) from error
        stamps[stream.name] = recorded[orders[stream.name]]
    steps, cut = _covered_steps([stream for stream in streams if not stream.is_once], stamps, source)
    metadata |= dict(zip(CLOCK_FIELDS, (int(steps[0]), *cut), strict=True))
    plans = {}
    for stream in streams:
        if stream.is_once:
            continue
        alignment = clock.align(stamps[stream.name], steps, stream.policy)
        if _is_resampled(stream, source):
            metadata |= _skew(stream, alignment.skew, source)
        used = np.unique(np.concatenate([alignment.left, alignment.right]))
        plans[stream.name] = StreamPlan(orders[stream.name][used], alignment.restricted(used), stored[stream.name])
    return steps, plans, metadata


def _covered_steps(
    streams: Sequence[Stream], stamps: Mapping[str, Array], source: RosbagSource
) -> tuple[Array, tuple[int, int]]:
    """Return the clock's steps at which every topic has a value, and how many steps are cut off at start and end."""
    if not streams:
        message = (
            "every topic has one value per episode, so there are no steps: read one with 'nearest' (source.topics)"
        )
        raise SourceError(message, reason="no_clock")
    if isinstance(source.clock, str):
        steps = stamps[source.clock]
    else:
        hz = source.clock or 0.0
        start = min((times[0] for times in stamps.values() if len(times)), default=0)
        end = max((times[-1] for times in stamps.values() if len(times)), default=-1)
        if (end - start) / NS * hz > MAX_STEPS:
            raise SourceError(f"more than {MAX_STEPS} steps at {hz:g} Hz", reason="too_large")
        latest = max((times[0] for times in stamps.values() if len(times)), default=0)
        steps = clock.ticks(int(latest), int(end), hz)
    is_covered = np.ones(len(steps), bool)
    for stream in streams:
        is_covered &= clock.coverage(stamps[stream.name], steps, stream.policy)
    if not is_covered.any():
        spans = [(stream.name, stamps[stream.name]) for stream in streams]
        latest_name, latest_times = max(spans, key=lambda span: span[1][0] if len(span[1]) else np.inf)
        first_name, first_times = min(spans, key=lambda span: span[1][-1] if len(span[1]) else -np.inf)
        ends = f"{first_name} ends {(latest_times[0] - first_times[-1]) / NS:g} s before {latest_name} begins"
        fix = f"declare a topic with one value per bag as source.topics = {{ '{first_name}' = 'once' }}"
        if len(first_times) > 1:
            fix = "they were not recorded at the same time"
        raise SourceError(
            f"no step of the clock has values from all topics: {ends}; {fix}; 'hold' repeats a topic's last value, "
            "which is right only for commands that stay valid",
            reason="no_overlap",
        )
    positions = np.flatnonzero(is_covered)
    return steps[is_covered], (int(positions[0]), int(len(steps) - 1 - positions[-1]))


def _skew(stream: Stream, skew: Array, source: RosbagSource) -> dict[str, float]:
    largest = float(skew.max())
    limit = source.max_skew
    if limit is not None and largest > limit:
        step = int(skew.argmax())
        message = f"{stream.name}: the message for step {step} is {largest:g} s away; source.max_skew is {limit:g} s"
        raise SourceError(message, reason="skew")
    return {f"skew.{stream.path}.max_s": largest, f"skew.{stream.path}.median_s": float(np.median(skew))}


def _lag(path: str, lags: Array) -> dict[str, float]:
    """Return the median delay from stamp to log time, and by how much the second half's median exceeds the first's."""
    half = max(len(lags) // 2, 1)
    drift = float(np.median(lags[-half:]) - np.median(lags[:half])) if len(lags) else 0.0
    return {f"lag.{path}.median_s": float(np.median(lags)) / NS, f"lag.{path}.drift_s": drift / NS}
