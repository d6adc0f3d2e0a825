"""LeRobotDatasets, valid and damaged; every planned episode is one value."""

import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.convert.convert import convert
from pipelines.inspect.check import check
from pipelines.inspect.inspect import inspect
from pipelines.readers import reader as source
from pipelines.readers import video
from pipelines.readers.folder import LFS_MARK
from pipelines.readers.lerobot import columns as parquet
from pipelines.readers.lerobot.info import V2, V3
from pipelines.readers.lerobot.reader import LerobotReader
from pipelines.readers.reader import Reader, plan
from pipelines.readers.registry import guess, open_source
from pipelines.verify import verify
from schemas.declarations import catalog
from schemas.errors import SourceError, SpecError, UsageError
from schemas.source import Array, Ragged, RawEpisode
from schemas.store.dataset import Dataset, open_dataset
from tests.lerobot import FPS, drawn, edit_info, write_lerobot, write_video
from tests.pipelines.readers.reading import ARM, Opener, Reading, decoded
from tests.pipelines.toy import jpeg, oxe

av = pytest.importorskip("av", reason="the extra 'lerobot'")
FRONT, WRIST = "observation.images.front", "observation.images.wrist"
VERSIONS = ("v2.0", "v2.1", "v3.0")
POINTER = LFS_MARK + b".github.com/spec/v1\noid sha256:00\nsize 9\n"
SPEC = f"""
name       = "toy"
control_hz = 10
language   = "task"
timestamp  = "timestamp"
{ARM}
[action]
joints = "action"
"""


def make_episode(seed: int = 0, *, steps: int = 4, **more: Any) -> dict[str, Any]:
    """Make one episode with a video camera; a column that is None is left out."""
    rng = np.random.default_rng(seed)
    made = {
        "observation.state": rng.normal(size=(steps, 3)),
        "action": rng.normal(size=(steps, 2)).astype(np.float32),
        FRONT: drawn(steps, seed=seed),
        "task": [f"task {seed}"] * steps,
        **more,
    }
    return {key: column for key, column in made.items() if column is not None or key == "frame_index"}


def write(folder: Path, count: int = 3, *, version: str = "v3.0", **more: Any) -> Path:
    episodes = more.pop("episodes", None) or [make_episode(i, steps=4 + i) for i in range(count)]
    return write_lerobot(folder / "source", episodes, version=version, **{"per_file": 2, **more})


def opened(uri: str, **layout: Any) -> Reader:
    return opener(uri, **{"ignore": (), "images": "png", **layout})


opener = Opener("lerobot")
reading = Reading(opened)
read, episodes, outcome, details = reading.read, reading.episodes, reading.outcome, reading.details


def refused(uri: Path | str, **layout: Any) -> SourceError:
    with pytest.raises(SourceError) as caught:
        read(uri, **layout)
    return caught.value


