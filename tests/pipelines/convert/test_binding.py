from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.convert.binding import Binding, bind, columns_one_longer
from schemas.declarations import catalog
from schemas.declarations.spec import DatasetSpec
from schemas.errors import SourceError, SpecError
from schemas.source import Column, Field, Ragged, RawEpisode
from schemas.views.views import view
from tests.pipelines.toy import FIELDS, columns, jpeg, write_spec


def spec_of(folder: Path, **arguments: Any) -> DatasetSpec:
    return catalog.dataset(str(write_spec(folder, **arguments)))


def bound(folder: Path, *more: Field, **arguments: Any) -> Binding:
    return bind(spec_of(folder, **arguments), [*FIELDS, *more])


def raw_episode(*, metadata: dict[str, Any] | None = None, **changes: Column) -> RawEpisode:
    steps = columns(0, **changes)
    del steps["episode_metadata.file_path"]
    about = {"episode_metadata.file_path": "e0.hdf5", **(metadata or {})}
    return RawEpisode(index=4, split="val", steps=steps, metadata=about, file="f", offset=7)


def number(path: str, dtype: str = "float32", *, shape: tuple[int | None, ...] = ()) -> Field:
    return Field(path=path, kind="number", dtype=dtype, shape=shape)


# --- the values of an episode ---


def test_vectors_are_made_of_their_parts_in_the_order_of_the_space(tmp_path: Path) -> None:
    binding = bound(
        tmp_path,
        replace={
            '"action[3:]"': '"action[3:] | invert"',
            'xyz     = "action[:3]"\n': "",
            "[views.late]": 'xyz = "action[:3] | scale(1/1000)"\n[views.late]',
        },
    )
    raw = raw_episode()
    given = np.asarray(raw.steps["action"])
    episode = binding.episode(raw)
    assert [dim.name for dim in episode.action_space.dims] == ["x", "y", "z", "gripper"]
    np.testing.assert_array_equal(episode.action[:, :3], given[:, :3] * np.float32(1 / 1000))
    np.testing.assert_array_equal(episode.action[:, 3], 1 - given[:, 3])
    np.testing.assert_array_equal(np.asarray(episode.raw["action"]), given)


def test_an_episode_keeps_its_place_and_gets_a_name(tmp_path: Path) -> None:
    episode = bound(tmp_path).episode(raw_episode())
    assert (episode.id, episode.index, episode.split) == ("toy-000004", 4, "val")
    assert episode.metadata == {"episode_metadata.file_path": "e0.hdf5"}


def test_a_declared_id_names_the_episode(tmp_path: Path) -> None:
    binding = bound(tmp_path, replace={"control_hz = 10": 'id = "episode_metadata.file_path"'})
    episode = binding.episode(raw_episode())
    assert (episode.id, episode.metadata) == ("e0.hdf5", {})


def test_the_rate_gives_the_timestamps(tmp_path: Path) -> None:
    assert bound(tmp_path).episode(raw_episode()).timestamp.tolist() == [0, 0.1, 0.2]  # type: ignore[union-attr]
    assert bound(tmp_path, replace={"control_hz = 10": ""}).episode(raw_episode()).timestamp is None


@pytest.mark.parametrize("dtype", ["float64", "int64"])
def test_recorded_timestamps_stay_exact(tmp_path: Path, dtype: str) -> None:
    times = np.array([1_700_000_000, 1_700_000_001, 1_700_000_003], dtype)
    declared = {"control_hz = 10": 'timestamp = "clock"'}
    raw = raw_episode()
    binding = bound(tmp_path, number("clock", dtype), replace=declared)
    episode = binding.episode(replace(raw, steps={**raw.steps, "clock": times}))
    assert episode.timestamp is not None
    assert (episode.timestamp.dtype, episode.timestamp.tolist()) == (np.float64, times.tolist())


@pytest.mark.parametrize(
    ("times", "told"),
    [([0, 2, 1], "step 2 is 1.0 after 2.0"), ([0, 1, 1], "1.0 after 1.0"), ([np.nan, 1, 2], "step 0 is nan")],
)
def test_times_that_go_back_or_stand_still_are_no_timestamps(tmp_path: Path, times: list[float], told: str) -> None:
    binding = bound(tmp_path, number("clock", "float64"), extra="", replace={"control_hz = 10": 'timestamp = "clock"'})
    raw = raw_episode()
    with pytest.raises(SourceError, match=told) as error:
        binding.episode(replace(raw, steps={**raw.steps, "clock": np.array(times)}))
    assert error.value.reason == "bad_timestamps"
    assert "if time starts again there, several episodes are stored as one" in str(error.value)


def test_flags_come_from_the_source_where_it_has_them(tmp_path: Path) -> None:
    flags = {"is_first": np.array([1, 0, 0]), "is_terminal": np.array([0, 0, 1]), "reward": np.array([0, 0, 0.5])}
    more = [number("is_terminal", "int64"), number("reward", "float64")]
    raw = raw_episode()
    episode = bound(tmp_path, *more).episode(replace(raw, steps={**raw.steps, **flags}))
    assert (episode.is_terminal.tolist(), episode.reward.tolist()) == ([False, False, True], [0, 0, 0.5])  # type: ignore[union-attr]


