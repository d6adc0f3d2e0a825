"""Videos with a display matrix or an edit list, read as FFmpeg shows them (compared with ffmpeg 5.1 by hand)."""

import io
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from PIL import Image

from pipelines.readers.registry import open_source
from pipelines.readers.video import Video
from schemas.declarations.formats import Hdf5Source
from schemas.errors import SourceError
from schemas.source import Array
from tests.lerobot import drawn, write_lerobot, write_video
from tests.mp4 import MATRICES, cut, delay, turn
from tests.pipelines.readers.reading import Opener, Reading, decoded

av = pytest.importorskip("av", reason="the extra 'lerobot'")
FRONT = "observation.images.front"
COUNT, TICKS = 24, 1600  # frames; units of time per frame
SHOWN = {
    "rotated by 90 degrees": lambda frame: np.rot90(frame, -1),
    "rotated by 180 degrees": lambda frame: np.rot90(frame, 2),
    "rotated by 270 degrees": np.rot90,
    "mirrored": lambda frame: frame[:, ::-1],
    "mirrored and rotated": lambda frame: frame.swapaxes(0, 1),
}


def write(file: Path, **how: Any) -> list[Array]:
    """Write a video and return its decoded frames."""
    write_video(file, drawn(COUNT, height=48, width=64), **{"options": {"g": "6"}, **how})
    with av.open(str(file)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def same(images: Any, wanted: list[Array]) -> bool:
    return [decoded(image).tobytes() for image in images] == [np.ascontiguousarray(frame).tobytes() for frame in wanted]


# --- orientation ---


@pytest.mark.parametrize("kind", MATRICES)
def test_frames_are_turned_as_the_display_matrix_says(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "x.mp4"
    wanted = [SHOWN[kind](frame) for frame in write(file)]
    turn(file, MATRICES[kind])
    opened = Video(str(file), where="x.mp4")
    assert same(opened.read(0, COUNT, images="png", whole=True), wanted)
    assert same(opened.read(13, 3, images="png"), wanted[13:16])
    for image, frame in zip(opened.read(0, COUNT, images="jpeg 95", whole=True), wanted, strict=True):
        assert decoded(image).shape == frame.shape
        assert np.abs(decoded(image).astype(float) - frame).mean() < 5


@pytest.mark.parametrize("form", ["yuv422p", "yuv444p", "yuv420p10le", "yuvj420p"])
@pytest.mark.parametrize("kind", ["rotated by 90 degrees", "rotated by 180 degrees"])
def test_every_pixel_format_is_turned(tmp_path: Path, form: str, kind: str) -> None:
    file = tmp_path / "x.mp4"
    wanted = [SHOWN[kind](frame) for frame in write(file, pix_fmt=form)]
    turn(file, MATRICES[kind])
    (image,) = Video(str(file), where="x.mp4").read(0, 1, images="jpeg 95")
    assert decoded(image).shape == wanted[0].shape
    assert np.abs(decoded(image).astype(float) - wanted[0]).mean() < 6


def test_another_angle_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "x.mp4"
    write(file)
    turn(file, (0.866, 0.5, -0.5, 0.866))
    with pytest.raises(SourceError, match="rotated by 30 degrees, which is not a multiple of 90") as caught:
        list(Video(str(file), where="x.mp4").read(0, 1, images="png"))
    assert (caught.value.reason, caught.value.file) == ("bad_video", "x.mp4")


def test_an_upright_video_has_nothing_to_tell(tmp_path: Path) -> None:
    file = tmp_path / "x.mp4"
    wanted = write(file)
    turn(file, (1, 0, 0, 1))
    opened = Video(str(file), where="x.mp4")
    assert opened.oddities() == []
    assert same(opened.read(0, COUNT, images="png", whole=True), wanted)


# --- edit lists ---


@pytest.mark.parametrize("frames", [1, 5, 6, 11])
def test_frames_that_the_edit_list_leaves_out_are_not_read(tmp_path: Path, frames: int) -> None:
    file = tmp_path / "x.mp4"
    wanted = write(file)[frames:]
    cut(file, frames, per_frame=TICKS)
    opened = Video(str(file), where="x.mp4")
    assert (opened.count(), opened.start) == (len(wanted), 0)
    assert same(opened.read(0, len(wanted), images="png", whole=True), wanted)
    for start in (9, 2, 0, 11):
        assert same(opened.read(start, 2, images="png"), wanted[start : start + 2])
        assert same(opened.read_at(start / 10, 2, hz=10, images="png"), wanted[start : start + 2])


def test_a_video_with_a_late_start_has_the_same_frames(tmp_path: Path) -> None:
    file = tmp_path / "x.mp4"
    wanted = write(file)
    delay(file, 500)
    opened = Video(str(file), where="x.mp4")
    assert (opened.count(), opened.start) == (COUNT, pytest.approx(0.5))
    assert same(opened.read(0, COUNT, images="png", whole=True), wanted)
    assert same(opened.read(7, 2, images="png"), wanted[7:9])


# --- formats ---


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
@pytest.mark.parametrize("kind", MATRICES)
def test_a_lerobot_video_is_turned_like_by_its_own_decoder_with_a_note(tmp_path: Path, version: str, kind: str) -> None:
    """torchcodec 0.11, the default of lerobot 0.6.1, turns the frames; its fallback PyAV does not."""
    made = [{"action": np.zeros((COUNT, 2), np.float32), FRONT: drawn(COUNT), "task": ["lift"] * COUNT}]
    folder = write_lerobot(tmp_path / "source", made, version=version)
    file = next(folder.rglob("*.mp4"))
    wanted = [SHOWN[kind](frame) for frame in write(file)]
    turn(file, MATRICES[kind])
    reading = Reading(lambda uri, **layout: Opener("lerobot")(uri, **{"ignore": (), "images": "png", **layout}))
    assert same(reading.episodes(folder)[0].steps[FRONT], wanted)
    (note,) = open_source(str(folder)).notes()
    assert note.startswith(f"{FRONT}: {file.relative_to(folder)} is {kind.partition(' and')[0]}, as FFmpeg shows it")


def test_frames_that_an_edit_list_leaves_out_are_no_frames_of_a_lerobot_episode(tmp_path: Path) -> None:
    made = [{"action": np.zeros((20, 2), np.float32), FRONT: drawn(20), "task": ["lift"] * 20}]
    reading = Reading(lambda uri, **layout: Opener("lerobot")(uri, **{"ignore": (), "images": "png", **layout}))
    for version in ("v2.1", "v3.0"):
        folder = write_lerobot(tmp_path / version, made, version=version)
        file = next(folder.rglob("*.mp4"))
        wanted = write(file)[4:]
        cut(file, 4, per_frame=TICKS)
        assert same(reading.episodes(folder)[0].steps[FRONT], wanted)


def test_pixels_that_are_not_square_are_noted_and_not_scaled(tmp_path: Path) -> None:
    made = [{"action": np.zeros((4, 2), np.float32), FRONT: drawn(4), "task": ["lift"] * 4}]
    folder = write_lerobot(tmp_path / "source", made, version="v2.1", options={"x264-params": "sar=4/3"})
    (note,) = open_source(str(folder)).notes()
    assert note.endswith(" has pixels with an aspect ratio of 4:3: not scaled")


def test_videos_of_folders_and_beside_hdf5_are_turned_with_a_note(tmp_path: Path) -> None:
    (tmp_path / "folder/episode_0").mkdir(parents=True)
    video = tmp_path / "folder/episode_0/cam.mp4"
    wanted = [np.rot90(frame, -1) for frame in write(video)]
    turn(video, MATRICES["rotated by 90 degrees"])
    np.save(tmp_path / "folder/episode_0/action.npy", np.zeros((COUNT, 2)))
    loose = Reading(lambda uri, **layout: Opener("folder")(uri, images="png", episodes="episode_*", **layout))
    assert same(loose.episodes(tmp_path / "folder")[0].steps["cam"], wanted)
    turned = "is rotated by 90 degrees, as FFmpeg shows it."
    assert list(open_source(str(tmp_path / "folder")).notes()) == [f"episode_0/cam.mp4 {turned}"]

    (tmp_path / "h5").mkdir()
    with h5py.File(tmp_path / "h5/episode_0.hdf5", "w") as file:
        file["action"] = np.zeros((COUNT, 2))
    (tmp_path / "h5/episode_0.mp4").write_bytes(video.read_bytes())
    hdf5 = Reading(lambda uri, **layout: Opener("hdf5")(uri, images="png", **layout))
    found = hdf5.episodes(tmp_path / "h5", episodes="/", videos={"cam": "*.mp4"})
    assert same(found[0].steps["cam"], wanted)
    source = Hdf5Source(format="hdf5", episodes="/", videos={"cam": "*.mp4"})
    assert list(open_source(str(tmp_path / "h5"), source).notes()) == [f"episode_0.mp4 {turned}"]


def test_the_pictures_are_those_of_a_plain_decoder(tmp_path: Path) -> None:
    wanted = write(tmp_path / "x.mp4")
    (image,) = Video(str(tmp_path / "x.mp4"), where="x").read(0, 1, images="png")
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(image))), wanted[0])
