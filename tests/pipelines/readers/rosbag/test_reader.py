"""ROS bags and MCAP files, valid and damaged; every planned bag is one value."""

import base64
import bz2
import io
import re
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from PIL import Image

from pipelines.convert.convert import convert
from pipelines.readers.reader import plan
from pipelines.readers.registry import open_source
from pipelines.verify import verify
from schemas.declarations import catalog
from schemas.errors import SourceError, SpecError, UsageError
from schemas.source import Array, RawEpisode, Unreadable
from schemas.store.dataset import Dataset, open_dataset
from tests import bags
from tests.bags import MS, START, Said
from tests.pipelines.readers.reading import ARM, Opener
from tests.pipelines.toy import jpeg, oxe

pytest.importorskip("rosbags", reason="the extra 'mcap'")
pytest.importorskip("mcap", reason="the extra 'mcap'")
JOINTS, CMD = "/joint_states", "/cmd_vel"
SPEC = f"""
name       = "toy"
timestamp  = "timestamp"
id         = "episode_path"
{ARM}
[action]
joints = "joint_states.position"
"""
KINDS = {
    "mcap": lambda path, said: bags.write_bag(path, said, storage="mcap"),
    "sqlite3": lambda path, said: bags.write_bag(path, said, storage="sqlite3"),
    "plain": lambda path, said: bags.write_mcap(path.with_suffix(".mcap"), said),
    "bag1": lambda path, said: bags.write_bag1(path.with_suffix(".bag"), said),
}


opened = Opener("rosbag")


def arm(steps: int = 5, *, seed: int = 0) -> list[Said]:
    """Record joints at 100 Hz, and commands at 50 Hz that come 2 ms later."""
    said = []
    for i in range(steps):
        said.append(Said(JOINTS, bags.joints(10 * i, [seed + i, -i]), 10 * i))
        if i % 2 == 0:
            said.append(Said(CMD, bags.twist(seed + i), 10 * i + 2))
    return said


def read(uri: Path | str, **layout: Any) -> list[RawEpisode | Unreadable]:
    reader = opened(uri, **{"clock": JOINTS, **layout})
    values = [value for ref in plan(reader.files()) for value in reader.read(ref)]
    assert [value.index for value in values] == list(range(len(reader.files()["train"])))
    return values


def episode(uri: Path | str, **layout: Any) -> RawEpisode:
    (value,) = read(uri, **layout)
    assert isinstance(value, RawEpisode), value
    return value


def failure(uri: Path | str, **layout: Any) -> Unreadable:
    value = read(uri, **layout)[-1]
    assert isinstance(value, Unreadable)
    return value


def numbers(value: RawEpisode, path: str) -> list[Any]:
    listed: list[Any] = np.asarray(value.steps[path]).tolist()
    return listed


def decoded(data: Any) -> Array:
    return np.asarray(Image.open(io.BytesIO(data)))


def converted(folder: Path, uri: Path, source: str, action: str = "joint_states.position") -> Dataset:
    (folder / "toy.toml").write_text(f"source = {source}\n{SPEC.replace('joint_states.position', action)}")
    convert(catalog.dataset(str(folder / "toy.toml")), folder / "out", source=str(uri))
    assert verify(open_dataset(folder / "out"), source=str(uri)).first == []
    return open_dataset(folder / "out")


# --- every storage gives the same episode ---