def test_flags_that_the_source_lacks_are_unknown_or_follow_from_the_steps(tmp_path: Path) -> None:
    fields = [field for field in FIELDS if not field.path.startswith("is_")]
    binding = bind(spec_of(tmp_path), fields)
    raw = raw_episode()
    steps = {path: column for path, column in raw.steps.items() if not path.startswith("is_")}
    episode = binding.episode(replace(raw, steps=steps))
    assert (episode.is_first.tolist(), episode.is_last.tolist()) == ([True, False, False], [False, False, True])  # type: ignore[union-attr]
    assert (episode.is_terminal, episode.reward) == (None, None)
    assert binding.layout.origins["is_first"] is None


def test_a_reward_that_is_a_vector_stays_raw(tmp_path: Path) -> None:
    binding = bound(tmp_path, number("reward", shape=(2,)))
    assert binding.layout.origins["reward"] is None
    assert "reward" in {field.path for field in binding.layout.raw}


def test_instructions_may_change_from_step_to_step(tmp_path: Path) -> None:
    episode = bound(tmp_path).episode(raw_episode(language_instruction=[b"a", b"b", b"a"]))
    assert (episode.instructions, episode.instruction_index.tolist()) == (("a", "b"), [0, 1, 0])  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("kind", "ragged", "value", "expected"),
    [
        ("text", 0, "stack", ("stack",)),
        ("bytes", 0, b"stack", ("stack",)),
        ("text", 1, ["stack", "pile", "stack"], ("stack", "pile")),
        ("text", 1, [], ("",)),
    ],
)
def test_an_instruction_may_stand_beside_the_steps(
    tmp_path: Path, kind: Any, ragged: int, value: Any, expected: tuple[str, ...]
) -> None:
    task = Field(path="task", kind=kind, ragged=ragged, per_step=False)
    binding = bound(tmp_path, task, replace={'"language_instruction"': '"task"'})
    episode = binding.episode(raw_episode(metadata={"task": value}))
    assert (episode.instructions, episode.instruction_index.tolist()) == (expected, [0, 0, 0])  # type: ignore[union-attr]


def test_further_languages_add_instructions_and_stay_raw(tmp_path: Path) -> None:
    other = Field(path="other", kind="text")
    declared = {'"language_instruction"': '["language_instruction", "other"]'}
    raw = raw_episode(language_instruction=[b"a"] * 3)
    episode = bound(tmp_path, other, replace=declared).episode(
        replace(raw, steps={**raw.steps, "other": [b"b", b"a", b"c"]})
    )
    assert episode.instructions == ("a", "b", "c")
    assert list(episode.raw["other"]) == [b"b", b"a", b"c"]


def test_an_unreadable_episode_says_where_its_record_is(tmp_path: Path) -> None:
    with pytest.raises(SourceError) as found:
        bound(tmp_path).episode(raw_episode(image=[jpeg(0), b"?", jpeg(1)]))
    assert (found.value.reason, found.value.file, found.value.offset) == ("bad_image", "f", 7)
    assert str(found.value).startswith("f: byte 7: observation.image: step 1: ")


def test_text_below_raw_must_be_utf8(tmp_path: Path) -> None:
    notes = Field(path="notes", kind="text", ragged=1)
    column = Ragged([b"a", b"\xff"], (np.array([1, 1, 0]),))
    raw = raw_episode()
    with pytest.raises(SourceError, match="notes: step 1 is not valid UTF-8"):
        bound(tmp_path, notes).episode(replace(raw, steps={**raw.steps, "notes": column}))


@pytest.mark.parametrize(
    ("lengths", "named"),
    [
        ({"action": 3, "obs.a": 4, "obs.b": 4}, ["obs"]),
        ({"action": 3, "obs.a": 4, "obs.b": 3, "image": 4}, ["image", "obs.a"]),
        ({"action": 3, "obs.a": 5}, []),
        ({"action": 3, "obs.a": 4, "torque": 2}, []),
        ({"action": 3, "obs.a": 3}, []),
        ({"obs.a": 4}, []),
    ],
)
def test_what_is_one_longer_than_the_action_is_named(lengths: dict[str, int], named: list[str]) -> None:
    assert columns_one_longer({path: np.zeros(n) for path, n in lengths.items()}, {"action"}) == named


# --- the columns that are kept, and their names ---


def test_only_what_is_used_is_read(tmp_path: Path) -> None:
    binding = bind(spec_of(tmp_path), FIELDS, keep_raw=False)
    assert binding.columns == {field.path for field in FIELDS} - {"observation.torque"}
    assert not binding.layout.raw


def test_all_images_are_cameras_and_roles_are_metadata(tmp_path: Path) -> None:
    wrist = replace(FIELDS[2], path="observation.wrist")
    cameras = bound(tmp_path, wrist).layout.cameras
    assert [(camera.leaf, camera.role) for camera in cameras] == [("image", "primary"), ("wrist", None)]


