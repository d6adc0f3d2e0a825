"""Videos that several episodes share: each frame belongs to one episode."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.readers.lerobot.windows import SharedVideo, Window
from pipelines.readers.registry import open_source
from schemas.errors import SourceError
from schemas.source import RawEpisode
from tests.lerobot import FPS, drawn, write_lerobot, write_video
from tests.pipelines.readers.reading import Opener, Reading, decoded

av = pytest.importorskip("av", reason="the extra 'lerobot'")
FRONT, WRIST = "observation.images.front", "observation.images.wrist"
LENGTHS = (12, 10, 8)
STARTS = (0.0, 1.2, 2.2)
opener = Opener("lerobot")
reading = Reading(lambda uri, **layout: opener(uri, **{"ignore": (), "images": "png", **layout}))
episodes, outcome, details = reading.episodes, reading.outcome, reading.details


def write(folder: Path, *, cameras: Sequence[str] = (FRONT,)) -> Path:
    made = [
        {"action": np.zeros((steps, 2), np.float32), "task": ["lift"] * steps}
        | {key: drawn(steps, seed=7 * number) for key in cameras}
        for number, steps in enumerate(LENGTHS)
    ]
    return write_lerobot(folder / "source", made, version="v3.0", per_file=3)


def declare_windows(folder: Path, starts: Sequence[float], stops: Sequence[float] = (), *, key: str = FRONT) -> None:
    """Write the windows of a camera; without `stops`, they have the lengths of the episodes."""
    file = folder / "meta/episodes/chunk-000/file-000.parquet"
    table = pq.read_table(file)
    ends = stops or [start + steps / FPS for start, steps in zip(starts, LENGTHS, strict=True)]
    for word, values in (("from", starts), ("to", ends)):
        name = f"videos/{key}/{word}_timestamp"
        table = table.set_column(table.schema.get_field_index(name), name, pa.array([float(v) for v in values]))
    pq.write_table(table, file)


def film(folder: Path, count: int, *, key: str = FRONT, **how: Any) -> list[Any]:
    """Write a camera's video, and return its decoded frames."""
    file = folder / f"videos/{key}/chunk-000/file-000.mp4"
    write_video(file, drawn(count), **how)
    with av.open(str(file)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def shown(episode: RawEpisode, key: str = FRONT) -> list[Any]:
    return [decoded(image) for image in episode.steps[key]]


# --- a frame belongs to one episode ---


@pytest.mark.parametrize(
    ("frames", "starts", "lost", "words"),
    [
        (29, (0.0, 1.2, 2.1), [1], "episode 1 (1.200 to 2.200 s) and episode 2 (2.100 to 2.900 s) overlap: 1 frame "),
        (29, (0.0, 1.1, 2.1), [0], "episode 0 (0.000 to 1.200 s) and episode 1 (1.100 to 2.100 s) overlap: 1 frame "),
        (27, (0.0, 1.2, 1.9), [1], "overlap: 3 frames would belong to both"),
        (29, (0.04, 1.24, 2.14), [1], "overlap: 1 frame would belong to both"),
        (22, (0.0, 1.2, 1.2), [1, 2], "overlap: 8 frames would belong to both"),
    ],
)
def test_an_episode_whose_frames_begin_another_one_is_quarantined(
    tmp_path: Path, frames: int, starts: Sequence[float], lost: list[int], words: str
) -> None:
    folder = write(tmp_path)
    film(folder, frames)
    declare_windows(folder, starts)
    assert outcome(folder) == ["frame_count" if i in lost else "ok" for i in range(3)]
    assert details(folder).startswith(f"{FRONT}: the windows of episode ")
    assert words in details(folder)
    assert any("overlap" in note for note in open_source(str(folder)).notes())


def test_one_of_several_cameras_with_an_overlap_loses_the_episode_and_is_named(tmp_path: Path) -> None:
    folder = write(tmp_path, cameras=(FRONT, WRIST))
    film(folder, 29, key=WRIST)
    declare_windows(folder, (0.0, 1.2, 2.1), key=WRIST)
    assert outcome(folder) == ["ok", "frame_count", "ok"]
    assert details(folder).startswith(f"{WRIST}: ")
    assert outcome(folder, columns={FRONT, "action"}) == ["ok"] * 3


def test_windows_that_are_declared_in_another_order_are_compared_by_their_times(tmp_path: Path) -> None:
    folder = write(tmp_path)
    frames = film(folder, 30)
    declare_windows(folder, (1.8, 0.8, 0.0))
    found = episodes(folder)
    assert [np.array_equal(shown(e)[0], frames[n]) for e, n in zip(found, (18, 8, 0), strict=True)] == [True] * 3
    declare_windows(folder, (1.7, 0.8, 0.0))
    film(folder, 29)
    assert outcome(folder) == ["ok", "frame_count", "ok"]
    assert "episode 1 (0.800 to 1.800 s) and episode 0 (1.700 to 2.900 s)" in details(folder)


# --- frames at other times than declared ---


@pytest.mark.parametrize("offset", [0.02, 0.05, 0.049999, 0.050001])
def test_a_constant_offset_of_up_to_half_a_frame_is_tolerated_and_noted(tmp_path: Path, offset: float) -> None:
    folder = write(tmp_path)
    frames = film(folder, 30)
    declare_windows(folder, [start + offset for start in STARTS])
    assert np.array_equal(np.concatenate([shown(episode) for episode in episodes(folder)]), frames)
    (note,) = open_source(str(folder)).notes()
    assert f"{FRONT}: videos/{FRONT}/chunk-000/file-000.mp4 has frames up to {offset:.3f} s" in note


@pytest.mark.parametrize("late", [20, 40, 50])
def test_a_video_that_starts_late_by_a_part_of_a_frame_is_noted(tmp_path: Path, late: int) -> None:
    folder = write(tmp_path)
    frames = film(folder, 30, pts=100 * np.arange(30) + late)
    assert np.array_equal(np.concatenate([shown(episode) for episode in episodes(folder)]), frames)
    assert f"frames up to {late / 1000:.3f} s" in open_source(str(folder)).notes()[0]


@pytest.mark.parametrize(
    ("starts", "first", "lost"),
    [
        ((0.1, 1.3, 2.3), 0, {0, 1, 2}),  # every window one frame late
        ((0.3, 1.5, 2.5), 0, {0, 1, 2}),
        ((0.1, 1.3, 2.2), 0, {0, 1}),
        ((0.0, 1.1, 2.1), 0, {0, 1, 2}),  # the later ones one frame early
        ((0.0, 1.2, 2.3), 0, {2}),
        (STARTS, 100, {0, 1, 2}),  # the video starts one frame late
        (STARTS, 300, {0, 1, 2}),
    ],
)
def test_a_shift_by_whole_frames_is_quarantined(
    tmp_path: Path, starts: Sequence[float], first: int, lost: set[int]
) -> None:
    folder = write(tmp_path)
    film(folder, 30, pts=100 * np.arange(30) + first)
    declare_windows(folder, starts)
    assert outcome(folder) == ["frame_count" if i in lost else "ok" for i in range(3)]
    assert "its window is shifted against the frames of the video" in details(folder)


def test_a_video_that_starts_late_is_read_at_the_times_that_are_declared(tmp_path: Path) -> None:
    folder = write(tmp_path)
    frames = film(folder, 30, pts=100 * np.arange(30) + 300)
    declare_windows(folder, [start + 0.3 for start in STARTS])
    assert np.array_equal(np.concatenate([shown(episode) for episode in episodes(folder)]), frames)
    assert list(open_source(str(folder)).notes()) == []


def test_frames_before_and_between_windows_are_counted_as_left_out(tmp_path: Path) -> None:
    folder = write(tmp_path)
    frames = film(folder, 40)
    declare_windows(folder, (0.2, 1.7, 2.7))
    found = episodes(folder)
    assert [np.array_equal(shown(e)[0], frames[n]) for e, n in zip(found, (2, 17, 27), strict=True)] == [True] * 3
    (left,) = open_source(str(folder)).left_out()
    assert str(left) == f"5 frames of videos, such as videos/{FRONT}/chunk-000/file-000.mp4 at 0.000 s"


@pytest.mark.parametrize(("fps", "reason"), [(30, "frame_count"), (20, "frame_count"), (5, "bad_video")])
def test_a_video_with_another_rate_than_info_json_is_quarantined(tmp_path: Path, fps: int, reason: str) -> None:
    folder = write(tmp_path)
    film(folder, 3 * fps, fps=fps)
    assert outcome(folder) == [reason] * 3


# --- windows alone ---


def shared(starts: Sequence[float], *, steps: Sequence[int] = LENGTHS, **video: Any) -> SharedVideo:
    windows = [
        Window(episode=i, start=start, stop=start + n / FPS, steps=n)
        for i, (start, n) in enumerate(zip(starts, steps, strict=True))
    ]
    return SharedVideo(windows, hz=FPS, **video)


def test_the_first_frame_of_a_window_is_the_nearest(tmp_path: Path) -> None:
    assert shared(STARTS).firsts == [0, 12, 22]
    assert shared((0.04, 1.24, 2.16)).firsts == [0, 12, 22]
    assert shared((0.05, 1.25, 2.25)).firsts == shared(STARTS, start=0.05).firsts == [0, 12, 22]
    assert shared(STARTS).first_frame(1) == 12


def test_an_episode_without_rows_overlaps_nothing() -> None:
    assert shared((0.0, 0.5, 1.2), steps=(12, 0, 8)).problems == {}


def test_the_error_of_an_episode_names_both() -> None:
    with pytest.raises(SourceError, match=r"episode 0 .* and episode 1 .* overlap: 2 frames"):
        shared((0.0, 1.0, 2.2)).first_frame(0)


def test_no_frame_belongs_to_two_episodes_that_are_kept() -> None:
    """Draw windows at random, some of them with gaps, overlaps, offsets and shifts."""
    rng = np.random.default_rng(0)
    for _ in range(500):
        steps = rng.integers(1, 6, 5)
        starts = np.cumsum([0, *(steps + rng.choice([0, 0, 0, -1, 1, -3], 5))])[:5] / FPS
        moved = np.abs(starts + rng.choice([0, 0.05, 0.1]) + rng.uniform(-0.02, 0.02, 5))
        windows = sorted(shared(moved, steps=[*map(int, steps)]).windows, key=lambda w: w.start)
        video = SharedVideo(windows, hz=FPS, frames=int(rng.integers(10, 25)))
        used = [
            frame
            for window, first in zip(windows, video.firsts, strict=True)
            if window.episode not in video.problems
            for frame in range(first, first + window.steps)
        ]
        assert len(used) == len({*used})