def filmed(file: Path) -> list[Array]:
    with av.open(str(file)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def data_file(folder: Path, number: int = 0) -> Path:
    return sorted(folder.glob("source/data/*/*.parquet"))[number]


def rewrite(file: Path, **columns: Any) -> None:
    """Change columns of a data file; None removes one."""
    table = pq.read_table(file)
    for name, column in columns.items():
        table = table.drop_columns([name]) if name in table.column_names else table
        table = table if column is None else table.append_column(name, column)
    pq.write_table(table, file)


# --- layouts ---


@pytest.mark.parametrize("version", VERSIONS)
def test_every_version_gives_the_numbers_texts_and_frames_that_were_written(tmp_path: Path, version: str) -> None:
    found = episodes(write(tmp_path, 5, version=version))
    frames = [frame for file in sorted(tmp_path.rglob("*.mp4")) for frame in filmed(file)]
    for seed, episode in enumerate(found):
        made, count = make_episode(seed, steps=4 + seed), 4 + seed
        for name in ("observation.state", "action"):
            column = np.asarray(episode.steps[name])
            assert (column.dtype, column.tolist()) == (made[name].dtype, made[name].tolist())
        assert episode.steps["task"] == [f"task {seed}".encode()] * count
        assert np.array_equal(np.asarray(episode.steps["episode_index"]), [seed] * count)
        assert np.array_equal([decoded(image) for image in episode.steps[FRONT]], frames[:count])
        assert episode.metadata == {"tasks": [f"task {seed}"]}
        frames = frames[count:]
    assert not frames


def test_several_tasks_of_one_episode_are_read_step_by_step(tmp_path: Path) -> None:
    found = episodes(write(tmp_path, episodes=[make_episode(task=["reach", "reach", "lift", "reach"])]))
    assert found[0].steps["task"] == [b"reach", b"reach", b"lift", b"reach"]
    assert found[0].metadata["tasks"] == ["reach", "lift"]


@pytest.mark.parametrize("version", VERSIONS)
def test_what_the_table_says_of_an_episode_is_kept_but_for_statistics_and_places(tmp_path: Path, version: str) -> None:
    told = [
        {"success": i > 0, "operator": "Ada", "grade": 0.5 * i, "marks": [{"at": i}], "action": i} for i in range(2)
    ]
    first, second = episodes(write(tmp_path, 2, version=version, metadata=told))
    assert first.metadata == {
        "tasks": ["task 0"],
        "success": False,
        "operator": "Ada",
        "grade": 0.0,
        "marks": '[{"at": 0}]',
        "episode.action": 0,
    }
    assert second.metadata["grade"] == 0.5


@pytest.mark.parametrize("version", VERSIONS)
def test_images_in_the_table_or_in_files_pass_through_untouched(tmp_path: Path, version: str) -> None:
    inside = [jpeg(i) for i in range(4)]
    (tmp_path / "source/images/wrist").mkdir(parents=True)
    for i, image in enumerate(inside):
        (tmp_path / f"source/images/wrist/{i}.png").write_bytes(image)
    named = [{"bytes": None, "path": f"images/wrist/{i}.png"} for i in range(3)] + [{"bytes": None, "path": None}]
    made = make_episode(**{FRONT: inside, WRIST: named})
    (found,) = episodes(write(tmp_path, version=version, episodes=[made]))
    assert found.steps[FRONT] == inside
    assert found.steps[WRIST] == [*inside[:3], b""]


@pytest.mark.parametrize("version", VERSIONS)
def test_images_that_only_a_template_names_are_found(tmp_path: Path, version: str) -> None:
    folder = write(tmp_path, 2, version=version)
    template = "stills/{image_key}/{episode_index:02d}-{frame_index}.jpg"
    edit_info(folder, image_path=template, features={WRIST: {"dtype": "image", "shape": [8, 8, 3], "names": None}})
    (folder / "stills" / WRIST).mkdir(parents=True)
    for episode, steps in enumerate((4, 5)):
        for step in range(steps):
            (folder / "stills" / WRIST / f"{episode:02d}-{step}.jpg").write_bytes(jpeg(10 * episode + step))
    found = episodes(folder)
    assert found[1].steps[WRIST] == [jpeg(10 + step) for step in range(5)]
    (folder / "stills" / WRIST / "01-3.jpg").unlink()
    assert outcome(folder) == ["ok", "missing_file"]


def test_arrays_of_the_library_datasets_are_read_as_they_were(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    folder = write(tmp_path, 1, version="v2.1")
    rng = np.random.default_rng(0)
    columns = {
        **pq.read_table(data_file(tmp_path)).to_pydict(),
        "observation.force": rng.normal(size=(4, 6)).astype(np.float32).tolist(),
        "observation.map": rng.normal(size=(4, 2, 3)).astype(np.float32).tolist(),
        WRIST: [{"bytes": jpeg(i), "path": None} for i in range(4)],
    }
    features = datasets.Dataset.from_dict(columns).features
    features["observation.force"] = datasets.Sequence(length=6, feature=datasets.Value("float32"))
    features["observation.map"] = datasets.Array2D((2, 3), "float32")
    features[WRIST] = datasets.Image()
    datasets.Dataset.from_dict(columns, features=features).to_parquet(data_file(tmp_path))
    edit_info(folder, features={"observation.map": {"dtype": "float32", "shape": [2, 3], "names": None}})
    (found,) = episodes(folder)
    assert found.steps[WRIST] == [jpeg(i) for i in range(4)]
    for name in ("observation.force", "observation.map"):
        column = np.asarray(found.steps[name])
        assert (column.dtype, column.tolist()) == (np.dtype(np.float32), columns[name])


def test_lists_get_their_size_from_info_json_and_are_sequences_without_it(tmp_path: Path) -> None:
    folder = write(tmp_path, 1, version="v2.0")
    rewrite(data_file(tmp_path), action=pa.array([[1.0, 2.0]] * 4), points=pa.array([[1], [], [2, 3], [4]]))
    (found,) = episodes(folder)
    assert np.asarray(found.steps["action"]).tolist() == [[1.0, 2.0]] * 4
    points = found.steps["points"]
    assert isinstance(points, Ragged)
    assert (points.values.tolist(), points.lengths[0].tolist()) == ([1, 2, 3, 4], [1, 0, 2, 1])
    rewrite(data_file(tmp_path), action=pa.array([[1.0, 2.0]] * 3 + [[1.0]]))
    assert outcome(folder) == ["contradicts_fields"]


def test_nulls_of_pandas_are_nan(tmp_path: Path) -> None:
    folder = write(tmp_path, 1)
    rewrite(data_file(tmp_path), gain=pa.array([1.0, None, 3.0, 4.0]), note=pa.array(["a", None, "b", "c"]))
    (found,) = episodes(folder)
    assert np.isnan(np.asarray(found.steps["gain"])).tolist() == [False, True, False, False]
    assert found.steps["note"] == [b"a", b"", b"b", b"c"]
    rewrite(data_file(tmp_path), gain=pa.array([1, None, 3, 4]))
    assert outcome(folder) == ["contradicts_fields"]


# --- many episodes in a file ---


def test_a_file_is_read_once_however_many_episodes_and_row_groups_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write(tmp_path, 6, per_file=6)
    wanted = [episode.steps["action"] for episode in episodes(folder)]
    table = pq.read_table(data_file(tmp_path))
    for size in (1, 7, 1000):
        pq.write_table(table, data_file(tmp_path), row_group_size=size)
        monkeypatch.setattr(parquet, "BATCH", 5)
        monkeypatch.setattr(video.Video, "_seek_time", None)
        assert all(np.array_equal(a.steps["action"], b) for a, b in zip(episodes(folder), wanted, strict=True))


def test_a_part_of_a_file_is_read_like_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(tmp_path, 6, per_file=6)
    whole = episodes(folder)
    for name in ("MIN_SHARD", "MAX_SHARD"):
        monkeypatch.setattr(source, name, 100)
    monkeypatch.setattr(video, "MAX_SKIPPED", 0)
    reader = opened(str(folder))
    refs = plan(reader.files())
    assert len(refs) == 6
    for ref in reversed(refs):
        (found,) = reader.read(ref)
        assert isinstance(found, RawEpisode)
        assert found.steps[FRONT] == whole[found.index].steps[FRONT]
        assert np.array_equal(np.asarray(found.steps["action"]), np.asarray(whole[found.index].steps["action"]))


def test_rows_of_one_episode_that_are_not_consecutive_are_refused(tmp_path: Path) -> None:
    folder = write(tmp_path, 2)
    rewrite(data_file(tmp_path), episode_index=pa.array([0, 0, 1, 1, 1, 1, 1, 0, 0]))
    assert outcome(folder) == ["bad_parquet"] * 2


def test_rows_of_an_undeclared_episode_are_counted(tmp_path: Path) -> None:
    folder = write(tmp_path, 3, per_file=3)
    file = folder / "meta/episodes/chunk-000/file-000.parquet"
    pq.write_table(pq.read_table(file).slice(0, 2), file)
    assert outcome(folder) == ["ok", "ok", "undeclared_record"]
    assert "contains rows of episode 2, which meta/ does not list" in details(folder)


# --- splits and counts ---


@pytest.mark.parametrize(
    ("declared", "wanted"),
    [
        ({"train": "0:100"}, {"train": [0, 1, 2, 3, 4]}),
        ({"val": "3:5", "train": "0:3"}, {"train": [0, 1, 2], "val": [3, 4]}),
        ({"train": "0:3"}, {"train": [0, 1, 2], "unassigned": [3, 4]}),
        ({"train": "0:5", "test": "5:5"}, {"train": [0, 1, 2, 3, 4]}),
        ({}, {"train": [0, 1, 2, 3, 4]}),
    ],
)
@pytest.mark.parametrize("version", VERSIONS)
def test_splits_are_ranges_of_episodes(
    tmp_path: Path, version: str, declared: dict[str, str], wanted: dict[str, list[int]]
) -> None:
    folder = write(tmp_path, 5, version=version, info={"splits": declared})
    found: dict[str, list[int]] = {}
    for episode in episodes(folder):
        found.setdefault(episode.split, []).append(episode.index)
        assert {episode.index} == set(np.asarray(episode.steps["episode_index"]).tolist())
    assert found == wanted


@pytest.mark.parametrize("declared", [{"train": "0:3", "val": "2:5"}, {"train": "80%"}, {"../up": "0:5"}])
def test_ambiguous_splits_are_an_error(tmp_path: Path, declared: dict[str, str]) -> None:
    error = refused(write(tmp_path, 5, info={"splits": declared}))
    assert (error.reason, "splits: " in error.message) == ("bad_info", True)


def test_wrong_counts_are_noted_and_not_used(tmp_path: Path) -> None:
    folder = write(tmp_path, 3, info={"total_episodes": 100, "total_frames": 7, "splits": {"train": "0:2"}})
    assert outcome(folder) == ["ok"] * 3
    assert list(open_source(str(folder)).notes()) == [
        "total_episodes is 100, but the listed episodes have 3",
        "total_frames is 7, but the listed episodes have 15",
        "1 episodes are in no split: they are read as 'unassigned'",
    ]
    assert inspect(str(folder)).notes == tuple(open_source(str(folder)).notes())


def test_an_episode_with_other_rows_than_the_table_says_is_quarantined(tmp_path: Path) -> None:
    for version in ("v2.1", "v3.0"):
        folder = write(tmp_path / version, 3, version=version)
        file = data_file(tmp_path / version)
        pq.write_table(pq.read_table(file).slice(0, 3), file)
        assert outcome(folder) == ["row_count", "missing_record" if version == "v3.0" else "ok", "ok"]


# --- mistakes in info.json ---


def test_a_camera_without_any_file_is_an_error_until_it_is_declared_so(tmp_path: Path) -> None:
    folder = write(tmp_path, version="v2.0")
    edit_info(folder, features={WRIST: {"dtype": "video", "shape": [9, 9, 3], "names": None}})
    error = refused(folder)
    assert error.reason == "bad_info"
    assert f"source.ignore = ['{WRIST}']" in error.message
    assert outcome(folder, ignore=[WRIST]) == ["ok"] * 3
    guessed = open_source(str(folder))
    assert guessed.layout() == {"ignore": [WRIST]}
    assert guessed.guesses() == {"ignore": f"['{WRIST}'], because info.json is wrong"}
    assert any(WRIST in note for note in guessed.notes())


def test_a_template_that_leads_nowhere_is_noted_with_one_that_works(tmp_path: Path) -> None:
    folder = write(tmp_path, version="v2.0")
    usual = LerobotReader(str(folder)).info.default_templates
    wrong = {kind: path.replace("episode_chunk", "episode_index") for kind, path in usual.items()}
    edit_info(folder, **wrong)
    error = refused(folder)
    assert (error.reason, error.file) == ("bad_info", str(folder / "meta/info.json"))
    paths = {kind: usual[kind] for kind in ("data_path", "video_path")}
    assert all(f"source.{kind} = '{path}'" in error.message for kind, path in paths.items())
    assert outcome(folder, **paths) == ["ok"] * 3
    assert open_source(str(folder)).layout() == paths


@pytest.mark.parametrize(
    ("version", "kind", "template", "words"),
    [
        ("v2.1", "data_path", "data/chunk-{chunk_index:03d}/episode_{episode_index:06d}.parquet", "{chunk_index:03d}"),
        ("v2.0", "data_path", "data/chunk-{chunk:03d}/episode_{episode:06d}.parquet", "{chunk:03d}"),
        ("v2.1", "data_path", "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet", "{chunk_index:03d}"),
        ("v2.1", "video_path", "videos/{key}/episode_{episode_index:06d}.mp4", "{key}"),
        ("v2.1", "video_path", "videos/{camera_key}/{episode_index:06}.mp4", "{camera_key}"),
        ("v3.0", "data_path", "data/chunk-{chunk:03d}/file-{file_index:03d}.parquet", "{chunk:03d}"),
        ("v3.0", "video_path", "videos/{video_key}/chunk-{chunk_index:03d}/file-{file:03d}.mp4", "{file:03d}"),
    ],
)
def test_a_template_with_an_unknown_placeholder_is_noted_with_the_usual_one(
    tmp_path: Path, version: str, kind: str, template: str, words: str
) -> None:
    folder = write(tmp_path, version=version, info={kind: template})
    error = refused(folder)
    usual = (V3 if version == "v3.0" else V2)[kind]
    assert error.reason == "bad_info"
    assert f"{kind} is '{template}', which leads to no file (cannot fill in '{words}' (known: " in error.message
    assert error.message.endswith(f"does: declare source.{kind} = '{usual}'")
    guessed = open_source(str(folder))
    assert (guessed.layout(), list(guessed.notes())) == ({kind: usual}, [error.message])
    assert guessed.guesses() == {kind: f"'{usual}', because info.json is wrong"}
    assert opened(str(folder), **{kind: usual}).guesses() == {}
    assert outcome(folder, **{kind: usual}) == ["ok"] * 3
    assert outcome(folder, **guessed.layout()) == ["ok"] * 3


def test_a_template_that_cannot_be_filled_in_names_its_key_where_no_usual_one_fits(tmp_path: Path) -> None:
    folder = write(tmp_path, version="v2.1", info={"data_path": "tables/{number}.parquet"})
    (folder / "data").rename(folder / "tables")
    assert refused(folder).message.endswith(f"; declare source.data_path, such as '{V2['data_path']}'")
    with pytest.raises(SourceError, match=r"correct source.data_path, such as 'data/chunk-"):
        opened(str(folder), data_path="tables/{index}.parquet")


def test_a_draft_of_a_dataset_with_wrong_templates_declares_the_right_ones(tmp_path: Path) -> None:
    folder = write(
        tmp_path, version="v2.1", info={kind: path.replace("episode_chunk", "chunk_index") for kind, path in V2.items()}
    )
    run = oxe("inspect", folder, "--draft", tmp_path / "draft.toml")
    assert (run.code, "declare source.data_path = " in run.out) == (0, True)
    declared = tomllib.loads((tmp_path / "draft.toml").read_text())["source"]
    assert {kind: declared[kind] for kind in ("data_path", "video_path")} == {
        kind: V2[kind] for kind in ("data_path", "video_path")
    }


def test_templates_of_ones_own_are_honoured(tmp_path: Path) -> None:
    folder = write(tmp_path, version="v2.1", info={"chunks_size": 2})
    (folder / "runs/1").mkdir(parents=True)
    (folder / "runs/0").mkdir()
    for i in range(3):
        (folder / f"data/chunk-000/episode_{i:06d}.parquet").rename(folder / f"runs/{i // 2}/{i}.parquet")
        (folder / f"videos/chunk-000/{FRONT}/episode_{i:06d}.mp4").rename(folder / f"runs/{i // 2}/{i}-{FRONT}.mp4")
    names = {"data_path": "runs/{episode_chunk}/{episode_index}.parquet"}
    edit_info(folder, **names, video_path="runs/{episode_chunk}/{episode_index:01d}-{video_key}.mp4")
    assert outcome(folder) == ["ok"] * 3


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("data/{episode_id}.parquet", "cannot fill in '{episode_id}' (known: {episode_chunk}, {episode_index}"),
        ("data/{episode_index.__class__}.parquet", "cannot fill in"),
        ("data/{episode_index!r}.parquet", "cannot fill in"),
        ("data/{episode_index:999999999d}.parquet", "cannot fill in"),
        ("../{episode_index}.parquet", "leaves its folder"),
        ("/etc/{episode_index}.parquet", "leaves its folder"),
    ],
)
def test_templates_are_filled_with_known_names_only_and_stay_inside(tmp_path: Path, template: str, words: str) -> None:
    folder = write(tmp_path, version="v2.1", info={"data_path": template})
    assert words in refused(folder).message