def test_depth_is_told_by_its_bits_or_by_the_declaration(tmp_path: Path) -> None:
    more = [replace(FIELDS[2], path="d16", dtype="uint16"), replace(FIELDS[2], path="d8")]
    declared = '\n[depth]\nwrist = { key = "d8", metres_per_unit = 0.01 }\n'
    cameras = {camera.leaf: camera for camera in bound(tmp_path, *more, extra=declared).layout.cameras}
    assert [(c.is_depth, c.role, c.metres_per_unit) for c in (cameras["d16"], cameras["d8"])] == [
        (True, None, None),
        (True, "wrist", 0.01),
    ]


def test_an_image_of_floats_stays_raw(tmp_path: Path) -> None:
    layout = bound(tmp_path, replace(FIELDS[2], path="disparity", dtype="float32")).layout
    assert [camera.leaf for camera in layout.cameras] == ["image"]
    assert "disparity" in {field.path for field in layout.raw}


@pytest.mark.parametrize(
    ("paths", "leaves"),
    [
        (["left.rgb", "right.rgb"], ["left_rgb", "right_rgb"]),
        (["left.rgb", "right.rgb", "left_rgb"], ["left_rgb", "right_rgb", "left_rgb_"]),
        (["a/b", "a_b"], ["a_b", "a_b_"]),
        (["top.front", "side"], ["front", "side"]),
    ],
)
def test_no_two_cameras_share_a_name(tmp_path: Path, paths: list[str], leaves: list[str]) -> None:
    cameras = bound(tmp_path, *(replace(FIELDS[2], path=path) for path in paths)).layout.cameras
    assert [camera.leaf for camera in cameras] == ["image", *leaves]


def test_materialized_views_carry_their_space_and_digest(tmp_path: Path) -> None:
    spec = spec_of(tmp_path)
    (column,) = bind(spec, FIELDS, materialize=["late"]).layout.views
    assert (column.column, len(column.space), column.digest) == ("action.late", 4, view(spec, "late").digest)


# --- declarations that do not fit ---


@pytest.mark.parametrize(
    ("field", "old", "new", "words"),
    [
        (
            Field(path="x", kind="text", ragged=1),
            '"language_instruction"',
            '"x"',
            "language: 'x' contains sequences of texts",
        ),
        (
            replace(FIELDS[2], path="x", dtype="float32"),
            '"observation.image"',
            '"x"',
            "cameras.primary: 'x' contains images of float32",
        ),
        (replace(FIELDS[2], path="x", ragged=1), '"observation.image"', '"x"', "expected images"),
        (
            number("x", shape=(2, None)),
            '"action[:3]"',
            '"x[:3]"',
            "action.xyz: 'x' contains numbers of float32 [2, None]; expected numbers of fixed shape",
        ),
        (number("x", shape=(None,)), '"observation.state"', '"x"', "state.xyz: 'x' contains numbers"),
        (
            number("x", shape=(1,)),
            "control_hz = 10",
            'timestamp = "x"',
            "timestamp: 'x' contains numbers of float32 [1]; expected one",
        ),
        (
            number("x"),
            '"action[3:]"',
            '"x[1:]"',
            "action.gripper: 'x[1:]' returns 0 numbers, the embodiment expects 1 (gripper)",
        ),
    ],
)
def test_a_field_of_the_wrong_kind_is_refused_when_it_is_bound(
    tmp_path: Path, field: Field, old: str, new: str, words: str
) -> None:
    with pytest.raises(SpecError) as found:
        bound(tmp_path, field, replace={old: new})
    assert words in str(found.value)


def test_a_missing_key_names_the_closest(tmp_path: Path) -> None:
    spec = spec_of(tmp_path)
    with pytest.raises(SpecError) as found:
        bind(spec, [replace(f, path=f.path.replace(".image", ".imag")) for f in FIELDS])
    words = "toy: cameras.primary: the source has no 'observation.image'; did you mean 'observation.imag'?"
    assert str(found.value).startswith(words)


@pytest.mark.parametrize("size", [3, 0])
def test_other_bytes_than_0_and_1_in_an_array_of_bool_are_stored_as_1(tmp_path: Path, size: int) -> None:
    odd = np.array([0, 1, 2, 255, 128, 0], np.uint8).view(bool)
    plain = np.array([0, 1, 1, 1, 1, 0], bool)
    flags = Ragged(odd[: 2 * size], (np.full(3, 2 * size // 3),))
    binding = bound(tmp_path, number("flag", "bool"), number("grid", "bool", shape=(2,)), number("flags", "bool"))
    raw = raw_episode(is_first=odd[2:5])
    raw.steps.update(flag=odd[:3], grid=odd.reshape(3, 2), flags=flags)
    episode = binding.episode(raw)
    assert episode.is_first.tobytes() == plain[2:5].tobytes()
    assert np.asarray(episode.raw["flag"]).tobytes() == plain[:3].tobytes()
    assert np.asarray(episode.raw["grid"]).tobytes() == plain.tobytes()
    stored = episode.raw["flags"]
    assert isinstance(stored, Ragged)
    assert np.asarray(stored.values).tobytes() == plain[: 2 * size].tobytes()
