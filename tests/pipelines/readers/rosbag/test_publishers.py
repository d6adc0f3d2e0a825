"""Several publishers that share a topic are split by declaration, and never mixed."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from schemas.errors import SourceError, SpecError
from tests import bags
from tests.bags import Said
from tests.pipelines.readers.rosbag.test_reader import JOINTS, KINDS, converted, episode, failure, numbers, opened

RIGHT, LEFT = ["a", "b", "c"], ["l1", "l2", "l3"]
SPLIT = {"joint_states.name": {"right": RIGHT, "left": LEFT}}
ONE = "/joint_states/right"  # a clock


def arms(other: Sequence[str] = LEFT, steps: int = 5) -> list[Said]:
    """Two arms that publish in turn, 1 ms apart, and a command."""
    said = []
    for i in range(steps):
        said.append(Said(JOINTS, bags.joints(10 * i, [i, i + 1, i + 2], RIGHT), 10 * i))
        said.append(Said(JOINTS, bags.joints(10 * i, [100 + i] * len(other), other), 10 * i + 1))
        said.append(Said("/cmd", bags.twist(i), 10 * i + 3))
    return said


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("other", [LEFT, ["l1", "l2", "l3", "l4"], ["g"]])
def test_two_arms_on_one_topic_are_refused_with_the_split_and_then_read_whole(
    tmp_path: Path, kind: str, other: list[str]
) -> None:
    bag = KINDS[kind](tmp_path / "x", arms(other))
    for layout in ({}, {"ignore": ["joint_states.name"]}, {"clock": "/cmd"}, {"only": [JOINTS]}):
        told = failure(bag, **layout)
        assert told.reason == "changing_length"
        assert "joint_states.name" in told.detail
        assert "several publishers share /joint_states" in told.detail
        assert f"source.split = {{ 'joint_states.name' = {{ one = {RIGHT}, other = {other} }} }}" in told.detail
        assert "ignore" not in told.detail
    value = episode(
        bag, clock=ONE, split={"joint_states.name": {"right": RIGHT, "left": other}}, topics={"/cmd": "hold"}
    )
    right = numbers(value, "joint_states.right.position")
    assert right == [[i, i + 1, i + 2] for i in range(1, 5)]
    assert numbers(value, "joint_states.left.position") == [[100 + i] * len(other) for i in range(1, 5)]
    assert (value.metadata["joint_states.right.name"], value.metadata["joint_states.left.name"]) == (RIGHT, other)


def test_the_rare_message_of_another_arm_is_noticed_between_the_steps(tmp_path: Path) -> None:
    said = [one for one in arms(steps=20) if one.ms == 101 or one.ms % 10 != 1]
    told = failure(bags.write_bag(tmp_path / "x", said))
    assert f"{LEFT} in one message and {RIGHT} in the first" in told.detail


def test_a_split_reads_one_arm_alone_and_names_what_it_does_not_list(tmp_path: Path) -> None:
    bag = bags.write_bag(tmp_path / "x", arms())
    value = episode(bag, clock=ONE, split=SPLIT, ignore=["/joint_states/left"])
    assert "joint_states.left.position" not in value.steps
    assert len(value.steps["joint_states.right.position"]) == 4
    third = bags.write_bag(tmp_path / "y", [*arms(), Said(JOINTS, bags.joints(0, [0], "z"), 49)])
    with pytest.raises(
        SourceError, match=r"joint_states.name is \['z'\] in a message, which source.split does not list"
    ):
        opened(third, clock=ONE, split=SPLIT)


def test_keys_of_a_split_are_checked(tmp_path: Path) -> None:
    bag = bags.write_bag(tmp_path / "x", arms())
    with pytest.raises(
        SpecError, match=r"source.clock: /joint_states is split: name one of /joint_states/left, /joint"
    ):
        opened(bag, clock=JOINTS, split=SPLIT)
    with pytest.raises(SpecError, match=r"source.split: no topic that is read has the field 'joint_state.name'"):
        opened(bag, clock="/cmd", split={"joint_state.name": {}})
    with pytest.raises(SpecError, match=r"source.topics: the bag has no topic '/joint_states/lft'"):
        opened(bag, clock=ONE, split=SPLIT, topics={"/joint_states/lft": "hold"})
    reader = opened(bag, clock=ONE, split=SPLIT, topics={"/joint_states/left": "linear", "/cmd": "hold"})
    assert opened(bag, **reader.layout()).fields == reader.fields


def test_the_same_names_in_another_order_are_refused(tmp_path: Path) -> None:
    told = failure(bags.write_bag(tmp_path / "x", arms(RIGHT[::-1])), ignore=["joint_states.name"])
    assert told.reason == "changing_length"
    assert "values in changing order are not read" in told.detail
    assert "ignore" not in told.detail


def test_bags_with_other_names_than_the_first_are_quarantined_with_a_source_of_their_own(tmp_path: Path) -> None:
    for number, names in enumerate(("ab", "ba", "cd")):
        bags.write_bag(tmp_path / f"run_{number}", [Said(JOINTS, bags.joints(0, [1, 2], names), ms) for ms in (0, 10)])
    told = failure(tmp_path)
    assert told.reason == "changing_length"
    assert "joint_states.name is ['c', 'd'] here and ['a', 'b'] in the first bag: convert such bags as a" in told.detail


def json_arms(folder: Path) -> Path:
    text, number = {"type": "string"}, {"type": "number"}
    lists = {"labels": {"type": "array", "items": text}, "values": {"type": "array", "items": number}}
    said = [
        Said("/q", {"labels": names, "values": [i + 100.0 * at, i]}, 10 * i + at)
        for i in range(4)
        for at, names in enumerate((["a", "b"], ["c", "d"]))
    ]
    return bags.write_json(folder / "x.mcap", {"/q": ("Q", {"type": "object", "properties": lists})}, said)


def test_json_messages_with_other_names(tmp_path: Path) -> None:
    file = json_arms(tmp_path)
    for ignore in ([], ["q.labels"]):
        told = failure(file, clock="/q", ignore=ignore)
        assert "source.split = { 'q.labels' = { one = ['a', 'b'], other = ['c', 'd'] } }" in told.detail
    value = episode(file, clock="/q/x", split={"q.labels": {"x": ["a", "b"], "y": ["c", "d"]}})
    assert numbers(value, "q.x.values") == [[1, 1], [2, 2], [3, 3]]
    assert numbers(value, "q.y.values") == [[101, 1], [102, 2], [103, 3]]


@pytest.mark.parametrize("field", ["label", "kind"])
def test_names_inside_a_list_of_messages(tmp_path: Path, field: str) -> None:
    more = {"lab_msgs/msg/Finger": f"float32 force\nstring {field}", "lab_msgs/msg/Hand": "lab_msgs/Finger[] fingers"}
    finger = bags.types(more).types["lab_msgs/msg/Finger"]

    def hand(names: str, force: float) -> Any:
        return bags.msg("lab_msgs/Hand", more=more, fingers=[finger(force, name) for name in names])

    said = [Said("/hand", hand(names, i), 10 * i + at) for i in range(3) for at, names in enumerate(("ab", "cd"))]
    bag = bags.write_bag(tmp_path / "x", said, more=more)
    for ignore in ([], [f"hand.fingers.{field}"]):
        assert "several publishers share /hand" in failure(bag, clock="/hand", ignore=ignore).detail
    value = episode(
        bag,
        clock="/hand/l",
        split={f"hand.fingers.{field}": {"l": ["a", "b"], "r": ["c", "d"]}},
        topics={"/hand/r": "hold"},
    )
    assert numbers(value, "hand.l.fingers.force") == [[1, 1], [2, 2]]
    assert numbers(value, "hand.r.fingers.force") == [[0, 0], [1, 1]]


def test_texts_that_name_no_values_can_be_left_out(tmp_path: Path) -> None:
    more = {"lab_msgs/msg/Log": "string[] notes\nfloat64[] q"}
    said = [
        Said("/log", bags.msg("lab_msgs/Log", more=more, notes=["x"] * (1 + i), q=np.arange(7.0)), i) for i in range(3)
    ]
    bag = bags.write_bag(tmp_path / "x", said, more=more)
    assert failure(bag, clock="/log").reason == "changing_length"
    assert len(episode(bag, clock="/log", ignore=["log.notes"]).steps["log.q"]) == 3


def test_poses_of_two_frames_in_turn_are_refused_and_split(tmp_path: Path) -> None:
    said = []
    for i in range(4):
        for at, frame in enumerate(("left_base", "right_base")):
            pose = bags.pose(10 * i, [i, at, 0], [0, 0, 0, 1])
            pose.header.frame_id = frame
            said.append(Said("/pose", pose, 10 * i + at))
    bag = bags.write_bag(tmp_path / "x", said)
    for ignore in ([], ["pose.header"]):
        told = failure(bag, clock="/pose", ignore=ignore)
        assert "pose.header.frame_id changes between 'left_base' and 'right_base'" in told.detail
        assert "{ 'pose.header.frame_id' = { one = 'left_base', other = 'right_base' } }" in told.detail
    frames = {"left": "left_base", "right": "right_base"}
    value = episode(bag, clock="/pose/right", split={"pose.header.frame_id": frames}, topics={"/pose/left": "hold"})
    assert numbers(value, "pose.left.pose.position") == [[i, 0, 0] for i in range(4)]
    assert numbers(value, "pose.right.pose.position") == [[i, 1, 0] for i in range(4)]


def test_a_frame_that_changes_once_is_read_with_its_frames(tmp_path: Path) -> None:
    said = []
    for i in range(4):
        pose = bags.pose(10 * i, [i, 0, 0], [0, 0, 0, 1])
        pose.header.frame_id = "" if i < 2 else "base"
        said.append(Said("/pose", pose, 10 * i))
    value = episode(bags.write_bag(tmp_path / "x", said), clock="/pose")
    assert list(value.steps["pose.header.frame_id"]) == [b"", b"", b"base", b"base"]


def test_transforms_of_one_child_by_two_parents_are_refused_and_split(tmp_path: Path) -> None:
    said = []
    for i in range(4):
        for at, parent in enumerate(("left", "right")):
            part = bags.transform(10 * i, "cube", i + 100 * at)
            part.header.frame_id = parent
            said.append(Said("/tf", bags.transforms(part, bags.transform(10 * i, f"hand_{at}", i)), 10 * i + at))
    bag = bags.write_bag(tmp_path / "x", said)
    told = failure(bag, clock=100.0)
    assert "several publishers share /tf/cube" in told.detail
    split = {"tf.cube.header.frame_id": {"l": "left", "r": "right"}}
    value = episode(bag, clock=100.0, split=split, topics={"/tf": "hold"})
    assert [x for x, *_ in numbers(value, "tf.cube.r.transform.translation")] == [100, 101, 102, 103]
    assert [x for x, *_ in numbers(value, "tf.hand_0.transform.translation")] == [0, 1, 2, 3]


def test_both_arms_are_converted_and_verified(tmp_path: Path) -> None:
    bag = bags.write_bag(tmp_path / "x", arms(["l1", "l2"]))
    names = "{ 'joint_states.name' = { right = ['a', 'b', 'c'], left = ['l1', 'l2'] } }"
    source = f'{{ format = "rosbag", clock = "{ONE}", topics = {{ "/cmd" = "hold" }}, split = {names} }}'
    dataset = converted(tmp_path, bag, source, action="joint_states.left.position")
    assert dataset.episode(0).action.tolist() == [[101, 101], [102, 102], [103, 103], [104, 104]]


@pytest.mark.parametrize("seed", range(8))
def test_random_publishers_are_read_whole_or_refused(tmp_path: Path, seed: int) -> None:
    """Whatever the interleaving, every message of every publisher is read with a split, and none without."""
    random_ = np.random.default_rng(seed)
    names = [[f"p{number}_{i}" for i in range(random_.integers(1, 5))] for number in range(random_.integers(1, 4))]
    said: list[Said] = []
    sent: dict[int, list[list[float]]] = {number: [] for number in range(len(names))}
    for number in [*range(len(names)), *random_.integers(0, len(names), 25)]:
        values = random_.normal(size=len(names[number])).tolist()
        sent[number].append(values)
        said.append(Said(JOINTS, bags.joints(len(said), values, names[number]), len(said)))
    kind = list(KINDS)[seed % len(KINDS)]
    bag = KINDS[kind](tmp_path / "x", said)
    if len(names) == 1:
        assert numbers(episode(bag), "joint_states.position") == sent[0]
        return
    assert failure(bag).reason == "changing_length"
    split = {"joint_states.name": {f"p{number}": listed for number, listed in enumerate(names)}}
    for number in range(len(names)):
        others = [f"/joint_states/p{other}" for other in range(len(names)) if other != number]
        value = episode(bag, clock=f"/joint_states/p{number}", split=split, ignore=others)
        assert numbers(value, f"joint_states.p{number}.position") == sent[number]