@pytest.mark.parametrize("kind", KINDS)
def test_every_storage_gives_the_same_episode(tmp_path: Path, kind: str) -> None:
    value = episode(KINDS[kind](tmp_path / "run", arm()))
    assert numbers(value, "timestamp") == [0.0, 0.01, 0.02, 0.03]
    assert numbers(value, "joint_states.position") == [[1, -1], [2, -2], [3, -3], [4, -4]]
    assert numbers(value, "cmd_vel.linear") == [[0, 0, 0], [2, 0, 0], [2, 0, 0], [4, 0, 0]]
    assert numbers(value, "cmd_vel.angular")[3] == [0, 0, -4]
    assert numbers(value, "joint_states.header.stamp.sec") == [START // 10**9] * 4
    assert list(value.steps["joint_states.header.frame_id"]) == [b"base"] * 4
    assert value.metadata["joint_states.name"] == ["a", "b"]
    assert value.metadata["clock.start_ns"] == START + 10 * MS


def test_a_declaration_converts_and_verifies(tmp_path: Path) -> None:
    for i in range(3):
        bags.write_bag(tmp_path / "bags" / f"run_{i + 8}", arm(4 + i, seed=i))
    source = f'{{ format = "rosbag", clock = "{JOINTS}", topics = {{ "{CMD}" = "hold" }}, max_skew = 0.05 }}'
    dataset = converted(tmp_path, tmp_path / "bags", source)
    table = dataset.episodes.collect()
    assert table["id"].to_list() == ["run_8", "run_9", "run_10"]
    assert table["length"].to_list() == [3, 4, 5]
    assert dataset.episode(1).action.tolist() == [[1 + i, -i] for i in range(1, 5)]
    assert table["metadata.skew.cmd_vel.max_s"].to_list() == pytest.approx([0.018] * 3)


def test_a_bag_split_over_files_is_one_episode_with_and_without_its_metadata(tmp_path: Path) -> None:
    said = arm(40)
    folder = tmp_path / "run"
    for number, (start, end) in enumerate([(0, 20), (20, 40), (40, 60)]):
        bags.write_mcap(folder / f"run_{number}.mcap", said[start:end])
    whole = episode(bags.write_mcap(tmp_path / "whole.mcap", said))
    loose = episode(folder)
    assert repr(loose.steps) == repr(whole.steps)
    shutil.copy(metadata_of(folder, tmp_path), folder / "metadata.yaml")
    assert repr(episode(folder).steps) == repr(whole.steps)
    assert len(read(folder, files="*.mcap")) == 3
    assert len(read(folder / "run_1.mcap")) == 1


def metadata_of(folder: Path, tmp_path: Path, *, replace: tuple[str, str] = ("", "")) -> Path:
    """Write the `metadata.yaml` of one bag with all files of a folder."""
    made = bags.write_bag(tmp_path / "other", arm(40)) / "metadata.yaml"
    files = "".join(f"\n  - {file.name}" for file in sorted(folder.glob("*_?.mcap")))
    text = re.sub(r"relative_file_paths:(\n *- .*)+", f"relative_file_paths:{files}", made.read_text())
    (tmp_path / "metadata.yaml").write_text(text.replace(*replace) if replace[0] else text)
    return tmp_path / "metadata.yaml"


def test_bags_are_found_in_folders_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for name in ("day_2/run_10", "day_2/run_9", "day_10/run_1"):
        bags.write_bag(tmp_path / "all" / name, arm())
    found = [value.metadata["episode_path"] for value in read(tmp_path / "all") if isinstance(value, RawEpisode)]
    assert found == ["day_2/run_9", "day_2/run_10", "day_10/run_1"]
    assert len(read(tmp_path / "all", files="day_2/*/metadata.yaml")) == 2


@pytest.mark.parametrize("how", ["file", "message"])
@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_compressed_bags_read_like_plain_ones(tmp_path: Path, storage: str, how: str) -> None:
    plain = episode(bags.write_bag(tmp_path / "plain", arm(), storage=storage))
    packed = episode(bags.write_bag(tmp_path / "packed", arm(), storage=storage, compression=how))
    assert repr(packed.steps) == repr(plain.steps)


@pytest.mark.parametrize("how", ["NONE", "LZ4", "ZSTD"])
@pytest.mark.parametrize("options", [{}, {"use_chunking": False}, {"use_statistics": False}, {"chunk_size": 64}])
def test_mcap_of_any_layout(tmp_path: Path, how: str, options: dict[str, Any]) -> None:
    from mcap.writer import CompressionType

    file = bags.write_mcap(tmp_path / "x.mcap", arm(), compression=CompressionType[how], **options)
    assert numbers(episode(file), "joint_states.position") == [[1, -1], [2, -2], [3, -3], [4, -4]]


@pytest.mark.parametrize("compression", ["bz2", "lz4"])
def test_compressed_ros_1_bags(tmp_path: Path, compression: str) -> None:
    file = bags.write_bag1(tmp_path / "x.bag", arm(), compression=compression)
    assert numbers(episode(file), "joint_states.position") == [[1, -1], [2, -2], [3, -3], [4, -4]]


@pytest.mark.parametrize("kind", KINDS)
def test_memory_reads_like_the_disk(tmp_path: Path, kind: str) -> None:
    path = KINDS[kind](tmp_path / "local" / "run", arm())
    memory = fsspec.filesystem("memory")
    memory.put(str(tmp_path / "local"), "/bags", recursive=True)
    try:
        assert repr(episode(f"memory://bags/{path.name}").steps) == repr(episode(path).steps)
    finally:
        memory.rm("/bags", recursive=True)


# --- clocks and policies ---


def test_a_clock_in_hz_ticks_from_the_last_topic_to_begin_to_the_first_to_end(tmp_path: Path) -> None:
    value = episode(bags.write_bag(tmp_path / "x", arm(11)), clock=200, topics={CMD: "hold"})
    assert numbers(value, "timestamp") == pytest.approx([i / 200 for i in range(20)])
    assert value.metadata["clock.start_ns"] == START + 2 * MS
    assert [held[0] for held in numbers(value, "joint_states.position")][:6] == [0, 1, 1, 2, 2, 3]


def test_policies_choose_what_they_say(tmp_path: Path) -> None:
    bag = bags.write_bag(tmp_path / "x", arm(9))
    found = {
        policy: [held[0] for held in numbers(episode(bag, topics={CMD: policy}), "cmd_vel.linear")]
        for policy in ("nearest", "hold", "linear")
    }
    assert found["nearest"] == [0, 2, 2, 4, 4, 6, 6, 8]
    assert found["hold"] == [0, 0, 2, 2, 4, 4, 6, 6]
    assert found["linear"] == pytest.approx([0.8, 1.8, 2.8, 3.8, 4.8, 5.8, 6.8, 7.8])


def test_poses_turn_with_slerp_and_move_linearly_and_texts_stay(tmp_path: Path) -> None:
    half = np.sqrt(0.5)
    said = [Said(JOINTS, bags.joints(10 * i, [i, i]), 10 * i) for i in range(3)]
    said += [
        Said("/pose", bags.pose(0, [0, 0, 0], [0, 0, 0, 1]), 0),
        Said("/pose", bags.pose(20, [2, 4, 6], [0, 0, half, half]), 20),
    ]
    value = episode(bags.write_bag(tmp_path / "x", said), topics={"/pose": "slerp"})
    assert numbers(value, "pose.pose.position") == [[0, 0, 0], [1, 2, 3], [2, 4, 6]]
    assert np.allclose(numbers(value, "pose.pose.orientation")[1], [0, 0, np.sin(np.pi / 8), np.cos(np.pi / 8)])
    assert numbers(value, "pose.pose.orientation")[2] == [0, 0, half, half]
    assert list(value.steps["pose.header.frame_id"]) == [b"base"] * 3
    with pytest.raises(SpecError, match="contains rotations: use 'slerp'"):
        episode(tmp_path / "x", topics={"/pose": "linear"})
    with pytest.raises(SpecError, match="/cmd_vel = 'slerp', but it contains no quaternion"):
        episode(bags.write_bag(tmp_path / "y", arm(3)), topics={CMD: "slerp"})


def test_skew_is_reported_and_beyond_its_limit_a_quarantine(tmp_path: Path) -> None:
    bag = bags.write_bag(tmp_path / "x", arm(9))
    value = episode(bag)
    assert value.metadata["skew.cmd_vel.max_s"] == pytest.approx(0.008)
    assert value.metadata["skew.cmd_vel.median_s"] == pytest.approx(0.005)
    assert "skew.joint_states.max_s" not in value.metadata
    told = failure(bag, max_skew=0.005)
    assert told.reason == "skew"
    assert "source.max_skew is 0.005 s" in told.detail


def test_steps_without_a_value_of_every_topic_are_cut_off_and_counted(tmp_path: Path) -> None:
    said = [Said(JOINTS, bags.joints(10 * i, [i, i]), 10 * i) for i in range(10)]
    said += [Said(CMD, bags.twist(ms), ms) for ms in (25, 35, 55)]
    bag = bags.write_bag(tmp_path / "x", said)
    for policy, cut in {"nearest": (3, 4), "hold": (3, 0)}.items():
        value = episode(bag, topics={CMD: policy})
        assert (value.metadata["clock.cut_start"], value.metadata["clock.cut_end"]) == cut
        assert len(value.steps["timestamp"]) == 10 - sum(cut)


def test_an_instruction_said_once_is_the_episodes_and_one_said_often_the_steps(tmp_path: Path) -> None:
    said = [Said("/task", bags.text("pick ☂"), 3), *arm()]
    bag = bags.write_bag(tmp_path / "x", said)
    once = failure(bag)
    assert once.reason == "no_overlap"
    assert "'/task' = 'once'" in once.detail
    assert "'hold' repeats a topic's last value, which is right only for commands that stay valid" in once.detail
    assert episode(bag, topics={"/task": "once"}).metadata["task"] == "pick ☂"
    changing = bags.write_bag(tmp_path / "y", [*said, Said("/task", bags.text("place"), 25), *arm()[:0]])
    assert failure(changing, topics={"/task": "once"}).reason == "not_once"
    assert list(episode(changing, topics={"/task": "hold"}).steps["task"]) == ["pick ☂".encode()] * 2 + [b"place"] * 2


def test_header_stamps_where_declared_with_the_lag_of_the_log(tmp_path: Path) -> None:
    said = [Said(JOINTS, bags.joints(10 * i, [i, i]), 10 * i + 5 + i) for i in range(9)]
    said += [Said(CMD, bags.twist(i), 10 * i) for i in range(9)]
    bag = bags.write_bag(tmp_path / "x", sorted(said, key=lambda one: one.ms))
    value = episode(bag, stamp={JOINTS: "header"})
    assert np.diff(np.asarray(value.steps["timestamp"])) == pytest.approx([0.01] * 8)
    assert [held[0] for held in numbers(value, "cmd_vel.linear")] == list(range(9))
    assert value.metadata["lag.joint_states.median_s"] == pytest.approx(0.009)
    assert value.metadata["lag.joint_states.drift_s"] == pytest.approx(0.005)
    told = failure(bag, stamp="header").detail
    assert told.startswith("/cmd_vel has no header.stamp: use the log times of all topics (source.stamp = 'log')")
    assert "or, if the clocks of recorder and sensors agree" in told
    assert np.diff(np.asarray(episode(bag).steps["timestamp"])) == pytest.approx([0.011] * 6)


@pytest.mark.parametrize("times", [[0, 10, 10, 20], [0, 20, 10, 30]])
@pytest.mark.parametrize("kind", ["mcap", "sqlite3", "plain"])
def test_times_that_repeat_or_go_back_are_refused_or_sorted(tmp_path: Path, kind: str, times: list[int]) -> None:
    said = [Said(JOINTS, bags.joints(ms, [i, i]), ms) for i, ms in enumerate(times)]
    path = KINDS[kind](tmp_path / "x", said)
    told = failure(path)
    assert told.reason == "bad_timestamps"
    advice = "sorts them, which is right only if they were logged out of order and no clock was set back"
    if times == [0, 10, 10, 20]:
        advice = "keeps only the last of them, which loses messages if several publishers share the topic"
    assert f"source.disorder = 'sort' {advice}" in told.detail
    value = episode(path, disorder="sort")
    order = sorted({ms: i for i, ms in enumerate(times)}.items())
    assert numbers(value, "joint_states.position") == [[i, i] for _, i in order]
    assert numbers(value, "timestamp") == [ms / 1000 for ms, _ in order]


def test_header_stamps_that_go_back_are_refused(tmp_path: Path) -> None:
    said = [Said(JOINTS, bags.joints(stamp, [0, 0]), 10 * i) for i, stamp in enumerate([0, 10, 5])]
    assert failure(bags.write_bag(tmp_path / "x", said), stamp="header").reason == "bad_timestamps"


# --- messages ---


def test_transforms_are_separate_streams_by_child_frame(tmp_path: Path) -> None:
    said = []
    for i in range(4):
        said.append(Said("/tf", bags.transforms(bags.transform(i, "/hand", i), bags.transform(i, "eye", -i)), 10 * i))
        said.append(Said("/tf", bags.transforms(bags.transform(i, "foot", 5)), 10 * i + 1))
        said.append(Said(JOINTS, bags.joints(i, [i, i]), 10 * i + 2))
    value = episode(bags.write_bag(tmp_path / "x", said), topics={"/tf": "hold"})
    assert [held[0] for held in numbers(value, "tf.hand.transform.translation")] == [0, 1, 2, 3]
    assert [held[0] for held in numbers(value, "tf.eye.transform.translation")] == [0, -1, -2, -3]
    assert numbers(value, "tf.foot.transform.rotation") == [[0, 0, 0, 1]] * 4
    assert "tf.foot.transform.rotation" not in episode(tmp_path / "x", ignore=["tf.foot"], topics={"/tf": "hold"}).steps


PIXELS = np.random.default_rng(0).integers(0, 256, (3, 4, 5, 3), np.uint8)


@pytest.mark.parametrize(
    ("encoding", "frames"),
    [
        ("rgb8", PIXELS),
        ("bgr8", PIXELS[..., ::-1]),
        ("mono8", PIXELS[..., :1]),
        ("16UC1", PIXELS[..., :1].astype(np.uint16) * 200),
    ],
)
def test_raw_images_become_png_without_loss(tmp_path: Path, encoding: str, frames: Array) -> None:
    said = [Said("/camera/image_raw", bags.image(i, frame, encoding), i) for i, frame in enumerate(frames)]
    value = episode(bags.write_bag(tmp_path / "x", said), clock="/camera/image_raw")
    wanted = PIXELS if encoding.endswith("gb8") or encoding == "bgr8" else frames[..., 0]
    found = np.stack([decoded(image) for image in value.steps["camera.image_raw"]])
    assert np.array_equal(found, wanted)
    (field,) = (f for f in opened(tmp_path / "x", clock=1.0).fields if f.path == "camera.image_raw")
    assert field.dtype == ("uint16" if encoding == "16UC1" else "uint8")
    assert "camera.image_raw.encoding" not in value.steps


def test_rows_with_padding_and_big_endian_depth(tmp_path: Path) -> None:
    depth = np.arange(12, dtype=np.uint16).reshape(3, 4) * 1000
    rows = np.zeros((3, 10), np.uint8)
    rows[:, :8] = depth.astype(">u2").view(np.uint8)
    changes = {"step": 10, "is_bigendian": 1, "data": rows.ravel()}
    said = [Said("/depth", bags.image(0, depth, "16UC1", **changes), 0)]
    (image,) = episode(bags.write_bag(tmp_path / "x", said), clock="/depth").steps["depth"]
    assert np.array_equal(decoded(image), depth)


def test_encoded_images_pass_through_and_depth_loses_its_header(tmp_path: Path) -> None:
    out = io.BytesIO()
    Image.fromarray(np.arange(12, dtype=np.uint16).reshape(3, 4)).save(out, "PNG")
    said = [Said("/rgb", bags.compressed(i, jpeg(i)), i) for i in range(3)]
    said += [
        Said("/depth", bags.compressed(i, bytes(12) + out.getvalue(), "16UC1; compressedDepth png"), i)
        for i in range(3)
    ]
    value = episode(bags.write_bag(tmp_path / "x", said), clock="/rgb")
    assert list(value.steps["rgb"]) == [jpeg(i) for i in range(3)]
    assert list(value.steps["depth"]) == [out.getvalue()] * 3


def test_raw_images_become_jpeg_where_declared_and_a_depth_camera_is_one(tmp_path: Path) -> None:
    said = [*arm(3)]
    for i in range(3):
        said.append(Said("/rgb", bags.image(i, np.full((8, 8, 3), 90, np.uint8), "rgb8"), 10 * i))
        said.append(Said("/depth", bags.image(i, np.full((8, 8), 900, np.uint16), "16UC1"), 10 * i))
    bag = bags.write_bag(tmp_path / "x", said)
    dataset = converted(
        tmp_path, bag, f'{{ format = "rosbag", clock = "{JOINTS}", images = "jpeg 95", ignore = ["{CMD}"] }}'
    )
    found = dataset.episode(0)
    assert bytes(found.images["rgb"][0] or b"").startswith(b"\xff\xd8")
    assert decoded(found.depth["depth"][0]).tolist() == [[900] * 8] * 8


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (lambda: bags.image(0, PIXELS[0], "32FC1"), "images encoded as '32FC1'"),
        (lambda: bags.image(0, PIXELS[0], "8UC3"), "known: rgb8, bgr8"),
        (lambda: bags.compressed(0, b"\0\0\0\1x", "h264"), "'h264' are neither JPEG nor PNG"),
    ],
)
def test_images_that_are_not_read_are_refused_until_they_are_left_out(
    tmp_path: Path, message: Callable[[], Any], words: str
) -> None:
    bag = bags.write_bag(tmp_path / "x", [Said("/camera", message(), 0), *arm(3)])
    with pytest.raises(SourceError, match=words) as caught:
        opened(bag, clock=JOINTS)
    assert caught.value.reason == "unsupported_image"
    assert "source.ignore = ['camera']" in str(caught.value)
    assert len(episode(bag, ignore=["/camera"]).steps["timestamp"]) == 2
    assert len(episode(bag, only=[JOINTS, CMD]).steps["timestamp"]) == 2


