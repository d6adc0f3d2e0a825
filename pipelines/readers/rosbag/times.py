"""The times of a bag's messages: which steps an episode has, which message stands for each, and how far off it is."""

from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipelines.readers.rosbag import clock
from pipelines.readers.rosbag.bag import Bag
from pipelines.readers.rosbag.clock import NS, Choice
from pipelines.readers.rosbag.storage import Channel
from pipelines.readers.rosbag.streams import Stream, has_header, is_read, parts, stamp
from pipelines.readers.rosbag.types import Types
from schemas.declarations.formats import RosbagSource
from schemas.errors import SourceError
from schemas.source import Array, Field

FAR = 1 << 62  # nanoseconds, 146 years: differences of stamps must not overflow
MAX_STEPS = 10_000_000
TIMESTAMP = "timestamp"
TIMES = ("clock.start_ns", "clock.cut_start", "clock.cut_end")


def fields(streams: Sequence[Stream], source: RosbagSource) -> Iterator[Field]:
    """Describe what is known of an episode's times."""
    yield Field(path=TIMESTAMP, kind="number", dtype="float64", doc="seconds since the first step")
    for path in TIMES:
        yield Field(path=path, kind="number", dtype="int64", per_step=False)
    for stream in streams:
        named = [f"skew.{stream.path}.max_s", f"skew.{stream.path}.median_s"] if _is_resampled(stream, source) else []
        if has_header(source, stream.topic):
            named += [f"lag.{stream.path}.median_s", f"lag.{stream.path}.drift_s"]
        for path in named:
            yield Field(path=path, kind="number", dtype="float64", per_step=False)


def _is_resampled(stream: Stream, source: RosbagSource) -> bool:
    return not stream.is_once and stream.name != source.clock


@dataclass(slots=True)
class Track:
    """The times of one stream's messages, in the order in which they are stored."""

    stamps: Any = field(default_factory=lambda: array("q"))  # nanoseconds
    lags: Any = field(default_factory=lambda: array("q"))  # log time less stamp


@dataclass(frozen=True, slots=True)
class Plan:
    """Which messages of a stream an episode needs: their places in the bag, and what is made of them."""

    places: Array  # [M] among the stream's messages
    choice: Choice  # among those M


def tracks_of(
    bag: Bag, streams: Sequence[Stream], source: RosbagSource, *, topics: Mapping[str, Channel], types: Types
) -> dict[str, Track]:
    """Read the time of every message."""
    tracks = {stream.name: Track() for stream in streams}
    plain = {stream.name for stream in streams if stream.name == stream.topic and not has_header(source, stream.topic)}
    counts = Counter[str]()
    for message in bag.messages(topics):
        counts[message.topic] += 1
        if message.topic in plain:
            tracks[message.topic].stamps.append(message.time)
            continue
        for name, part in parts(message, topics, types):
            if name not in tracks:
                text = f"{name} is not in the first bag; leave it out with source.ignore = ['{name}']"
                if is_read(source, name):
                    raise SourceError(text, reason="contradicts_fields")
                continue
            time = stamp(part, message.topic) if has_header(source, message.topic) else message.time
            tracks[name].stamps.append(time)
            tracks[name].lags.append(message.time - time)
    bag.check_counts({topic: counts[topic] for topic in topics})
    return tracks


def plans_of(
    streams: Sequence[Stream], tracks: Mapping[str, Track], source: RosbagSource
) -> tuple[Array, dict[str, Plan], dict[str, Any]]:
    """Choose the steps, and for each the messages of every stream."""
    metadata: dict[str, Any] = {}
    orders, stamps = dict[str, Array](), dict[str, Array]()
    for stream in streams:
        track = tracks[stream.name]
        recorded = np.frombuffer(track.stamps, np.int64) if track.stamps else np.zeros(0, np.int64)
        if has_header(source, stream.topic):
            metadata |= _lag(stream.path, np.frombuffer(track.lags, np.int64))
        if stream.is_once:
            continue
        if (np.abs(recorded) > FAR).any():
            raise SourceError(f"{stream.name}: a stamp {FAR} ns or more from 1970", reason="bad_timestamps")
        try:
            orders[stream.name] = clock.in_order(recorded, source.disorder)
        except SourceError as error:
            raise error.at(prefix=stream.name) from error
        stamps[stream.name] = recorded[orders[stream.name]]
    steps, cut = _steps([stream for stream in streams if not stream.is_once], stamps, source)
    metadata |= dict(zip(TIMES, (int(steps[0]), *cut), strict=True))
    plans = {}
    for stream in streams:
        if stream.is_once:
            continue
        choice = clock.choose(stamps[stream.name], steps, stream.policy)
        if _is_resampled(stream, source):
            metadata |= _skew(stream, choice.skew, source)
        used = np.unique(np.concatenate([choice.left, choice.right]))
        plans[stream.name] = Plan(orders[stream.name][used], choice.of(used))
    return steps, plans, metadata


def _steps(
    streams: Sequence[Stream], stamps: Mapping[str, Array], source: RosbagSource
) -> tuple[Array, tuple[int, int]]:
    """Give the clock's steps for which every topic has a value, and how many are cut off before and after."""
    if isinstance(source.clock, str):
        whole = stamps[source.clock]
    else:
        hz = source.clock or 0.0
        start = min((held[0] for held in stamps.values() if len(held)), default=0)
        end = max((held[-1] for held in stamps.values() if len(held)), default=-1)
        if (end - start) / NS * hz > MAX_STEPS:
            raise SourceError(f"more than {MAX_STEPS} steps at {hz:g} Hz", reason="too_large")
        latest = max((held[0] for held in stamps.values() if len(held)), default=0)
        whole = clock.ticks(int(latest), int(end), hz)
    kept = np.ones(len(whole), bool)
    for stream in streams:
        kept &= clock.covered(stamps[stream.name], whole, stream.policy)
    if not kept.any():
        spans = [(stream.name, stamps[stream.name]) for stream in streams]
        latest_name, latest_held = max(spans, key=lambda span: span[1][0] if len(span[1]) else np.inf)
        first_name, first_held = min(spans, key=lambda span: span[1][-1] if len(span[1]) else -np.inf)
        ends = f"{first_name} ends {(latest_held[0] - first_held[-1]) / NS:g} s before {latest_name} begins"
        raise SourceError(
            f"no step of the clock has a value of every topic: {ends}; a topic with one message for the whole bag is "
            f"declared as source.topics = {{ '{first_name}' = 'once' }}, one that changes now and then as 'hold'",
            reason="no_overlap",
        )
    places = np.flatnonzero(kept)
    return whole[kept], (int(places[0]), int(len(whole) - 1 - places[-1]))


def _skew(stream: Stream, skew: Array, source: RosbagSource) -> dict[str, float]:
    largest = float(skew.max())
    limit = source.max_skew
    if limit is not None and largest > limit:
        step = int(skew.argmax())
        message = f"{stream.name}: the message for step {step} is {largest:g} s away; source.max_skew is {limit:g} s"
        raise SourceError(message, reason="skew")
    return {f"skew.{stream.path}.max_s": largest, f"skew.{stream.path}.median_s": float(np.median(skew))}


def _lag(path: str, lags: Array) -> dict[str, float]:
    """Tell how much later messages were logged than stamped, and how that changed from one half to the other."""
    half = max(len(lags) // 2, 1)
    drift = float(np.median(lags[-half:]) - np.median(lags[:half])) if len(lags) else 0.0
    return {f"lag.{path}.median_s": float(np.median(lags)) / NS, f"lag.{path}.drift_s": drift / NS}
