"""RLDS datasets; despite damage, there is one value per declared episode and per undeclared record."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest

from pipelines.readers import reader as source
from pipelines.readers.folder import safe_path
from pipelines.readers.history import History
from pipelines.readers.reader import plan
from pipelines.readers.rlds import example, tfrecord
from pipelines.readers.rlds.reader import RldsReader
from schemas.errors import OxeError, SourceError, UsageError
from schemas.source import RawEpisode, Unreadable
from tests.makers import nested, write_rlds

TRAIN = "toy-train.tfrecord-{:05d}-of-00002"
LENGTHS = [3, 1, 0, 4, 2]  # steps; two episodes in the first shard of train, two in the second, one in val


@pytest.fixture(scope="session")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tfds = pytest.importorskip("tensorflow_datasets", reason="the writer is the extra 'rlds'")
    step = {
        "action": tfds.features.Tensor(shape=(2,), dtype=np.float32),
        "observation": {"state": tfds.features.Tensor(shape=(3,), dtype=np.float64)},
        "is_last": np.bool_,
        "language_instruction": tfds.features.Text(),
        "boxes": tfds.features.Sequence(tfds.features.BBoxFeature()),
    }
    episodes = [
        {"steps": [make_step(i, t, steps) for t in range(steps)], "episode_metadata": {"file_path": f"e{i}.hdf5"}}
        for i, steps in enumerate(LENGTHS)
    ]
    declared = {"steps": tfds.features.Dataset(step), "episode_metadata": {"file_path": tfds.features.Text()}}
    folder = tmp_path_factory.mktemp("rlds") / "toy" / "1.0.0"
    return write_rlds(folder, episodes, declared, splits={"train": 4, "val": 1}, shards=2)


def make_step(i: int, t: int, steps: int) -> dict[str, Any]:
    return {
        "action": np.array([i, t], np.float32),
        "observation": {"state": np.array([i, t, 0.5])},
        "is_last": t == steps - 1,
        "language_instruction": f"task {i} ☂",
        "boxes": [np.array([0.0, 0.0, 1.0, 1.0])] * t,
    }


@pytest.fixture
def toy(pristine: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pristine, tmp_path / "1.0.0"))


def read(folder: Path | str, **arguments: Any) -> list[RawEpisode | Unreadable]:
    reader = RldsReader(str(folder))
    return [value for ref in plan(reader.files(), **arguments) for value in reader.read(ref)]


def outcome(folder: Path | str) -> list[tuple[int | None, str]]:
    """List (index, "ok" or the reason) for every value; the balance is checked."""
    values = read(folder)
    declared = sum(part.count for parts in RldsReader(str(folder)).files().values() for part in parts)
    assert [value.index for value in values if value.index is not None] == list(range(declared))
    return [(value.index, value.reason if isinstance(value, Unreadable) else "ok") for value in values]


def details(folder: Path) -> str:
    return "; ".join(value.detail for value in read(folder) if isinstance(value, Unreadable))


def summary(episode: RawEpisode | Unreadable) -> Any:
    assert isinstance(episode, RawEpisode)
    steps = {
        path: repr([getattr(v, "tolist", lambda v=v: v)() for v in nested(c)]) for path, c in episode.steps.items()
    }
    return episode.index, episode.split, episode.offset, steps, episode.metadata


def edit_json(file: Path, change: Callable[[Any], Any]) -> None:
    declared = json.loads(file.read_text())
    changed = change(declared)
    file.write_text(json.dumps(declared if changed is None else changed))


def records(file: Path) -> list[tuple[int, int]]:
    with file.open("rb") as opened:
        return list(tfrecord.offsets(opened, file.name))


def rewrite(file: Path, change: Callable[[bytearray], Any]) -> None:
    data = bytearray(file.read_bytes())
    changed = change(data)
    file.write_bytes(data if changed is None else changed)


# --- what is read ---


def test_episodes_come_in_order_with_split_index_and_place(pristine: Path) -> None:
    values = read(pristine)
    assert [(v.index, v.split, v.n_steps()) for v in values if isinstance(v, RawEpisode)] == [
        (0, "train", 3),
        (1, "train", 1),
        (2, "train", 0),
        (3, "train", 4),
        (4, "val", 2),
    ]
    assert [v.metadata["episode_metadata.file_path"] for v in values if isinstance(v, RawEpisode)] == [
        f"e{i}.hdf5" for i in range(5)
    ]
    assert str(values[3].file).endswith(TRAIN.format(1))
    assert values[3].offset == records(Path(values[3].file))[1][0]


def test_values_are_those_that_were_written(pristine: Path) -> None:
    episode = read(pristine)[3]
    assert isinstance(episode, RawEpisode)
    steps = episode.steps
    assert np.asarray(steps["action"]).tolist() == [[3, 0], [3, 1], [3, 2], [3, 3]]
    assert np.asarray(steps["observation.state"]).dtype == np.float64
    assert np.asarray(steps["is_last"]).tolist() == [False, False, False, True]
    assert [bytes(text).decode() for text in nested(steps["language_instruction"])] == ["task 3 ☂"] * 4
    assert [len(boxes) for boxes in nested(steps["boxes"])] == [0, 1, 2, 3]


def test_only_the_columns_asked_for_are_decoded(pristine: Path) -> None:
    reader = RldsReader(str(pristine))
    found = [e for ref in plan(reader.files()) for e in reader.read(ref, {"action", "episode_metadata.file_path"})]
    assert {(*e.steps, *e.metadata) for e in found if isinstance(e, RawEpisode)} == {
        ("action", "episode_metadata.file_path")
    }


def test_a_split_and_a_limit_choose_episodes(pristine: Path) -> None:
    assert [value.index for value in read(pristine, split="val")] == [4]
    assert [value.index for value in read(pristine, limit=3)] == [0, 1, 2]


def test_the_folder_above_is_found_through(pristine: Path) -> None:
    assert outcome(pristine.parent) == outcome(pristine.parent.parent) == [(i, "ok") for i in range(5)]


def test_ranges_read_like_the_whole(pristine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = [summary(value) for value in read(pristine)]
    monkeypatch.setattr(source, "MIN_SHARD", 100)
    monkeypatch.setattr(source, "MAX_SHARD", 100)
    assert len(plan(RldsReader(str(pristine)).files())) == 6  # two files of two episodes, one of one, one of none
    assert [summary(value) for value in read(pristine)] == whole


def test_memory_reads_like_the_disk(pristine: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.put(str(pristine), "/rlds/toy/1.0.0", recursive=True)
    try:
        for uri in ("memory://rlds/toy/1.0.0", "memory://rlds/toy", "memory://rlds/"):
            assert [summary(value) for value in read(uri)] == [summary(value) for value in read(pristine)]
        assert History.of(RldsReader("memory://rlds")) == History.of(RldsReader(str(pristine)))
    finally:
        memory.rm("/rlds", recursive=True)


def test_reading_imports_no_heavy_library(pristine: Path) -> None:
    code = f"""