def test_images_whose_size_is_not_what_they_say_are_quarantined(tmp_path: Path) -> None:
    said = [Said("/rgb", bags.image(i, PIXELS[0], "rgb8", height=4 + 100 * i), i) for i in range(2)]
    assert failure(bags.write_bag(tmp_path / "x", said), clock="/rgb").reason == "bad_image"


def test_an_array_that_changes_its_length_is_quarantined_until_it_is_left_out(tmp_path: Path) -> None:
    said = [Said(JOINTS, bags.joints(0, [1, 2]), 0), Said(JOINTS, bags.joints(10, [1, 2, 3], "ab"), 10)]
    bag = bags.write_bag(tmp_path / "x", said)
    told = failure(bag)
    assert told.reason == "changing_length"
    assert "joint_states.position contains [3] numbers in one message and [2] numbers in the first" in told.detail
    assert "if several publishers share the topic, record each on a topic of its own" in told.detail
    assert "if it is not needed, leave it out with source.ignore = ['joint_states.position']" in told.detail
    assert len(episode(bag, ignore=["joint_states.position"]).steps["timestamp"]) == 2


def test_an_array_of_another_length_between_two_steps_is_noticed(tmp_path: Path) -> None:
    said = [Said("/clock_topic", bags.text("x"), ms) for ms in (0, 10, 20)]
    said += [
        Said("/q", bags.msg("toy_msgs/Doubles", data=np.arange(3.0 + (ms % 10 > 0))), ms) for ms in (0, 4, 10, 14, 20)
    ]
    bag = bags.write_bag(tmp_path / "x", sorted(said, key=lambda one: one.ms))
    told = failure(bag, clock="/clock_topic")
    assert (told.reason, "q contains [4] numbers" in told.detail) == ("changing_length", True)


