"""Guess how to read a bag that has no declaration; the description of the source contains the guess."""

from collections import Counter

from pipelines.readers.rosbag.bag import Bag
from pipelines.readers.rosbag.images import TYPES
from pipelines.readers.rosbag.streams import TRANSFORMS, describe_streams, is_read
from pipelines.readers.rosbag.types import type_name
from schemas.declarations.formats import RosbagSource
from schemas.errors import SourceError

LOGS = ("/rosout", "/rosout_agg", "/parameter_events", "/diagnostics")  # ROS's own messages
DISTRO = "humble"  # for bags without type definitions; common types hardly differ between distributions


def guess_source(bag: Bag) -> RosbagSource:
    """Guess the clock and which topics have one message per bag; topics that cannot be read are ignored.

    The clock is the camera with the fewest messages, or, if there are no cameras, the topic with the most messages.
    """
    logs = tuple(name for name in LOGS if name in bag.topics())
    source = RosbagSource.model_construct(
        format="rosbag", ignore=logs
    )  # not validated, because the clock, which is required, is not known yet
    if any(not channel.definition.form for channel in bag.channels if is_read(source, channel.topic) and channel.count):
        source = source.model_copy(update={"ros": DISTRO})
    topics = {name: channel for name, channel in bag.topics().items() if is_read(source, name) and channel.count}
    failures = {name: error for name in topics if (error := _read_error(bag, name, source))}
    if failures.keys() == topics.keys():
        raise next(iter(failures.values()), SourceError("the bag has no messages", reason="no_clock"))
    topics = {name: channel for name, channel in topics.items() if name not in failures}
    counts = Counter(
        {name: channel.count or 0 for name, channel in topics.items() if type_name(channel) not in TRANSFORMS}
    )
    cameras = [name for name in sorted(counts) if type_name(topics[name]) in TYPES]
    clock = min(cameras, key=counts.__getitem__) if cameras else max(sorted(counts), key=counts.__getitem__, default="")
    if not clock:
        raise SourceError(
            "the bag has only transforms: declare a clock in Hz, such as source.clock = 20", reason="no_clock"
        )
    once = {name: "once" for name, count in counts.items() if count == 1 and counts[clock] > 1}
    once |= {name: "once" for name in topics if name.rpartition("/")[2] == "tf_static"}
    return source.model_copy(update={"clock": clock, "topics": once, "ignore": (*logs, *sorted(failures))})


def _read_error(bag: Bag, topic: str, source: RosbagSource) -> SourceError | None:
    """Return the error that reading a topic's first message raises; None if it can be read."""
    try:
        describe_streams(bag, source.model_copy(update={"only": (topic,)}))
    except SourceError as error:
        return error
    return None
