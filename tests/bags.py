"""ROS bags for tests, written with the libraries rosbags and mcap."""

import json
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

START = 1_700_000_000_000_000_000  # nanoseconds
MS = 1_000_000
TOY = {"toy_msgs/msg/Floats": "float32[] data", "toy_msgs/msg/Doubles": "float64[] data"}


class Said(NamedTuple):
    """One message: its topic, its content, and its time in milliseconds after `START`."""

    topic: str
    message: Any
    ms: float


def types(more: Mapping[str, str] | None = None) -> Any:
    return _types(tuple((more or {}).items()))


@cache
def _types(more: tuple[tuple[str, str], ...]) -> Any:
    from rosbags.typesys import Stores, get_types_from_msg, get_typestore

    store = get_typestore(Stores.ROS2_HUMBLE)
    for name, text in (*TOY.items(), *more):
        store.register(get_types_from_msg(text, name))
    return store


def msg(kind: str, /, *, ms: float | None = None, more: Mapping[str, str] | None = None, **fields: Any) -> Any:
    """Create a message; with `ms`, it has a header with a stamp that many milliseconds after `START`."""
    made = types(more).types[kind.replace("/", "/msg/")]
    return made(**({"header": header(ms)} if ms is not None else {}), **fields)


def header(ms: float = 0, frame: str = "base") -> Any:
    known = types().types
    time = START + round(ms * MS)
    stamp = known["builtin_interfaces/msg/Time"](sec=time // 10**9, nanosec=time % 10**9)
    return known["std_msgs/msg/Header"](stamp=stamp, frame_id=frame)


def joints(ms: float, position: Iterable[float], names: Iterable[str] = ("a", "b")) -> Any:
    numbers = np.asarray([*position], float)
    empty = np.zeros(0)
    return msg("sensor_msgs/JointState", ms=ms, name=[*names], position=numbers, velocity=empty, effort=empty)


def text(data: str) -> Any:
    return msg("std_msgs/String", data=data)


def twist(x: float) -> Any:
    known = types().types
    vector = known["geometry_msgs/msg/Vector3"]
    return known["geometry_msgs/msg/Twist"](linear=vector(x, 0.0, 0.0), angular=vector(0.0, 0.0, -x))


def pose(ms: float, xyz: Iterable[float], xyzw: Iterable[float]) -> Any:
    known = types().types
    held = known["geometry_msgs/msg/Pose"](
        position=known["geometry_msgs/msg/Point"](*map(float, xyz)),
        orientation=known["geometry_msgs/msg/Quaternion"](*map(float, xyzw)),
    )
    return msg("geometry_msgs/PoseStamped", ms=ms, pose=held)


def image(ms: float, pixels: Any, encoding: str, **changes: Any) -> Any:
    data = np.ascontiguousarray(pixels)
    held = {
        "height": data.shape[0],
        "width": data.shape[1],
        "encoding": encoding,
        "is_bigendian": 0,
        "step": data.strides[0],
        "data": np.frombuffer(data.tobytes(), np.uint8),
    }
    return msg("sensor_msgs/Image", ms=ms, **{**held, **changes})


def compressed(ms: float, data: bytes, form: str = "jpeg") -> Any:
    return msg("sensor_msgs/CompressedImage", ms=ms, format=form, data=np.frombuffer(data, np.uint8))


def transform(ms: float, child: str, x: float) -> Any:
    known = types().types
    vector, turn = known["geometry_msgs/msg/Vector3"], known["geometry_msgs/msg/Quaternion"]
    held = known["geometry_msgs/msg/Transform"](vector(x, 0.0, 0.0), turn(0.0, 0.0, 0.0, 1.0))
    return known["geometry_msgs/msg/TransformStamped"](header(ms), child, held)


def transforms(*held: Any) -> Any:
    return msg("tf2_msgs/TFMessage", transforms=[*held])


def write_bag(
    folder: Path,
    said: Iterable[Said],
    *,
    storage: str = "mcap",
    more: Mapping[str, str] | None = None,
    compression: str = "",
) -> Path:
    """Write a rosbag2 with `metadata.yaml`; topics are in the order of their first messages."""
    from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer

    store = types(more)
    folder.parent.mkdir(parents=True, exist_ok=True)
    plugin = {"mcap": StoragePlugin.MCAP, "sqlite3": StoragePlugin.SQLITE3}[storage]
    writer = Writer(folder, version=9, storage_plugin=plugin)
    if compression:
        writer.set_compression(CompressionMode[compression.upper()], CompressionFormat.ZSTD)
    with writer:
        known: dict[tuple[str, str], Any] = {}
        for topic, message, ms in said:
            kind = message.__msgtype__
            if (topic, kind) not in known:
                known[topic, kind] = writer.add_connection(topic, kind, typestore=store)
            data = store.serialize_cdr(message, kind)
            writer.write(known[topic, kind], START + round(ms * MS), data)
    return folder


def write_mcap(
    file: Path, said: Iterable[Said], *, more: Mapping[str, str] | None = None, finish: bool = True, **options: Any
) -> Path:
    """Write a plain MCAP file, including its schemas, with the library mcap."""
    from mcap.writer import Writer

    store = types(more)
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("wb") as out:
        writer = Writer(out, **options)
        writer.start(profile="ros2")
        known: dict[tuple[str, str], int] = {}
        for topic, message, ms in said:
            kind = message.__msgtype__
            if (topic, kind) not in known:
                definition, _ = store.generate_msgdef(kind, ros_version=2)
                schema = writer.register_schema(kind, "ros2msg", definition.encode())
                known[topic, kind] = writer.register_channel(topic, "cdr", schema)
            time = START + round(ms * MS)
            writer.add_message(known[topic, kind], time, bytes(store.serialize_cdr(message, kind)), time)
        if finish:
            writer.finish()
    return file


def write_json(file: Path, schemas: Mapping[str, tuple[str, Any]], said: Iterable[Said]) -> Path:
    """Write an MCAP file of JSON messages; `schemas` has the name and the schema of each topic."""
    from mcap.writer import Writer

    with file.open("wb") as out:
        writer = Writer(out)
        writer.start()
        known = {}
        for topic, (name, schema) in schemas.items():
            id_ = writer.register_schema(name, "jsonschema", json.dumps(schema).encode())
            known[topic] = writer.register_channel(topic, "json", id_)
        for topic, message, ms in said:
            time = START + round(ms * MS)
            writer.add_message(known[topic], time, json.dumps(message).encode(), time)
        writer.finish()
    return file


def write_bag1(file: Path, said: Iterable[Said], *, compression: str = "") -> Path:
    """Write a ROS 1 bag."""
    from rosbags.rosbag1 import Writer

    store = types()
    file.parent.mkdir(parents=True, exist_ok=True)
    writer = Writer(file)
    if compression:
        writer.set_compression(Writer.CompressionFormat[compression.upper()])
    with writer:
        known: dict[str, Any] = {}
        for topic, message, ms in said:
            kind = message.__msgtype__
            if topic not in known:
                known[topic] = writer.add_connection(topic, kind, typestore=store)
            writer.write(known[topic], START + round(ms * MS), store.serialize_ros1(message, kind))
    return file