def test_a_number_that_the_library_cannot_decode_is_refused(tmp_path: Path) -> None:
    from mcap.writer import Writer

    idl = "module lab_msgs { module msg { struct Odd { long double note; double x; }; }; };"
    with (tmp_path / "x.mcap").open("wb") as out:
        writer = Writer(out)
        writer.start()
        channel = writer.register_channel(
            "/odd", "cdr", writer.register_schema("lab_msgs/msg/Odd", "ros2idl", idl.encode())
        )
        writer.add_message(channel, START, b"\0\1\0\0" + bytes(16) + np.float64(1.5).tobytes(), START)
        writer.finish()
    with pytest.raises(
        SourceError, match=r"/odd: a message does not fit the definition of lab_msgs/msg/Odd .*float128"
    ):
        opened(tmp_path / "x.mcap", clock="/odd")


def test_a_type_of_ones_own_is_flattened(tmp_path: Path) -> None:
    more = {
        "lab_msgs/msg/Finger": "float32 force\nstring label",
        "lab_msgs/msg/Hand": "lab_msgs/Finger[2] fingers\nbool from\nuint8[] code\nint64[3] ticks",
    }
    finger = bags.types(more).types["lab_msgs/msg/Finger"]
    hand = bags.msg(
        "lab_msgs/Hand",
        more=more,
        fingers=[finger(0.5, "thumb"), finger(1.5, "index")],
        from_=True,
        code=np.array([7, 8], np.uint8),
        ticks=np.arange(3),
    )
    value = episode(bags.write_bag(tmp_path / "x", [Said("/hand", hand, 0)], more=more), clock="/hand")
    assert numbers(value, "hand.fingers.force") == [[0.5, 1.5]]
    assert value.metadata["hand.fingers.label"] == ["thumb", "index"]
    assert numbers(value, "hand.from") == [True]
    assert numbers(value, "hand.code") == [[7, 8]]
    assert numbers(value, "hand.ticks") == [[0, 1, 2]]


