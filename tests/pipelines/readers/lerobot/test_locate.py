"""Episodes that `meta/` lists in a wrong file are read from the right one or quarantined once; the rest is counted."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.readers.registry import open_source
from schemas.source import RawEpisode
from tests.lerobot import drawn, edit_info, write_lerobot
from tests.pipelines.readers.reading import Opener, Reading
from tests.pipelines.toy import jpeg

pytest.importorskip("av", reason="the extra 'lerobot'")
FRONT, WRIST = "observation.images.front", "observation.images.wrist"
opener = Opener("lerobot")
reading = Reading(lambda uri, **layout: opener(uri, **{"ignore": (), "images": "png", **layout}))
episodes, outcome, details = reading.episodes, reading.outcome, reading.details


def write(folder: Path, count: int = 4, *, version: str = "v3.0", video: bool = False, stills: bool = False) -> Path:
    made = [
        {"action": np.full((4 + number, 2), number, np.float32), "task": ["lift"] * (4 + number)}
        | ({FRONT: drawn(4 + number, seed=number)} if video else {})
        | ({WRIST: [jpeg(step) for step in range(4 + number)]} if stills else {})
        for number in range(count)
    ]
    return write_lerobot(folder / "source", made, version=version, per_file=2)


def list_files(folder: Path, files: Sequence[int], *, prefix: str = "data") -> None:
    """Change the files that the table of episodes lists."""
    file = folder / "meta/episodes/chunk-000/file-000.parquet"
    table, name = pq.read_table(file), f"{prefix}/file_index"
    pq.write_table(table.set_column(table.schema.get_field_index(name), name, pa.array(files)), file)


def data(folder: Path, number: int) -> Path:
    return folder / f"data/chunk-000/file-{number:03d}.parquet"


def left_out(folder: Path) -> list[str]:
    return [str(left) for left in open_source(str(folder)).left_out()]


# --- data files ---


@pytest.mark.parametrize(
    ("listed", "moved"),
    [
        ([0, 0, 0, 1], 1),  # the first episode of a file is listed in the one before
        ([0, 1, 1, 1], 1),
        ([1, 1, 0, 0], 4),  # swapped
        ([0, 0, 0, 0], 2),  # nothing is listed in the second file
        ([0, 0, 7, 1], 1),  # a file that does not exist
        ([0, 0, 7, 7], 2),
    ],
)
def test_episodes_in_another_file_than_listed_are_read_from_there_with_a_note(
    tmp_path: Path, listed: list[int], moved: int
) -> None:
    folder = write(tmp_path)
    list_files(folder, listed)
    found = episodes(folder)
    assert [np.asarray(e.steps["action"])[:, 0].tolist() for e in found] == [[i] * (4 + i) for i in range(4)]
    (note,) = open_source(str(folder)).notes()
    assert note.startswith(f"meta/ lists {moved} episodes in the wrong data file, such as episode ")
    assert left_out(folder) == []


def test_an_episode_that_is_listed_between_those_of_a_file_is_found(tmp_path: Path) -> None:
    folder = write(tmp_path, 6)
    names = [pq.read_table(data(folder, number)) for number in range(3)]
    rows = pa.concat_tables(names)
    picked = [rows.filter(pa.compute.is_in(rows["episode_index"], pa.array(own))) for own in ([0, 2], [1, 3], [4, 5])]
    for number, table in enumerate(picked):
        pq.write_table(table, data(folder, number))
    list_files(folder, [0, 0, 0, 1, 2, 2])
    assert outcome(folder) == ["ok"] * 6
    (note,) = open_source(str(folder)).notes()
    assert "such as episode 1 in data/chunk-000/file-000.parquet: its rows are read from data/chunk-000/" in note


def test_rows_in_two_other_files_are_not_taken(tmp_path: Path) -> None:
    folder = write(tmp_path)
    list_files(folder, [0, 0, 0, 1])
    shutil.copy(data(folder, 1), data(folder, 2))
    assert outcome(folder) == ["ok", "ok", "missing_record", "ok"]
    assert details(folder) == "contains no row of episode 2, but of 2 others, such as episode 0"


def test_an_episode_without_rows_is_quarantined_once(tmp_path: Path) -> None:
    folder = write(tmp_path)
    pq.write_table(pq.read_table(data(folder, 1)).slice(6), data(folder, 1))
    assert outcome(folder) == ["ok", "ok", "missing_record", "ok"]
    assert details(folder) == "contains no row of episode 2, but of episode 3"


def test_files_of_version_2_with_each_others_rows_are_one_quarantine_each(tmp_path: Path) -> None:
    folder = write(tmp_path, 3, version="v2.1")
    one, two = (folder / f"data/chunk-000/episode_{i:06d}.parquet" for i in (1, 2))
    one.rename(folder / "x")
    two.rename(one)
    (folder / "x").rename(two)
    assert outcome(folder) == ["ok", "missing_record", "missing_record"]
    assert "contains no row of episode 1, but of episode 2" in details(folder)
    assert "does not list" not in details(folder)


def test_rows_that_two_files_contain_are_an_error_that_names_the_other(tmp_path: Path) -> None:
    folder = write(tmp_path)
    second = pq.read_table(data(folder, 0)).slice(4)
    pq.write_table(pa.concat_tables([second, pq.read_table(data(folder, 1))]), data(folder, 1))
    assert outcome(folder) == ["ok", "ok", "ok", "ok", "undeclared_record"]
    assert details(folder) == "contains rows of episode 1, which data/chunk-000/file-000.parquet contains as well"


# --- videos ---


@pytest.mark.parametrize(("listed", "episode"), [([0, 0, 0, 1, 2, 2], 2), ([0, 0, 1, 1, 1, 2], 4)])
def test_a_window_that_only_fits_into_another_video_is_read_from_there(
    tmp_path: Path, listed: list[int], episode: int
) -> None:
    folder = write(tmp_path, 6, video=True)
    right = [found.steps[FRONT] for found in episodes(folder)]
    list_files(folder, listed, prefix=f"videos/{FRONT}")
    assert [found.steps[FRONT] for found in episodes(folder)] == right
    (note,) = open_source(str(folder)).notes()
    assert note.startswith(f"{FRONT}: meta/ lists 1 episodes in the wrong video, such as episode {episode} in ")
    assert left_out(folder) == []


def test_a_window_that_fits_nowhere_else_is_quarantined(tmp_path: Path) -> None:
    folder = write(tmp_path, 4, video=True)
    list_files(folder, [0, 0, 1, 0], prefix=f"videos/{FRONT}")  # the second half of the second video is free at its end
    assert outcome(folder) == ["ok", "frame_count", "ok", "frame_count"]


# --- random layouts ---


@pytest.mark.parametrize("seed", range(12))
def test_a_random_layout_is_read_whole_or_counted(tmp_path: Path, seed: int) -> None:
    """Split the rows of 6 episodes over 3 files at random, list random files, and remove some."""
    rng, count = np.random.default_rng(seed), 6
    folder = write(tmp_path, count)
    rows = pa.concat_tables([pq.read_table(data(folder, number)) for number in range(3)])
    places = rng.integers(0, 3, count)
    for number in range(3):
        own = [episode for episode in range(count) if places[episode] == number]
        data(folder, number).unlink()
        if own and rng.random() < 0.9:
            pq.write_table(rows.filter(pa.compute.is_in(rows["episode_index"], pa.array(own))), data(folder, number))
    written = [episode for episode in range(count) if data(folder, places[episode]).exists()]
    if not written:
        return
    list_files(folder, [int(rng.integers(0, 3)) if rng.random() < 0.5 else int(place) for place in places])
    values = reading.read(folder)
    assert len(values) == count, "each of the others is one quarantine"
    whole = [value for value in values if isinstance(value, RawEpisode)]
    numbers = [np.asarray(episode.steps["episode_index"])[0] for episode in whole]
    assert sorted(numbers) == written
    for number, episode in zip(numbers, whole, strict=True):
        assert np.asarray(episode.steps["action"])[:, 0].tolist() == [number] * (4 + number)
    assert left_out(folder) == []


# --- what is not read ---


@pytest.mark.parametrize("version", ["v2.0", "v2.1", "v3.0"])
def test_a_whole_dataset_leaves_nothing_out(tmp_path: Path, version: str) -> None:
    folder = write(tmp_path, version=version, video=True, stills=True)
    for name in ("README.md", ".gitattributes", "meta/stats.json"):
        (folder / name).write_text("x")
    (folder / "images").mkdir()
    source = open_source(str(folder))
    assert (source.left_out(), dict(source.guesses())) == ([], {})


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_files_that_no_episode_refers_to_are_counted(tmp_path: Path, version: str) -> None:
    folder = write(tmp_path, version=version, video=True)
    video = min(folder.rglob("*.mp4"))
    table = min((folder / "data").rglob("*.parquet"))
    shutil.copy(video, video.with_stem("more_1"))
    shutil.copy(video, video.with_stem("more_2"))
    shutil.copy(table, table.with_stem("more"))
    (folder / "data/notes.csv").write_text("x")
    (folder / "recordings").mkdir()
    (folder / "recordings/a.bag").write_text("x")
    assert left_out(folder) == [
        str(table.with_stem("more").relative_to(folder)),
        f"2 videos, such as {video.with_stem('more_1').relative_to(folder)}",
        "2 other files and folders, such as data/notes.csv",
    ]


def test_a_camera_that_info_json_lacks_is_counted_and_an_ignored_one_is_not(tmp_path: Path) -> None:
    folder = write(tmp_path, version="v2.1", video=True)
    edit_info(folder, features={FRONT: None})
    assert left_out(folder) == [f"4 videos, such as videos/chunk-000/{FRONT}/episode_000000.mp4"]
    edit_info(folder, features={FRONT: {"dtype": "video", "shape": [16, 24, 3], "names": None}})
    assert opener(folder, ignore=(FRONT,)).left_out() == []


def test_images_of_episodes_that_are_not_listed_are_counted_by_folder(tmp_path: Path) -> None:
    folder = write(tmp_path, version="v2.1")
    edit_info(folder, features={WRIST: {"dtype": "image", "shape": [8, 8, 3], "names": None}})
    for episode in range(6):
        below = folder / f"images/{WRIST}/episode_{episode:06d}"
        below.mkdir(parents=True)
        for frame in range(4 + episode):
            (below / f"frame_{frame:06d}.png").write_bytes(jpeg(frame))
    assert outcome(folder) == ["ok"] * 4
    assert left_out(folder) == [f"2 folders of images, such as images/{WRIST}/episode_000004"]
