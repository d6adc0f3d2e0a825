"""HDF5 layouts that need a declaration: DROID, LIBERO, robomimic, ManiSkill, Isaac Lab, RDT."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest

from pipelines.readers.reader import VIDEO_EXPANSION, FilePart, plan
from schemas.declarations import catalog
from schemas.errors import MissingExtraError, SourceError, SpecError
from schemas.source import RawEpisode, Unreadable
from schemas.store.dataset import open_dataset
from tests.makers import write_hdf5, write_video
from tests.pipelines.readers.demos import (
    DEMOS,
    SPEC,
    declare,
    details,
    edit,
    episodes,
    make_demo,
    opened,
    outcome,
    read,
    write_demos,
)
from tests.pipelines.readers.reading import decoded
from tests.pipelines.toy import jpeg, oxe

h5py = pytest.importorskip("h5py", reason="the extra 'hdf5'")


# --- images in other layouts ---


@pytest.mark.parametrize("words", ["chw", "hwc rgba", "chw rgba", "hwc 0..1"])
def test_frames_are_read_as_declared_and_come_out_the_same(tmp_path: Path, words: str) -> None:
    plain = make_demo()["obs/agentview_image"]
    held = np.concatenate([plain, plain[..., :1]], axis=-1) if "rgba" in words else plain
    held = np.moveaxis(held, -1, 1) if "chw" in words else held
    held = held / 255 if "0..1" in words else held
    file = write_demos(tmp_path / "x.hdf5", 1, **{"obs/agentview_image": held})
    assert opened(file).fields[3].kind == "number"
    (episode,) = episodes(file, frames={"obs.agentview_image": words})
    assert np.array_equal([decoded(image) for image in episode.steps["obs.agentview_image"]], plain)


@pytest.mark.parametrize(
    ("frames", "words"),
    [
        ({"obs.agentview_image": "chw"}, r"obs\.agentview_image is uint8 \[4, 8, 6, 3\], but an image is"),
        ({"obs.eef_pos": "hwc"}, r"obs\.eef_pos is float32 \[4, 3\], but an image is"),
        ({"obs.agentview": "hwc"}, r"source\.frames: there is no 'obs\.agentview'; did you mean"),
    ],
)
def test_frames_that_are_not_as_declared_are_refused_at_once(
    tmp_path: Path, frames: dict[str, str], words: str
) -> None:
    with pytest.raises(SpecError, match=words):
        opened(write_demos(tmp_path / "x.hdf5", 1), frames=frames)


def test_frames_that_are_not_as_declared_in_a_later_episode_are_counted(tmp_path: Path) -> None:
    frames = {"obs.agentview_image": "hwc"}
    file = write_demos(tmp_path / "x.hdf5")
    edit(file, lambda f: f["data/demo_9/obs"].__delitem__("agentview_image"))
    edit(file, lambda f: f.create_dataset("data/demo_9/obs/agentview_image", data=np.zeros((4, 8, 6, 2), np.uint8)))
    assert outcome(file, frames=frames) == ["ok", "contradicts_fields", "ok"]
    with pytest.raises(SpecError, match=r"source\.frames: gain is float32 \[\]"):
        opened(write_demos(tmp_path / "y.hdf5", gain=np.float32(1)), frames={"gain": "hwc"})


def test_maniskill_has_one_observation_more_than_actions_and_a_json_sidecar(tmp_path: Path) -> None:
    made = {
        "actions": np.zeros((3, 2), np.float32),
        "obs/agent/qpos": np.arange(8.0).reshape(4, 2),
        "obs/sensor_data/base_camera/rgb": np.random.default_rng(0).integers(0, 256, (4, 8, 6, 4), np.uint8),
        "obs/sensor_data/base_camera/depth": np.ones((4, 8, 6, 1), np.int16),
        "env_states/actors/cube": np.zeros((4, 13)),
        "success": np.array([False, False, True]),
    }
    write_hdf5(tmp_path / "trajectory.h5", {f"traj_{i}": made for i in (0, 1, 10)})
    (tmp_path / "trajectory.json").write_text('{"env_info": {"env_id": "PickCube-v1"}, "episodes": []}')
    told: dict[str, Any] = {
        "episodes": "traj_*",
        "drop_last": ["obs", "env_states"],
        "frames": {"obs.sensor_data.base_camera.rgb": "hwc rgba"},
        "beside": {"told": "{file}.json"},
        "in_json": ["told.env_info.env_id"],
    }
    found = episodes(tmp_path, **told)
    assert [episode.metadata["episode_path"] for episode in found] == [f"trajectory.h5/traj_{i}" for i in (0, 1, 10)]
    assert {episode.n_steps() for episode in found} == {3}
    assert found[0].metadata["told.env_info.env_id"] == "PickCube-v1"
    frames = [decoded(image) for image in found[2].steps["obs.sensor_data.base_camera.rgb"]]
    assert np.array_equal(frames, made["obs/sensor_data/base_camera/rgb"][:3, ..., :3])
    assert outcome(tmp_path, **{**told, "drop_last": ["obs"]}) == ["ok"] * 3  # checked later, by `n_steps`
    with pytest.raises(SourceError, match=r"columns of unequal length: env_states\.actors\.cube has 4 steps"):
        episodes(tmp_path, **{**told, "drop_last": ["obs"]})[0].n_steps()


@pytest.mark.parametrize("form", ["raw", "compressed"])
def test_aloha_has_raw_images_or_padded_jpegs_with_stored_lengths(tmp_path: Path, form: str) -> None:
    is_packed = form == "compressed"
    made: dict[str, Any] = {"action": np.zeros((3, 14)), "observations/qpos": np.ones((3, 14))}
    images = [jpeg(seed) for seed in range(3)]
    raw = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), np.uint8)
    if is_packed:
        longest = max(map(len, images))
        made["compress_len"] = np.array([list(map(len, images))] * 2, float)
        made["observations/images/cam_high"] = np.stack(
            [np.frombuffer(image.ljust(longest, b"\0"), np.uint8) for image in images]
        )
    else:
        made["observations/images/cam_high"] = raw
    write_hdf5(tmp_path / "episode_0.hdf5", {"/": made}, {"/": {"sim": False, "compress": is_packed}})
    told = {"per_episode": ["compress_len"]} if is_packed else {}
    (episode,) = episodes(tmp_path, episodes="/", files="episode_*.hdf5", **told)
    assert episode.n_steps() == 3
    assert episode.metadata["attrs.compress"] == is_packed
    frames = episode.steps["observations.images.cam_high"]
    assert list(frames) == images if is_packed else np.array_equal([decoded(frame) for frame in frames], raw)


def test_isaac_lab_keeps_an_initial_state_of_one_row(tmp_path: Path) -> None:
    made = {
        "actions": np.zeros((3, 7), np.float32),
        "obs/joint_pos": np.zeros((3, 9), np.float32),
        "obs/table_cam": np.zeros((3, 8, 8, 3), np.uint8),
        "states/articulation/robot/joint_position": np.zeros((3, 9), np.float32),
        "initial_state/articulation/robot/root_pose": np.arange(7.0, dtype=np.float32)[None],
    }
    attrs = {"data": {"env_args": '{"env_name": "Isaac-Stack", "type": 2}', "total": 3}}
    attrs["data/demo_0"] = {"num_samples": 3, "success": True, "seed": 1}
    write_hdf5(tmp_path / "x.hdf5", {"data/demo_0": made}, attrs)
    (episode,) = episodes(tmp_path, per_episode=["initial_state"], in_json=["parent.env_args.env_name"])
    assert episode.n_steps() == 3
    assert episode.metadata["initial_state.articulation.robot.root_pose"] == [list(map(float, range(7)))]
    assert (episode.metadata["attrs.success"], episode.metadata["parent.env_args.env_name"]) == (True, "Isaac-Stack")


@pytest.mark.parametrize("key", ["per_episode", "drop_last"])
def test_a_path_that_is_not_there_is_refused_at_once(tmp_path: Path, key: str) -> None:
    with pytest.raises(SpecError, match=rf"source\.{key}: there is no 'action'; did you mean 'actions'"):
        opened(write_demos(tmp_path / "x.hdf5", 1), **{key: ["action"]})


# --- values inside JSON ---

INFO = "parent.problem_info.language_instruction"


def write_libero(file: Path, instruction: Any = "pick up the bowl ☂") -> Path:
    """Write a file like LIBERO's, with the instruction in an attribute of the group of all demos."""
    text = json.dumps({"problem_name": "libero", "language_instruction": instruction, "domain_name": "robosuite"})
    return write_hdf5(file, {"data/demo_0": make_demo()}, {"data": {"problem_info": text, "num_demos": 1}})


