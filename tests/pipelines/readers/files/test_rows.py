"""Tables of many episodes in CSV, JSON Lines, Parquet, npz and npy are read episode by episode, or refused."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.readers.reader import plan
from pipelines.readers.registry import open_source
from schemas.errors import SourceError, UsageError
from schemas.source import RawEpisode, Unreadable
from tests.makers import write_csv, write_jsonl, write_video
from tests.pipelines.readers.buffers import LENGTHS, ROWS
from tests.pipelines.readers.reading import Opener, Reading
from tests.pipelines.toy import jpeg

opened = Opener("folder")
reading = Reading(opened)
ENDS = np.cumsum(LENGTHS)
FLAGS = np.isin(np.arange(ROWS) + 1, ENDS)
IDS = np.repeat([4, 2, 9], LENGTHS)
Columns = Mapping[str, Any]


def csv(file: Path, columns: Columns) -> None:
    flat = {}
    for name, values in columns.items():
        vectors = np.asarray(values)
        named = {f"{name}_{i}": vectors[:, i] for i in range(vectors.shape[1])} if vectors.ndim > 1 else {name: values}
        flat.update(named)
    write_csv(file, {name: [str(value) for value in values] for name, values in flat.items()})


def jsonl(file: Path, columns: Columns) -> None:
    write_jsonl(file, {name: np.asarray(values).tolist() for name, values in columns.items()})


def npz(file: Path, columns: Columns) -> None:
    np.savez_compressed(file, **columns)


def parquet(file: Path, columns: Columns) -> None:
    arrays = {name: np.asarray(values) for name, values in columns.items()}
    lists = {
        name: pa.FixedSizeListArray.from_arrays(values.reshape(-1), values.shape[1]) if values.ndim > 1 else values
        for name, values in arrays.items()
    }
    pq.write_table(pa.table(lists), file, row_group_size=7)


def pandas_parquet(file: Path, columns: Columns) -> None:
    pq.write_table(pa.table({name: np.asarray(values).tolist() for name, values in columns.items()}), file)


WRITERS: dict[str, Callable[[Path, Columns], None]] = {
    "csv": csv, "jsonl": jsonl, "npz": npz, "parquet": parquet, "lists.parquet": pandas_parquet
}  # fmt: skip


def make_columns() -> dict[str, Any]:
    return {"action": np.random.default_rng(0).normal(size=(ROWS, 2)), "reward": np.arange(ROWS) / 2}


@pytest.mark.parametrize("ending", WRITERS)
def test_a_column_and_flags_are_guessed_and_read(tmp_path: Path, ending: str) -> None:
    for name, values, layout in (
        ("episode_index", IDS, {"episode_column": "episode_index"}),
        ("demo_id", [f"d{i}" for i in IDS], {"episode_column": "demo_id"}),
        ("done", FLAGS, {"episode_flags": ["done"]}),
        ("next.done", FLAGS.astype(int), {"episode_flags": ["next.done"]}),
    ):
        (tmp_path / name).mkdir()
        WRITERS[ending](tmp_path / name / f"table.{ending}", {**make_columns(), name: values})
        pattern = f"*.{ending.rpartition('.')[2]}"
        reader = open_source(str(tmp_path / name))
        assert reader.layout() == {"episodes": pattern, **layout}
        assert {*reader.guesses()} == {"episodes", *layout}
        for episodes in (reading.episodes(tmp_path / name), reading.episodes(tmp_path / name, **reader.layout())):
            assert [episode.n_steps() for episode in episodes] == LENGTHS
            assert np.array_equal(np.concatenate([e.steps["action"] for e in episodes]), make_columns()["action"])
            assert episodes[2].metadata["episode_path"] == f"table.{ending}/episode_2"
        with pytest.raises(SourceError, match=rf"declare source\.{next(iter(layout))} = "):
            opened(tmp_path / name, episodes=pattern)
        assert [e.n_steps() for e in reading.episodes(tmp_path / name, episodes=pattern, episode_flags=[])] == [ROWS]


def test_an_npz_may_have_the_ends_and_values_of_episodes(tmp_path: Path) -> None:
    tasks = {"task": np.array(["a", "b", "c"]), "goal": np.eye(3), "rate": 5.0}
    np.savez(tmp_path / "x.npz", **make_columns(), episode_ends=ENDS, **tasks)
    assert opened(tmp_path).layout() == {"episodes": "*.npz", "episode_ends": "episode_ends"}
    episode = reading.episodes(tmp_path)[1]
    assert episode.metadata == {"episode_path": "x.npz/episode_1", "task": "b", "goal": [0, 1, 0], "rate": 5}
    assert set(episode.steps) == {"action", "reward"}


def test_arrays_beside_each_other_are_one_table(tmp_path: Path) -> None:
    for name, values in {**make_columns(), "terminals": FLAGS}.items():
        np.save(tmp_path / f"{name}.npy", values)
    reader = open_source(str(tmp_path))
    assert reader.layout() == {"episodes": ".", "episode_flags": ["terminals"]}
    episodes = reading.episodes(tmp_path, **reader.layout())
    assert [episode.n_steps() for episode in episodes] == LENGTHS
    assert episodes[1].metadata["episode_path"] == "episode_1"
    assert np.array_equal(episodes[1].steps["reward"], np.arange(10, 25) / 2)


def test_images_and_videos_beside_a_table_are_divided_with_it(tmp_path: Path) -> None:
    folder = tmp_path / "take_1"
    write_csv(folder / "steps.csv", {"x": list(range(9)), "episode": [0] * 4 + [1] * 5})
    write_video(folder / "wrist.mp4", frames=9)
    (folder / "cam").mkdir()
    for i in range(9):
        (folder / "cam" / f"{i}.jpg").write_bytes(jpeg(i))
    frames = np.random.default_rng(0).integers(0, 255, (9, 4, 4, 3), np.uint8)
    np.save(folder / "front.npy", frames)
    first, second = reading.episodes(tmp_path, episodes="take_*", episode_column="steps.episode")
    assert list(second.steps["cam"]) == [jpeg(i) for i in range(4, 9)]
    assert [len(one.steps["wrist"]) for one in (first, second)] == [len(one.steps["front"]) for one in (first, second)]
    whole = reading.episodes(tmp_path, episodes="take_*", episode_flags=[])[0]
    assert list(whole.steps["wrist"]) == [*first.steps["wrist"], *second.steps["wrist"]]
    assert list(whole.steps["front"]) == [*first.steps["front"], *second.steps["front"]]
    (folder / "cam" / "9.jpg").write_bytes(jpeg(9))
    with pytest.raises(SourceError, match="cam has 10 frames, but there are 9 rows"):
        opened(tmp_path, episodes="take_*", episode_column="steps.episode")


def test_a_file_that_is_one_episode_stays_one(tmp_path: Path) -> None:
    for i in range(3):
        last = [False] * 3 + [True]
        write_csv(tmp_path / f"run_{i}.csv", {"x": list(range(4)), "episode_index": [i] * 4, "done": last})
    assert opened(tmp_path).layout() == {"episodes": "*.csv"}
    assert [e.n_steps() for e in reading.episodes(tmp_path, episodes="*.csv")] == [4, 4, 4]


def test_rows_that_no_key_divides_are_refused(tmp_path: Path) -> None:
    write_csv(tmp_path / "x.csv", {"x": list(range(4)), "episode_index": [0, 1, 1, 0], "never": [0] * 4})
    with pytest.raises(SourceError, match=r"the id 0\.0 comes back at row 3"):
        opened(tmp_path)
    with pytest.raises(SourceError, match="no row is the last one"):
        opened(tmp_path, episodes="*.csv", episode_flags=["never"])


def test_a_later_table_is_judged_by_itself(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", {"x": [1, 2], "done": [False, True]})
    write_jsonl(tmp_path / "b.jsonl", {"x": [1, 2, 3, 4], "done": [False, True, False, False]})
    assert reading.outcome(tmp_path) == ["ok", "ok", "undeclared_record"]
    assert reading.outcome(tmp_path, episodes="*.jsonl") == ["ok", "several_episodes"]
    assert "source.episode_flags" in reading.details(tmp_path, episodes="*.jsonl")


# --- Parquet ---


def test_parquet_becomes_fields_of_its_types(tmp_path: Path) -> None:
    rows = [
        {
            "pose": {"xyz": [1.0, 2.0, i], "name": f"p{i}"},
            "camera": {"bytes": jpeg(i), "path": None},
            "png": jpeg(i + 5),
            "matrix": [[i, 0], [0, 1]],
        }
        for i in range(5)
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "run_0.parquet")
    (episode,) = reading.episodes(tmp_path)
    assert np.array_equal(episode.steps["pose.xyz"], [[1, 2, i] for i in range(5)])
    assert [bytes(name) for name in episode.steps["pose.name"]] == [f"p{i}".encode() for i in range(5)]
    assert list(episode.steps["camera"]) == [jpeg(i) for i in range(5)]
    assert list(episode.steps["png"]) == [jpeg(i + 5) for i in range(5)]
    assert episode.steps["matrix"].shape == (5, 2, 2)


def test_parquet_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    tables = {
        "ragged": ({"x": [[1, 2], [3]]}, "the values do not have the shape"),
        "null": ({"x": [1, None]}, "a value is missing"),
        "text": ({"x": [1, 2], "word": ["a", None]}, "a text is missing"),
    }
    for name, (columns, message) in tables.items():
        (tmp_path / name).mkdir()
        pq.write_table(pa.table(columns), tmp_path / name / "0.parquet")
        assert message in reading.details(tmp_path / name)
    (tmp_path / "x.parquet").write_bytes(b"PAR1")
    with pytest.raises(SourceError, match="not a complete Parquet file"):
        opened(tmp_path / "x.parquet")


def test_parquet_of_a_lerobot_dataset_without_its_meta_is_named_as_such(tmp_path: Path) -> None:
    (tmp_path / "data" / "chunk-000").mkdir(parents=True)
    pq.write_table(pa.table({"episode_index": [0, 0, 1]}), tmp_path / "data" / "chunk-000" / "file-000.parquet")
    with pytest.raises(SourceError, match="LeRobotDataset without its folder 'meta'"):
        open_source(str(tmp_path))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20, deadline=None)
@given(
    counts=st.lists(st.integers(1, 6), min_size=2, max_size=5),
    more=st.integers(0, 3),
    key=st.sampled_from(["episode_ends", "episode_column", "episode_flags"]),
    ending=st.sampled_from([*WRITERS]),
)
def test_random_episodes_are_read_whole(tmp_path: Path, counts: list[int], more: int, key: str, ending: str) -> None:
    ends = np.cumsum(counts)
    ending = "npz" if key == "episode_ends" else ending
    rows = int(ends[-1]) + (more if key != "episode_column" else 0)
    pos = np.random.default_rng(rows).normal(size=(rows, 2))
    divided = {
        "episode_ends": ("last", ends),
        "episode_column": ("who", np.repeat(np.arange(len(counts)), counts)),
        "episode_flags": ("stop", np.isin(np.arange(rows) + 1, ends)),
    }
    name, values = divided[key]
    WRITERS[ending](tmp_path / f"t.{ending}", {"pos": pos, name: values})
    value = [name] if key == "episode_flags" else name
    reader = opened(tmp_path, episodes=f"t.{ending}", **{key: value})
    read = [one for ref in plan(reader.files()) for one in reader.read(ref)]
    episodes = [one for one in read if isinstance(one, RawEpisode)]
    assert [episode.n_steps() for episode in episodes] == counts
    assert np.array_equal(np.concatenate([episode.steps["pos"] for episode in episodes]), pos[: ends[-1]])
    left = [one.reason for one in read if isinstance(one, Unreadable)]
    assert left == (["undeclared_record"] if rows > ends[-1] else [])


def test_the_key_is_part_of_what_identifies_the_source(tmp_path: Path) -> None:
    write_csv(tmp_path / "x.csv", {"x": list(range(4)), "episode": [0, 0, 1, 1]})
    assert json.dumps(opened(tmp_path).description()).count("episode_column") == 1


def test_an_episode_that_continues_in_the_next_file_is_refused(tmp_path: Path) -> None:
    for number, ids in enumerate([[0, 0, 1], [1, 2, 2]]):
        pq.write_table(pa.table({"x": [1, 2, 3], "episode_index": ids}), tmp_path / f"part_{number}.parquet")
    with pytest.raises(UsageError, match=r"part_0\.parquet: the rows of episode 1 continue in .*part_1\.parquet"):
        opened(tmp_path, episodes="*.parquet", episode_column="episode_index").files()


def test_each_file_may_number_its_episodes_from_0(tmp_path: Path) -> None:
    for number, ids in enumerate([[0, 0, 0], [0, 1, 1], [0, 0, 0]]):
        pq.write_table(pa.table({"x": [1, 2, 3], "episode_index": ids}), tmp_path / f"part_{number}.parquet")
    assert [episode.n_steps() for episode in reading.episodes(tmp_path)] == [3, 1, 2, 3]
