"""Compare layouts with those of `tensorflow-datasets`; in `test_target.py` it reads whole datasets."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.export.rlds.writer import RldsFeature, TfRecordWriter, features_json, info_json, metadata_column
from pipelines.readers.reader import plan
from pipelines.readers.rlds.reader import RldsReader
from schemas.source import Field, Ragged, RawEpisode
from tests.makers import nested
from tests.pipelines.readers.rlds.test_features import plain


def feature(path: str, **arguments: Any) -> RldsFeature:
    return RldsFeature(Field(path=path, **{"kind": "number", "dtype": "float32", **arguments}))


def stored(item: RldsFeature, column: Any) -> dict[str, Any]:
    return {key: getattr(v, "tolist", lambda v=v: v)() for key, v in item.encode(column).items()}


def test_values_of_steps_lie_end_to_end() -> None:
    assert stored(feature("a.b", shape=(2,)), np.float32([[1, 2], [3, 4]])) == {"steps/a/b": [[1, 2], [3, 4]]}


def test_float64_is_stored_as_bytes() -> None:
    item = feature("x", dtype="float64")
    assert stored(item, np.array([0.1])) == {"steps/x": [np.float64(0.1).tobytes()]}
    assert item.to_json()["tensor"] == {"shape": {}, "dtype": "float64", "encoding": "bytes"}


def test_sequences_in_steps_have_row_lengths() -> None:
    column = Ragged(np.arange(3), (np.array([2, 0]), np.array([1, 2])))
    assert stored(feature("x", dtype="int64", ragged=2), column) == {
        "steps/x/ragged_row_lengths_0": [2, 0],
        "steps/x/ragged_row_lengths_1": [1, 2],
        "steps/x/ragged_flat_values": [0, 1, 2],
    }


def test_the_outermost_sequence_of_an_episode_has_none() -> None:
    one = feature("x", dtype="int64", ragged=1, per_step=False)
    two = feature("x", dtype="int64", ragged=2, per_step=False)
    assert stored(one, metadata_column([1, 2], one.field)) == {"x": [1, 2]}
    assert stored(two, metadata_column([[1], [2, 3]], two.field)) == {
        "x/ragged_row_lengths_0": [1, 2],
        "x/ragged_flat_values": [1, 2, 3],
    }


@pytest.mark.parametrize(
    ("arguments", "value"),
    [
        ({"dtype": "uint64"}, 2**64 - 1),
        ({"dtype": "bool"}, True),
        ({"dtype": "float64", "shape": (2, 2)}, [[0.1, 0.2], [0.3, 0.4]]),
        ({"kind": "text"}, "żółw"),
        ({"kind": "text", "ragged": 1}, ["a", ""]),
        ({"kind": "text", "ragged": 1}, []),
        ({"kind": "bytes", "shape": (2,)}, [b"\x00", b""]),
        ({"dtype": "int16", "ragged": 2}, [[1, -1], [], [7]]),
        ({"dtype": "float32", "ragged": 1, "shape": (2,)}, [[1.0, 2.0]]),
    ],
)
def test_a_value_of_an_episode_reads_back(tmp_path: Path, arguments: Any, value: Any) -> None:
    features = [feature("x"), feature("about.value", per_step=False, **arguments)]
    about = metadata_column(value, features[1].field)
    (episode,) = written(tmp_path, features, [[np.float32([1]), about]])
    assert episode.metadata["about.value"] == value


def written(folder: Path, features: list[RldsFeature], episodes: list[list[Any]]) -> list[RawEpisode]:
    shard = TfRecordWriter(folder / "toy-train.tfrecord-00000-of-00001")
    for episode in episodes:
        shard.add(dict(zip(features, episode, strict=True)))
    shard.file.close()
    (folder / "features.json").write_text(features_json(features))
    (folder / "dataset_info.json").write_text(info_json("toy", {"train": [shard]}, version="1.0.0", description="é"))
    reader = RldsReader(str(folder))
    found = [raw for ref in plan(reader.files()) for raw in reader.read(ref)]
    assert all(isinstance(raw, RawEpisode) for raw in found), found
    return found  # type: ignore[return-value]


def test_columns_read_back_with_their_types(tmp_path: Path) -> None:
    features = [
        feature("u", dtype="uint64"),
        feature("h", dtype="float16", shape=(2,)),
        feature("r", dtype="float64", ragged=1),
        feature("t", kind="text", ragged=1),
        feature("b", dtype="bool"),
    ]
    columns = [
        np.array([0, 2**64 - 1], np.uint64),
        np.array([[1, 6e-8], [np.inf, -0.0]], np.float16),
        Ragged(np.array([0.1, np.nan]), (np.array([0, 2]),)),
        Ragged([memoryview(b"a"), memoryview(b""), memoryview(b"c")], (np.array([3, 0]),)),
        np.array([True, False]),
    ]
    (episode,) = written(tmp_path, features, [columns])
    for item, column in zip(features, columns, strict=True):
        assert plain(nested(episode.steps[item.field.path])) == plain(nested(column))


def test_descriptions_are_those_of_tfds() -> None:
    tree = json.loads(
        features_json([feature("a.b", shape=(2,), doc="metres"), feature("m.n", kind="text", per_step=False)])
    )
    assert tree["pythonClassName"].endswith("features_dict.FeaturesDict")
    steps = tree["featuresDict"]["features"]["steps"]
    assert steps["pythonClassName"].endswith("dataset_feature.Dataset")
    leaf = steps["sequence"]["feature"]["featuresDict"]["features"]["a"]["featuresDict"]["features"]["b"]
    assert (leaf["tensor"]["shape"], leaf["description"]) == ({"dimensions": ["2"]}, "metres")
    assert tree["featuresDict"]["features"]["m"]["featuresDict"]["features"]["n"]["text"] == {}


def test_counts_and_bytes_stand_in_the_info(tmp_path: Path) -> None:
    shards = [TfRecordWriter(tmp_path / str(i)) for i in range(2)]
    for shard, count in zip(shards, (2, 0), strict=True):
        for _ in range(count):
            shard.add({feature("x"): np.float32([1])})
        shard.file.close()
    split = json.loads(info_json("toy", {"train": shards}, version="2.0.0", description=""))["splits"][0]
    assert split["shardLengths"] == ["2", "0"]
    assert int(split["numBytes"]) == (tmp_path / "0").stat().st_size - 2 * 16
