"""A dataset opened with `datasets` holds what our own reader gives, row by row; only what the manifest lists counts."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest

from schemas.codec import decode
from schemas.errors import UsageError
from schemas.store.dataset import Dataset, open_dataset
from tests.pipelines.convert.test_append import AFTER, BEFORE, grow
from tests.pipelines.convert.test_crash import KILL_AT, Forks, forks
from tests.pipelines.toy import ROOT, Toy, columns, make_toy
from tests.schemas.makers import TOY, publish
from tests.servers import Bucket, Server

__all__ = ["forks"]

LENGTHS = (5, 130, 3)
Row = Mapping[str, Any]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "DOWNLOADED_DATASETS_PATH", tmp_path / "cache/downloads")
    monkeypatch.setattr(datasets.config, "HF_UPDATE_DOWNLOAD_COUNTS", False)
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return publish(tmp_path_factory.mktemp("store"), lengths=LENGTHS, materialize=("openvla",))


def ours(dataset: Dataset, split: str) -> Iterator[Row]:
    """Read the steps of a split with our own reader."""
    for episode in (episode for episode in dataset if episode.split == split):
        for step in range(len(episode)):
            texts = episode.instruction_index
            yield {
                "episode_index": episode.index,
                "step_index": step,
                "instruction": None if texts is None else episode.instructions[texts[step]],
                "action": episode.action[step],
                "observation.state": None if episode.state is None else episode.state[step],
                **{f"observation.images.{leaf}": frames[step] for leaf, frames in episode.images.items()},
            }


def assert_same(theirs: Iterable[Row], expected: Iterable[Row]) -> None:
    for row, wanted in zip(theirs, expected, strict=True):
        for name, value in wanted.items():
            if name.startswith("observation.images.") and value is not None:
                np.testing.assert_array_equal(np.asarray(row[name]), decode(value))
            elif isinstance(value, np.ndarray):
                np.testing.assert_array_equal(np.asarray(row[name], np.float32), value)
            else:
                assert row[name] == value, name


@pytest.mark.parametrize("streaming", [False, True])
def test_every_step_is_what_our_reader_gives(out: Path, streaming: bool) -> None:  # noqa: FBT001
    dataset = open_dataset(out)
    steps = dataset.to_datasets("train", streaming=streaming)
    assert isinstance(steps, datasets.IterableDataset if streaming else datasets.Dataset)
    assert_same(steps, ours(dataset, "train"))


@pytest.mark.parametrize("streaming", [False, True])
def test_features_say_what_each_column_holds_and_the_description_names_the_dimensions(
    out: Path,
    streaming: bool,  # noqa: FBT001
) -> None:
    steps = open_dataset(out).to_datasets("train", streaming=streaming)
    features = steps.features
    assert isinstance(features["observation.images.image"], datasets.Image)
    assert isinstance(features["observation.depth.depth"], datasets.Image)
    assert features["instruction"] == datasets.Value("string")
    assert features["action"] == datasets.List(datasets.Value("float32"), length=7)
    said = json.loads(steps.info.description)
    arm = ["x", "y", "z", "roll", "pitch", "yaw", "gripper"]
    assert (said["dataset"], said["control_hz"]) == ("toy", 5)
    assert said["names"] == {"action": arm, "observation.state": arm, "action.openvla": arm}
    assert said["cameras"] == {
        "observation.depth.depth": {"channels": "rgb"},
        "observation.images.image": {"role": "primary", "channels": "rgb"},
        "observation.images.wrist": {"channels": "rgb"},
    }


def test_a_materialized_view_and_raw_columns_come_along(out: Path) -> None:
    dataset = open_dataset(out)
    steps = dataset.to_datasets("train")
    view = np.concatenate([dataset.episode(i, view="openvla").action for i in range(len(dataset))])
    np.testing.assert_array_equal(np.float32([row for row in steps["action.openvla"] if row is not None]), view)
    torque = np.concatenate([np.asarray(episode.raw["torque"]) for episode in dataset])
    np.testing.assert_array_equal(np.asarray(steps["raw.torque"]), torque)
    assert steps["raw.note"][:3] == ["note 0 é", "note 1 é", "note 2 é"]


def test_what_a_declaration_says_of_licence_and_source_is_in_the_info(tmp_path: Path) -> None:
    text = 'license = "CC-BY-4.0"\ncitation = "A. Lab"\nhomepage = "https://lab.example"\n' + TOY
    info = open_dataset(publish(tmp_path, lengths=(3,), text=text)).to_datasets("train").info
    assert (info.license, info.citation, info.homepage) == ("CC-BY-4.0", "A. Lab", "https://lab.example")


@pytest.mark.parametrize("streaming", [False, True])
def test_without_a_split_there_is_one_of_each(tmp_path: Path, streaming: bool) -> None:  # noqa: FBT001
    toy = make_toy(tmp_path, [columns(seed) for seed in range(4)], splits={"train": (2, 1), "val": 1})
    assert toy.convert().code == 0
    dataset = open_dataset(toy.out)
    splits = dataset.to_datasets(streaming=streaming)
    assert isinstance(splits, datasets.IterableDatasetDict if streaming else datasets.DatasetDict)
    assert list(splits) == ["train", "val"]
    for name, steps in splits.items():
        assert_same(steps, ours(dataset, name))
        assert json.loads(steps.info.description)["names"]["action"] == ["x", "y", "z", "gripper"]


def test_dropped_and_quarantined_episodes_are_in_none_of_it(tmp_path: Path) -> None:
    toy = make_toy(tmp_path, [columns(0), columns(1, action=np.full((3, 4), np.nan, np.float32)), columns(2, steps=0)])
    assert toy.convert().code == 1
    assert (toy.balance()["dropped"], toy.balance()["quarantined"]) == ({"zero_steps": 1}, {"non_finite_action": 1})
    assert open_dataset(toy.out).to_datasets("train")["episode_index"][:] == [0, 0, 0]


def test_a_dataset_without_episodes_has_no_splits(tmp_path: Path) -> None:
    toy = make_toy(tmp_path, [columns(0, steps=0)])
    assert toy.convert().code == 0
    assert open_dataset(toy.out).to_datasets() == {}
    assert open_dataset(toy.out).to_datasets(streaming=True) == {}


def test_files_of_an_append_that_has_not_finished_do_not_count(tmp_path: Path, forks: Forks) -> None:
    toy: Toy = make_toy(tmp_path, [])
    grow(toy, BEFORE)
    assert toy.convert().code == 0
    before = open_dataset(toy.out)
    grow(toy, AFTER)
    fault = KILL_AT.format(call="rename", argument=1, pattern="*/meta/manifest.json", number=1, when="before")
    forks.start(toy, fault=fault + "order['arguments'].append('--append')")
    assert forks.wait() == -signal.SIGKILL
    assert len(list(toy.out.glob("data/*.parquet"))) > len(before.manifest["files"])
    for streaming in (False, True):
        splits = open_dataset(toy.out).to_datasets(streaming=streaming)
        assert list(splits) == ["train", "val"]
        for name, steps in splits.items():
            assert_same(steps, ours(before, name))


def test_what_was_converted_again_is_read_again(tmp_path: Path) -> None:
    toy = make_toy(tmp_path, [columns(0)])
    assert toy.convert().code == 0
    first = open_dataset(toy.out).to_datasets("train")["instruction"][0]
    make_toy(tmp_path, [columns(1)])
    assert toy.convert("--overwrite").code == 0
    assert (first, open_dataset(toy.out).to_datasets("train")["instruction"][0]) == ("task 0 ☂", "task 1 ☂")


def test_a_folder_may_be_named_like_a_pattern_and_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(tmp_path / "lab [a-b] *", lengths=(3,))
    publish(tmp_path / "lab a ", lengths=(4,))
    monkeypatch.chdir(tmp_path)
    dataset = open_dataset("lab [a-b] */out")
    assert_same(dataset.to_datasets("train"), ours(dataset, "train"))


@pytest.mark.parametrize("streaming", [False, True])
def test_a_web_server_is_read_too(tmp_path: Path, web: Server, streaming: bool) -> None:  # noqa: FBT001
    out = publish(tmp_path, lengths=(5, 4))
    steps = open_dataset(f"{web.url}/out").to_datasets("train", streaming=streaming)
    assert_same(steps, ours(open_dataset(out), "train"))


def test_a_store_is_read_without_credentials_as_everywhere(
    tmp_path: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = publish(tmp_path, lengths=(5, 4))
    uri = bucket.upload(out, "out", public=True)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    since = len(bucket.server.requests)
    assert_same(open_dataset(uri).to_datasets("train", streaming=True), ours(open_dataset(out), "train"))
    assert {request.authorization for request in bucket.server.requests[since:]} == {None}


def test_an_unknown_split_is_named_with_those_there_are(out: Path) -> None:
    with pytest.raises(UsageError, match=r"out: no split 'trian'; did you mean 'train'\? \(known: train\)"):
        open_dataset(out).to_datasets("trian")


def test_a_split_whose_name_datasets_refuses_is_named(tmp_path: Path) -> None:
    toy = make_toy(tmp_path, [columns(0), columns(1)], splits={"train": 1, "held-out": 1})
    assert toy.convert().code == 0
    with pytest.raises(UsageError, match=r"split 'held-out': 'datasets' allows letters, digits, '_' and '\.' alone"):
        open_dataset(toy.out).to_datasets()
    assert len(open_dataset(toy.out).to_datasets("train")) == 3


def test_without_the_extra_it_is_named(out: Path) -> None:
    code = f"import sys; sys.modules['datasets'] = None; import oxe_tools; oxe_tools.open_dataset({str(out)!r})"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}.to_datasets()"], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.stderr.splitlines()[-1] == (
        "schemas.errors.MissingExtraError: this needs the package 'datasets': pip install 'oxe-tools[hf]'"
    )
