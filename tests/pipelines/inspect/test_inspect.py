import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipelines.inspect.inspect import FieldScan
from pipelines.readers.reader import LeftOut
from pipelines.readers.rlds.reader import RldsReader
from schemas.source import Field, Ragged
from tests.pipelines.readers import writers
from tests.pipelines.toy import FIELDS, columns, jpeg, oxe, oxe_process, write_source


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_source(tmp_path / "toy", [columns(i, steps=2 + i) for i in range(3)], splits={"train": 2, "val": 1})


def inspected(source: Path, *more: str) -> Any:
    done = oxe("inspect", source, "--json", *more)
    assert (done.code, done.err) == (0, "")
    return done.json()


def test_a_source_is_counted_and_described(source: Path) -> None:
    found = inspected(source)
    assert (found["format"], found["episodes"], found["steps"]) == ("rlds", 3, 9)
    assert found["splits"] == {"train": {"episodes": 2, "steps": 5}, "val": {"episodes": 1, "steps": 4}}
    assert set(found["features"]) == {field.path for field in FIELDS}
    action = found["features"]["action"]
    drawn = np.concatenate([np.asarray(columns(i, steps=2 + i)["action"]) for i in range(3)])
    assert action["range"] == [drawn.min(), drawn.max()]
    assert action["samples"] == drawn[:3].tolist()
    assert {key: action[key] for key in ("dtype", "shape", "encoding", "per")} == {
        "dtype": "float32",
        "shape": [4],
        "encoding": None,
        "per": "step",
    }
    image = found["features"]["observation.image"]
    assert (image["dtype"], image["shape"], image["encoding"]) == ("uint8", [8, 8, 3], "jpeg")
    path = found["features"]["episode_metadata.file_path"]
    assert (path["dtype"], path["per"], path["samples"]) == ("text", "episode", ["e0.hdf5", "e1.hdf5", "e2.hdf5"])


def test_the_real_set_is_described_by_its_headers(realdata: Path) -> None:
    found = inspected(realdata / "rlds/octo_debug_bridge/bridge_dataset/1.0.0")
    assert (found["episodes"], found["steps"], found["read"], found["unreadable"]) == (50, 500, 50, {})
    assert found["features"]["observation.image_0"]["shape"] == [64, 64, 3]
    assert found["features"]["language_instruction"]["samples"][0].startswith("put cup from counter")
    assert found["declaration"] is False


def test_images_of_several_sizes_are_all_told(tmp_path: Path) -> None:
    source = write_source(tmp_path / "toy", [columns(i, size=8 * (i + 1)) for i in range(2)])
    image = inspected(source)["features"]["observation.image"]
    assert (image["shape"], image["sizes"]) == ([None, None, 3], [[8, 8, 3], [16, 16, 3]])


def test_a_limit_reads_less(source: Path) -> None:
    found = inspected(source, "--limit", "1")
    assert (found["read"], found["steps"], found["episodes"]) == (1, 2, 3)
    assert (found["total_steps"], found["files"], found["files_counted"]) == (None, 2, 2)
    shown = oxe("inspect", source, "--limit", "1").out
    assert shown.startswith("rlds: 3 episodes (train 2, val 1), at least 2 steps from 1 of 3 episodes\n")
    assert "\nThe ranges and first values are those of 1 of 3 episodes.\n" in shown


@pytest.mark.parametrize(
    ("write", "steps"),
    [
        (writers.write_rlds, "at least 4 steps from 2 of 5 episodes"),
        (writers.write_groups, "at least 4 steps from 2 of 5 episodes"),
        (writers.write_folders, "at least 4 steps from 2 of 5 episodes"),
        (writers.write_buffer(2), "15 steps"),
        (writers.write_lerobot_v21, "15 steps"),
        (writers.write_lerobot_v30, "15 steps"),
    ],
)
def test_counts_are_those_of_the_whole_source_whatever_the_limit(
    write: Callable[[Path], object], steps: str, tmp_path: Path
) -> None:
    write(tmp_path / "source")
    shown = oxe("inspect", tmp_path / "source", "--limit", "2").out
    assert "5 episodes (train " in shown
    assert f"), {steps}\n" in shown
    assert "The ranges and first values are those of 2 of 5 episodes." in shown
    found = inspected(tmp_path / "source", "--limit", "2")
    assert (found["read"], found["total_steps"]) == (2, 15 if steps == "15 steps" else None)
    whole = oxe("inspect", tmp_path / "source")
    assert "), 15 steps\n" in whole.out
    assert "ranges" not in whole.out