def test_json_messages_by_their_schema(tmp_path: Path) -> None:
    number, text = {"type": "number"}, {"type": "string"}
    state = {
        "type": "object",
        "properties": {"q": {"type": "array", "items": number}, "mode": text, "n": {"type": "integer"}},
    }
    camera = {"type": "object", "properties": {"data": {**text, "contentEncoding": "base64"}, "format": text}}
    said = []
    for i in range(3):
        said.append(Said("/state", {"q": [i, i + 0.5], "mode": "go", "n": i}, i))
        said.append(Said("/rgb", {"data": base64.b64encode(jpeg(i)).decode(), "format": "jpeg"}, i))
    schemas = {"/state": ("State", state), "/rgb": ("foxglove.CompressedImage", camera)}
    value = episode(bags.write_json(tmp_path / "x.mcap", schemas, said), clock="/state")
    assert numbers(value, "state.q") == [[0, 0.5], [1, 1.5], [2, 2.5]]
    assert numbers(value, "state.n") == [0, 1, 2]
    assert list(value.steps["state.mode"]) == [b"go"] * 3
    assert list(value.steps["rgb"]) == [jpeg(i) for i in range(3)]
    broken = bags.write_json(
        tmp_path / "y.mcap", schemas, [said[0], said[1], Said("/state", {"mode": "go"}, 1), said[3]]
    )
    assert failure(broken, clock="/state").reason == "malformed_message"


def test_another_encoding_is_refused_with_what_to_do(tmp_path: Path) -> None:
    from mcap.writer import Writer

    with (tmp_path / "x.mcap").open("wb") as out:
        writer = Writer(out)
        writer.start()
        channel = writer.register_channel("/x", "flatbuffer", writer.register_schema("X", "flatbuffer", b""))
        writer.add_message(channel, START, b"", START)
        writer.finish()
    with pytest.raises(
        SourceError, match=r"/x contains messages of X encoded as 'flatbuffer'.*convert the file to ROS 2 messages"
    ):
        opened(tmp_path / "x.mcap", clock="/x")


def test_several_connections_of_a_topic_may_not_differ_in_type(tmp_path: Path) -> None:
    said = [*arm(3), Said(CMD, bags.text("stop"), 15)]
    with pytest.raises(
        SourceError, match=r"/cmd_vel contains messages of geometry_msgs/msg/Twist .* and std_msgs/msg/String"
    ):
        opened(bags.write_bag(tmp_path / "x", said), clock=JOINTS)


@pytest.mark.parametrize("kind", ["plain", "mcap"])
def test_mcaps_own_decoder_reads_the_same_numbers(tmp_path: Path, kind: str) -> None:
    from mcap.reader import make_reader
    from mcap_ros2.decoder import DecoderFactory

    path = KINDS[kind](tmp_path / "x", arm(9))
    file = path if path.is_file() else path / "x.mcap"
    with file.open("rb") as held:
        told = [
            message.decoded_message
            for message in make_reader(held, decoder_factories=[DecoderFactory()]).iter_decoded_messages(JOINTS)
        ]
    value = episode(path, only=[JOINTS])
    assert numbers(value, "joint_states.position") == [list(message.position) for message in told]
    assert numbers(value, "joint_states.header.stamp.nanosec") == [message.header.stamp.nanosec for message in told]


