"""Zarr stores whose episodes are divided by a column of ids or by flags instead of an array of ends."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.readers.history import History
from pipelines.readers.reader import plan
from schemas.errors import SourceError
from schemas.source import RawEpisode, Unreadable
from tests.makers import write_zarr
from tests.pipelines.readers.buffers import LENGTHS, make_buffer
from tests.pipelines.readers.reading import Opener, Reading

zarr = pytest.importorskip("zarr", reason="the extra 'zarr'")
opened = Opener("zarr")
reading = Reading(opened)
ENDS = np.cumsum(LENGTHS)
FLAGS = np.isin(np.arange(40) + 1, ENDS)


def write(folder: Path, *, steps: str = "data/", **more: Any) -> Path:
    return write_zarr(folder, {**{f"{steps}{path}": made for path, made in make_buffer().items()}, **more})


@pytest.mark.parametrize("steps", ["data/", ""])
def test_a_column_and_flags_are_guessed_and_read(tmp_path: Path, steps: str) -> None:
    ids, texts = np.repeat([5, 3, 8], LENGTHS), np.repeat(["b", "c", "a"], LENGTHS)
    for number, (name, values, layout) in enumerate(
        [
            ("episode_index", ids, {"episode_column": "episode_index"}),
            ("info/traj_id", texts, {"episode_column": "info.traj_id"}),
            ("terminals", FLAGS, {"episode_flags": ["terminals"]}),
            ("next_done", FLAGS.astype("f4"), {"episode_flags": ["next_done"]}),
        ]
    ):
        store = write(tmp_path / f"{number}.zarr", steps=steps, **{f"{steps}{name}": values})
        at = {} if steps else {"steps": ""}
        assert opened(store).layout() == layout | at
        assert set(opened(store).guesses()) == {*layout, *at}
        for episodes in (reading.episodes(store), reading.episodes(store, **layout, **at)):
            assert [episode.n_steps() for episode in episodes] == LENGTHS
            actions = np.concatenate([episode.steps["actions"] for episode in episodes])
            assert np.array_equal(actions, make_buffer()["actions"])


def test_a_declaration_without_the_key_is_refused_with_it(tmp_path: Path) -> None:
    store = write(tmp_path / "x.zarr", **{"data/dones": FLAGS})
    with pytest.raises(SourceError, match=r'declare source\.episode_flags = \["dones"\]'):
        opened(store, images="png")
    assert [e.n_steps() for e in reading.episodes(store, episode_flags=[])] == [40]


def test_an_array_beside_the_steps_has_a_row_for_each_episode(tmp_path: Path) -> None:
    store = write(tmp_path / "x.zarr", **{"data/dones": FLAGS, "meta/task": np.array(["a", "b", "c"])})
    assert [e.metadata["meta.task"] for e in reading.episodes(store)] == ["a", "b", "c"]


def test_chunks_without_a_true_flag_that_were_not_written_are_guessed_to_be_false(tmp_path: Path) -> None:
    store = write(tmp_path / "x.zarr")
    flags = zarr.open_group(store, mode="a")["data"].create_array("terminals", shape=(40,), chunks=(5,), dtype=bool)
    flags[...] = FLAGS
    assert opened(store).layout() == {"episode_flags": ["terminals"], "fill": ["terminals"]}
    assert "chunks are missing" in opened(store).guesses()["fill"]
    assert [e.n_steps() for e in reading.episodes(store)] == LENGTHS
    with pytest.raises(SourceError, match=r"source\.fill = \['terminals'\]"):
        opened(store, episode_flags=["terminals"])


def test_rows_after_the_last_flag_are_one_incomplete_episode(tmp_path: Path) -> None:
    store = write(tmp_path / "x.zarr", **{"data/dones": np.isin(np.arange(40), [9, 24])})
    assert reading.outcome(store) == ["ok", "ok", "undeclared_record"]


def test_a_store_that_grows_has_changed(tmp_path: Path) -> None:
    before = History.of(opened(write(tmp_path / "x.zarr", **{"data/dones": FLAGS})))
    after = History.of(opened(write(tmp_path / "x.zarr", **{"data/dones": np.isin(np.arange(40), [9, 39])})))
    assert before.since(before).changed == ()
    assert after.since(before).changed


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=10, deadline=None)
@given(
    counts=st.lists(st.integers(1, 6), min_size=2, max_size=5),
    chunk=st.integers(1, 9),
    more=st.integers(0, 3),
    key=st.sampled_from(["episode_ends", "episode_column", "episode_flags"]),
    zarr_format=st.sampled_from([2, 3]),
)
def test_random_episodes_are_read_whole(
    tmp_path: Path, counts: list[int], chunk: int, more: int, key: str, zarr_format: Literal[2, 3]
) -> None:
    ends = np.cumsum(counts)
    rows = int(ends[-1]) + (more if key != "episode_column" else 0)
    pos = np.random.default_rng(rows).normal(size=(rows, 2))
    divided = {
        "episode_ends": ("meta/ends", "meta/ends", ends),
        "episode_column": ("data/who", "who", np.repeat(np.arange(len(counts)), counts)),
        "episode_flags": ("data/done", ["done"], np.isin(np.arange(rows) + 1, ends)),
    }
    place, value, values = divided[key]
    arrays: dict[str, Any] = {"data/pos": pos, place: values}
    chunks = {"data/pos": (min(chunk, rows), 2), place: (min(chunk, len(values)),)}
    store = write_zarr(tmp_path / "x.zarr", arrays, zarr_format=zarr_format, chunks=chunks)
    reader = opened(store, **{key: value})
    read = [one for ref in plan(reader.files()) for one in reader.read(ref)]
    episodes = [one for one in read if isinstance(one, RawEpisode)]
    assert [episode.n_steps() for episode in episodes] == counts
    assert np.array_equal(np.concatenate([episode.steps["pos"] for episode in episodes]), pos[: ends[-1]])
    left = [one.reason for one in read if isinstance(one, Unreadable)]
    assert left == (["undeclared_record"] if rows > ends[-1] else [])


def test_a_store_that_is_declared_as_one_episode_but_shows_several_is_refused(tmp_path: Path) -> None:
    store = write(tmp_path / "x.zarr", steps="", terminals=FLAGS)
    with pytest.raises(SourceError, match=r'declare source\.episode_flags = \["terminals"\]'):
        opened(store, episodes="/")
    assert [e.n_steps() for e in reading.episodes(store, episodes="/", episode_flags=[])] == [40]