def test_an_instruction_inside_a_json_attribute_can_be_declared_as_language(tmp_path: Path) -> None:
    write_libero(tmp_path / "source/a.hdf5")
    write_libero(tmp_path / "source/b.hdf5", "open the drawer")
    spec = declare(tmp_path, f'{{ format = "hdf5", uri = "source", episodes = "data/demo_*", in_json = ["{INFO}"] }}')
    spec.write_text(spec.read_text().replace('name       = "toy"', f'name = "toy"\nlanguage = "{INFO}"', 1))
    assert oxe("convert", spec, "--out", tmp_path / "out").code == 0
    dataset = open_dataset(tmp_path / "out")
    assert [dataset.episode(i).instruction for i in range(2)] == ["pick up the bowl ☂", "open the drawer"]
    assert "problem_name" in dataset.episode(0).metadata["parent.problem_info"]  # the whole text is a field as well
    assert oxe("verify", tmp_path / "out").code == 0


@pytest.mark.parametrize(
    ("text", "reason"), [("pick it up", "bad_json"), ('{"language_instruction": 4}', "contradicts_fields")]
)
def test_json_that_is_not_as_in_the_first_episode_is_quarantined(tmp_path: Path, text: str, reason: str) -> None:
    write_libero(tmp_path / "a.hdf5")
    edit(write_libero(tmp_path / "b.hdf5"), lambda f: f["data"].attrs.update({"problem_info": text}))
    assert outcome(tmp_path, in_json=[INFO]) == ["ok", reason]