def test_a_camera_key_cannot_lead_out_of_the_source(tmp_path: Path) -> None:
    folder = write(tmp_path)
    edit_info(folder, features={"../../up": {"dtype": "video", "shape": [9, 9, 3], "names": None}})
    assert refused(folder).reason in {"unsafe_path", "bad_info"}
    made = make_episode(**{WRIST: [{"bytes": None, "path": "../../secret.png"}] * 4})
    assert outcome(write(tmp_path / "b", episodes=[made])) == ["unsafe_path"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"codebase_version": "v1.6"}, "codebase_version is v1.6, expected v2.x or v3.x"),
        ({"features": None}, "not the info.json of a LeRobotDataset"),
        ({"data_path": 3}, "not the info.json of a LeRobotDataset"),
        ({"chunks_size": "many"}, "not the info.json of a LeRobotDataset"),
    ],
)
def test_an_invalid_info_json_is_an_error(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    folder = write(tmp_path)
    told = json.loads((folder / "meta/info.json").read_text())
    (folder / "meta/info.json").write_text(json.dumps({**told, **change}))
    assert words in refused(folder).message
    (folder / "meta/info.json").write_text("{")
    assert refused(folder).reason == "bad_info"


def test_a_declared_feature_without_a_column_is_an_error_until_it_is_declared_so(tmp_path: Path) -> None:
    folder = write(tmp_path)
    edit_info(folder, features={"observation.force": {"dtype": "float32", "shape": [6], "names": None}})
    assert "observation.force is declared, but data/" in refused(folder).message
    assert outcome(folder, ignore=["observation.force"]) == ["ok"] * 3
    assert open_source(str(folder)).layout() == {"ignore": ["observation.force"]}


@pytest.mark.parametrize(
    "column",
    [
        pa.array([{"a": 1}] * 4),
        pa.array([b"\x80\x04"] * 4),
        pa.array([[{"role": "user"}]] * 4),
        pa.array([0] * 4, pa.timestamp("ms")),
        pa.nulls(4),
    ],
)
def test_columns_of_objects_are_refused_by_name(tmp_path: Path, column: pa.Array) -> None:
    folder = write(tmp_path, 1)
    rewrite(data_file(tmp_path), language_events=column)
    error = refused(folder)
    assert (error.reason, "source.ignore = ['language_events']" in error.message) == ("unsupported_field", True)
    assert outcome(folder, ignore=["language_events"]) == ["ok"]


def test_depth_in_a_video_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path)
    edit_info(folder, features={FRONT: {"dtype": "video", "shape": [9, 9, 1], "info": {"video.is_depth_map": True}}})
    error = refused(folder)
    assert error.reason == "unsupported_field"
    assert f"source.ignore = ['{FRONT}']" in error.message


