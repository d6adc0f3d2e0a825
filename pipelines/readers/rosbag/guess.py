"""Guess how to read a bag that has no declaration, and say what each guess rests on."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from pipelines.readers.rosbag.bag import Bag
from pipelines.readers.rosbag.images import is_camera
from pipelines.readers.rosbag.storage import Channel
from pipelines.readers.rosbag.streams import LOGS, TRANSFORMS, describe_streams, is_read
from pipelines.readers.rosbag.types import type_name
from schemas.declarations.formats import RosbagSource
from schemas.errors import SourceError

DISTRO = "humble"  # for bags without type definitions; common types hardly differ between distributions


@dataclass(frozen=True, slots=True)
class BagGuess:
    """A guessed declaration."""

    source: RosbagSource
    evidence: Mapping[str, str]  # by key of `source`: the guessed value, and why


def guess_source(bag: Bag) -> BagGuess:
    """Guess the clock and which topics have one message per bag; topics that cannot be read are ignored.

    The clock is the camera with the fewest messages, or, if there are no cameras, the topic with the most messages.
    """
    logs = tuple(name for name in LOGS if name in bag.topics())
    source = RosbagSource.model_construct(
        format="rosbag", ignore=logs
    )  # not validated, because the clock, which is required, is not known yet
    evidence = {}
    if any(not channel.definition.form for channel in bag.channels if is_read(source, channel.topic) and channel.count):
        source = source.model_copy(update={"ros": DISTRO})
        evidence["ros"] = f"'{DISTRO}', because the bag does not define all of its types"
    topics = {name: channel for name, channel in bag.topics().items() if is_read(source, name) and channel.count}
    if not topics:
        raise _nothing_read(bag)
    failures = {name: error for name in topics if (error := _read_error(bag, name, source))}
    if failures.keys() == topics.keys():
        raise next(iter(failures.values()))
    topics = {name: channel for name, channel in topics.items() if name not in failures}
    clock, evidence["clock"] = _clock(topics)
    once = [name for name, channel in topics.items() if _is_once(name, channel, of=topics[clock])]
    if once:
        evidence["topics"] = f"{once} = 'once', because each has one message or holds static transforms"
    if reasons := [
        *(f"'{name}', which is a log of ROS" for name in logs if bag.topics()[name].count),
        *(f"'{name}', which cannot be read ({failures[name].message.partition(';')[0]})" for name in sorted(failures)),
    ]:
        evidence["ignore"] = ", ".join(reasons)
    keys = {"clock": clock, "topics": dict.fromkeys(once, "once"), "ignore": (*logs, *sorted(failures))}
    return BagGuess(source.model_copy(update=keys), evidence)


def _clock(topics: Mapping[str, Channel]) -> tuple[str, str]:
    """Return the topic to use as the clock, and why."""
    counts = Counter(
        {name: channel.count or 0 for name, channel in topics.items() if type_name(channel) not in TRANSFORMS}
    )
    cameras = [name for name in sorted(counts) if is_camera(type_name(topics[name]))]
    if cameras:
        clock = min(cameras, key=counts.__getitem__)
        return clock, f"'{clock}', the camera with the fewest messages ({counts[clock]} in the first bag)"
    if counts:
        clock = max(sorted(counts), key=counts.__getitem__)
        return clock, f"'{clock}', the topic with the most messages ({counts[clock]} in the first bag)"
    raise SourceError(
        f"the bag has only transforms ({', '.join(sorted(topics))}): declare a clock in Hz, such as source.clock = 20",
        reason="no_clock",
    )


def _is_once(name: str, channel: Channel, *, of: Channel) -> bool:
    if type_name(channel) in TRANSFORMS:
        return name.rpartition("/")[2] == "tf_static"
    return channel.count == 1 and (of.count or 0) > 1


def _nothing_read(bag: Bag) -> SourceError:
    """Return the error for a bag whose topics are all empty or logs."""
    counts = {name: channel.count for name, channel in bag.topics().items() if channel.count}
    if not counts:
        return SourceError("the bag has no messages", reason="no_clock")
    listed = ", ".join(f"{name} ({count})" for name, count in sorted(counts.items()))
    most = max(sorted(counts), key=lambda name: counts[name] or 0)
    message = f"the bag has messages only on {listed}, which are not read by default: ROS writes them about itself"
    return SourceError(f"{message}; to read them, declare source.clock = '{most}'", reason="no_clock")


def _read_error(bag: Bag, topic: str, source: RosbagSource) -> SourceError | None:
    """Return the error that reading a topic's first message raises; None if it can be read."""
    try:
        describe_streams(bag, source.model_copy(update={"only": (topic,)}))
    except SourceError as error:
        return error
    return None
