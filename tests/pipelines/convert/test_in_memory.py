from pathlib import Path

import numpy as np
import pytest

from oxe_tools import standardize
from schemas.errors import SourceError, SpecError, ViewError
from tests.schemas.makers import TOY, make_jpeg

STEPS = {"action": np.ones((4, 7)), "observation": {"state": np.ones((4, 7))}}


def test_without_a_view_it_is_what_would_be_stored() -> None:
    episode = standardize("bridge_dataset", {**STEPS, "language_instruction": "open the drawer"})
    assert (episode.id, episode.dataset, episode.control_hz) == ("bridge_dataset-000000", "bridge_dataset", 5)
    assert episode.instructions == ("open the drawer",)
    assert episode.state is not None
    assert episode.state.dtype == episode.action.dtype == np.float32
    assert episode.timestamp is not None
    assert episode.timestamp.tolist() == [0, 0.2, 0.4, 0.6]
    assert (episode.images, episode.depth) == ({}, {})
    assert set(episode.raw) == {"action", "observation.state"}


def test_what_is_missing_stays_empty() -> None:
    episode = standardize("bridge_dataset", {"action": np.ones((4, 7)), "observation": {"state": None}})
    assert (episode.state, episode.instructions, episode.instruction_index) == (None, (), None)


def test_a_view_cuts_every_column_to_its_steps() -> None:
    frames = [make_jpeg(seed=i) for i in range(4)]
    texts = ["open it", "open it", "close it", "close it"]
    steps = {**STEPS, "observation": {**STEPS["observation"], "image_0": frames}, "language_instruction": texts}
    episode = standardize("bridge_dataset", steps, view="openvla")
    assert len(episode) == 2
    assert episode.images == {"image_0": frames[1:3]}
    assert episode.instruction_index is not None
    assert [episode.instructions[i] for i in episode.instruction_index] == texts[1:3]
    assert episode.is_last is not None
    assert episode.is_last.tolist() == [False, True]
    assert episode.raw["action"].shape == (2, 7)  # type: ignore[union-attr]


def test_texts_may_be_bytes_or_numpys_and_each_distinct_one_is_listed_once() -> None:
    for texts in ([b"a", b"a", b"b", b"a"], np.array(["a", "a", "b", "a"]), np.array([b"a", b"a", b"b", b"a"], object)):
        episode = standardize("bridge_dataset", {**STEPS, "language_instruction": texts})
        assert episode.instructions == ("a", "b")


def test_further_instructions_are_listed_after_the_first() -> None:
    steps = {"action_dict": {"cartesian_velocity": np.zeros((1, 6)), "gripper_position": np.zeros((1, 1))}}
    steps |= {"language_instruction": ["a"], "language_instruction_2": ["b"], "language_instruction_3": [""]}  # type: ignore[dict-item]
    assert standardize("droid", steps).instructions == ("a", "b", "")


def test_decoded_images_stay_raw() -> None:
    pixels = np.zeros((4, 8, 8, 3), np.uint8)
    episode = standardize("bridge_dataset", {**STEPS, "observation": {"image_0": pixels}})
    assert episode.images == {}
    assert episode.raw["observation.image_0"] is pixels


def test_flags_and_rewards_of_the_source_are_kept() -> None:
    steps = {**STEPS, "is_terminal": [False, False, False, True], "reward": [0, 0, 0, 1]}
    episode = standardize("bridge_dataset", steps)
    assert episode.is_terminal is not None
    assert episode.is_terminal.tolist() == [False, False, False, True]
    assert episode.reward is not None
    assert episode.reward.tolist() == [0, 0, 0, 1]


def test_an_alias_and_a_file_name_a_declaration_too(tmp_path: Path) -> None:
    assert standardize("fmb", {"action": np.ones((2, 7))}).dataset == "fmb_dataset"
    (tmp_path / "toy.toml").write_text(TOY)
    assert standardize(str(tmp_path / "toy.toml"), STEPS).dataset == "toy"
    (tmp_path / "toy.toml").write_text(TOY.replace('"toy"', '"other"'))
    assert standardize(str(tmp_path / "toy.toml"), STEPS).dataset == "other"


def test_a_nan_that_the_view_replaces_does_no_harm_and_one_that_stays_is_refused() -> None:
    action = np.zeros((3, 7))
    action[0, 6] = np.nan  # between the thresholds: takes the next settled value
    assert standardize("ppgm", {"action": action}, view="openvla").action[:, 6].tolist() == [0, 0, 0]
    action[2, 6] = np.nan
    with pytest.raises(SourceError, match="action is nan at step 2, dimension 'gripper'"):
        standardize("ppgm", {"action": action}, view="openvla")
    with pytest.raises(SourceError, match="action is nan at step 0"):
        standardize("ppgm", {"action": action})


