"""Convert, export as RLDS and convert again: the dataset stays the same, and `tensorflow-datasets` reads the RLDS."""

import io
import json
import resource
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from oxe_tools import Dataset, Episode, open_dataset, standardize
from schemas.source import Field, Ragged
from tests.makers import nested, write_rlds
from tests.pipelines.readers.rlds.test_features import METADATA, STEPS, Node, plain, tree, written
from tests.pipelines.toy import FIELDS, Toy, columns, files, jpeg, make_toy, oxe, oxe_process, write_source, write_spec
from tests.version2 import downgrade

BARE = """
name = "bare"

[embodiment]
name       = "arm"
robot      = "toy"
controller = "joints"

[embodiment.action]
origin = "commanded"
parts  = { joints = { kind = "joint", dims = ["a", "b", "c"], unit = "rad", mode = "absolute" } }

[action]
joints = "action"
"""


@pytest.fixture
def toy(tmp_path: Path) -> Toy:
    return make_toy(tmp_path)


def converted(declaration: str | Path, source: Path, out: Path, *more: str) -> Dataset:
    done = oxe("convert", declaration, "--source", source, "--out", out, *more)
    assert done.code == 0, done.err
    return open_dataset(out)


def there_and_back(dataset: Dataset, folder: Path) -> Dataset:
    """Export, convert with the export's own declaration, and verify."""
    rlds, back = folder / "rlds/1.0.0", folder / "back"
    done = oxe("export", "rlds", dataset.path, "--out", rlds)
    assert done.code == 0, done.err
    verified = oxe("verify", rlds)
    assert verified.code == 0, verified.err
    done = oxe("convert", rlds, "--out", back)
    assert done.code == 0, done.err
    assert oxe("verify", back).code == 0
    return open_dataset(back)


def bits(column: Any) -> Any:
    """Return a column's bytes, so that NaN equals itself and 0.0 differs from -0.0."""
    if isinstance(column, Ragged):
        return [np.asarray(lengths).tolist() for lengths in column.lengths], bits(column.values)
    if isinstance(column, np.ndarray):
        return column.dtype.name, column.shape, np.ascontiguousarray(column).tobytes()
    return [None if item is None else bytes(item) for item in column]


def assert_same(one: Episode, other: Episode) -> None:
    here, there = one.columns(), other.columns()
    assert here.keys() == there.keys()
    for name in here:
        assert bits(here[name]) == bits(there[name]), name
    for name in ("id", "split", "index", "instructions", "control_hz", "action_space", "state_space", "dataset"):
        assert getattr(one, name) == getattr(other, name), name
    assert plain(list(one.metadata.items())) == plain(list(other.metadata.items()))
    assert one.content_hash() == other.content_hash()


def assert_same_datasets(one: Dataset, other: Dataset) -> None:
    assert len(one) == len(other)
    for mine, theirs in zip(one, other, strict=True):
        assert_same(mine, theirs)
    assert {c.leaf: (c.role, c.is_depth, c.metres_per_unit) for c in one.columns.cameras} == {
        c.leaf: (c.role, c.is_depth, c.metres_per_unit) for c in other.columns.cameras
    }
    assert {field.path for field in one.columns.raw} == {field.path for field in other.columns.raw}
    assert one.views == other.views


# --- real recordings ---