# --- damage ---


@pytest.mark.parametrize("version", VERSIONS)
def test_a_missing_video_loses_its_episodes(tmp_path: Path, version: str) -> None:
    folder = write(tmp_path, 5, version=version)
    sorted(folder.rglob("*.mp4"))[1].unlink()
    lost = {2, 3} if version == "v3.0" else {1}
    assert outcome(folder) == ["missing_video" if i in lost else "ok" for i in range(5)]


@pytest.mark.parametrize(("frames", "reason"), [(3, "frame_count"), (5, "frame_count"), (4, "ok")])
def test_a_video_with_other_frames_than_rows_is_quarantined(tmp_path: Path, frames: int, reason: str) -> None:
    folder = write(tmp_path, 2, version="v2.1")
    write_video(min(folder.rglob("*.mp4")), drawn(frames))
    assert outcome(folder) == [reason, "ok"]
    if reason != "ok":
        assert details(folder).startswith(f"{FRONT}: ")


def test_a_video_of_several_episodes_that_ends_early_loses_the_last(tmp_path: Path) -> None:
    folder = write(tmp_path, 3, per_file=3)
    write_video(next(folder.rglob("*.mp4")), drawn(12))
    assert outcome(folder) == ["ok", "ok", "frame_count"]


def test_timestamps_in_the_table_that_do_not_span_the_steps_are_noticed(tmp_path: Path) -> None:
    folder = write(tmp_path, 2, per_file=2)
    file = folder / "meta/episodes/chunk-000/file-000.parquet"
    table, name = pq.read_table(file), f"videos/{FRONT}/to_timestamp"
    pq.write_table(table.set_column(table.schema.get_field_index(name), name, pa.array([0.3, 0.9])), file)
    assert outcome(folder) == ["frame_count", "ok"]