def test_what_is_needed_and_missing_is_named() -> None:
    with pytest.raises(
        SpecError, match=r"taco_play: the action needs the column 'action.rel_actions_world'; did you mean"
    ):
        standardize("taco_play", {"action": {"rel_action_world": np.ones((2, 7))}}, view="openvla")
    with pytest.raises(ViewError, match=r"view 'octo': unknown key 'raw.observation.yaw'"):
        standardize(
            "gnm_dataset", {"action": np.ones((9, 2)), "observation": {"position": np.ones((9, 2))}}, view="octo"
        )
    with pytest.raises(SourceError, match="the episode has no columns"):
        standardize("taco_play", {})
    with pytest.raises(ViewError, match="gnm_dataset has no view 'openvla': OpenVLA reads GNM's data as"):
        standardize("gnm_dataset", {"action": np.ones((2, 2))}, view="openvla")


def test_columns_of_unequal_length_are_refused() -> None:
    with pytest.raises(SourceError, match=r"unequal lengths: action has 4 steps, observation.state has 3") as error:
        standardize("bridge_dataset", {"action": np.ones((4, 7)), "observation": {"state": np.ones((3, 7))}})
    assert error.value.reason == "unequal_lengths"


def test_nothing_that_is_given_is_changed() -> None:
    steps = {"action": np.float32([[0, 0, 0, 0, 0, 0, 0.5]] * 3)}
    before = steps["action"].copy()
    standardize("ppgm", steps, view="openvla")
    np.testing.assert_array_equal(steps["action"], before)


def test_values_of_the_whole_episode_are_neither_counted_nor_cut() -> None:
    whole = {"episode_metadata": {"file_path": "/a/b", "scores": np.ones(9)}, "success": True, "note": np.array("x")}
    episode = standardize("bridge_dataset", {**STEPS, **whole}, view="openvla")
    assert len(episode) == 2
    assert episode.metadata["episode_metadata.file_path"] == "/a/b"
    assert len(episode.metadata["episode_metadata.scores"]) == 9
    assert (bool(episode.metadata["success"]), episode.metadata["note"]) == (True, "x")


NOTHING = ([], (), np.zeros(0), np.zeros((0, 7)), np.zeros((4, 0)), [None] * 4, np.full(4, None))


@pytest.mark.parametrize("nothing", NOTHING, ids=repr)
@pytest.mark.parametrize("view", [None, "openvla"])
def test_a_column_without_values_is_as_good_as_missing(nothing: object, view: str | None) -> None:
    given = {"observation": {"robot_obs": nothing, "rgb_static": nothing, "natural_language_instruction": nothing}}
    episode = standardize("taco_play", {"action": {"rel_actions_world": np.ones((4, 7))}, **given}, view)
    assert (episode.state, episode.images, episode.instructions) == (None, {}, ())
    with pytest.raises(SpecError, match=r"the action needs the column 'action.rel_actions_world'"):
        standardize("taco_play", {"action": {"rel_actions_world": nothing}, "reward": np.ones(4)}, view)


def test_kukas_compressed_state_may_be_empty_too() -> None:
    vectors = {"world_vector": np.ones((4, 3)), "rotation_delta": np.ones((4, 3))}
    state = {"clip_function_input/base_pose_tool_reached": [], "gripper_closed": []}
    steps = {"action": {**vectors, "gripper_closedness_action": np.ones((4, 1))}, "observation": state}
    assert standardize("kuka", steps, view="octo").state is None


def test_an_episode_without_steps_is_one() -> None:
    assert len(standardize("bridge_dataset", {"action": np.zeros((0, 7)), "observation.state": np.zeros((0, 7))})) == 0


def test_a_state_that_the_view_does_not_read_cannot_fail_it() -> None:
    hydra = "stanford_hydra_dataset_converted_externally_to_rlds"
    for state in (np.full((4, 27), np.nan), np.ones((4, 8)), np.full((4, 27), None), ["x"] * 4):
        steps = {"action": np.ones((4, 7)), "observation": {"state": state}}
        assert standardize(hydra, steps, view="openvla").state is None
        with pytest.raises((SourceError, SpecError)):
            standardize(hydra, steps)
    pose = {"action": np.ones((4, 3)), "observation": {"state": np.ones((4, 4))}}
    assert standardize("uiuc_d3field", pose, view="openvla").state is None
    wide = {"action": np.ones((4, 7)), "observation": {"state": np.ones((4, 8))}}
    assert standardize("bridge_dataset", wide, view="openvla").state is not None
    with pytest.raises(ViewError, match=r"unknown key 'observation.state'"):
        standardize("bridge_dataset", {"action": np.ones((4, 7))}, view="openvla")


@pytest.mark.parametrize("words", [np.arange(4), np.ones((4, 5), np.uint8), ["a", None, "a", "a"], [["a", "b"]] * 4])
def test_what_is_not_a_text_is_not_read_as_one(words: object) -> None:
    with pytest.raises(SourceError, match="language_instruction: expected a text, got"):
        standardize("bridge_dataset", {**STEPS, "language_instruction": words})


def test_a_broken_text_is_refused() -> None:
    with pytest.raises(SourceError, match="step 1 is not valid UTF-8"):
        standardize("bridge_dataset", {**STEPS, "language_instruction": ["a", "\ud800", "a", "a"]})