def test_a_key_that_a_later_episode_lacks_is_null(tmp_path: Path) -> None:
    for name, text in (("a", '{"language_instruction": "x"}'), ("b", "{}"), ("c", '{"language_instruction": null}')):
        edit(write_libero(tmp_path / f"{name}.hdf5"), lambda f, t=text: f["data"].attrs.update({"problem_info": t}))
    edit(write_libero(tmp_path / "d.hdf5"), lambda f: f["data"].attrs.__delitem__("problem_info"))
    assert [episode.metadata[INFO] for episode in episodes(tmp_path, in_json=[INFO])] == ["x", None, None, None]


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("parent.problem_info.language", r"nothing at 'parent\.problem_info\.language'; did you mean .*language_instr"),
        ("parent.problem.language", r"nothing at 'parent\.problem\.language'.*known: .*parent\.problem_info"),
        ("parent.num_demos.x", r"parent\.num_demos is not a text"),
    ],
)
def test_a_path_into_json_that_leads_nowhere_is_refused_at_once(tmp_path: Path, path: str, words: str) -> None:
    with pytest.raises((SpecError, SourceError), match=words):
        opened(write_libero(tmp_path / "x.hdf5"), in_json=[path])


# --- splits ---

MASKS = ["mask/train", "mask/valid"]


def write_masked(file: Path, train: list[str], valid: list[str]) -> Path:
    write_demos(file)
    masks = {"mask/train": np.array(train, "S8"), "mask/valid": np.array(valid, "S8")}
    edit(file, lambda f: [f.create_dataset(path, data=names) for path, names in masks.items()])
    return file


def places(values: list[RawEpisode | Unreadable]) -> list[tuple[int | None, str, str]]:
    return [(v.index, v.split, v.metadata["episode_path"] if isinstance(v, RawEpisode) else v.reason) for v in values]


def test_robomimics_masks_are_splits_where_that_is_declared(tmp_path: Path) -> None:
    write_masked(tmp_path / "a.hdf5", ["demo_10", "demo_8"], ["demo_9"])
    write_masked(tmp_path / "b.hdf5", ["demo_9"], [])
    assert {name: len(parts) for name, parts in opened(tmp_path).files().items()} == {"train": 2}
    files = opened(tmp_path, splits=MASKS).files()
    assert {split: sum(part.count for part in parts) for split, parts in files.items()} == {
        "train": 3,
        "valid": 1,
        "rest": 2,
    }
    found = places(read(tmp_path, splits=MASKS))
    assert found == [
        (0, "train", "a.hdf5/data/demo_8"),
        (1, "train", "a.hdf5/data/demo_10"),
        (2, "train", "b.hdf5/data/demo_9"),
        (3, "valid", "a.hdf5/data/demo_9"),
        (4, "rest", "b.hdf5/data/demo_8"),
        (5, "rest", "b.hdf5/data/demo_10"),
    ]