def test_episodes_that_do_not_begin_on_a_frame_take_the_nearest_ones(tmp_path: Path) -> None:
    folder = write(tmp_path, 3, per_file=3)
    wanted = [episode.steps[FRONT] for episode in episodes(folder)]
    file = folder / "meta/episodes/chunk-000/file-000.parquet"
    table = pq.read_table(file)
    for word in ("from", "to"):  # as if the joined files lasted a little longer than their frames
        name = f"videos/{FRONT}/{word}_timestamp"
        moved = pa.array([x + 0.04 for x in table[name].to_pylist()])
        table = table.set_column(table.schema.get_field_index(name), name, moved)
    pq.write_table(table, file)
    assert [episode.steps[FRONT] for episode in episodes(folder)] == wanted


def test_damaged_videos_and_pointers_are_distinguished(tmp_path: Path) -> None:
    folder = write(tmp_path, 3, version="v2.1")
    one, two, _ = sorted(folder.rglob("*.mp4"))
    one.write_bytes(one.read_bytes()[: one.stat().st_size // 2])
    two.write_bytes(POINTER)
    assert outcome(folder) == ["bad_video", "lfs_pointer", "ok"]
    assert outcome(folder, columns={"action"}) == ["ok"] * 3


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("size", [0, 3, 50, 1000])
def test_a_truncated_data_file_loses_its_episodes(tmp_path: Path, version: str, size: int) -> None:
    folder = write(tmp_path, 5, version=version)
    file = data_file(tmp_path, 1)
    file.write_bytes(file.read_bytes()[:size])
    lost = {2, 3} if version == "v3.0" else {1}
    assert outcome(folder) == ["bad_parquet" if i in lost else "ok" for i in range(5)]


def test_damage_inside_a_data_file_is_noticed_or_harmless(tmp_path: Path) -> None:
    folder = write(tmp_path, 3)
    file = data_file(tmp_path)
    whole = bytearray(file.read_bytes())
    found = set()
    for place in range(4, len(whole), 97):
        file.write_bytes(whole[:place] + b"\xff" * 8 + whole[place + 8 :])
        *damaged, last = outcome(folder, columns={"action"})
        assert last == "ok"
        found |= {*damaged}
    assert {"ok", "bad_parquet"} <= found
    assert found <= {"ok", "bad_parquet", "bad_timestamps", "missing_record", "contradicts_fields"}


def test_a_data_file_that_is_a_pointer_or_gone_loses_its_episodes(tmp_path: Path) -> None:
    folder = write(tmp_path, 4, version="v2.1")
    data_file(tmp_path, 0).write_bytes(POINTER)
    data_file(tmp_path, 2).unlink()
    assert outcome(folder) == ["lfs_pointer", "ok", "missing_file", "ok"]
    assert "git lfs pull" in details(folder)
    data_file(tmp_path, 1).write_bytes(POINTER)
    data_file(tmp_path, 2).write_bytes(POINTER)
    assert refused(folder).reason == "lfs_pointer"


@pytest.mark.parametrize(
    ("times", "words"),
    [
        ([0, 0.1, 0.1, 0.2], "timestamp goes from 0.1 to 0.1 at step 2"),
        ([0, 0.2, 0.1, 0.3], "timestamp goes from 0.2 to 0.1 at step 2"),
        ([0, 0.1, np.nan, 0.3], "timestamp is nan at step 2"),
    ],
)
def test_timestamps_that_do_not_rise_are_quarantined(tmp_path: Path, times: list[float], words: str) -> None:
    folder = write(tmp_path, episodes=[make_episode(timestamp=np.float32(times)), make_episode()])
    assert outcome(folder) == ["bad_timestamps", "ok"]
    assert words in details(folder)
    assert outcome(folder, columns={"action"}) == ["bad_timestamps", "ok"]
    assert outcome(folder, ignore=["timestamp"]) == ["ok", "ok"]
    if "goes from" in words:
        assert "If only the column is wrong, and the rows are complete and in order, leave it out" in details(folder)


def test_rows_in_another_order_than_the_video_are_quarantined(tmp_path: Path) -> None:
    shuffled = {"frame_index": np.array([0, 2, 1, 3]), "timestamp": None}
    assert outcome(write(tmp_path, episodes=[make_episode(**shuffled)])) == ["bad_timestamps"]


def test_timestamps_may_start_late_and_frame_index_may_be_missing(tmp_path: Path) -> None:
    late = (np.arange(4) + 1) / FPS
    (found,) = episodes(write(tmp_path, version="v2.0", episodes=[make_episode(timestamp=late, frame_index=None)]))
    assert np.array_equal(np.asarray(found.steps["timestamp"]), late)
    assert "frame_index" not in found.steps
    assert len(found.steps[FRONT]) == 4


def test_a_file_with_other_columns_is_quarantined(tmp_path: Path) -> None:
    folder = write(tmp_path, 4, version="v2.1")
    rewrite(data_file(tmp_path, 1), more=pa.array([1] * 5))
    rewrite(data_file(tmp_path, 2), action=None)
    rewrite(data_file(tmp_path, 3), index=pa.array(np.arange(7, dtype=np.int32)))  # narrower: widened
    assert outcome(folder) == ["ok", "contradicts_fields", "contradicts_fields", "ok"]
    rewrite(data_file(tmp_path, 3), index=pa.array(np.arange(7, dtype=np.float64)))
    assert outcome(folder)[3] == "contradicts_fields"


def test_a_file_that_holds_the_rows_of_another_episode_is_not_taken_for_its_own(tmp_path: Path) -> None:
    folder = write(tmp_path, 3, version="v2.1")
    count = len(episodes(folder)[1].steps["action"])
    rewrite(data_file(tmp_path, 1), episode_index=pa.array(np.zeros(count, np.int64)))
    assert sorted(outcome(folder)) == ["missing_record", "ok", "ok", "undeclared_record"]


def test_a_task_without_a_text_is_quarantined_and_without_tasks_there_are_numbers(tmp_path: Path) -> None:
    folder = write(tmp_path, 2, version="v2.1")
    (folder / "meta/tasks.jsonl").write_text('{"task_index": 1, "task": "lift"}\n')
    assert outcome(folder) == ["unknown_task", "ok"]
    (folder / "meta/tasks.jsonl").unlink()
    assert [set(episode.steps) & {"task", "task_index"} for episode in episodes(folder)] == [{"task_index"}] * 2


@pytest.mark.parametrize("version", VERSIONS)
def test_an_invalid_table_of_episodes_is_an_error(tmp_path: Path, version: str) -> None:
    folder = write(tmp_path, 2, version=version)
    if version == "v3.0":
        file = folder / "meta/episodes/chunk-000/file-000.parquet"
        pq.write_table(pa.concat_tables([pq.read_table(file)] * 2), file)
        assert "occurs twice" in refused(folder).message
        file.write_bytes(b"PAR1")
    else:
        file = folder / "meta/episodes.jsonl"
        file.write_text(file.read_text() + '{"episode_index": 1, "tasks": [], "length": 5}\n')
        assert "occurs twice" in refused(folder).message
        file.write_text("[1]\n")
    assert refused(folder).reason == "bad_info"
    file.unlink()
    assert refused(folder).reason in {"bad_info", "missing_file"}


# --- locations ---


def test_the_only_dataset_below_a_folder_is_found_and_several_are_listed(tmp_path: Path) -> None:
    write(tmp_path / "lab/monday", 1)
    assert guess(str(tmp_path / "lab")) == ("lerobot", str(tmp_path / "lab/monday/source"))
    assert len(episodes(tmp_path / "lab")) == 1
    write(tmp_path / "lab/tuesday", 1)
    with pytest.raises(UsageError, match=r"several sources, name one: .*monday/source \(lerobot\), .*tuesday/source"):
        opener(tmp_path / "lab")
    with pytest.raises(UsageError, match="no LeRobotDataset here"):
        opener(tmp_path / "lab/monday/source/data")


def test_a_remote_dataset_is_read_alike(tmp_path: Path) -> None:
    folder = write(tmp_path, 3)
    memory = fsspec.filesystem("memory")
    memory.put(str(folder), "/lerobot-remote", recursive=True)
    here, there = episodes(folder), episodes("memory://lerobot-remote")
    for a, b in zip(here, there, strict=True):
        assert a.steps[FRONT] == b.steps[FRONT]
        assert np.array_equal(np.asarray(a.steps["action"]), np.asarray(b.steps["action"]))


def test_a_dataset_may_carry_its_own_declaration(tmp_path: Path) -> None:
    folder = write(tmp_path, 1)
    assert open_source(str(folder)).declaration() is None
    (folder / "oxe_spec.toml").write_text(SPEC)
    assert open_source(str(folder)).declaration() == SPEC


# --- conversion ---


def declare(folder: Path, keys: str = "", *, replace: Mapping[str, str] | None = None) -> Path:
    text = f'source = {{ format = "lerobot"{keys} }}\n{SPEC}'
    for old, new in (replace or {}).items():
        assert old in text
        text = text.replace(old, new)
    (folder / "toy.toml").write_text(text)
    return folder / "toy.toml"


def converted(folder: Path, uri: Path, keys: str = "", **replace: str) -> Dataset:
    declared = catalog.dataset(str(declare(folder, keys, replace=replace)))
    convert(declared, folder / "out", source=str(uri))
    assert verify(open_dataset(folder / "out"), source=str(uri)).first == []
    return open_dataset(folder / "out")


@pytest.mark.parametrize("version", VERSIONS)
def test_a_dataset_converts_and_verifies(tmp_path: Path, version: str) -> None:
    found = converted(tmp_path, write(tmp_path, version=version))
    episode = found.episode(1)
    assert episode.instructions == ("task 1",)
    assert episode.timestamp is not None
    assert np.allclose(episode.timestamp, np.arange(5) / FPS)
    assert np.array_equal(np.asarray(episode.raw["observation.state"]), make_episode(1, steps=5)["observation.state"])
    image = episode.images["front"][0]
    assert image is not None
    assert decoded(image).shape == (16, 24, 3)
    assert found.manifest["source"]["fps"] == FPS


def test_a_file_that_two_splits_share_converts_and_takes_an_append(tmp_path: Path) -> None:
    made = [make_episode(i, steps=4 + i) for i in range(5)]
    shared = {"info": {"splits": {"train": "0:2", "val": "2:3"}}}
    found = converted(tmp_path, write(tmp_path, episodes=made[:3], per_file=3, **shared))
    assert [(e["split"], e["length"]) for e in found.episodes.collect().to_dicts()] == [
        ("train", 4),
        ("train", 5),
        ("val", 6),
    ]
    grown = {"info": {"splits": {"train": "0:2", "val": "2:3", "late": "3:5"}}}
    write(tmp_path / "more", episodes=made, per_file=3, **grown)
    (tmp_path / "source").rename(tmp_path / "old")
    (tmp_path / "more/source").rename(tmp_path / "source")
    report = convert(
        catalog.dataset(str(tmp_path / "toy.toml")), tmp_path / "out", source=str(tmp_path / "source"), append=True
    )
    assert (report.kept, report.added) == (5, 2)
    assert verify(open_dataset(tmp_path / "out"), source=str(tmp_path / "source")).first == []


def test_check_compares_the_clock_with_that_of_the_source(tmp_path: Path) -> None:
    folder = write(tmp_path, 1, info={"total_episodes": 9})
    found = check(catalog.dataset(str(declare(tmp_path, replace={"control_hz = 10": "control_hz = 20"}))), str(folder))
    assert found.problems == ["control_hz is 20, but the source has 10 frames per second"]
    assert "total_episodes is 9, but the listed episodes have 1" in found.notes
    assert check(catalog.dataset(str(declare(tmp_path))), str(folder)).ok


def test_quarantined_episodes_name_their_video_relative_to_the_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write(tmp_path, version="v2.1")
    lost = min(folder.rglob("*.mp4"))
    lost.unlink()
    monkeypatch.chdir(tmp_path)
    report = convert(catalog.dataset(str(declare(tmp_path))), tmp_path / "out", source="source")
    assert report.quarantined == {"missing_video": 1}
    (row,) = pq.read_table(tmp_path / "out/meta/quarantine.parquet").to_pylist()
    assert (row["file"], row["detail"]) == (str(lost.relative_to(folder)), f"{FRONT}: no such video")


def test_a_key_that_this_format_does_not_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="unknown key 'episodes'"):
        catalog.dataset(str(declare(tmp_path, ', episodes = "/"')))


# --- real recordings ---

GR1 = """
name       = "gr1"
control_hz = 20
language   = "task"
timestamp  = "timestamp"
cameras    = { primary = "observation.images.ego_view" }
action     = { joints = "action[:4]" }

[embodiment]
name       = "gr1"
robot      = "GR1"
controller = "joint_position"
action     = { origin = "commanded", parts = { joints = "joint a b c d, rad, absolute" } }
"""


@pytest.mark.realdata
def test_gr1_needs_its_oddities_declared_and_then_converts(realdata: Path, tmp_path: Path) -> None:
    folder = realdata / "lerobot_v20/gr1_picknplace"
    inspected = open_source(str(folder))
    error = refused(folder)
    assert "observation.images.egoview" in error.message
    assert all(kind in error.message for kind in ("source.data_path", "source.video_path"))
    keys = "".join(f", {key} = {json.dumps(value)}" for key, value in inspected.layout().items())
    (tmp_path / "gr1.toml").write_text(f'source = {{ format = "lerobot"{keys} }}\n{GR1}')
    report = convert(catalog.dataset(str(tmp_path / "gr1.toml")), tmp_path / "out", source=str(folder))
    assert (report.kept, report.steps) == (5, 2096)
    dataset = open_dataset(tmp_path / "out")
    assert verify(dataset, source=str(folder)).first == []
    episode = dataset.episode(2)
    table = pq.read_table(next(folder.rglob("episode_000002.parquet")))
    assert np.asarray(episode.raw["action"]).tolist() == table["action"].to_pylist()
    assert episode.instructions == ("pick the meat from the counter and place it in the plate",)
    frames = filmed(next(folder.rglob("*ego_view/episode_000002.mp4")))
    assert len(frames) == len(episode.images["ego_view"]) == 470
    last = episode.images["ego_view"][-1]
    assert last is not None
    assert np.abs(decoded(last).astype(float) - frames[-1]).mean() < 4


@pytest.mark.realdata
def test_rebot_is_read_as_it_is(realdata: Path) -> None:
    (found,) = episodes(realdata / "lerobot_v30/rebot_devarm")
    assert found.n_steps() == 871
    assert found.steps["task"] == [b"pick and place"] * 871
    assert np.asarray(found.steps["action"]).dtype == np.float32


@pytest.mark.realdata
def test_pointers_instead_of_files_are_reported(realdata: Path) -> None:
    run = oxe("inspect", realdata / "lerobot_malformed/lfs_pointers_cube_to_bowl_5")
    assert run.code == 2
    assert re.search(r"episode_000000.parquet: a Git LFS pointer, not the data; run 'git lfs pull'", run.err)
