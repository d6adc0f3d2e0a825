"""HDF5 files with the rows of many episodes, one after another, are read episode by episode."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.readers.reader import plan
from pipelines.readers.registry import open_source
from schemas.declarations.catalog import dataset
from schemas.errors import SourceError, SpecError, UsageError
from schemas.source import RawEpisode, Unreadable
from tests.makers import write_hdf5
from tests.pipelines.readers.buffers import LENGTHS, make_buffer, write_buffer
from tests.pipelines.readers.demos import declare
from tests.pipelines.readers.reading import Opener, Reading

opened = Opener("hdf5")
reading = Reading(opened)
FLAGS = ["terminals", "timeouts"]


def lengths(values: list[RawEpisode]) -> list[int]:
    return [value.n_steps() for value in values]


@pytest.mark.parametrize("flags", [FLAGS, ["dones"], ["data/terminations", "data/truncations"]])
def test_flags_are_guessed_and_read(tmp_path: Path, flags: list[str]) -> None:
    file = write_buffer(tmp_path / "lift.hdf5", flags=flags)
    reader = opened(file)
    dotted = [flag.replace("/", ".") for flag in flags]
    assert reader.layout() == {"episode_flags": dotted}
    assert "true in 3 of 40 rows" in reader.guesses()["episode_flags"]
    for layout in ({}, {"episode_flags": flags}, {"episode_flags": dotted, "episodes": "/"}):
        episodes = reading.episodes(file, **layout)
        assert lengths(episodes) == LENGTHS
        assert np.array_equal(np.concatenate([e.steps["actions"] for e in episodes]), make_buffer()["actions"])
        assert [e.metadata["episode_path"] for e in episodes] == [f"lift.hdf5/episode_{i}" for i in range(3)]


def test_a_column_and_ends_are_guessed_and_read(tmp_path: Path) -> None:
    ids = np.repeat([4, 2, 9], LENGTHS)
    by_id = write_hdf5(tmp_path / "a.h5", {"/": {**make_buffer(), "demo_id": ids}})
    texts = write_hdf5(tmp_path / "b.h5", {"/": {**make_buffer(), "info/traj_id": [f"t{i}" for i in ids]}})
    tasks = {"meta/episode_ends": np.cumsum(LENGTHS), "meta/task": ["a", "b", "c"], "meta/goal": np.eye(3)}
    by_ends = write_hdf5(tmp_path / "c.h5", {"data": make_buffer(), "/": tasks})
    for file, layout in (
        (by_id, {"episode_column": "demo_id"}),
        (texts, {"episode_column": "info.traj_id"}),
        (by_ends, {"episode_ends": "meta.episode_ends"}),
    ):
        assert opened(file).layout() == layout
        assert lengths(reading.episodes(file)) == lengths(reading.episodes(file, **layout)) == LENGTHS
    episodes = reading.episodes(by_ends, episode_ends="meta/episode_ends")
    assert [e.metadata["meta.task"] for e in episodes] == ["a", "b", "c"]
    assert [e.metadata["meta.goal"] for e in episodes] == np.eye(3).tolist()
    assert not any("ends" in field.path for field in opened(by_ends).fields)


def test_a_table_that_no_key_divides_is_refused_with_the_key(tmp_path: Path) -> None:
    file = write_buffer(tmp_path / "lift.hdf5", flags=FLAGS)
    with pytest.raises(SourceError, match=r'declare source\.episode_flags = \["terminals", "timeouts"\]'):
        opened(file, episodes="/")
    assert lengths(reading.episodes(file, episodes="/", episode_flags=[])) == [40]
    groups = write_hdf5(tmp_path / "b.h5", {"task_0": {**make_buffer(), "episode": np.repeat([0, 1, 2], LENGTHS)}})
    with pytest.raises(SourceError, match=r'declare source\.episode_column = "episode"'):
        opened(groups, episodes="task_*")


def test_tables_may_be_groups(tmp_path: Path) -> None:
    tables = {f"task_{i}": {**make_buffer(i), "episode": np.repeat([0, 1, 2], LENGTHS)} for i in range(2)}
    file = write_hdf5(tmp_path / "b.h5", tables)
    assert opened(file).layout() == {"episodes": "task_*", "episode_column": "episode"}
    assert lengths(reading.episodes(file)) == LENGTHS * 2
    assert reading.episodes(file)[4].metadata["episode_path"] == "b.h5/task_1/episode_1"


def test_a_file_that_is_one_episode_stays_one(tmp_path: Path) -> None:
    last, latched = np.zeros(40, bool), np.zeros(40, bool)
    last[39], latched[30:] = True, True
    one = {**make_buffer(), "dones": last, "is_success_terminated": latched, "episode_index": np.full(40, 7)}
    file = write_hdf5(tmp_path / "episode_0.h5", {"/": one})
    assert opened(file).layout() == {"episodes": "/"}
    assert lengths(reading.episodes(file)) == lengths(reading.episodes(file, episodes="/")) == [40]


def test_flags_in_the_groups_of_robomimic_may_mean_success(tmp_path: Path) -> None:
    dones = np.zeros(40, bool)
    dones[[9, 24, 39]] = True
    file = write_hdf5(tmp_path / "demo.h5", {f"data/demo_{i}": {**make_buffer(i), "dones": dones} for i in range(2)})
    assert lengths(reading.episodes(file)) == lengths(reading.episodes(file, episodes="data/demo_*")) == [40, 40]


def test_rows_after_the_last_flag_are_one_incomplete_episode(tmp_path: Path) -> None:
    file = write_buffer(tmp_path / "lift.hdf5", flags=["terminals"], ends=[10, 25])
    assert reading.outcome(file) == ["ok", "ok", "undeclared_record"]
    assert "15 steps come after the end of the last episode" in reading.details(file)


def test_d4rl_keeps_what_is_not_in_rows(tmp_path: Path) -> None:
    metadata = {
        "metadata/algorithm": "SAC",
        "metadata/policy/fc0/weight": np.zeros((256, 170)),
        "metadata/size": [6, 2],
    }
    file = write_buffer(tmp_path / "hopper.hdf5", flags=FLAGS, more={**metadata, "infos/qpos": np.zeros((40, 6))})
    reader = opened(file)
    assert reader.layout() == {
        "episode_flags": FLAGS, "per_episode": ["metadata.size"], "ignore": ["metadata.policy.fc0.weight"]
    }  # fmt: skip
    assert "metadata.policy.fc0.weight" in reader.guesses()["ignore"]
    episode = reading.episodes(file)[1]
    assert (episode.metadata["metadata.algorithm"], episode.metadata["metadata.size"]) == ("SAC", [6, 2])
    assert len(episode.steps["infos.qpos"]) == 15
    with pytest.raises(SourceError, match=r"has 256 rows, but there are 40 steps and 3 episodes.*source\.per_episode"):
        opened(file, episode_flags=FLAGS)


def test_columns_of_other_lengths_are_refused(tmp_path: Path) -> None:
    short = write_buffer(tmp_path / "a.h5", flags=FLAGS, more={"rewards": np.zeros(39)})
    with pytest.raises(SourceError, match="rewards has 39 rows, but there are 40 steps"):
        opened(short)
    unequal = write_buffer(tmp_path / "b.h5", flags=["dones"], more={"timeouts": np.zeros(39, bool)})
    with pytest.raises(SourceError, match="dones has 40, timeouts has 39 rows"):
        opened(unequal, episode_flags=["dones", "timeouts"])


def test_a_later_file_is_judged_by_itself(tmp_path: Path) -> None:
    last = np.arange(40) == 39
    write_hdf5(tmp_path / "a.h5", {"/": {**make_buffer(), "dones": last}})
    write_buffer(tmp_path / "b.h5", flags=["dones"])
    assert opened(tmp_path).layout() == {"episode_flags": ["dones"]}
    assert lengths(reading.episodes(tmp_path)) == [40, *LENGTHS]
    assert reading.outcome(tmp_path, episodes="/") == ["ok", "several_episodes"]


def test_an_episode_that_continues_in_the_next_file_is_refused(tmp_path: Path) -> None:
    for number in range(2):
        ids = np.repeat([0, 1, 2], LENGTHS) + 2 * number
        write_hdf5(tmp_path / f"part_{number}.h5", {"/": {**make_buffer(number), "episode": ids}})
    with pytest.raises(UsageError, match=r"part_0\.h5: the rows of episode 2 continue in .*part_1\.h5"):
        opened(tmp_path).files()


def test_a_file_is_split_into_ranges_of_episodes(tmp_path: Path) -> None:
    file = write_buffer(tmp_path / "lift.hdf5", flags=FLAGS)
    reader = opened(file)
    (part,) = reader.files()["train"]
    assert part.count == 3
    for ref in plan(reader.files(), limit=2):
        assert [value.index for value in reader.read(ref)] == [0, 1]


def test_one_key_says_where_episodes_end(tmp_path: Path) -> None:

    for source, message in (
        ('{ format = "hdf5", episode_ends = "e", episode_column = "i" }', "only one of them"),
        ('{ format = "hdf5", episode_flags = [] }', "episodes: is required"),
        ('{ format = "hdf5", episode_column = "i", drop_last = ["obs"] }', "cannot be used with episode_column"),
    ):
        with pytest.raises(SpecError, match=message):
            dataset(str(declare(tmp_path, source)))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=15, deadline=None)
@given(
    counts=st.lists(st.integers(1, 6), min_size=2, max_size=5),
    chunk=st.one_of(st.none(), st.integers(1, 9)),
    more=st.integers(0, 3),
    key=st.sampled_from(["episode_ends", "episode_column", "episode_flags"]),
)
def test_random_episodes_are_read_whole(tmp_path: Path, counts: list[int], chunk: int, more: int, key: str) -> None:
    ends = np.cumsum(counts)
    rows = int(ends[-1]) + (more if key != "episode_column" else 0)
    rng = np.random.default_rng(rows)
    made: dict[str, Any] = {"pos": rng.normal(size=(rows, 2)), "camera": rng.integers(0, 255, (rows, 4, 4, 3), "u1")}
    divided = {
        "episode_ends": ("meta/ends", ends),
        "episode_column": ("who", np.repeat(np.arange(len(counts)), counts)),
        "episode_flags": ("done", np.isin(np.arange(rows) + 1, ends)),
    }
    name, values = divided[key]
    with h5py.File(tmp_path / "t.h5", "w") as file:
        for path, column in {**made, name: values}.items():
            size = chunk and min(chunk, len(column))
            file.create_dataset(
                path, data=column, chunks=size and (size, *column.shape[1:]), compression=size and "gzip"
            )
    reader = opened(tmp_path / "t.h5", **{key: [name] if key == "episode_flags" else name})
    values = [value for ref in plan(reader.files()) for value in reader.read(ref)]
    episodes = [value for value in values if isinstance(value, RawEpisode)]
    assert lengths(episodes) == counts
    assert np.array_equal(np.concatenate([e.steps["pos"] for e in episodes]), made["pos"][: ends[-1]])
    left = [value.reason for value in values if isinstance(value, Unreadable)]
    assert left == (["undeclared_record"] if rows > ends[-1] else [])


def test_inspect_opens_it_without_a_declaration(tmp_path: Path) -> None:
    write_buffer(tmp_path / "source" / "lift.hdf5", flags=FLAGS)
    assert sum(part.count for part in open_source(str(tmp_path / "source")).files()["train"]) == 3