def test_masks_convert_append_and_verify(tmp_path: Path) -> None:
    source = tmp_path / "source"
    write_masked(source / "a.hdf5", ["demo_10", "demo_8"], ["demo_9"])
    spec = declare(
        tmp_path,
        '{ format = "hdf5", uri = "source", episodes = "data/demo_*", splits = ["mask/train", "mask/valid"] }',
    )
    assert oxe("convert", spec, "--out", tmp_path / "out").code == 0
    write_masked(source / "b.hdf5", ["demo_9", "demo_8", "demo_10"], [])
    assert oxe("convert", spec, "--out", tmp_path / "out", "--append").code == 0
    assert oxe("verify", tmp_path / "out").code == 0
    manifest = json.loads((tmp_path / "out/meta/manifest.json").read_text())
    assert {name: held["episodes"] for name, held in manifest["splits"].items()} == {"train": 5, "valid": 1}


def test_a_masked_demo_that_is_not_there_is_counted(tmp_path: Path) -> None:
    file = write_masked(tmp_path / "a.hdf5", ["demo_8", "demo_77"], ["demo_9", "demo_10"])
    assert [reason for _, _, reason in places(read(file, splits=MASKS))][1] == "missing_record"
    assert "/data has no 'demo_77'" in details(file, episodes=DEMOS, splits=MASKS)


def test_a_demo_in_two_masks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"'demo_8' is in mask/train and in mask/valid"):
        opened(write_masked(tmp_path / "a.hdf5", ["demo_8"], ["demo_8"]), splits=MASKS)


def test_a_mask_that_is_not_a_list_of_names_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="data/demo_8/actions is not a list of names"):
        opened(write_demos(tmp_path / "a.hdf5"), splits=["data/demo_8/actions"])
    with pytest.raises(SourceError, match="/ has no 'mask'"):
        opened(write_demos(tmp_path / "a.hdf5"), splits=MASKS)


def test_a_file_that_grew_after_the_plan_shows_it_in_its_last_split(tmp_path: Path) -> None:
    file = write_masked(tmp_path / "a.hdf5", ["demo_8"], ["demo_9", "demo_10"])
    reader = opened(file, splits=MASKS)
    refs = plan(reader.files())
    edit(file, lambda f: f.copy("data/demo_8", f["data"], "demo_11"))
    values = [value for ref in refs for value in reader.read(ref)]
    assert [index for index, _, _ in places(values)] == [0, 1, 2, None]


@pytest.mark.parametrize(
    "source",
    [
        '{ format = "hdf5", episodes = "/", splits = ["mask/train"] }',
        '{ format = "hdf5", episodes = "data/*", splits = ["a/train", "b/train"] }',
        '{ format = "hdf5", episodes = "data/*", splits = ["mask/rest"] }',
        '{ format = "hdf5", episodes = "data/*", splits = ["mask/.."] }',
        '{ format = "hdf5", episodes = "data/*", frames = { x = "cwh" } }',
    ],
)
def test_a_declaration_that_cannot_hold_is_refused(tmp_path: Path, source: str) -> None:
    with pytest.raises(SpecError, match=r"source[.:]"):
        catalog.dataset(str(declare(tmp_path, source)))


# --- sidecar files ---

SERIALS = {"wrist": "13062452", "ext1": "24400334"}
DROID: dict[str, Any] = {
    "episodes": "/",
    "files": "*/*/*/trajectory.h5",
    "ignore": ["observation.camera_type", "observation.timestamp.cameras"],
    "beside": {"metadata": "metadata_*.json"},
    "in_json": ["metadata.current_task", "metadata.wrist_cam_serial", "metadata.ext1_cam_serial"],
    "videos": {f"camera.{name}": f"recordings/MP4/{{metadata.{name}_cam_serial}}.mp4" for name in ("wrist", "ext1")},
}


