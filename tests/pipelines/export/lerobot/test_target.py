"""Exported LeRobotDatasets, read with pyarrow, pandas, `datasets` and PyAV, as LeRobot reads them."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipelines.export.plan import shards_of_size
from schemas.episode import Episode
from schemas.source import Field, Ragged
from schemas.store.dataset import Dataset
from tests.pipelines.export.makers import (
    converted,
    depth_field,
    episodes,
    export,
    info,
    picture,
    picture_of_depth,
    table,
    with_field,
)
from tests.pipelines.toy import FIELDS, files, oxe, write_source, write_spec

av = pytest.importorskip("av", reason="videos are the extra 'lerobot'")
PRIMARY = "observation.images.primary"


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return converted(tmp_path_factory.mktemp("toy"), episodes(4), splits={"train": 3, "val": 1})


def steps(dataset: Dataset, view: str | None = None) -> list[Episode]:
    return [dataset.episode(i, view) for i in range(len(dataset))]


def decoded(path: Path) -> list[Any]:
    with av.open(str(path)) as container:
        return [(frame.time, frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]


def apart(shown: Any, image: Any) -> float:
    wanted = np.asarray(Image.open(io.BytesIO(image)).convert("RGB")).astype(int)
    return float(np.abs(shown.astype(int) - wanted).mean())


# --- files and columns ---


def test_v30_lies_where_lerobot_looks(toy: Dataset, tmp_path: Path) -> None:
    report = export(toy, tmp_path / "out")
    assert (report["episodes"], report["steps"], report["files"], report["left_out"]) == (4, 30, 4, {})
    told = info(tmp_path / "out")
    assert {key: told[key] for key in ("codebase_version", "fps", "robot_type", "splits", "total_tasks")} == {
        "codebase_version": "v3.0",
        "fps": 10,
        "robot_type": "toy",
        "splits": {"train": "0:3", "val": "3:4"},
        "total_tasks": 4,
    }
    assert sorted(name for name in files(tmp_path / "out") if not name.startswith("oxe_")) == [
        "data/chunk-000/file-000.parquet",
        "data/chunk-000/file-001.parquet",
        "meta/episodes/chunk-000/file-000.parquet",
        "meta/info.json",
        "meta/stats.json",
        "meta/tasks.parquet",
        f"videos/{PRIMARY}/chunk-000/file-000.mp4",
        f"videos/{PRIMARY}/chunk-000/file-001.mp4",
    ]
    assert told["features"]["action"] == {"dtype": "float32", "shape": [4], "names": ["x", "y", "z", "gripper"]}
    assert told["features"][PRIMARY]["shape"] == [64, 64, 3]
    assert told["features"][PRIMARY]["info"]["video.codec"] == "h264"


def test_v21_has_a_file_for_each_episode(toy: Dataset, tmp_path: Path) -> None:
    report = export(toy, tmp_path / "out", "--version", "2.1")
    assert report["files"] == 8
    told = info(tmp_path / "out")
    assert (told["codebase_version"], told["total_videos"], told["total_chunks"]) == ("v2.1", 4, 1)
    lines = (tmp_path / "out/meta/episodes.jsonl").read_text().splitlines()
    first = json.loads(lines[0])
    assert (len(lines), first["episode_index"], first["tasks"], first["length"]) == (4, 0, ["task 0 ☂"], 6)
    stats = json.loads((tmp_path / "out/meta/episodes_stats.jsonl").read_text().splitlines()[1])
    assert set(stats["stats"]["action"]) == {"min", "max", "mean", "std", "count"}
    for number, episode in enumerate(steps(toy)):
        path = tmp_path / "out" / told["data_path"].format(episode_chunk=0, episode_index=number)
        assert pd.read_parquet(path)["frame_index"].tolist() == list(range(len(episode)))
        video = told["video_path"].format(episode_chunk=0, episode_index=number, video_key=PRIMARY)
        shown = decoded(tmp_path / "out" / video)
        assert [time for time, _ in shown] == pytest.approx([t / 10 for t in range(len(episode))])


@pytest.mark.parametrize("video", ["h264", "none"])
def test_the_datasets_library_reads_every_column(
    toy: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, video: str
) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    export(toy, tmp_path / "out", "--video", video)
    names = [str(path) for path in sorted((tmp_path / "out/data").rglob("*.parquet"))]
    loaded = datasets.load_dataset("parquet", data_files=names, split="train", cache_dir=str(tmp_path / "cache"))
    rows = iter(loaded)
    declared = {key for key, feature in info(tmp_path / "out")["features"].items() if feature["dtype"] != "video"}
    assert set(loaded.column_names) == declared
    for number, episode in enumerate(steps(toy)):
        for t in range(len(episode)):
            row = next(rows)
            np.testing.assert_array_equal(np.asarray(row["action"], np.float32), episode.action[t])
            np.testing.assert_array_equal(
                np.asarray(row["raw.observation.torque"]), episode.raw["observation.torque"][t]
            )
            assert (row["episode_index"], row["frame_index"]) == (number, t)
            assert row["timestamp"] == np.float32(t / 10)
            if video == "none":
                stored = np.asarray(Image.open(io.BytesIO(episode.images["image"][t] or b"")))
                np.testing.assert_array_equal(np.asarray(row[PRIMARY]), stored)


def test_encoded_images_are_untouched(toy: Dataset, tmp_path: Path) -> None:
    export(toy, tmp_path / "out", "--video", "none")
    stored = [image["bytes"] for image in table(tmp_path / "out")[PRIMARY].to_pylist()]
    assert stored == [frame for episode in steps(toy) for frame in episode.images["image"]]


def test_pandas_finds_a_task_by_its_text(toy: Dataset, tmp_path: Path) -> None:
    export(toy, tmp_path / "out")
    tasks = pd.read_parquet(tmp_path / "out/meta/tasks.parquet")
    assert [int(tasks.loc[f"task {seed} ☂"].task_index) for seed in range(4)] == [0, 1, 2, 3]
    assert tasks.iloc[2].name == "task 2 ☂"


@pytest.mark.parametrize("codec", ["h264", "av1"])
def test_the_table_of_episodes_leads_to_every_frame(toy: Dataset, tmp_path: Path, codec: str) -> None:
    export(toy, tmp_path / "out", "--video", codec)
    out, told = tmp_path / "out", info(tmp_path / "out")
    rows = table(out, "meta/episodes").to_pylist()
    indices = table(out)["episode_index"].to_pylist()
    for row, episode in zip(rows, steps(toy), strict=True):
        assert indices[row["dataset_from_index"] : row["dataset_to_index"]] == [row["episode_index"]] * len(episode)
        place = {name: row[f"videos/{PRIMARY}/{name}"] for name in ("chunk_index", "file_index")}
        shown = decoded(out / told["video_path"].format(video_key=PRIMARY, **place))
        for t, image in enumerate(episode.images["image"]):
            time = row[f"videos/{PRIMARY}/from_timestamp"] + np.float32(t / 10)
            nearest = min(shown, key=lambda item, time=time: abs(item[0] - time))
            assert abs(nearest[0] - time) < 1e-4  # LeRobot's tolerance
            assert apart(nearest[1], image) < 6
        assert row[f"videos/{PRIMARY}/to_timestamp"] - row[f"videos/{PRIMARY}/from_timestamp"] == pytest.approx(
            len(episode) / 10
        )


def test_a_view_replaces_the_action_and_leaves_out_what_it_masks(toy: Dataset, tmp_path: Path) -> None:
    report = export(toy, tmp_path / "out", "--view", "late")
    assert (report["steps"], report["view"]) == (26, "late")
    rows = table(tmp_path / "out")
    viewed = steps(toy, "late")
    np.testing.assert_array_equal(rows["action"].to_pylist(), np.concatenate([e.action for e in viewed]))
    np.testing.assert_array_equal(rows["recorded_timestamp"], np.concatenate([e.timestamp for e in viewed]))  # type: ignore[arg-type]
    assert rows["index"].to_pylist() == list(range(26))
    assert not [name for name in rows.column_names if name.startswith("raw.")]
    shown = decoded(tmp_path / f"out/videos/{PRIMARY}/chunk-000/file-000.mp4")
    images = [image for episode in viewed[:3] for image in episode.images["image"]]
    assert len(shown) == len(images)
    assert max(apart(frame, image) for (_, frame), image in zip(shown, images, strict=True)) < 6


# --- statistics ---


def test_the_statistics_of_the_whole_are_exact_and_those_of_episodes_their_own(toy: Dataset, tmp_path: Path) -> None:
    export(toy, tmp_path / "out")
    stats = json.loads((tmp_path / "out/meta/stats.json").read_text())
    rows, episodes = table(tmp_path / "out"), table(tmp_path / "out", "meta/episodes").to_pylist()
    quantiles = {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}
    for name in ("action", "observation.state", "timestamp", "frame_index", "episode_index", "index", "task_index"):
        values = np.array(rows[name].to_pylist(), np.float64).reshape(len(rows), -1)
        for found, some in (
            (stats[name], values),
            *(
                (
                    {key.rsplit("/", 1)[1]: figure for key, figure in row.items() if key.startswith(f"stats/{name}/")},
                    values[row["dataset_from_index"] : row["dataset_to_index"]],
                )
                for row in episodes
            ),
        ):
            wanted = {"min": some.min(0), "max": some.max(0), "mean": some.mean(0), "std": some.std(0)}
            wanted |= {key: np.quantile(some, q, axis=0) for key, q in quantiles.items()}
            assert found["count"] == [len(some)]
            for key, figure in wanted.items():
                np.testing.assert_allclose(found[key], figure, rtol=1e-9, atol=1e-9, err_msg=f"{name} {key}")


def test_the_statistics_of_images_are_those_of_the_stated_sample(tmp_path: Path) -> None:
    dataset = converted(tmp_path, episodes(2, steps=14))
    export(dataset, tmp_path / "none", "--video", "none")
    export(dataset, tmp_path / "video")
    pixels = np.stack(
        [
            np.asarray(Image.open(io.BytesIO(episode.images["image"][t] or b"")))
            for episode in steps(dataset)
            for t in np.round(np.linspace(0, len(episode) - 1, 10)).astype(int)
        ]
    )
    found, near = (json.loads((tmp_path / out / "meta/stats.json").read_text())[PRIMARY] for out in ("none", "video"))
    assert found["count"] == near["count"] == [20]
    for key, wanted in {
        "min": pixels.min((0, 1, 2)),
        "mean": pixels.mean((0, 1, 2)),
        "std": pixels.std((0, 1, 2)),
    }.items():
        assert np.shape(found[key]) == (3, 1, 1)
        np.testing.assert_allclose(np.ravel(found[key]), wanted / 255, rtol=1e-12)
        np.testing.assert_allclose(np.ravel(near[key]), wanted / 255, atol=0.02)  # a different JPEG decoder


# --- images that cannot be a video ---


def test_a_camera_with_missing_frames_keeps_its_images(tmp_path: Path) -> None:
    made = episodes(2)
    made[1]["observation.image"] = [b"", *made[1]["observation.image"][1:]]  # type: ignore[misc]
    report = export(converted(tmp_path, made), tmp_path / "out")
    assert report["cameras"] == {PRIMARY: {"as": "jpeg images", "psnr": None, "why": "1 frames are missing"}}
    assert info(tmp_path / "out")["video_path"] is None
    stored = [image and image["bytes"] for image in table(tmp_path / "out")[PRIMARY].to_pylist()]
    assert stored == [frame or None for episode in made for frame in episode["observation.image"]]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("size", "video", "why"),
    [
        (33, "h264", "33 x 33: the height and width of a video must be even"),
        (32, "av1", "32 x 32: the encoder requires at least 64 x 64"),
    ],
)
def test_a_size_that_an_encoder_does_not_take_stays_in_images(tmp_path: Path, size: int, video: str, why: str) -> None:
    report = export(converted(tmp_path, episodes(2, size=size)), tmp_path / "out", "--video", video)
    assert report["cameras"][PRIMARY]["why"] == why


def test_a_camera_that_changes_its_size_is_no_video(tmp_path: Path) -> None:
    made = episodes(2)
    made[1]["observation.image"] = [picture(t, height=32) for t in range(7)]
    dataset = converted(tmp_path, made)
    done = oxe("export", "lerobot", dataset.path, "--out", tmp_path / "out")
    message = f"{PRIMARY}: episode 1: step 0: expected 64 x 64 as in the first frame, got 32 x 64; pass --video none"
    assert (done.code, message in done.err) == (2, True)
    assert export(dataset, tmp_path / "images", "--video", "none")["steps"] == 13


def test_a_depth_is_a_png_of_16_bits_and_never_a_video(tmp_path: Path) -> None:
    made = episodes(2)
    more = with_field(made, depth_field(), [[picture_of_depth(t) for t in range(len(e["action"]))] for e in made])
    report = export(converted(tmp_path, made, **more), tmp_path / "out")
    assert report["cameras"]["observation.depth.depth"]["as"] == "png images"
    told = info(tmp_path / "out")["features"]["observation.depth.depth"]
    assert (told["dtype"], told["shape"]) == ("image", [6, 8, 1])
    stored = [image["bytes"] for image in table(tmp_path / "out")["observation.depth.depth"].to_pylist()]
    assert stored == [frame for episode in made for frame in episode["observation.depth"]]  # type: ignore[union-attr]
    stats = json.loads((tmp_path / "out/meta/stats.json").read_text())["observation.depth.depth"]
    assert 60_000 < stats["max"][0][0][0] <= 65535


def test_a_dataset_without_cameras_is_one_of_numbers(tmp_path: Path) -> None:
    made = [{name: column for name, column in e.items() if name != "observation.image"} for e in episodes(2)]
    spec = {'\n[cameras]\nprimary = "observation.image"\n': ""}
    fields = [field for field in FIELDS if field.kind != "image"]
    write_source(tmp_path / "source", made, fields=fields)
    assert (
        oxe(
            "convert", write_spec(tmp_path, replace=spec), "--source", tmp_path / "source", "--out", tmp_path / "ds"
        ).code
        == 0
    )
    done = oxe("export", "lerobot", tmp_path / "ds", "--out", tmp_path / "out", "--json")
    assert (done.code, done.json()["cameras"], info(tmp_path / "out")["video_path"]) == (0, {}, None)


# --- edge cases of texts and numbers ---


def test_an_empty_instruction_is_a_task_like_others(tmp_path: Path) -> None:
    made = episodes(2)
    made[1]["language_instruction"] = [b""] * 7
    export(converted(tmp_path, made), tmp_path / "out")
    tasks = pd.read_parquet(tmp_path / "out/meta/tasks.parquet")
    assert tasks.index.tolist() == ["task 0 ☂", ""]
    assert table(tmp_path / "out")["task_index"].to_pylist() == [0] * 6 + [1] * 7


def test_what_lerobot_has_no_type_for_is_left_out_and_said(tmp_path: Path) -> None:
    made = episodes(2)
    ragged = [Ragged(np.arange(2 * len(e["action"]), dtype=np.int64), (np.full(len(e["action"]), 2),)) for e in made]
    more = with_field(made, Field(path="observation.hits", kind="number", dtype="int64", ragged=1), ragged)
    dataset = converted(tmp_path, made, **more)
    done = oxe("export", "lerobot", dataset.path, "--out", tmp_path / "out")
    assert done.code == 0
    assert "left out: raw.observation.hits: LeRobot has no type for values of variable length\n" in done.err
    assert "raw.observation.hits" not in info(tmp_path / "out")["features"]


def test_numbers_with_several_axes_are_arrays_of_the_datasets_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    made, rng = episodes(2), np.random.default_rng(0)
    matrices = [rng.normal(size=(len(e["action"]), 2, 3)) for e in made]
    field = Field(path="observation.pose/left", kind="number", dtype="float64", shape=(2, 3))
    export(converted(tmp_path, made, **with_field(made, field, matrices)), tmp_path / "out", "--video", "none")  # type: ignore[arg-type]
    names = [str(path) for path in sorted((tmp_path / "out/data").rglob("*.parquet"))]
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    told = info(tmp_path / "out")["features"]
    assert (told["raw.observation.pose_left"]["shape"], told["raw.observation.pose_left"]["dtype"]) == (
        [2, 3],
        "float64",
    )
    features = datasets.Features.from_arrow_schema(pq.read_schema(names[0]))
    features["raw.observation.pose_left"] = datasets.Array2D((2, 3), "float64")  # as LeRobot reads info.json
    loaded = datasets.Dataset.from_parquet(names, features=features, cache_dir=str(tmp_path / "cache"))
    found = np.array([row["raw.observation.pose_left"] for row in loaded])
    np.testing.assert_array_equal(found, np.concatenate(matrices))


def test_an_unknown_rate_has_to_be_told(tmp_path: Path) -> None:
    write_source(tmp_path / "source", episodes(1))
    spec = write_spec(tmp_path, replace={"control_hz = 10\n": ""})
    assert oxe("convert", spec, "--source", tmp_path / "source", "--out", tmp_path / "ds").code == 0
    done = oxe("export", "lerobot", tmp_path / "ds", "--out", tmp_path / "out")
    assert (done.code, "does not declare its control rate; pass --fps" in done.err) == (2, True)
    assert oxe("export", "lerobot", tmp_path / "ds", "--out", tmp_path / "out", "--fps", "12.5").code == 0
    told = info(tmp_path / "out")
    assert (told["fps"], table(tmp_path / "out")["timestamp"].to_pylist()[1]) == (12.5, np.float32(0.08))
    assert "control_hz" not in (tmp_path / "out/oxe_spec.toml").read_text()


def test_a_known_rate_is_not_told_otherwise(toy: Dataset, tmp_path: Path) -> None:
    done = oxe("export", "lerobot", toy.path, "--out", tmp_path / "out", "--fps", "30")
    assert (done.code, "the control rate is 10 Hz" in done.err, (tmp_path / "out").exists()) == (2, True, False)


# --- shards ---


def test_no_video_is_longer_than_lerobots_clock_is_exact(toy: Dataset) -> None:
    refs = shards_of_size(toy, [6, 7, 8, 9], longest=14)
    assert [ref.lengths for ref in refs] == [(6, 7), (8,), (9,)]
    assert [(ref.first_episode, ref.first_step) for ref in refs] == [(0, 0), (2, 13), (3, 21)]
    alone = shards_of_size(toy, [6, 7, 8, 9], longest=1)
    assert [ref.episodes for ref in alone] == [1, 1, 1, 1]