@pytest.mark.parametrize("order", ["little", "big"])
def test_either_byte_order(tmp_path: Path, order: str) -> None:
    from mcap.writer import Writer

    store = bags.types()
    definition, _ = store.generate_msgdef("sensor_msgs/msg/JointState", ros_version=2)
    data = store.serialize_cdr(
        bags.joints(0, [0.25, -3]), "sensor_msgs/msg/JointState", little_endian=order == "little"
    )
    with (tmp_path / "x.mcap").open("wb") as out:
        writer = Writer(out)
        writer.start()
        schema = writer.register_schema("sensor_msgs/msg/JointState", "ros2msg", definition.encode())
        writer.add_message(writer.register_channel(JOINTS, "cdr", schema), START, bytes(data), START)
        writer.finish()
    assert numbers(episode(tmp_path / "x.mcap"), "joint_states.position") == [[0.25, -3]]


def test_types_in_idl(tmp_path: Path) -> None:
    from mcap.writer import Writer

    idl = "module lab_msgs { module msg { struct Pair { double left; sequence<float> right; }; }; };"
    data = b"\0\1\0\0" + np.float64(1.5).tobytes() + np.uint32(2).tobytes() + np.float32([7, 8]).tobytes()
    with (tmp_path / "x.mcap").open("wb") as out:
        writer = Writer(out)
        writer.start()
        schema = writer.register_schema("lab_msgs/msg/Pair", "ros2idl", idl.encode())
        writer.add_message(writer.register_channel("/pair", "cdr", schema), START, data, START)
        writer.finish()
    value = episode(tmp_path / "x.mcap", clock="/pair")
    assert (numbers(value, "pair.left"), numbers(value, "pair.right")) == ([1.5], [[7, 8]])


# --- definitions ---


def without_definitions(file: Path) -> None:
    with sqlite3.connect(file) as held:
        held.execute("DELETE FROM message_definitions")


def test_types_without_definition_need_the_name_of_a_distribution(tmp_path: Path) -> None:
    bag = bags.write_bag(tmp_path / "x", arm(), storage="sqlite3")
    whole = episode(bag)
    without_definitions(bag / "x.db3")
    with pytest.raises(SourceError, match=r"no definition of geometry_msgs/msg/Twist, sensor.*source\.ros = 'humble'"):
        opened(bag, clock=JOINTS)
    assert repr(episode(bag, ros="humble").steps) == repr(whole.steps)
    with pytest.raises(UsageError, match="'humbel' is not known; did you mean 'humble'"):
        opened(bag, clock=JOINTS, ros="humbel")


@pytest.mark.parametrize(
    "text",
    [
        "string[1000000000] x",
        "float32[99999999999] x",
        "float32 x y z",
        "lab_msgs/Nothing x",
        "x" * (2 << 20),
        "lab_msgs/Odd x",
        "float32 import os",
        f"float32 x\n{'=' * 80}\nMSG: a/b c\nfloat32 y",
    ],
)
def test_an_invalid_definition_is_refused(tmp_path: Path, text: str) -> None:
    from mcap.writer import Writer

    with (tmp_path / "x.mcap").open("wb") as out:
        writer = Writer(out)
        writer.start()
        schema = writer.register_schema("lab_msgs/msg/Odd", "ros2msg", text.encode())
        channel = writer.register_channel("/x", "cdr", schema)
        writer.add_message(channel, START, bytes(12), START)
        writer.finish()
    with pytest.raises(SourceError) as caught:
        opened(tmp_path / "x.mcap", clock="/x")
    assert caught.value.reason in {"no_definition", "too_large", "malformed_message"}
    assert len(str(caught.value)) < 500


# --- bags unlike the first one, and damage ---


def test_a_bag_unlike_the_first_one_is_quarantined_alone(tmp_path: Path) -> None:
    bags.write_bag(tmp_path / "run_0", arm())
    bags.write_bag(tmp_path / "run_1", [one for one in arm() if one.topic == JOINTS])
    bags.write_bag(tmp_path / "run_2", [*arm(), Said("/more", bags.text("x"), 1)])
    bags.write_bag(
        tmp_path / "run_3",
        [one._replace(message=bags.joints(one.ms, [1, 2, 3], "abc")) if one.topic == JOINTS else one for one in arm()],
    )
    values = read(tmp_path)
    assert [v.reason if isinstance(v, Unreadable) else "ok" for v in values] == [
        "ok",
        "contradicts_fields",
        "contradicts_fields",
        "changing_length",
    ]


def test_topics_that_were_not_recorded_at_the_same_time_are_not_advised_to_repeat_values(tmp_path: Path) -> None:
    said = [Said(CMD, bags.twist(ms), ms) for ms in range(5)]
    said += [Said(JOINTS, bags.joints(0, [1, 2]), 100 + ms) for ms in range(3)]
    told = failure(bags.write_bag(tmp_path / "x", said))
    assert told.reason == "no_overlap"
    assert "they were not recorded at the same time" in told.detail
    assert "'once'" not in told.detail


def cut(file: Path, *, keep: float) -> None:
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * keep)])


@pytest.mark.parametrize("keep", [0.3, 0.6, 0.9, 0.99])
@pytest.mark.parametrize("kind", KINDS)
def test_a_truncated_file_is_counted_and_the_others_are_read(tmp_path: Path, kind: str, keep: float) -> None:
    KINDS[kind](tmp_path / "run_1", arm(50))
    path = KINDS[kind](tmp_path / "run_2", arm(50))
    (file,) = [path] if path.is_file() else [file for file in path.iterdir() if file.suffix != ".yaml"]
    cut(file, keep=keep)
    values = read(tmp_path)
    assert isinstance(values[0], RawEpisode)
    assert isinstance(values[1], Unreadable)
    assert values[1].reason in {"truncated", "unreadable"}
    assert str(tmp_path) not in values[1].detail