def lightness(first: int, count: int) -> list[int]:
    """Return the lightness of the frames that `write_video` draws."""
    return [5 * number for number in range(first, first + count)]


def write_droid(folder: Path, number: int = 0, *, steps: int = 5, **changes: Any) -> Path:
    """Write an episode's folder like DROID's, with serials that differ between labs and stereo videos."""
    episode = folder / "success" / "2023-07-07" / f"Fri_Jul__7_09:4{number}:39_2023"
    held = {
        "action/joint_position": np.full((steps, 7), number, float),
        "action/gripper_position": np.zeros(steps),
        "observation/robot_state/joint_positions": np.zeros((steps, 7)),
        **{f"observation/camera_type/{serial}{number}": np.zeros(steps, int) for serial in SERIALS.values()},
        "observation/timestamp/cameras/x": np.zeros(3),
    }
    write_hdf5(episode / "trajectory.h5", {"/": held}, {"/": {"success": True, "building": "TRI"}})
    told = {"uuid": f"TRI+{number}", "current_task": f"task {number}", "trajectory_length": steps}
    told |= {f"{name}_cam_serial": f"{serial}{number}" for name, serial in SERIALS.items()}
    (episode / f"metadata_TRI+{number}.json").write_text(json.dumps({**told, **changes}))
    for i, serial in enumerate(SERIALS.values()):
        write_video(episode / f"recordings/MP4/{serial}{number}.mp4", frames=steps, first=10 * number + 5 * i)
        (episode / f"recordings/MP4/{serial}{number}-stereo.mp4").write_bytes(b"stereo")
    return episode


def brightness(episode: RawEpisode, path: str) -> list[float]:
    return [float(decoded(image).mean()) for image in episode.steps[path]]


def test_droids_videos_are_found_through_its_metadata_and_matched_by_number(tmp_path: Path) -> None:
    pytest.importorskip("av", reason="the extra 'lerobot'")
    for number in range(2):
        write_droid(tmp_path, number)
    for number, episode in enumerate(episodes(tmp_path, **DROID)):
        assert episode.n_steps() == 5
        assert episode.metadata["metadata.current_task"] == f"task {number}"
        assert json.loads(episode.metadata["metadata"])["uuid"] == f"TRI+{number}"
        assert episode.metadata["attrs.building"] == "TRI"
        for i, name in enumerate(SERIALS):
            wanted = lightness(10 * number + 5 * i, 5)
            assert brightness(episode, f"camera.{name}") == pytest.approx(wanted, abs=2)
            assert bytes(episode.steps[f"camera.{name}"][0][:2]) == b"\xff\xd8"


def test_a_video_counts_with_its_size_where_work_is_shared_out(tmp_path: Path) -> None:
    pytest.importorskip("av", reason="the extra 'lerobot'")
    episode = write_droid(tmp_path)
    (part,) = opened(tmp_path, **DROID).files()["train"]
    size = sum(file.stat().st_size for file in [episode / "trajectory.h5", *episode.glob("recordings/MP4/*")])
    assert part == FilePart(
        name=str((episode / "trajectory.h5").relative_to(tmp_path)),
        size=size,
        first=0,
        count=1,
        becomes=VIDEO_EXPANSION * size,
    )


def test_droid_converts_and_verifies(tmp_path: Path) -> None:
    pytest.importorskip("av", reason="the extra 'lerobot'")
    for number in range(2):
        write_droid(tmp_path / "lab", number)
    seven = SPEC.replace("joint a b,", "joint a b c d e f g,").replace('"actions"', '"action.joint_position"')
    source = ", ".join(f"{key} = {_toml(value)}" for key, value in DROID.items())
    (tmp_path / "droid.toml").write_text(
        f'source = {{ format = "hdf5", uri = "lab", {source} }}\nlanguage = "metadata.current_task"\n'
        f'cameras = {{ wrist = "camera.wrist", primary = "camera.ext1" }}\n{seven}'
    )
    assert oxe("convert", tmp_path / "droid.toml", "--out", tmp_path / "out").code == 0
    done = oxe("verify", tmp_path / "out")
    assert (done.code, "source compared" in done.out) == (0, True)


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f'"{key}" = {_toml(held)}' for key, held in value.items()) + " }"
    return json.dumps(value)