def test_a_file_that_cannot_be_opened_makes_the_counts_lower_bounds(tmp_path: Path) -> None:
    writers.write_groups(tmp_path)
    (tmp_path / "a_11.hdf5").write_bytes(b"damaged")
    for limit, steps, read in (("2", 4, 2), ("9", 15, 5)):
        shown = oxe("inspect", tmp_path, "--limit", limit).out
        first = f"at least {steps} steps from {read} of at least 6 episodes"
        assert shown.startswith(f"hdf5: at least 6 episodes (train 6) from 2 of 3 files, {first}\n")
        assert f"are those of {read} of at least 6 episodes." in shown


def test_a_store_that_cannot_be_opened_makes_the_counts_lower_bounds(tmp_path: Path) -> None:
    writers.write_buffer(2)(tmp_path / "a.zarr")
    (tmp_path / "b.zarr").mkdir()
    (tmp_path / "b.zarr/.zgroup").write_text("?")
    shown = oxe("inspect", tmp_path, "--limit", "1").out
    expected = "at least 6 episodes (train 6) from 1 of 2 files, at least 3 steps from 1 of at least 6 episodes\n"
    assert shown.startswith(f"zarr: {expected}")


def test_without_numbers_in_dataset_info_the_shards_are_counted(tmp_path: Path) -> None:
    source = write_source(tmp_path / "toy", [columns(i) for i in range(4)], splits={"train": [2, 1], "val": 1})
    info = source / "dataset_info.json"
    told = json.loads(info.read_text())
    for split in told["splits"][:1]:
        del split["shardLengths"]
    info.write_text(json.dumps(told))
    found = inspected(source)
    assert (found["episodes"], found["total_steps"]) == (4, 12)
    note = "dataset_info.json has no shardLengths: the episodes of train were counted in the shards."
    assert found["notes"] == [note]
    info.unlink()
    assert inspected(source)["notes"] == [
        "dataset_info.json is missing: the episodes of train, val were counted in the shards."
    ]
    (source / "toy-train.tfrecord-00001-of-00002").write_bytes(b"damaged")
    shown = oxe("inspect", source, "--limit", "1").out
    assert shown.startswith(
        "rlds: at least 4 episodes (train 3, val 1) from 2 of 3 files, at least 3 steps from 1 of at least 4 episodes\n"
    )


def test_shards_that_dataset_info_does_not_declare_are_counted(tmp_path: Path) -> None:
    source = write_source(tmp_path / "toy", [columns(i) for i in range(3)], splits={"train": 2, "val": 1})
    assert RldsReader(str(source)).left_out() == []
    info = source / "dataset_info.json"
    info.write_text(json.dumps((told := json.loads(info.read_text())) | {"splits": told["splits"][:1]}))
    assert RldsReader(str(source)).left_out() == [LeftOut("shards", 1, "toy-val.tfrecord-00000-of-00001")]


def test_what_json_has_no_word_for_is_text(tmp_path: Path) -> None:
    torque = np.array([[np.nan, np.inf], [1, 2], [3, 4]])
    found = inspected(write_source(tmp_path / "toy", [columns(0, torque=torque)]))
    feature = found["features"]["observation.torque"]
    assert (feature["range"], feature["samples"]) == ([1, 4], [["nan", "inf"], [1, 2], [3, 4]])


def test_complex_numbers_have_no_range() -> None:
    scan = FieldScan(Field(path="z", kind="number", dtype="complex64"))
    scan.add(np.array([1 + 2j], np.complex64))
    assert (scan.summary().range, scan.summary().samples) == (None, ("(1+2j)",))