def test_an_mcap_file_that_was_never_closed_is_truncated(tmp_path: Path) -> None:
    file = bags.write_mcap(tmp_path / "x.mcap", arm(500), finish=False, chunk_size=1000)
    with pytest.raises(SourceError, match="mcap recover") as caught:
        opened(file, clock=JOINTS)
    assert caught.value.reason == "truncated"


def test_a_bag_with_an_open_write_ahead_log_is_refused(tmp_path: Path) -> None:
    bag = bags.write_bag(tmp_path / "x", arm(), storage="sqlite3")
    (bag / "x.db3-wal").write_bytes(b"x" * 100)
    with pytest.raises(SourceError, match=r"'x\.db3-wal' has the rest") as caught:
        opened(bag, clock=JOINTS)
    assert caught.value.reason == "truncated"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not_rosbag"),
        (b"text" * 100, "not_rosbag"),
        (b"version https://git-lfs.github.com/spec/v1\n", "lfs_pointer"),
    ],
)
@pytest.mark.parametrize("name", ["x.mcap", "x.db3", "x.bag"])
def test_a_file_that_is_not_a_bag_is_refused_by_name(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SourceError, match=name) as caught:
        opened(tmp_path / name, clock=JOINTS)
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("change", "reason", "words"),
    [
        (
            lambda text: text.replace("message_count: 40", "message_count: 39"),
            "message_count",
            "40 messages, but metadata.yaml declares 39",
        ),
        (lambda text: text.replace("run_1.mcap", "run_7.mcap"), "missing_file", "'run_7.mcap' is missing"),
        (lambda text: text.replace("  - run_1.mcap\n", ""), "bad_metadata", "'run_1.mcap' is here"),
        (lambda text: text.replace("run_1.mcap", "../../run_1.mcap"), None, ""),
        (lambda _: "a: [", "bad_metadata", "not the metadata of rosbag2"),
        (lambda _: "- 1", "bad_metadata", "not the metadata of rosbag2"),
        (lambda _: "!!python/object/apply:os.system ['true']", "bad_metadata", "not the metadata of rosbag2"),
        (lambda text: text.replace("version: 9", "version: 99"), "bad_metadata", "version 99"),
    ],
)
def test_wrong_metadata_is_refused(
    tmp_path: Path, change: Callable[[str], str], reason: str | None, words: str
) -> None:
    bags.write_bag(tmp_path / "all" / "a_first", arm(40))
    folder = tmp_path / "all" / "run"
    for number in range(2):
        bags.write_mcap(folder / f"run_{number}.mcap", arm(40)[30 * number : 30 * number + 30])
    shutil.copy(metadata_of(folder, tmp_path), folder / "metadata.yaml")
    (folder / "metadata.yaml").write_text(change((folder / "metadata.yaml").read_text()))
    value = read(tmp_path / "all")[1]
    if reason is None:
        assert isinstance(value, RawEpisode)
        return
    assert isinstance(value, Unreadable)
    assert value.reason == reason
    assert words in value.detail


def test_a_part_that_is_missing_in_between_is_noticed(tmp_path: Path) -> None:
    bags.write_mcap(tmp_path / "a.mcap", arm())
    for number in (0, 2):
        bags.write_mcap(tmp_path / "run" / f"run_{number}.mcap", arm())
    value = read(tmp_path)[1]
    assert isinstance(value, Unreadable)
    assert (value.reason, value.detail) == ("missing_file", "part 1 of the bag is missing, but 'run_2.mcap' exists")


@pytest.mark.parametrize("kind", KINDS)
def test_random_damage_is_a_value_or_an_error_with_a_reason(tmp_path: Path, kind: str) -> None:
    good = KINDS[kind](tmp_path / "run_1", arm(30))
    path = KINDS[kind](tmp_path / "run_2", arm(30))
    (file,) = [path] if path.is_file() else [file for file in path.iterdir() if file.suffix != ".yaml"]
    data, random_ = file.read_bytes(), np.random.default_rng(0)
    truth = read(good)[0]
    assert isinstance(truth, RawEpisode)
    for _ in range(40):
        broken = bytearray(data)
        for _ in range(int(random_.choice([1, 10]))):
            broken[random_.integers(len(broken))] = random_.integers(256)
        file.write_bytes(broken)
        reader = opened(tmp_path, clock=JOINTS)
        values = [value for ref in plan(reader.files()) for value in reader.read(ref)]
        assert len(values) == 2
        if isinstance(values[1], Unreadable):
            assert str(tmp_path) not in values[1].detail
            assert not re.search(r"0x[0-9a-f]{6}", values[1].detail)
        elif kind == "plain":  # a checksum covers every byte of a message
            assert repr(values[1].steps) == repr(truth.steps)


def test_a_chunk_that_inflates_beyond_reason_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines.readers.rosbag import files, storage

    said = [Said("/task", bags.text("x" * 100_000), ms) for ms in range(3)]
    path = bags.write_mcap(tmp_path / "x.mcap", said)
    for module in (files, storage):
        monkeypatch.setattr(module, "COLUMN_BYTES", 50_000)
    with pytest.raises(SourceError) as caught:
        opened(path, clock="/task")
    assert caught.value.reason == "too_large"
    with pytest.raises(SourceError, match="compressed bytes: more than 1000 bytes, the limit"):
        storage.inflate(bz2.compress(bytes(10**6)), "bz2", limit=1000)


# --- keys and guesses ---