@pytest.fixture(scope="module")
def bridge(realdata: Path, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    source = realdata / "rlds/octo_debug_bridge/bridge_dataset/1.0.0"
    return converted("bridge_dataset", source, tmp_path_factory.mktemp("bridge") / "unified")


def test_the_real_set_comes_back_equal(bridge: Dataset, tmp_path: Path) -> None:
    back = there_and_back(bridge, tmp_path)
    assert_same_datasets(bridge, back)
    assert sum(len(episode) for episode in back) == 500
    for i in (0, 49):
        np.testing.assert_array_equal(bridge.episode(i, "openvla").action, back.episode(i, "openvla").action)


def test_the_real_set_exported_with_a_view_holds_its_actions(bridge: Dataset, tmp_path: Path) -> None:
    rlds = tmp_path / "1.0.0"
    done = oxe_process("export", "rlds", bridge.path, "--view", "openvla", "--out", rlds, "--json")
    assert (done.code, done.err) == (0, "")
    assert done.json() == {
        "out": str(rlds),
        "episodes": 50,
        "steps": 400,
        "files": 2,
        "without_steps": 0,
        "view": "openvla",
        "cameras": {},
        "left_out": {},
        "notes": [],
    }
    assert oxe("verify", rlds).code == 0
    assert oxe("convert", rlds, "--out", tmp_path / "back").code == 0
    back = open_dataset(tmp_path / "back")
    assert oxe("verify", back.path).code == 0
    assert replace(back.columns.action, name="openvla") == bridge.view("openvla").space
    for i in range(50):
        viewed, stored = bridge.episode(i, "openvla"), back.episode(i)
        np.testing.assert_array_equal(stored.action, viewed.action)
        np.testing.assert_array_equal(stored.state, viewed.state)
        assert (stored.images, stored.instructions) == (viewed.images, viewed.instructions)
        assert (stored.id, stored.metadata, stored.raw) == (viewed.id, viewed.metadata, {})


@pytest.mark.parametrize("view", [None, "openvla"])
def test_tfds_reads_the_real_set_as_we_do(bridge: Dataset, tmp_path: Path, view: str | None) -> None:
    tfds = pytest.importorskip("tensorflow_datasets", reason="the oracle is the extra 'rlds'")
    more = ["--view", view] if view else []
    assert oxe("export", "rlds", bridge.path, "--out", tmp_path / "1.0.0", *more).code == 0
    builder = tfds.builder_from_directory(str(tmp_path / "1.0.0"))
    assert {name: split.num_examples for name, split in builder.info.splits.items()} == {"train": 25, "val": 25}
    for first, split in ((0, "train"), (25, "val")):
        config = {"split": split, "shuffle_files": False}
        raw = tfds.as_numpy(builder.as_dataset(decoders={"steps": tfds.decode.SkipDecoding()}, **config))
        decoded = tfds.as_numpy(builder.as_dataset(**config))
        mine = [bridge.episode(first + i, view) for i in range(25)]
        for episode, skipped, plainly in zip(mine, raw, decoded, strict=True):
            assert_tfds_read(episode, skipped, list(plainly["steps"]))


def assert_tfds_read(episode: Episode, skipped: Any, steps: list[Any]) -> None:
    import tensorflow as tf

    assert skipped["episode_metadata"]["oxe_id"].decode() == episode.id
    assert skipped["episode_metadata"]["file_path"].decode() == episode.metadata["episode_metadata.file_path"]
    flat = skipped["steps"]
    np.testing.assert_array_equal(flat["action"], episode.action)
    np.testing.assert_array_equal(flat["observation"]["state"], episode.state)
    assert len(steps) == len(episode)
    for t, step in enumerate(steps):
        np.testing.assert_array_equal(step["action"], episode.action[t])
        assert step["language_instruction"].decode() == episode.instruction
        assert (step["is_first"], step["is_last"]) == (episode.is_first[t], episode.is_last[t])  # type: ignore[index]
        for camera, frames in episode.images.items():
            assert flat["observation"][camera][t] == frames[t]
            np.testing.assert_array_equal(tf.io.decode_image(frames[t]), step["observation"][camera])


# --- sources that tensorflow-datasets wrote ---


def png(array: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


def wide(folder: Path) -> Path:
    """Write every kind of feature, with edge cases, with `tensorflow-datasets` itself."""
    tfds = pytest.importorskip("tensorflow_datasets", reason="the writer is the extra 'rlds'")
    f = tfds.features
    colour = f.Image(shape=(None, None, 3), encoding_format="jpeg")
    step = {
        "action": f.Tensor(shape=(4,), dtype=np.float32),
        "observation": {
            "state": f.Tensor(shape=(3,), dtype=np.float64),
            "left": {"rgb": colour},
            "right": {"rgb": colour},
            "depth": f.Image(shape=(4, 5, 1), dtype=np.uint16, encoding_format="png"),
            "disparity": f.Image(shape=(4, 5, 1), dtype=np.float32, encoding_format="png"),
            "state_": f.Image(shape=(None, None, 3), encoding_format="png"),
        },
        "nested": {"deep": {"u64": f.Scalar(np.uint64), "f64": f.Tensor(shape=(2, 2), dtype=np.float64)}},
        "ragged": f.Sequence(f.Tensor(shape=(2,), dtype=np.float32)),
        "twice": f.Sequence(f.Sequence(f.Scalar(np.int16))),
        "words": f.Sequence(f.Text()),
        "zipped": f.Tensor(shape=(2,), dtype=np.float64, encoding="zlib"),
        "dynamic": f.Tensor(shape=(None, None), dtype=np.int32, encoding="bytes"),
        "note": f.Text(),
        "language_instruction": f.Text(),
        "language_instruction_2": f.Text(),
        "discount": f.Scalar(np.float64),
    }
    about = {
        "path": f.Text(),
        "scores": f.Sequence(f.Scalar(np.float32)),
        "pose": f.Tensor(shape=(2, 2), dtype=np.float64),
        "tasks": f.Sequence(f.Text()),
        "count": f.Scalar(np.uint64),
        "success": f.Scalar(np.int64, optional=True),
    }
    rng = np.random.default_rng(0)
    edges = np.array([np.nan, np.inf, -0.0, 5e-324])

    def make_step(i: int, t: int) -> dict[str, Any]:
        seed = 1000 * i + t
        return {
            "action": rng.normal(size=4).astype(np.float32),
            "observation": {
                "state": rng.normal(size=3),
                "left": {"rgb": b"" if t == 1 else jpeg(seed, size=8 + i)},
                "right": {"rgb": b"" if t == 0 else jpeg(seed, size=16 + 4 * t)},
                "depth": rng.integers(0, 65536, (4, 5, 1), np.uint16),
                "disparity": rng.normal(size=(4, 5, 1)).astype(np.float32),
                "state_": png(rng.integers(0, 256, (3, 3 + t, 3), np.uint8)),
            },
            "nested": {"deep": {"u64": np.uint64(2**64 - 1 - t), "f64": rng.permutation(edges).reshape(2, 2)}},
            "ragged": [rng.normal(size=2).astype(np.float32) for _ in range(t)],
            "twice": [[i, t]] * (t % 3),
            "words": ["ä", ""] * (t % 2),
            "zipped": rng.normal(size=2),
            "dynamic": rng.integers(0, 9, (t, i + 1), np.int32),
            "note": f"note {t}",
            "language_instruction": "reach" if t < 2 else "grasp ☂",
            "language_instruction_2": f"do {i}",
            "discount": 0.1,
        }

    episodes = [
        {
            "steps": [make_step(i, t) for t in range(steps)],
            "about": {
                "path": f"/data/{i}.h5",
                "scores": rng.normal(size=i).astype(np.float32),
                "pose": rng.permutation(edges).reshape(2, 2),
                "tasks": ["first", "second ☂"][:i],
                "count": np.uint64(2**63 + i),
                "success": None if i == 1 else i,
            },
        }
        for i, steps in enumerate([4, 1, 3])
    ]
    return write_rlds(folder, episodes, {"steps": f.Dataset(step), "about": about}, splits={"train": 2, "test": 1})


DECLARED = {
    '"observation.image"': '"observation.left.rgb"\nsecondary = "observation.right.rgb"',
    "control_hz = 10": "",
    '= "language_instruction"': '= ["language_instruction", "language_instruction_2", "about.tasks"]',
}


@pytest.fixture(scope="module")
def wide_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return wide(tmp_path_factory.mktemp("wide") / "source")


def test_every_kind_of_feature_comes_back_equal(wide_source: Path, tmp_path: Path) -> None:
    spec = write_spec(
        tmp_path,
        replace=DECLARED,
        extra='\n[depth]\nprimary = { key = "observation.depth", metres_per_unit = 0.001 }\n',
    )
    first = converted(spec, wide_source, tmp_path / "first", "--materialize", "late")
    assert oxe("verify", first.path).code == 0
    back = there_and_back(first, tmp_path)
    assert_same_datasets(first, back)

    assert [len(episode) for episode in back] == [4, 1, 3]
    episode = back.episode(2)
    assert sorted(episode.images) == ["observation_left_rgb", "observation_right_rgb", "state_"]
    assert list(episode.depth) == ["depth"]
    assert episode.images["observation_left_rgb"][:2] == [jpeg(2000, size=10), None]
    assert episode.instructions == ("reach", "grasp ☂", "do 2", "first", "second ☂")
    assert episode.instruction_index.tolist() == [0, 0, 1]  # type: ignore[union-attr]
    assert (episode.timestamp, episode.reward, episode.is_terminal) == (None, None, None)
    assert [len(items) for items in nested(episode.raw["twice"])] == [0, 1, 2]
    assert np.asarray(episode.raw["nested.deep.u64"]).tolist() == [2**64 - 1 - t for t in range(3)]
    assert np.asarray(episode.raw["discount"]).tolist() == [np.float32(0.1)] * 3  # tfds stores float64 as float32
    assert np.asarray(episode.raw["zipped"]).dtype == np.float64
    assert [e.metadata["about.success"] for e in back] == [0, None, 2]
    assert (episode.metadata["about.path"], episode.metadata["about.count"]) == ("/data/2.h5", 2**63 + 2)


def test_tfds_reads_every_kind_of_feature_that_we_write(wide_source: Path, tmp_path: Path) -> None:
    tfds = pytest.importorskip("tensorflow_datasets", reason="the oracle is the extra 'rlds'")
    first = converted(write_spec(tmp_path, replace=DECLARED), wide_source, tmp_path / "first")
    assert oxe("export", "rlds", first.path, "--out", tmp_path / "rlds").code == 0
    missing = {
        "observation": dict.fromkeys(["observation_left_rgb", "observation_right_rgb"], tfds.decode.SkipDecoding())
    }
    builder = tfds.builder_from_directory(str(tmp_path / "rlds"))
    for split in ("train", "test"):
        found = tfds.as_numpy(builder.as_dataset(split=split, shuffle_files=False, decoders={"steps": missing}))
        mine = [episode for episode in first if episode.split == split]
        for episode, theirs in zip(mine, found, strict=True):
            texts = [text.decode() for text in theirs["episode_metadata"]["oxe_instructions"]]
            assert tuple(texts) == episode.instructions
            assert plain(theirs["about"]["pose"]) == plain(np.array(episode.metadata["about.pose"]))
            for t, step in enumerate(theirs["steps"]):
                assert plain(step["action"]) == plain(episode.action[t])
                assert step["observation"]["observation_left_rgb"] == (episode.images["observation_left_rgb"][t] or b"")
                for path in ("nested.deep.u64", "nested.deep.f64", "zipped", "note", "discount"):
                    value: Any = step["raw"]
                    for key in path.split("."):
                        value = value[key]
                    assert plain(value) == plain(nested(episode.raw[path])[t]), path
                assert step["raw"]["ragged"].shape == (t, 2)


def test_a_source_with_nothing_but_actions_comes_back_equal(tmp_path: Path) -> None:
    (tmp_path / "bare.toml").write_text(BARE)
    episodes = [{"action": np.full((steps, 3), steps, np.float32)} for steps in (1, 2)]
    fields = [Field(path="action", kind="number", dtype="float32", shape=(3,))]
    source = write_source(tmp_path / "source", episodes, fields=fields)
    first = converted(tmp_path / "bare.toml", source, tmp_path / "first")
    back = there_and_back(first, tmp_path)
    assert_same_datasets(first, back)
    episode = back.episode(0)
    assert (episode.instructions, episode.state, episode.timestamp, episode.images) == ((), None, None, {})
    assert (episode.is_first.tolist(), episode.is_last.tolist()) == ([True], [True])  # type: ignore[union-attr]


def test_instructions_of_a_whole_episode_come_back_equal(tmp_path: Path) -> None:
    tfds = pytest.importorskip("tensorflow_datasets", reason="the writer is the extra 'rlds'")
    f = tfds.features
    declared = {
        "steps": f.Dataset({"action": f.Tensor(shape=(3,), dtype=np.float32)}),
        "tasks": f.Sequence(f.Text()),
    }
    step = {"action": np.zeros(3, np.float32)}
    tasks: list[list[str]] = [["one", "two"], ["one"], []]
    source = write_rlds(tmp_path / "source", [{"steps": [step] * 2, "tasks": task} for task in tasks], declared)
    (tmp_path / "bare.toml").write_text(BARE.replace('name = "bare"', 'name = "bare"\nlanguage = "tasks"', 1))
    first = converted(tmp_path / "bare.toml", source, tmp_path / "first")
    assert [episode.instructions for episode in first] == [("one", "two"), ("one",), ("",)]
    assert_same_datasets(first, there_and_back(first, tmp_path))


def test_cameras_whose_names_clash_with_ours_come_back_equal(tmp_path: Path) -> None:
    cameras = ["a.state", "b.depth", "c.cameras", "d/e", "d_e", "f.rgb", "g.rgb", "f_rgb"]
    fields = [*FIELDS, *(replace(FIELDS[2], path=path) for path in cameras)]
    episodes = [columns(i) | {path: [jpeg(n + i)] * 3 for n, path in enumerate(cameras)} for i in range(2)]
    toy = make_toy(tmp_path, episodes, fields=fields)
    first = converted(toy.spec, toy.source, toy.out)
    assert len(first.cameras) == len(set(first.cameras)) == len(cameras) + 1
    assert_same_datasets(first, there_and_back(first, tmp_path))


@given(
    steps=STEPS, metadata=METADATA, lengths=st.lists(st.integers(1, 3), min_size=1, max_size=3), seed=st.integers(0, 99)
)
@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
def test_random_feature_trees_come_back_equal(steps: Node, metadata: Node, lengths: list[int], seed: int) -> None:
    tfds = pytest.importorskip("tensorflow_datasets", reason="the writer is the extra 'rlds'")
    feature = tfds.features.Tensor(shape=(3,), dtype=np.float32)
    action = Node(feature, lambda rng: rng.normal(size=3).astype(np.float32))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        whole = tree({**(steps.children or {}), "action": action})
        written(folder / "source", whole, metadata, lengths, seed=seed)
        (folder / "bare.toml").write_text(BARE)
        first = converted(folder / "bare.toml", folder / "source", folder / "first")
        assert oxe("verify", first.path).code == 0
        assert_same_datasets(first, there_and_back(first, folder))


# --- the folder of an export ---


def test_a_copy_of_an_export_brings_its_declaration(toy: Toy, tmp_path: Path) -> None:
    first = converted(toy.spec, toy.source, toy.out)
    assert oxe("export", "rlds", first.path, "--out", tmp_path / "rlds").code == 0
    shutil.copytree(tmp_path / "rlds", tmp_path / "elsewhere")
    shutil.rmtree(tmp_path / "rlds")
    assert oxe("inspect", tmp_path / "elsewhere", "--json").json()["declaration"] is True
    assert oxe("convert", tmp_path / "elsewhere", "--out", tmp_path / "back").code == 0
    assert_same_datasets(first, open_dataset(tmp_path / "back"))


def test_exporting_twice_gives_the_same_bytes(toy: Toy, tmp_path: Path) -> None:
    assert toy.convert().code == 0
    out = tmp_path / "rlds"
    assert oxe("export", "rlds", toy.out, "--out", out).code == 0
    once = files(out)
    again = oxe("export", "rlds", toy.out, "--out", out)
    assert (again.code, again.out, files(out)) == (0, f"{out}: 3 episodes, 9 steps in 1 file\n", once)
    other = oxe("export", "rlds", toy.out, "--view", "late", "--out", out)
    assert (other.code, "contains an export with a different view_digest, view" in other.err) == (2, True)
    assert oxe("export", "rlds", toy.out, "--out", out, "--overwrite").code == 0
    twice = files(out)
    assert {**twice, "oxe_runs.jsonl": once["oxe_runs.jsonl"]} == once
    ours = ["oxe_export.json", "oxe_runs.jsonl", "oxe_spec.toml"]
    assert sorted(once) == ["dataset_info.json", "features.json", *ours, "toy-train.tfrecord-00000-of-00001"]


def test_an_export_from_before_views_had_versions_says_what_to_run(toy: Toy, tmp_path: Path) -> None:
    assert toy.convert().code == 0
    call = ("export", "rlds", toy.out, "--view", "late", "--out", tmp_path / "rlds")
    assert oxe(*call).code == 0
    path = tmp_path / "rlds/oxe_export.json"
    record = json.loads(path.read_text())
    record["identity"]["view_digest"] = "0" * 64
    path.write_text(json.dumps(record))
    why = "the export was made before views had versions and cannot be checked: run 'oxe export' again with --overwrite"
    again = oxe(*call)
    assert (again.code, f"{tmp_path / 'rlds'}: {why}" in again.err) == (2, True)
    verified = oxe("verify", tmp_path / "rlds")
    assert (verified.code, f"oxe_export.json: {why}" in verified.err) == (1, True)
    other = oxe(*call[:3], "--out", tmp_path / "rlds")
    assert (other.code, "contains an export with a different view_digest, view" in other.err) == (2, True)
    assert oxe(*call, "--overwrite").code == 0
    assert oxe("verify", tmp_path / "rlds").code == 0


def test_splits_keep_their_names_and_counts(tmp_path: Path) -> None:
    toy = make_toy(tmp_path, splits={"train": 2, "val": 1})
    assert toy.convert().code == 0
    assert oxe("export", "rlds", toy.out, "--out", tmp_path / "rlds").code == 0
    splits: list[Mapping[str, Any]] = json.loads((tmp_path / "rlds/dataset_info.json").read_text())["splits"]
    assert [(split["name"], split["shardLengths"]) for split in splits] == [("train", ["2"]), ("val", ["1"])]


def test_a_view_that_is_not_there_writes_nothing(toy: Toy, tmp_path: Path) -> None:
    assert toy.convert().code == 0
    done = oxe("export", "rlds", toy.out, "--view", "latte", "--out", tmp_path / "rlds")
    assert (done.code, done.err) == (2, "oxe: toy has no view 'latte'; did you mean 'late'? (known: late)\n")
    assert not (tmp_path / "rlds").exists()


def test_what_is_no_dataset_cannot_be_exported(toy: Toy, tmp_path: Path) -> None:
    done = oxe("export", "rlds", toy.source, "--out", tmp_path / "rlds")
    assert (done.code, "no meta/manifest.json" in done.err) == (2, True)


@pytest.fixture
def limits(toy: Toy, tmp_path: Path) -> Iterator[int]:
    assert toy.convert().code == 0
    assert oxe("export", "rlds", toy.out, "--out", tmp_path / "whole").code == 0
    sizes = sorted(len(data) for data in files(tmp_path / "whole").values())
    return iter([0, sizes[-1] // 2, sizes[-1] - 1])


def test_a_full_disk_leaves_no_half_export(toy: Toy, tmp_path: Path, limits: Iterator[int]) -> None:
    out = tmp_path / "rlds"
    for limit in limits:
        done = oxe_process(
            *("export", "rlds", toy.out, "--out", out),
            preexec_fn=lambda limit=limit: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        )
        assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
        assert "cannot be written" in done.err
        assert not {"features.json", "dataset_info.json"} & files(out).keys()  # so that no reader accepts it
    assert oxe("export", "rlds", toy.out, "--out", out).code == 0


@pytest.mark.parametrize("version", [2, 3])
def test_a_damaged_dataset_is_not_exported(toy: Toy, tmp_path: Path, version: int) -> None:
    assert toy.convert().code == 0
    (entry,) = (downgrade(toy.out) if version == 2 else open_dataset(toy.out)).manifest["files"]
    path = toy.out / entry["path"]
    start, length, _ = open_dataset(toy.out).image_index(entry["path"]).images[-1, 0].tolist()
    data = bytearray(path.read_bytes())
    data[start + length // 2] ^= 1
    path.write_bytes(data)
    done = oxe("export", "rlds", toy.out, "--out", tmp_path / "rlds")
    why = "episode 2 is damaged" if version == 2 else f"{path}: damaged (the image in row {entry['rows'] - 1} of"
    assert (done.code, why in done.err) == (2, True)
    assert {name for name in files(tmp_path / "rlds") if not name.startswith("oxe_ledger/")} == set()


def test_an_episode_of_which_a_view_leaves_nothing_is_counted(tmp_path: Path) -> None:
    toy = make_toy(tmp_path, [columns(0), columns(1, steps=1)])
    assert toy.convert().code == 0
    done = oxe("export", "rlds", toy.out, "--view", "late", "--out", tmp_path / "rlds", "--json")
    assert (done.json()["episodes"], done.json()["without_steps"]) == (1, 1)
    assert "left out: 1 episodes" in done.err


def test_the_sources_own_oxe_id_is_kept(toy: Toy, tmp_path: Path) -> None:
    assert toy.convert().code == 0
    assert oxe("export", "rlds", toy.out, "--out", tmp_path / "rlds").code == 0
    (tmp_path / "rlds/oxe_spec.toml").unlink()  # as in a copy by another tool
    spec = write_spec(tmp_path)
    again = oxe("convert", spec, "--source", tmp_path / "rlds", "--out", tmp_path / "again")
    assert again.code == 0, again.err
    first = open_dataset(tmp_path / "again")
    assert oxe("export", "rlds", first.path, "--out", tmp_path / "rlds2").code == 0
    assert oxe("convert", tmp_path / "rlds2", "--out", tmp_path / "twice").code == 0
    assert_same_datasets(first, open_dataset(tmp_path / "twice"))
    assert first.episode(0).metadata["episode_metadata.oxe_id"] == "toy-000000"


def test_an_episode_of_an_export_in_memory_has_the_views_of_its_dataset(tmp_path: Path) -> None:
    """The declaration of an export keeps the source's columns below `raw`, where its views read them."""
    doubled = [columns(seed, action=2 * columns(seed)["action"]) for seed in range(2)]  # type: ignore[operator]
    toy = make_toy(tmp_path, doubled)
    scaled = {'gripper = "action[3:]"': 'gripper = "action[3:] | scale(1/2)"'}
    write_spec(toy.folder, replace=scaled, extra='[views.own]\naction = ["raw.action"]\n')
    dataset = converted(toy.folder / "toy.toml", toy.source, tmp_path / "out")
    assert oxe("export", "rlds", dataset.path, "--out", tmp_path / "rlds").code == 0
    theirs = dataset.episode(1, "own")
    steps = {
        "action": dataset.episode(1).action,
        "observation": {"state": dataset.episode(1).state},
        "raw": dataset.episode(1).raw,
    }
    mine = standardize(str(tmp_path / "rlds"), steps, view="own")
    np.testing.assert_array_equal(mine.action, doubled[1]["action"])
    np.testing.assert_array_equal(mine.action, theirs.action)
    assert set(mine.raw) == set(dataset.episode(1).raw)