def test_nested_values_of_an_episode_are_summarized(tmp_path: Path) -> None:
    scores = Field(path="scores", kind="number", dtype="float32", ragged=2, per_step=False)
    tasks = Field(path="tasks", kind="text", ragged=1, per_step=False)
    count = Field(path="count", kind="number", dtype="uint64", per_step=False)
    values = {
        "scores": Ragged(np.float32([1, 2, 3]), (np.array([1, 2]),)),
        "tasks": [b"a", b"b"],
        "count": np.array([2**64 - 1], np.uint64),
    }
    source = write_source(tmp_path / "toy", [columns(0) | values], fields=[*FIELDS, scores, tasks, count])
    features = inspected(source)["features"]
    assert (features["scores"]["range"], features["tasks"]["samples"]) == ([1, 3], ["a", "b"])
    assert features["count"]["samples"] == [2**64 - 1]


def test_unreadable_episodes_are_counted_and_exit_1(tmp_path: Path) -> None:
    episodes = [columns(0), columns(1, image=[b"?"] + [jpeg(1)] * 2), columns(2, state=np.zeros((9, 3), np.float32))]
    source = write_source(tmp_path / "toy", episodes)
    done = oxe_process("inspect", source, "--json")
    found = done.json()
    assert (done.code, found["read"]) == (1, 1)
    assert found["unreadable"] == {"bad_image": 1, "unequal_lengths": 1}
    assert found["first_unreadable"].startswith("episode 1: ")
    assert done.err.startswith("oxe: episodes that cannot be read: 1 bad_image, 1 unequal_lengths; first episode 1: ")


def png(mode: str, *, bits: int | None = None) -> bytes:
    made = io.BytesIO()
    values = np.arange(64).reshape(8, 8)
    if mode == "P":
        Image.fromarray((values % 4).astype(np.uint8)).convert("P").save(made, "png", bits=bits)
    elif mode == "1":
        Image.fromarray(values % 2 == 0).save(made, "png")
    else:
        Image.fromarray((values * 1000).astype(np.uint16)).save(made, "png")
    return made.getvalue()


@pytest.mark.parametrize(
    ("images", "dtype", "depths", "shown"),
    [
        ([png("I;16")], "uint16", ["16 bit"], "png, 16 bit"),
        ([png("1")], "uint8", ["1 bit"], "png, 1 bit"),
        ([png("P", bits=2)], "uint8", ["palette of 2 bit"], "png, palette of 2 bit"),
        ([png("P", bits=8)], "uint8", ["palette of 8 bit"], "png, palette of 8 bit"),
        ([png("I;16"), jpeg(1)], "uint16/uint8", ["16 bit", "8 bit"], "jpeg/png, 16 bit, 8 bit"),
        ([jpeg(1)], "uint8", None, "jpeg"),
    ],
)
def test_the_depth_of_an_image_is_that_of_its_header(
    images: list[bytes], dtype: str, depths: list[str] | None, shown: str, tmp_path: Path
) -> None:
    source = write_source(tmp_path / "toy", [columns(i, image=[image] * 3) for i, image in enumerate(images)])
    image = inspected(source)["features"]["observation.image"]
    assert (image["dtype"], image.get("depths")) == (dtype, depths)
    table = oxe("inspect", source).out
    assert f" {dtype} " in table
    assert f" {shown} " in table


def test_the_table_shows_every_field(source: Path) -> None:
    shown = oxe("inspect", source).out
    assert shown.startswith("rlds: 3 episodes (train 2, val 1), 9 steps\n")
    assert "ranges" not in shown
    for field in FIELDS:
        assert field.path in shown


def test_a_missing_camera_is_no_failure(tmp_path: Path) -> None:
    fields = [*FIELDS, replace(FIELDS[2], path="observation.wrist")]
    source = write_source(tmp_path / "toy", [columns(0) | {"observation.wrist": [b""] * 3}], fields=fields)
    assert inspected(source)["features"]["observation.wrist"]["shape"] == [None, None, 3]


@pytest.mark.parametrize(
    ("name", "told"), [("nowhere", "nowhere: no such file or folder"), ("toy.toml", "no recordings are recognized")]
)
def test_what_is_no_source_is_one_line(tmp_path: Path, name: str, told: str) -> None:
    (tmp_path / "toy.toml").write_text("")
    done = oxe("inspect", tmp_path / name)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert told in done.err