@pytest.mark.parametrize(
    "text", [np.array("hi"), np.array(b"hi"), "hi", ["hi"], np.array(["hi"]), np.full((4, 1), "hi")]
)
def test_a_text_may_be_given_once_or_in_a_column_of_one(text: object) -> None:
    episode = standardize("bridge_dataset", {**STEPS, "language_instruction": text}, view="openvla")
    assert episode.instructions == ("hi",)
    assert episode.instruction_index is not None
    assert episode.instruction_index.tolist() == [0, 0]


@pytest.mark.parametrize("texts", [["a", "b"], np.array(["a", "b"]), np.array([b"a", b"b"], object)])
def test_several_texts_of_an_episode_are_all_listed_and_its_steps_have_the_first(tmp_path: Path, texts: object) -> None:
    (tmp_path / "toy.toml").write_text(TOY.replace('"language_instruction"', '"episode_metadata.prompt"'))
    episode = standardize(str(tmp_path / "toy.toml"), {**STEPS, "episode_metadata": {"prompt": texts}})
    assert episode.instructions == ("a", "b")
    assert episode.instruction_index is not None
    assert episode.instruction_index.tolist() == [0] * 4


def test_code_points_may_be_whole_floats_and_nothing_else() -> None:
    row = np.zeros((4, 512))
    row[:, :2] = [104, 105]
    steps = {"action": np.ones((4, 2))}
    assert standardize("language_table", {**steps, "observation": {"instruction": row}}).instructions == ("hi",)
    for wrong in (row + 0.5, row * np.nan, -row, row * 1e9):
        with pytest.raises(SourceError, match="not code points"):
            standardize("language_table", {**steps, "observation": {"instruction": wrong}})


def test_a_ragged_list_is_named() -> None:
    with pytest.raises(SourceError, match=r"observation.foo: expected numbers of one shape, or texts"):
        standardize("bridge_dataset", {**STEPS, "observation": {"foo": [[1], [2, 3], [1], [1]]}})


def test_a_column_of_another_length_that_is_not_read_belongs_to_the_whole_episode() -> None:
    whole = {"success": np.array([True]), "intrinsics": np.eye(3)}
    episode = standardize("bridge_dataset", {**STEPS, **whole}, view="openvla")
    np.testing.assert_array_equal(episode.metadata["intrinsics"], np.eye(3))
    assert episode.metadata["success"].tolist() == [True]
    with pytest.raises(SourceError, match="unequal lengths: action has 4 steps, reward has 3"):
        standardize("bridge_dataset", {**STEPS, "reward": np.ones(3)})
    with pytest.raises(SourceError, match="unequal length"):
        standardize("bridge_dataset", {**STEPS, "language_instruction": ["a", "b"]})


def test_kukas_success_is_of_the_whole_episode() -> None:
    vectors = {"world_vector": np.ones((4, 3)), "rotation_delta": np.ones((4, 3))}
    steps = {"action": {**vectors, "gripper_closedness_action": np.ones((4, 1))}, "success": np.array([True])}
    assert standardize("kuka", steps, view="octo").metadata["success"].tolist() == [True]


def test_keys_that_are_not_declared_keep_their_spelling() -> None:
    steps = {"action": np.ones((4, 7)), "observation/state": np.ones((4, 7)), "observation": {"my/extra": np.ones(4)}}
    assert set(standardize("bridge_dataset", steps).raw) == {"action", "observation.state", "observation.my/extra"}


def test_the_episode_is_checked_and_named_as_in_a_conversion(tmp_path: Path) -> None:
    declared = TOY.replace("control_hz = 5", 'timestamp = "clock"\nid = "episode_metadata.file_path"')
    (tmp_path / "toy.toml").write_text(declared)
    given = {**STEPS, "clock": np.arange(4.0), "episode_metadata": {"file_path": "a/b"}}
    episode = standardize(str(tmp_path / "toy.toml"), given)
    assert (episode.id, episode.metadata) == ("a/b", {})
    assert episode.timestamp is not None
    assert episode.timestamp.tolist() == [0, 1, 2, 3]
    with pytest.raises(SourceError, match=r"clock: step 2 is 1\.0 after 2\.0"):
        standardize(str(tmp_path / "toy.toml"), {**given, "clock": np.array([0, 2, 1, 3])})
    assert standardize(str(tmp_path / "toy.toml"), {**given, "clock": None}).timestamp is None
    frames = [make_jpeg(seed=0), b"", b"?", make_jpeg(seed=1)]
    with pytest.raises(SourceError, match=r"observation.image_0: step 2: "):
        standardize("bridge_dataset", {**STEPS, "observation": {"image_0": frames}})


def test_flags_that_are_not_one_number_per_step_stay_raw() -> None:
    episode = standardize("bridge_dataset", {**STEPS, "reward": np.ones((4, 1))})
    assert episode.reward is None
    assert episode.raw["reward"].shape == (4, 1)  # type: ignore[union-attr]