def damaged_droid(tmp_path: Path, damage: str) -> None:
    write_droid(tmp_path, 0)
    episode = write_droid(tmp_path, 1)
    video = episode / f"recordings/MP4/{SERIALS['ext1']}1.mp4"
    if damage == "gone":
        video.unlink()
    elif damage == "short":
        write_video(video, frames=4)
    elif damage == "long":
        write_video(video, frames=6)
    elif damage == "broken":
        video.write_bytes(b"no video" * 100)
    elif damage == "pointer":
        video.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    elif damage == "untold":
        next(episode.glob("metadata_*.json")).unlink()
    elif damage == "twice":
        (episode / "metadata_other.json").write_text("{}")
    else:
        write_droid(tmp_path, 1, ext1_cam_serial=damage)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        ("gone", "missing_video"),
        ("short", "frame_count"),
        ("long", "frame_count"),
        ("broken", "bad_video"),
        ("pointer", "lfs_pointer"),
        ("untold", "missing_file"),
        ("twice", "ambiguous_file"),
        ("unknown", "missing_video"),
        ("../../../../etc/passwd", "unsafe_path"),
    ],
)
def test_what_is_wrong_with_a_video_or_its_metadata_is_counted(tmp_path: Path, damage: str, reason: str) -> None:
    pytest.importorskip("av", reason="the extra 'lerobot'")
    damaged_droid(tmp_path, damage)
    assert outcome(tmp_path, **DROID) == ["ok", reason]
    assert str(tmp_path) not in details(tmp_path, **DROID)


def test_one_file_of_many_demos_has_a_video_for_each(tmp_path: Path) -> None:
    pytest.importorskip("av", reason="the extra 'lerobot'")
    write_demos(tmp_path / "x.hdf5", 2)
    for number in (8, 9):
        write_video(tmp_path / f"videos/x_demo_{number}.mp4", frames=5, first=number)
    videos = {"front": "videos/{file}_{episode}*.mp4"}
    found = episodes(tmp_path, videos=videos, drop_last=["front"], images="png")
    for number, episode in enumerate(found, 8):
        assert brightness(episode, "front") == pytest.approx(lightness(number, 4), abs=2)
    assert outcome(tmp_path, videos=videos) == ["frame_count"] * 2
    reader = opened(tmp_path, videos=videos, drop_last=["front"])
    alone = [value for ref in plan(reader.files()) for value in reader.read(ref, {"front"})]
    assert [len(value.steps["front"]) for value in alone if isinstance(value, RawEpisode)] == [4, 4]


def test_videos_and_texts_are_read_from_memory_too(tmp_path: Path) -> None:
    pytest.importorskip("av", reason="the extra 'lerobot'")
    write_droid(tmp_path)
    memory = fsspec.filesystem("memory")
    memory.put(str(tmp_path) + "/", "/droid", recursive=True)
    try:
        ours, theirs = episodes(tmp_path, **DROID), episodes("memory://droid", **DROID)
        assert repr([(e.steps, e.metadata) for e in ours]) == repr([(e.steps, e.metadata) for e in theirs])
    finally:
        memory.rm("/droid", recursive=True)


@pytest.mark.parametrize("key", ["beside", "videos"])
def test_a_placeholder_that_is_not_a_value_is_refused_at_once(tmp_path: Path, key: str) -> None:
    pytest.importorskip("av", reason="the extra 'lerobot'")
    with pytest.raises(
        SpecError, match=rf"source\.{key}: '\{{attrs\.num\}}' is not a value; did you mean 'attrs\.num_sa"
    ):
        opened(write_demos(tmp_path / "x.hdf5"), **{key: {"x": "{file}_{attrs.num}.mp4"}})


def test_a_pattern_that_refers_to_itself_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="x is None, which cannot be part of a file name"):
        opened(write_demos(tmp_path / "x.hdf5"), beside={"x": "{y}.json", "y": "{x}.json"})


def test_without_av_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pipelines.readers.video", None)
    with pytest.raises(MissingExtraError, match=r"oxe-tools\[lerobot\]"):
        opened(write_demos(tmp_path / "x.hdf5"), videos={"front": "x.mp4"})
