"""A guess at how a bag is to be read, for `inspect`: what was guessed stands in the description of the source."""

from collections import Counter

from pipelines.readers.rosbag.bag import Bag
from pipelines.readers.rosbag.images import TYPES
from pipelines.readers.rosbag.streams import TRANSFORMS, first_streams, is_read
from pipelines.readers.rosbag.types import type_name
from schemas.declarations.formats import RosbagSource
from schemas.errors import SourceError

LOGS = ("/rosout", "/rosout_agg", "/parameter_events", "/diagnostics")  # what ROS says of itself
DISTRO = "humble"  # where the bag does not define its messages; those in common use differ little


def guessed(bag: Bag) -> RosbagSource:
    """Guess a clock, which topics hold one message for the whole bag, and leave out what cannot be read.

    The clock is the camera with the fewest messages; without a camera, the topic with the most.
    """
    logs = tuple(name for name in LOGS if name in bag.topics())
    source = RosbagSource.model_construct(format="rosbag", ignore=logs)  # as no declaration may be: without a clock
    if any(not c.definition.form for c in bag.channels if is_read(source, c.topic) and c.count):
        source = source.model_copy(update={"ros": DISTRO})
    topics = {name: channel for name, channel in bag.topics().items() if is_read(source, name) and channel.count}
    failures = {name: error for name in topics if (error := _why_not(bag, name, source))}
    if failures.keys() == topics.keys():
        raise next(iter(failures.values()), SourceError("the bag has no messages", reason="no_clock"))
    topics = {name: channel for name, channel in topics.items() if name not in failures}
    counts = Counter(
        {name: channel.count or 0 for name, channel in topics.items() if type_name(channel) not in TRANSFORMS}
    )
    cameras = [name for name in sorted(counts) if type_name(topics[name]) in TYPES]
    clock = min(cameras, key=counts.__getitem__) if cameras else max(sorted(counts), key=counts.__getitem__, default="")
    if not clock:
        raise SourceError("nothing but transforms: declare a clock in Hz, source.clock = 20", reason="no_clock")
    once = {name: "once" for name, count in counts.items() if count == 1 and counts[clock] > 1}
    once |= {name: "once" for name in topics if name.rpartition("/")[2] == "tf_static"}
    return source.model_copy(update={"clock": clock, "topics": once, "ignore": (*logs, *sorted(failures))})


def _why_not(bag: Bag, topic: str, source: RosbagSource) -> SourceError | None:
    """Say why a topic cannot be read, judged by its first message."""
    try:
        first_streams(bag, source.model_copy(update={"only": (topic,)}))
    except SourceError as error:
        return error
    return None