import sys
from pipelines.readers.rlds.reader import RldsReader
from pipelines.readers.reader import plan
reader = RldsReader({str(pristine)!r})
assert sum(1 for ref in plan(reader.files()) for _ in reader.read(ref)) == 5
print([name for name in ("tensorflow", "tensorflow_datasets", "pyarrow", "polars", "fsspec", "apache_beam")
       if name in sys.modules])
"""
    root = Path(__file__).parents[4]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=False)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


# --- damaged shards ---


def test_a_file_cut_inside_data_loses_that_record_and_the_rest(toy: Path) -> None:
    shard = toy / TRAIN.format(0)
    rewrite(shard, lambda data: data[:-5])
    assert outcome(toy) == [(0, "ok"), (1, "truncated"), (2, "ok"), (3, "ok"), (4, "ok")]
    assert "the file ends before that" in details(toy)


def test_a_file_cut_inside_a_header_says_so(toy: Path) -> None:
    shard = toy / TRAIN.format(0)
    rewrite(shard, lambda data: data[: records(shard)[1][0] + 7])
    assert outcome(toy)[:3] == [(0, "ok"), (1, "truncated"), (2, "ok")]
    assert "ends inside a record's header" in details(toy)


def test_a_wrong_crc_of_the_length_loses_the_rest_of_the_shard(toy: Path) -> None:
    rewrite(toy / TRAIN.format(0), lambda data: data.__setitem__(0, data[0] ^ 1))
    assert outcome(toy) == [(0, "wrong_crc"), (1, "wrong_crc"), (2, "ok"), (3, "ok"), (4, "ok")]
    assert "no record after it can be found" in details(toy)


def test_a_wrong_crc_of_the_data_loses_that_episode_alone(toy: Path) -> None:
    rewrite(toy / TRAIN.format(0), lambda data: data.__setitem__(20, data[20] ^ 1))
    assert outcome(toy) == [(0, "wrong_crc"), (1, "ok"), (2, "ok"), (3, "ok"), (4, "ok")]
    assert "data has a wrong CRC" in details(toy)


def test_a_missing_shard_loses_what_it_declares(toy: Path) -> None:
    (toy / TRAIN.format(0)).unlink()
    assert outcome(toy) == [(0, "missing_shard"), (1, "missing_shard"), (2, "ok"), (3, "ok"), (4, "ok")]


def test_a_folder_in_place_of_a_shard_is_counted(toy: Path) -> None:
    (toy / TRAIN.format(0)).unlink()
    (toy / TRAIN.format(0)).mkdir()
    assert outcome(toy)[:3] == [(0, "unreadable"), (1, "unreadable"), (2, "ok")]


def test_an_empty_file_is_short_of_all_its_records(toy: Path) -> None:
    (toy / TRAIN.format(0)).write_bytes(b"")
    assert outcome(toy)[:3] == [(0, "missing_record"), (1, "missing_record"), (2, "ok")]
    assert "2 episodes are declared, but the file ends after 0" in details(toy)


def test_a_git_lfs_pointer_says_what_to_do(toy: Path) -> None:
    (toy / TRAIN.format(1)).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    assert outcome(toy)[2:4] == [(2, "lfs_pointer"), (3, "lfs_pointer")]
    assert "git lfs pull" in details(toy)


def test_undeclared_records_are_counted_not_read(toy: Path) -> None:
    rewrite(toy / TRAIN.format(0), lambda data: data + tfrecord.frame(b"more") * 2)
    assert outcome(toy)[:5] == [
        (0, "ok"),
        (1, "ok"),
        (None, "undeclared_record"),
        (None, "undeclared_record"),
        (2, "ok"),
    ]


def test_garbage_after_the_last_record_is_counted(toy: Path) -> None:
    rewrite(toy / TRAIN.format(0), lambda data: data + b"garbage")
    assert outcome(toy)[:4] == [(0, "ok"), (1, "ok"), (None, "truncated"), (2, "ok")]


def test_fewer_records_than_declared_are_counted(toy: Path) -> None:
    shard = toy / TRAIN.format(0)
    rewrite(shard, lambda data: data[: records(shard)[1][0]])
    assert outcome(toy)[:3] == [(0, "ok"), (1, "missing_record"), (2, "ok")]
    assert "2 episodes are declared, but the file ends after 1" in details(toy)


def test_garbage_with_a_right_crc_loses_that_episode_alone(toy: Path) -> None:
    shard = toy / TRAIN.format(0)
    rewrite(shard, lambda data: tfrecord.frame(b"\xff garbage") + data[records(shard)[1][0] :])
    assert outcome(toy)[:3] == [(0, "malformed_record"), (1, "ok"), (2, "ok")]


def test_damage_is_the_same_in_ranges(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rewrite(toy / TRAIN.format(0), lambda data: data.__setitem__(20, data[20] ^ 1) or data + b"garbage")
    whole = outcome(toy)
    monkeypatch.setattr(source, "MIN_SHARD", 100)
    monkeypatch.setattr(source, "MAX_SHARD", 100)
    assert outcome(toy) == whole


def test_columns_of_unequal_length_are_refused_when_counted(toy: Path) -> None:
    held = {"steps/action": np.zeros(6, np.float32), "steps/observation/state": np.zeros(6, np.float32)}
    texts = {"steps/language_instruction": [b"a"] * 3, "episode_metadata/file_path": [b"e"]}
    boxes = {
        "steps/boxes/ragged_flat_values": np.zeros(0, np.float32),
        "steps/boxes/ragged_row_lengths_0": np.zeros(3, int),
    }
    record = tfrecord.frame(example.encode({**held, **texts, **boxes, "steps/is_last": np.zeros(3, bool)}))
    (toy / TRAIN.format(0)).write_bytes(record + record)
    episode = read(toy)[1]
    assert isinstance(episode, RawEpisode)
    with pytest.raises(SourceError, match=r"unequal length: .* have 3 steps, observation.state has 2 steps") as caught:
        episode.n_steps()
    assert (caught.value.reason, caught.value.offset) == ("unequal_lengths", len(record))


# --- features.json and the data disagree ---


def steps_of(declared: Any) -> Any:
    return declared["featuresDict"]["features"]["steps"]["sequence"]["feature"]["featuresDict"]["features"]


def renamed(steps: Any) -> None:
    steps["other"] = steps.pop("action")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda steps: steps["action"]["tensor"]["shape"].update(dimensions=["7"]),
            "action: 6 stored values do not fit",
        ),
        (lambda steps: steps["action"]["tensor"].update(dtype="int32"), "action: features.json declares integers"),
        (renamed, "other: the record has no 'steps/other'"),
    ],
)
def test_features_that_contradict_the_data_lose_each_episode(toy: Path, change: Any, words: str) -> None:
    edit_json(toy / "features.json", lambda declared: change(steps_of(declared)))
    assert {reason for _, reason in outcome(toy)} <= {"contradicts_features", "ok"}
    assert words in details(toy)


def test_a_feature_without_values_is_left_out_with_a_note(toy: Path) -> None:
    def add(declared: Any) -> None:
        steps_of(declared)["points"] = json.loads(json.dumps(steps_of(declared)["action"]))
        steps_of(declared)["points"]["tensor"]["shape"]["dimensions"] = ["3", "0"]

    edit_json(toy / "features.json", add)
    reader = RldsReader(str(toy))
    assert reader.notes() == ["points: the shape is [3, 0], so it is left out."]
    assert "points" not in {field.path for field in reader.fields}
    assert {reason for _, reason in outcome(toy)} == {"ok"}


def unsupported(declared: Any) -> None:
    steps_of(declared)["action"] = {"pythonClassName": "lab.Thing", "jsonFeature": {"json": "{}"}}


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (lambda file: file.unlink(), "features.json is missing"),
        (lambda file: file.write_text("{"), "not a features.json"),
        (lambda file: edit_json(file, lambda d: d["featuresDict"]["features"].pop("steps") and None), "not RLDS"),
        (lambda file: edit_json(file, unsupported), "feature lab.Thing is not supported"),
    ],
)
def test_a_dataset_without_sound_features_is_refused(toy: Path, break_it: Any, words: str) -> None:
    break_it(toy / "features.json")
    with pytest.raises(SourceError, match=words) as caught:
        RldsReader(str(toy))
    assert (caught.value.reason, caught.value.file) == ("bad_features", str(toy / "features.json"))


# --- dataset_info.json ---


def test_without_dataset_info_the_splits_come_from_file_names(toy: Path, pristine: Path) -> None:
    (toy / "dataset_info.json").unlink()
    assert [summary(value) for value in read(toy)] == [summary(value) for value in read(pristine)]


def test_without_dataset_info_damage_counts_as_one_episode(toy: Path) -> None:
    (toy / "dataset_info.json").unlink()
    rewrite(toy / TRAIN.format(0), lambda data: data[:-5])
    (toy / TRAIN.format(1)).write_text("version https://git-lfs.github.com/spec/v1\n")
    assert outcome(toy) == [(0, "ok"), (1, "truncated"), (2, "lfs_pointer"), (3, "ok")]


def test_without_dataset_info_an_incomplete_set_of_shards_is_refused(toy: Path) -> None:
    (toy / "dataset_info.json").unlink()
    (toy / TRAIN.format(0)).unlink()
    with pytest.raises(SourceError, match="the shards of 'train' are not a complete set"):
        RldsReader(str(toy)).files()


def split_of(info: Any, **changes: Any) -> None:
    info["splits"][0].update(changes)


@pytest.mark.parametrize(
    ("change", "reason", "words"),
    [
        (lambda info: info.update(fileFormat="riegeli"), "bad_info", "'riegeli' is not tfrecord"),
        (lambda info: split_of(info, name="../train"), "unsafe_path", "'../train' is not a valid name for a split"),
        (lambda info: split_of(info, filepathTemplate="../{SPLIT}"), "unsafe_path", "leaves its folder"),
        (lambda info: split_of(info, filepathTemplate="a/../../{SPLIT}"), "unsafe_path", "leaves its folder"),
        (lambda info: split_of(info, filepathTemplate="/etc/passwd"), "unsafe_path", "leaves its folder"),
        (lambda info: info.update(name="../toy"), "unsafe_path", "leaves its folder"),
        (lambda info: split_of(info, shardLengths=["-1"]), "bad_info", "lengths are negative"),
        (lambda info: split_of(info, shardLengths=["many"]), "bad_info", "not a dataset_info.json"),
        (lambda info: split_of(info, name="val"), "bad_info", "'val' occurs twice"),
        (lambda info: info["splits"][0].pop("name") and None, "bad_info", "KeyError.'name'"),
        (lambda info: info.update(splits=[1]), "bad_info", "not a dataset_info.json"),
        (lambda info: info.update(splits=[]), "bad_info", "no splits"),
        (lambda info: [info], "bad_info", "expected an object"),
    ],
)
def test_a_wrong_dataset_info_says_why(toy: Path, change: Any, reason: str, words: str) -> None:
    edit_json(toy / "dataset_info.json", change)
    with pytest.raises(SourceError, match=words) as caught:
        RldsReader(str(toy)).files()
    assert (caught.value.reason, caught.value.file) == (reason, str(toy / "dataset_info.json"))


def test_a_dataset_info_that_is_not_json_says_so(toy: Path) -> None:
    (toy / "dataset_info.json").write_bytes(b"\xff")
    with pytest.raises(SourceError, match=r"dataset_info\.json: not JSON"):
        RldsReader(str(toy)).files()


def test_a_filepath_template_names_the_shards(toy: Path, pristine: Path) -> None:
    for split in ("train", "val"):
        (toy / split).mkdir()
        for i in range(2):
            (toy / f"toy-{split}.tfrecord-{i:05d}-of-00002").rename(toy / split / f"x-{i:05d}.of.00002")
    template = "{SPLIT}/x-{SHARD_INDEX}.of.{NUM_SHARDS}"
    edit_json(
        toy / "dataset_info.json", lambda info: [s.update(filepathTemplate=template) for s in info["splits"]] and None
    )
    assert [summary(value) for value in read(toy)] == [summary(value) for value in read(pristine)]


@pytest.mark.parametrize(
    "name", ["../x", "/x", "a/../x", "a/..", "..", "a\n/../x", "a\\..\\x", "", "a\0", "\\x", "a/../../b"]
)
def test_a_name_that_leaves_its_folder_is_refused(name: str) -> None:
    with pytest.raises(SourceError, match="leaves its folder"):
        safe_path(name, where="dataset_info.json")


@pytest.mark.parametrize("name", ["x", "a/x", "..x", "x..", "a/.../x", ".x"])
def test_a_name_that_stays_inside_is_kept(name: str) -> None:
    assert safe_path(name, where="dataset_info.json") == name


# --- finding the dataset ---


def test_one_of_several_datasets_below_a_folder_must_be_named(pristine: Path, tmp_path: Path) -> None:
    for version in ("1.0.0", "1.1.0"):
        shutil.copytree(pristine, tmp_path / "toy" / version)
    with pytest.raises(UsageError, match=r"holds several sources, name one: .*1\.0\.0 \(rlds\), .*1\.1\.0"):
        RldsReader(str(tmp_path))


@pytest.mark.parametrize("below", ["", "no/such/folder"])
def test_a_folder_without_a_dataset_is_refused(tmp_path: Path, below: str) -> None:
    (tmp_path / "LICENSE").write_text("a file without a dot in its name")
    with pytest.raises(UsageError, match="no RLDS dataset here"):
        RldsReader(str(tmp_path / below))


def test_an_unknown_scheme_is_refused() -> None:
    with pytest.raises(OxeError, match="nosuch"):
        RldsReader("nosuch://bucket/toy")


# --- real recordings ---


@pytest.mark.realdata
@pytest.mark.parametrize("name", ["franka", "obj2sink"])
def test_the_real_set_without_shards_loses_every_declared_episode(realdata: Path, name: str) -> None:
    folder = realdata / "rlds_malformed" / "franka_missing_shards" / name
    assert outcome(folder) == [(i, "missing_shard") for i in range(15)]


@pytest.mark.realdata
def test_the_real_set_reads_like_tfds(realdata: Path) -> None:
    tfds = pytest.importorskip("tensorflow_datasets")
    folder = realdata / "rlds" / "octo_debug_bridge" / "bridge_dataset" / "1.0.0"
    ours = iter(read(folder))
    for split in ("train", "val"):
        decoders = {"steps": tfds.decode.SkipDecoding()}
        builder = tfds.builder_from_directory(str(folder))
        for theirs in builder.as_dataset(split=split, decoders=decoders, shuffle_files=False):
            mine = next(ours)
            assert isinstance(mine, RawEpisode)
            assert mine.split == split
            flat = flattened({key: value for key, value in theirs.items() if key != "steps"})
            assert {path: texts(value) for path, value in mine.metadata.items()} == {
                path: value.numpy() for path, value in flat.items()
            }
            columns = flattened(theirs["steps"])
            assert columns.keys() == mine.steps.keys()
            for path, column in columns.items():
                value = column.numpy()
                found = mine.steps[path]
                if isinstance(found, np.ndarray):
                    assert (found.dtype, found.tobytes()) == (value.dtype, value.tobytes()), path
                else:
                    assert [bytes(item) for item in found] == value.tolist(), path  # type: ignore[union-attr]
    assert next(ours, None) is None


def flattened(tree: Any, path: tuple[str, ...] = ()) -> dict[str, Any]:
    if not isinstance(tree, dict):
        return {".".join(path): tree}
    return {key: leaf for name, child in tree.items() for key, leaf in flattened(child, (*path, name)).items()}


def texts(value: Any) -> Any:
    return value.encode() if isinstance(value, str) else value


@pytest.mark.realdata
def test_the_real_set_in_memory_reads_like_the_disk(realdata: Path) -> None:
    folder = realdata / "rlds" / "octo_debug_bridge"
    memory = fsspec.filesystem("memory")
    memory.put(str(folder), "/real", recursive=True)
    try:
        assert [summary(value) for value in read("memory://real")] == [summary(value) for value in read(folder)]
    finally:
        memory.rm("/real", recursive=True)
