"""JSON files of an episode: lists of texts, lists of steps and the images that steps name, and ignored files."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from PIL import Image

from schemas.errors import SourceError
from tests.pipelines.readers.reading import ARM, Opener, Reading, decoded
from tests.pipelines.toy import jpeg, oxe

STEPS = 4
opened = Opener("folder")
reading = Reading(opened)


def write_json(file: Path, content: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))


def png(number: int) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.full((4, 6, 3), number, np.uint8)).save(out, "PNG")
    return out.getvalue()


# --- values of an episode ---


def write_meta(folder: Path, *contents: Any) -> Path:
    """Write an episode of five steps for each content of `meta.json`."""
    for number, content in enumerate(contents):
        write_json(folder / f"episode_{number}/meta.json", content)
        np.savez(folder / f"episode_{number}/low.npz", action=np.zeros((5, 4)))
    return folder


def values(folder: Path, name: str) -> list[Any]:
    return [episode.metadata[f"meta.{name}"] for episode in reading.episodes(folder)]


def test_lists_of_texts_are_values_of_the_episode_also_if_they_are_empty_or_missing(tmp_path: Path) -> None:
    write_meta(
        tmp_path,
        {"say": ["grab", "take"], "tags": [], "task": {"steps": ["a"]}, "only": ["x"], "none": None, "gap": ["y"]},
        {"say": ["lift"], "tags": ["new"], "task": {"steps": []}, "none": None, "gap": None},
    )
    assert values(tmp_path, "say") == [["grab", "take"], ["lift"]]
    assert values(tmp_path, "tags") == [[], ["new"]]
    assert values(tmp_path, "task.steps") == [["a"], []]
    assert values(tmp_path, "only") == [["x"], []]
    assert values(tmp_path, "gap") == [["y"], []]
    assert "meta.none" not in {field.path for field in opened(tmp_path).fields}


def test_an_empty_list_fits_a_list_of_numbers(tmp_path: Path) -> None:
    write_meta(tmp_path, {"at": [1, 2], "size": 3}, {"at": [], "size": 4}, {"at": [1, 2, 3], "size": []})
    found = reading.read(tmp_path)
    assert [episode.metadata["meta.at"] for episode in found[:2]] == [[1.0, 2.0], []]  # type: ignore[union-attr]
    assert getattr(found[2], "reason", "") == "contradicts_fields"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"a": [["x"], ["y"]]}, "meta.a contains texts: expected"),
        ({"a": ["x", 1]}, "meta.a contains numbers, texts"),
        ({"a": [{"b": 1}, 2]}, "meta.a contains numbers, objects"),
        ([1, 2], "neither a JSON object nor a list of objects"),
        ("x", "neither a JSON object nor a list of objects"),
    ],
)
def test_any_other_list_is_refused_by_name(tmp_path: Path, content: Any, words: str) -> None:
    with pytest.raises(SourceError, match=words):
        opened(write_meta(tmp_path, content))


@pytest.mark.parametrize("ignored", ["preview.png", "preview"])
def test_a_loose_picture_is_left_out_by_its_name(tmp_path: Path, ignored: str) -> None:
    write_meta(tmp_path, {"a": 1}, {"a": 2})
    for number in range(2):
        (tmp_path / f"episode_{number}/preview.png").write_bytes(png(number))
    with pytest.raises(SourceError, match=r"source\.ignore = \['preview\.png'\]"):
        opened(tmp_path)
    (first, _) = reading.episodes(tmp_path, episodes="episode_*", ignore=[ignored])
    assert {*first.steps} == {"low.action"}


@pytest.mark.parametrize("ignored", ["thumb_1.jpg", "obs.thumb_1.jpg", "obs.thumb_1", "obs.images"])
def test_a_file_in_a_subfolder_is_left_out_by_its_name_or_its_path(tmp_path: Path, ignored: str) -> None:
    write_meta(tmp_path, {"a": 1})
    (tmp_path / "episode_0/obs").mkdir()
    for name in ("thumb_1.jpg", "notes.md"):
        (tmp_path / f"episode_0/obs/{name}").write_bytes(jpeg(0))
    ignore = [*(["obs"] if ignored == "obs.images" else [ignored]), "notes.md"]
    (episode,) = reading.episodes(tmp_path, episodes="episode_*", ignore=ignore)
    assert {*episode.steps} == {"low.action"}


def test_a_picture_that_is_not_a_frame_says_how_to_leave_it_out(tmp_path: Path) -> None:
    write_meta(tmp_path, {"a": 1})
    (tmp_path / "episode_0/shot_1.png").write_bytes(png(1))
    assert reading.outcome(tmp_path) == ["frame_count"]
    assert "source.ignore = ['images']" in reading.details(tmp_path)
    assert reading.outcome(tmp_path, episodes="episode_*", ignore=["images"]) == ["ok"]


@pytest.mark.parametrize("name", ["steps.csv.gz", "low.npz.zip", "cam.tar"])
def test_a_packed_file_is_to_be_unpacked_and_not_ignored(tmp_path: Path, name: str) -> None:
    (write_meta(tmp_path, {"a": 1}) / "episode_0" / name).write_bytes(b"x")
    with pytest.raises(SourceError, match="compressed, or an archive: unpack it"):
        opened(tmp_path)


# --- lists of steps ---


def step(number: int) -> dict[str, Any]:
    """Return one step as xr_teleoperate writes it."""
    arms = {
        side: {"qpos": [sign * number * 0.1] * 7, "qvel": [], "torque": []}
        for side, sign in (("left_arm", 1), ("right_arm", -1))
    }
    colors = {f"color_{camera}": f"colors/{number:06d}_color_{camera}.jpg" for camera in range(2)}
    return {"idx": number, "colors": colors, "depths": {}, "states": arms, "actions": arms, "audios": None}


def write_unitree(folder: Path, *, key: str = "data", count: int = 2) -> Path:
    for episode in range(count):
        below = folder / f"episode_{episode:04d}"
        (below / "audios").mkdir(parents=True)
        (below / "colors").mkdir()
        for number in range(STEPS):
            for camera in range(2):
                (below / f"colors/{number:06d}_color_{camera}.jpg").write_bytes(jpeg(10 * number + camera))
        info = {"image": {"fps": 30}, "joint_names": {"left_arm": []}}
        text = {"goal": f"pick {episode}"}
        write_json(below / "data.json", {"info": info, "text": text, key: [step(i) for i in range(STEPS)]})
    return folder


@pytest.mark.parametrize("key", ["data", "steps", "frames", "trajectory"])
def test_a_list_of_steps_is_read_with_the_images_that_it_names(tmp_path: Path, key: str) -> None:
    first, second = reading.episodes(write_unitree(tmp_path, key=key))
    below = f"data.{key}"
    assert {*first.steps} == {
        f"{below}.{name}"
        for name in (
            "idx", "colors.color_0", "colors.color_1",
            "states.left_arm.qpos", "states.right_arm.qpos", "actions.left_arm.qpos", "actions.right_arm.qpos",
        )
    }  # fmt: skip
    assert first.n_steps() == STEPS
    assert np.allclose(
        np.asarray(first.steps[f"{below}.states.right_arm.qpos"]), [[-0.1 * i] * 7 for i in range(STEPS)]
    )
    assert list(first.steps[f"{below}.colors.color_1"]) == [jpeg(10 * i + 1) for i in range(STEPS)]
    assert second.metadata == {
        "episode_path": "episode_0001",
        "data.info.image.fps": 30.0,
        "data.info.joint_names.left_arm": [],
        "data.text.goal": "pick 1",
    }


def test_one_episode_is_read_from_its_own_folder_and_from_memory(tmp_path: Path) -> None:
    write_unitree(tmp_path)
    memory = fsspec.filesystem("memory")
    memory.put(str(tmp_path), "/unitree", recursive=True)
    (alone,) = reading.episodes(tmp_path / "episode_0001", episodes=".")
    try:
        (_, second) = reading.episodes("memory://unitree")
    finally:
        memory.rm("/unitree", recursive=True)
    camera = "data.data.colors.color_1"
    assert list(alone.steps[camera]) == list(second.steps[camera]) == [jpeg(10 * i + 1) for i in range(STEPS)]


def test_what_a_list_of_steps_leaves_out_is_counted(tmp_path: Path) -> None:
    write_unitree(tmp_path)
    for number in range(2):
        (tmp_path / f"episode_000{number}/colors/overview.jpg").write_bytes(jpeg(0))
    assert [str(each) for each in opened(tmp_path).left_out()] == [
        "9 columns without values, such as data.data.states.left_arm.qvel",
        "episode_0000/colors/overview.jpg",
        "episode_0000/audios",
    ]


def test_a_list_of_steps_may_be_the_whole_file_in_a_subfolder_with_png_and_paths_from_the_episode(
    tmp_path: Path,
) -> None:
    for episode in range(2):
        below = tmp_path / f"demo_{episode}"
        (below / "cam").mkdir(parents=True)
        for number in range(3):
            (below / f"cam/{number}.png").write_bytes(png(number))
        rows = [{"q": [1.0 * i, 2.0], "word": f"w{i}", "view": f".\\cam\\{i}.png"} for i in (2, 0, 1)]
        write_json(below / "low/steps.json", rows)
    (first, _) = reading.episodes(tmp_path)
    assert {*first.steps} == {"low.steps.q", "low.steps.word", "low.steps.view"}
    assert [decoded(image)[0, 0, 0] for image in first.steps["low.steps.view"]] == [2, 0, 1]


@pytest.mark.parametrize("path", ["/data/x/0.jpg", "../0.jpg", "https://host/0.jpg", "C:\\x\\0.jpg"])
def test_a_path_that_leads_out_of_the_episode_stays_a_text(tmp_path: Path, path: str) -> None:
    write_json(tmp_path / "demo_0/data.json", {"data": [{"q": 1.0, "view": path}] * 2})
    (episode,) = reading.episodes(tmp_path)
    assert [bytes(cell).decode() for cell in episode.steps["data.data.view"]] == [path] * 2


@pytest.mark.parametrize(
    ("change", "reason", "words"),
    [
        (
            lambda e: (e / "colors/000002_color_1.jpg").unlink(),
            "missing_file",
            "data.data.colors.color_1: no such file",
        ),
        (lambda e: (e / "colors/000002_color_1.jpg").write_bytes(b""), "bad_image", "000002_color_1.jpg is empty"),
        (
            lambda e: write_json(e / "data.json", {"text": {"goal": ""}, "data": [step(0), {"idx": 1}]}),
            "bad_table",
            "row 1: 'data.data.actions.left_arm.qpos' is not in every row",
        ),
        (
            lambda e: write_json(e / "data.json", {"data": [step(0) | {"audios": [0.5]}] * STEPS}),
            "contradicts_fields",
            "'data.data.audios' is not in the first episode",
        ),
        (lambda e: write_json(e / "data.json", {"data": []}), "frame_count", "frames are missing"),
    ],
)
def test_a_damaged_episode_is_quarantined_alone(
    tmp_path: Path, change: Callable[[Path], Any], reason: str, words: str
) -> None:
    change(write_unitree(tmp_path) / "episode_0001")
    assert reading.outcome(tmp_path) == ["ok", reason]
    assert words in reading.details(tmp_path)


def test_a_list_of_steps_is_inspected_and_converted(tmp_path: Path) -> None:
    write_unitree(tmp_path / "source")
    assert oxe("inspect", tmp_path / "source", "--json").json()["steps"] == 2 * STEPS
    arm = ARM.replace("joint a b,", "joint a b c d e f g,")
    (tmp_path / "toy.toml").write_text(f"""
name       = "toy"
source     = {{ format = "folder", uri = "source", episodes = "episode_*" }}
control_hz = 30
id         = "episode_path"
language   = "data.text.goal"
cameras    = {{ primary = "data.data.colors.color_0" }}
{arm}
[action]
joints = "data.data.actions.left_arm.qpos"
""")
    assert oxe("convert", tmp_path / "toy.toml", "--out", tmp_path / "out").code == 0
    assert oxe("verify", tmp_path / "out").code == 0