@pytest.mark.parametrize(
    ("layout", "words"),
    [
        ({"clock": "/joint_state"}, "source.clock: the bag has no topic '/joint_state'; did you mean '/joint_states'"),
        ({"topics": {"/cmd": "hold"}}, "source.topics: the bag has no topic '/cmd'"),
        ({"stamp": {"/x": "header"}}, "source.stamp: the bag has no topic '/x'"),
        ({"ignore": [JOINTS]}, "source.clock: '/joint_states' is left out"),
    ],
)
def test_topics_that_are_not_there_are_errors_at_once(tmp_path: Path, layout: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecError, match=re.escape(words)):
        read(bags.write_bag(tmp_path / "x", arm()), **layout)


@pytest.mark.parametrize(
    "source",
    [
        '{ format = "rosbag" }',
        '{ format = "rosbag", clock = 0 }',
        '{ format = "rosbag", clock = "/a", topics = { "/b" = "cubic" } }',
    ],
)
def test_a_declaration_without_a_clock_or_with_an_unknown_policy_is_refused(tmp_path: Path, source: str) -> None:
    (tmp_path / "toy.toml").write_text(f"source = {source}\n{SPEC}")
    with pytest.raises(SpecError):
        catalog.dataset(str(tmp_path / "toy.toml"))


def test_without_a_declaration_the_layout_is_guessed_and_opens_the_same(tmp_path: Path) -> None:
    said = [Said("/task", bags.text("pick"), 0), Said("/odd", bags.image(0, PIXELS[0], "32FC1"), 0), *arm(9)]
    said += [Said("/rgb", bags.compressed(i, jpeg(i)), 20 * i) for i in range(4)]
    bag = bags.write_bag(tmp_path / "x", said)
    reader = open_source(str(bag))
    assert reader.format == "rosbag"
    assert reader.layout() == {"clock": "/rgb", "topics": {"/task": "once"}, "ignore": ["/odd"]}
    assert opened(bag, **reader.layout()).fields == reader.fields
    assert open_source(str(tmp_path)).format == "rosbag"
    run = oxe("inspect", bag)
    assert run.code == 0
    assert "joint_states.position" in run.out


def test_bags_that_a_pattern_names_are_converted_and_verified(tmp_path: Path) -> None:
    for number in (2, 10):
        bags.write_mcap(tmp_path / f"bags/run_{number}.mcap", arm(4))
    dataset = converted(
        tmp_path, tmp_path / "bags", f'{{ format = "rosbag", clock = "{JOINTS}", files = "run_*.mcap" }}'
    )
    assert [dataset.episode(i).id for i in range(len(dataset))] == ["run_2.mcap", "run_10.mcap"]


def test_nothing_to_read_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no bag here"):
        opened(tmp_path, clock=JOINTS)
    with pytest.raises(SourceError, match="no messages"):
        opened(bags.write_mcap(tmp_path / "x.mcap", []))


# --- real bags ---

RESOURCES = "rosbag/rosbag2_resources/rosbag2_py/test/resources"
SAMPLES = "rosbag/plotjuggler/datasamples"


def outcome(path: Path) -> str | int:
    """Return the number of steps in a bag, or the reason of the error."""
    try:
        reader = open_source(str(path))
        (value,) = [value for ref in plan(reader.files()) for value in reader.read(ref)]
    except SourceError as error:
        return error.reason
    return value.reason if isinstance(value, Unreadable) else value.n_steps()


@pytest.mark.realdata
def test_every_real_bag_is_read_or_meets_a_clear_message(realdata: Path) -> None:
    found = {}
    for path in sorted((realdata / "rosbag").rglob("*")):
        if path.suffix in {".mcap", ".db3", ".bag"} or (path / "metadata.yaml").is_file():
            found[str(path)] = outcome(path)
    assert len(found) > 25
    assert {word for word in found.values() if isinstance(word, str)} == {"bad_timestamps", "no_definition"}
    assert all("wbag" in name for name, word in found.items() if word == "bad_timestamps")
    assert all("sqlite3/convert_b" in name for name, word in found.items() if word == "no_definition")


@pytest.mark.realdata
def test_a_real_bag_holds_the_numbers_that_rosbags_reads(realdata: Path) -> None:
    from rosbags.highlevel import AnyReader
    from rosbags.typesys import Stores, get_typestore

    bag = realdata / SAMPLES / "rosbag2_test"
    value = episode(bag, clock="/imu", ros="foxy")
    with AnyReader([bag], default_typestore=get_typestore(Stores.ROS2_FOXY)) as reader:
        imu = [c for c in reader.connections if c.topic == "/imu"]
        held = [(t, reader.deserialize(data, "sensor_msgs/msg/Imu")) for _, t, data in reader.messages(imu)]
    start = value.metadata["clock.cut_start"]
    count = len(value.steps["timestamp"])
    assert value.metadata["clock.start_ns"] == held[start][0]
    truth = [[m.orientation.x, m.orientation.y, m.orientation.z, m.orientation.w] for _, m in held]  # type: ignore[attr-defined]
    assert np.array_equal(value.steps["imu.orientation"], truth[start : start + count], equal_nan=True)
    assert value.metadata["skew.pose.max_s"] < 0.05


@pytest.mark.realdata
def test_turtles_at_mixed_rates_and_a_split_bag(realdata: Path) -> None:
    turtles = episode(
        realdata / SAMPLES / "example.bag",
        clock=20.0,
        only=["/turtle1/pose", "/turtle1/cmd_vel"],
        topics={"/turtle1/cmd_vel": "hold"},
    )
    assert turtles.metadata["skew.turtle1.pose.max_s"] < 0.02
    assert turtles.metadata["skew.turtle1.cmd_vel.max_s"] > 1
    for storage in ("mcap", "sqlite3"):
        whole = episode(realdata / RESOURCES / storage / "wbag", clock="AAA", disorder="sort", ros="humble")
        assert len(whole.steps["AAA"]) > 100
