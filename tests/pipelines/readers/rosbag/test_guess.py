"""A bag without a declaration: what is guessed, what is not read, and what to declare."""

from pathlib import Path

import numpy as np
import pytest

from pipelines.readers.reader import LeftOut
from schemas.errors import SourceError
from tests import bags
from tests.bags import START, Said
from tests.pipelines.readers.rosbag.test_reader import CMD, JOINTS, KINDS, PIXELS, arm, episode, failure, opened
from tests.pipelines.toy import jpeg


def log(ms: float, name: str = "node") -> Said:
    time = bags.types().types["builtin_interfaces/msg/Time"](sec=START // 10**9, nanosec=0)
    words = {"name": name, "msg": "hello", "file": "", "function": "", "line": 1}
    return Said("/rosout", bags.msg("rcl_interfaces/Log", stamp=time, level=20, **words), ms)


@pytest.mark.parametrize("kind", ["mcap", "sqlite3", "plain"])
def test_a_bag_with_logs_alone_says_what_to_declare(tmp_path: Path, kind: str) -> None:
    bag = KINDS[kind](tmp_path / "x", [log(ms, f"node_{ms % 3}") for ms in range(6)])
    with pytest.raises(
        SourceError, match=r"messages only on /rosout \(6\), which are not read by default.*clock = '/rosout'"
    ):
        opened(bag)
    assert len(episode(bag, clock="/rosout").steps["rosout.msg"]) == 6


def test_a_bag_with_several_kinds_of_logs_alone_names_them(tmp_path: Path) -> None:
    status = bags.msg("diagnostic_msgs/DiagnosticArray", ms=0, status=[])
    bag = bags.write_bag(tmp_path / "x", [log(0), log(1), Said("/diagnostics", status, 2)])
    with pytest.raises(
        SourceError, match=r"only on /diagnostics \(1\), /rosout \(2\).*source.clock = '/rosout'"
    ) as caught:
        opened(bag)
    assert caught.value.reason == "no_clock"


def test_static_transforms_alone_need_a_clock_in_hz(tmp_path: Path) -> None:
    bag = bags.write_bag(tmp_path / "x", [Said("/tf_static", bags.transforms(bags.transform(0, "hand", 1)), 0)])
    with pytest.raises(
        SourceError, match=r"only transforms \(/tf_static\): declare a clock in Hz, such as source.clock = 20"
    ):
        opened(bag)
    assert len(episode(bag, clock=20).steps["timestamp"]) == 1


def test_a_bag_whose_topics_all_have_one_value_has_no_steps(tmp_path: Path) -> None:
    bag = bags.write_bag(tmp_path / "x", [Said("/task", bags.text("pick"), 0)])
    told = failure(bag, clock=20, topics={"/task": "once"})
    assert (told.reason, "there are no steps" in told.detail) == ("no_clock", True)


def test_guesses_are_named_with_their_evidence(tmp_path: Path) -> None:
    said = [Said("/task", bags.text("pick"), 0), Said("/odd", bags.image(0, PIXELS[0], "32FC1"), 0), *arm(9), log(3)]
    said += [Said("/rgb", bags.compressed(i, jpeg(i)), 20 * i) for i in range(4)]
    bag = bags.write_bag(tmp_path / "x", said)
    reader = opened(bag)
    assert reader.guesses() == {
        "clock": "'/rgb', the camera with the fewest messages (4 in the first bag)",
        "topics": "['/task'] = 'once', because each has one message or holds static transforms",
        "ignore": "'/rosout', which is a log of ROS, '/odd', which cannot be read (odd: images encoded as '32FC1' are "
        "not supported (known: rgb8, bgr8, mono8, 8UC1, mono16, 16UC1))",
    }
    assert list(reader.left_out()) == [LeftOut("topics", 2, "/odd")]
    again = opened(bag, **reader.layout())
    assert (again.guesses(), list(again.left_out())) == ({}, [])


def test_without_cameras_the_busiest_topic_is_the_clock(tmp_path: Path) -> None:
    said = [Said("/q", bags.msg("toy_msgs/Doubles", data=np.arange(3.0)), ms) for ms in range(7)]
    reader = opened(bags.write_bag(tmp_path / "x", [*said, Said("/r", bags.twist(1), 2), Said("/r", bags.twist(1), 3)]))
    assert reader.guesses() == {"clock": "'/q', the topic with the most messages (7 in the first bag)"}


def test_topics_outside_only_empty_ones_and_files_beside_are_counted(tmp_path: Path) -> None:
    from rosbags.rosbag2 import StoragePlugin, Writer

    store = bags.types()
    (tmp_path / "all").mkdir()
    with Writer(tmp_path / "all" / "run", version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        kinds = {JOINTS: bags.joints(0, [1, 2]), CMD: bags.twist(1)}
        known = {topic: writer.add_connection(topic, one.__msgtype__, typestore=store) for topic, one in kinds.items()}
        writer.add_connection("/task", "std_msgs/msg/String", typestore=store)
        for topic, one in kinds.items():
            writer.write(known[topic], START, store.serialize_cdr(one, one.__msgtype__))
    (tmp_path / "all" / "run" / "wrist.mp4").write_bytes(b"x")
    (tmp_path / "all" / "notes").mkdir()
    (tmp_path / "all" / "notes" / "a.txt").write_text("x")
    (tmp_path / "all" / ".hidden").write_text("x")
    reader = opened(tmp_path / "all", clock=JOINTS, only=[JOINTS])
    assert list(reader.left_out()) == [
        LeftOut("topics", 1, CMD),
        LeftOut("topics without messages", 1, "/task"),
        LeftOut("files", 2, "notes/a.txt"),
    ]
    assert list(opened(tmp_path / "all", clock=JOINTS, ignore=[CMD, "/task"]).left_out()) == [
        LeftOut("files", 2, "notes/a.txt")
    ]


def test_a_bag_in_a_folder_with_a_dot_in_its_name_is_read(tmp_path: Path) -> None:
    for name in ("2024-01-01_12.30.00", "2024-01-01_12.40.00", "v1"):
        bags.write_bag(tmp_path / name, arm())
    assert len(opened(tmp_path, clock=JOINTS).files()["train"]) == 3


def test_files_that_are_joined_to_one_bag_by_their_names_are_a_guess(tmp_path: Path) -> None:
    for number in range(2):
        bags.write_mcap(tmp_path / "run" / f"run_{number}.mcap", arm())
    reader = opened(tmp_path / "run", clock=JOINTS)
    assert reader.guesses() == {
        "files": "files with the name of their folder are one bag, such as run_0.mcap and run_1.mcap"
    }
    assert opened(tmp_path / "run", clock=JOINTS, files="run_*.mcap").guesses() == {}
