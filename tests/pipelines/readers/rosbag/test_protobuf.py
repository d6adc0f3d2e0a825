"""Protobuf messages in MCAP, written with Google's library: numbers, lists, nested messages, images and video."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from schemas.errors import SourceError
from tests.bags import MS, START
from tests.pipelines.readers.rosbag.test_reader import episode, failure, numbers, opened
from tests.pipelines.readers.rosbag.test_video import packets, shades
from tests.pipelines.toy import jpeg

pytest.importorskip("google.protobuf", reason="the extra 'mcap'")
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

F = descriptor_pb2.FieldDescriptorProto
KINDS = {
    "double": F.TYPE_DOUBLE,
    "float": F.TYPE_FLOAT,
    "int32": F.TYPE_INT32,
    "int64": F.TYPE_INT64,
    "uint64": F.TYPE_UINT64,
    "sint32": F.TYPE_SINT32,
    "sint64": F.TYPE_SINT64,
    "fixed32": F.TYPE_FIXED32,
    "sfixed64": F.TYPE_SFIXED64,
    "bool": F.TYPE_BOOL,
    "string": F.TYPE_STRING,
    "bytes": F.TYPE_BYTES,
}
Fields = Mapping[str, str]  # name -> type; [] after it for a list


def schema(types: Mapping[str, Fields]) -> Any:
    """Return a set of one file; the types are in the package `lab`."""
    file = descriptor_pb2.FileDescriptorProto(name="lab.proto", package="lab", syntax="proto3")
    for name, fields in types.items():
        message = file.message_type.add(name=name)
        for number, (word, kind) in enumerate(fields.items(), 1):
            plain = kind.removesuffix("[]")
            label = F.LABEL_REPEATED if kind != plain else F.LABEL_OPTIONAL
            field = message.field.add(name=word, number=number, label=label, type=KINDS.get(plain, F.TYPE_MESSAGE))
            if plain not in KINDS:
                field.type_name = f".lab.{plain}"
    return descriptor_pb2.FileDescriptorSet(file=[file])


def write(
    file: Path, types: Mapping[str, Fields], topics: Mapping[str, str], said: Sequence[tuple[str, Any, float]]
) -> Path:
    """Write messages, given as dictionaries, with their times in milliseconds."""
    from google.protobuf.json_format import ParseDict
    from mcap.writer import Writer

    described = schema(types)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(described.file[0])
    made = {n: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"lab.{n}")) for n in types}
    with file.open("wb") as out:
        writer = Writer(out)
        writer.start()
        known = {}
        for topic, name in topics.items():
            id_ = writer.register_schema(f"lab.{name}", "protobuf", described.SerializeToString())
            known[topic] = writer.register_channel(topic, "protobuf", id_)
        for topic, content, ms in said:
            data = ParseDict(content, made[topics[topic]]()).SerializeToString()
            writer.add_message(known[topic], START + round(ms * MS), data, START + round(ms * MS))
        writer.finish()
    return file


def encoded(data: bytes) -> str:
    import base64

    return base64.b64encode(data).decode()


def test_numbers_of_every_type_lists_and_nested_messages(tmp_path: Path) -> None:
    numbers_of = {word: word for word in KINDS if word not in {"string", "bytes"}}
    types: dict[str, Fields] = {
        "Point": {"x": "double", "y": "double", "z": "double"},
        "All": {**numbers_of, "q": "float[]", "ticks": "sint32[]", "hand": "Point", "note": "string", "code": "bytes"},
    }
    random_ = np.random.default_rng(0)
    said = []
    for i in range(4):
        values: dict[str, Any] = {word: int(random_.integers(0, 1 << 20)) for word in numbers_of}
        values |= {word: -values[word] for word in ("int32", "int64", "sint32", "sint64", "sfixed64")}
        values |= {"double": i / 3, "float": i / 4, "bool": i % 2 == 1, "q": [i, i + 0.5], "ticks": [-i, i]}
        values |= {"hand": {"x": i, "z": -i}, "note": "go", "code": encoded(bytes([i, 255]))}
        said.append(("/all", values, 10 * i))
    value = episode(write(tmp_path / "x.mcap", types, {"/all": "All"}, said), clock="/all")
    for word in numbers_of:
        assert numbers(value, f"all.{word}") == [content[word] for _, content, _ in said], word
    assert numbers(value, "all.q") == [[i, i + 0.5] for i in range(4)]
    assert numbers(value, "all.ticks") == [[-i, i] for i in range(4)]
    assert numbers(value, "all.hand") == [[i, 0, -i] for i in range(4)]
    assert numbers(value, "all.code") == [[i, 255] for i in range(4)]
    assert list(value.steps["all.note"]) == [b"go"] * 4


def test_lists_of_messages_and_two_arms_on_one_topic(tmp_path: Path) -> None:
    types: dict[str, Fields] = {"Joint": {"name": "string", "angle": "double"}, "Arm": {"joints": "Joint[]"}}
    said = []
    for i in range(4):
        for at, names in enumerate(("ab", "cd")):
            joints = [{"name": name, "angle": i + 100.0 * at} for name in names]
            said.append(("/arm", {"joints": joints}, 10 * i + at))
    file = write(tmp_path / "x.mcap", types, {"/arm": "Arm"}, said)
    for ignore in ([], ["arm.joints.name"]):
        assert "several publishers share /arm" in failure(file, clock="/arm", ignore=ignore).detail
    value = episode(file, clock="/arm/l", split={"arm.joints.name": {"l": ["a", "b"], "r": ["c", "d"]}})
    assert numbers(value, "arm.l.joints.angle") == [[i, i] for i in range(1, 4)]


VIDEO: dict[str, Fields] = {
    "Time": {"seconds": "int64", "nanos": "int32"},
    "CompressedVideo": {"timestamp": "Time", "frame_id": "string", "data": "bytes", "format": "string"},
    "State": {"q": "double[]"},
}


@pytest.mark.parametrize("b_frames", [0, 2])
@pytest.mark.parametrize("codec", ["h264", "h265"])
def test_video(tmp_path: Path, codec: str, b_frames: int) -> None:
    said: list[tuple[str, Any, float]] = []
    for i, packet in enumerate(packets(codec, b_frames=b_frames)):
        said.append(("/cam", {"timestamp": {"nanos": i}, "data": encoded(packet.data), "format": codec}, 10 * i))
        said.append(("/q", {"q": [i]}, 10 * i + 2))
    file = write(tmp_path / "x.mcap", VIDEO, {"/cam": "CompressedVideo", "/q": "State"}, said)
    assert shades(episode(file, clock="/q")) == list(range(11))
    other = [(topic, {**content, "format": "vp9"} if topic == "/cam" else content, ms) for topic, content, ms in said]
    with pytest.raises(SourceError, match="vp9 video in messages is not read"):
        opened(write(tmp_path / "y.mcap", VIDEO, {"/cam": "CompressedVideo", "/q": "State"}, other), clock="/q")


def test_images_in_foxgloves_type(tmp_path: Path) -> None:
    from mcap.writer import Writer

    described = schema({"CompressedImage": {"data": "bytes", "format": "string"}})
    described.file[0].package = "foxglove"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(described.file[0])
    made: Any = message_factory.GetMessageClass(pool.FindMessageTypeByName("foxglove.CompressedImage"))
    with (tmp_path / "x.mcap").open("wb") as out:
        writer = Writer(out)
        writer.start()
        id_ = writer.register_schema("foxglove.CompressedImage", "protobuf", described.SerializeToString())
        channel = writer.register_channel("/rgb", "protobuf", id_)
        for i in range(3):
            data = made(data=jpeg(i), format="jpeg").SerializeToString()
            writer.add_message(channel, START + i * MS, data, START + i * MS)
        writer.finish()
    assert list(episode(tmp_path / "x.mcap", clock="/rgb").steps["rgb"]) == [jpeg(i) for i in range(3)]


@pytest.mark.parametrize("kind", ["Node", "Node[]"])
def test_types_that_contain_themselves_are_refused(tmp_path: Path, kind: str) -> None:
    types: dict[str, Fields] = {"Node": {"left": kind, "right": kind, "x": "double"}}
    with pytest.raises(SourceError, match=r"lab.Node contains itself") as caught:
        opened(write(tmp_path / "x.mcap", types, {"/x": "Node"}, [("/x", {"x": 1}, 0)]), clock="/x")
    assert caught.value.reason == "no_definition"


@pytest.mark.parametrize("damage", ["schema", "empty", "type", "message"])
def test_damage_is_an_error_with_a_reason(tmp_path: Path, damage: str) -> None:
    from mcap.writer import Writer

    text = schema({"State": {"q": "double[]"}}).SerializeToString()
    text = {"schema": text[:-3], "empty": b""}.get(damage, text)
    with (tmp_path / "x.mcap").open("wb") as out:
        writer = Writer(out)
        writer.start()
        id_ = writer.register_schema("lab.Other" if damage == "type" else "lab.State", "protobuf", text)
        channel = writer.register_channel("/x", "protobuf", id_)
        writer.add_message(channel, START, b"\x0a\x09\0" if damage == "message" else b"", START)
        writer.finish()
    with pytest.raises(SourceError) as caught:
        opened(tmp_path / "x.mcap", clock="/x")
    assert caught.value.reason == ("malformed_message" if damage == "message" else "no_definition")


def record(file: Path, name: str, described: Any, messages: Sequence[bytes]) -> Path:
    """Write encoded messages to the topic /x, 10 ms apart."""
    from mcap.writer import Writer

    with file.open("wb") as out:
        writer = Writer(out)
        writer.start()
        channel = writer.register_channel(
            "/x", "protobuf", writer.register_schema(name, "protobuf", described.SerializeToString())
        )
        for i, data in enumerate(messages):
            writer.add_message(channel, START + 10 * i * MS, data, START + 10 * i * MS)
        writer.finish()
    return file


def test_a_map_is_a_list_of_entries_in_the_order_that_is_stored(tmp_path: Path) -> None:
    described = schema({"Arm": {"joints": "Arm.JointsEntry[]"}})
    entry = described.file[0].message_type[0].nested_type.add(name="JointsEntry")
    entry.field.add(name="key", number=1, label=F.LABEL_OPTIONAL, type=F.TYPE_STRING)
    entry.field.add(name="value", number=2, label=F.LABEL_OPTIONAL, type=F.TYPE_DOUBLE)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(described.file[0])
    arm: Any = message_factory.GetMessageClass(pool.FindMessageTypeByName("lab.Arm"))
    names = ["shoulder", "elbow", "wrist", "j10", "j2", "a"]
    joints = [[{"key": name, "value": i + at} for at, name in enumerate(names)] for i in range(3)]
    messages = [arm(joints=entries).SerializeToString() for entries in joints]
    entry.options.map_entry = True
    value = episode(record(tmp_path / "x.mcap", "lab.Arm", described, messages), clock="/x")
    assert value.metadata["x.joints.key"] == names
    assert numbers(value, "x.joints.value") == [[i + at for at in range(6)] for i in range(3)]


def test_files_of_a_schema_may_have_any_order_but_must_be_complete(tmp_path: Path) -> None:
    described = schema({"State": {"hand": "Hand"}})
    described.file[0].dependency.append("hand.proto")
    with pytest.raises(SourceError, match=r"protobuf schema of lab.State .*hand.proto") as caught:
        opened(record(tmp_path / "x.mcap", "lab.State", described, [b""]), clock="/x")
    assert caught.value.reason == "no_definition"
    described.file.append(schema({"Hand": {"q": "double"}}).file[0])
    described.file[1].name = "hand.proto"
    assert numbers(episode(record(tmp_path / "y.mcap", "lab.State", described, [b""]), clock="/x"), "x.hand.q") == [0]
    described.file[1].name = "lab.proto"
    with pytest.raises(SourceError, match="two files have the same name"):
        opened(record(tmp_path / "z.mcap", "lab.State", described, [b""]), clock="/x")


@pytest.mark.parametrize("kind", ["double", "double[]", "string", "Inner"])
def test_a_field_stored_in_the_form_of_another_type_is_refused(tmp_path: Path, kind: str) -> None:
    described = schema({"State": {"q": kind}, "Inner": {"x": "double"}})
    with pytest.raises(SourceError, match="field 1 is not stored in the form of its type") as caught:
        opened(record(tmp_path / "x.mcap", "lab.State", described, [b"\x08\x05"]), clock="/x")
    assert caught.value.reason == "malformed_message"


def test_a_value_that_is_not_stored_has_the_default_of_the_schema(tmp_path: Path) -> None:
    described = schema({"State": {"speed": "double", "count": "int32"}})
    described.file[0].syntax = "proto2"
    described.file[0].message_type[0].field[0].default_value = "2.5"
    value = episode(record(tmp_path / "x.mcap", "lab.State", described, [b"", b"\x10\x07"]), clock="/x")
    assert numbers(value, "x.speed") == [2.5, 2.5]
    assert numbers(value, "x.count") == [0, 7]
