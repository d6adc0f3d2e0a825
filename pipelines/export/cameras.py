"""How each camera of a dataset is exported: as a video, as encoded images, or not at all."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from schemas.images import ImageHeader, sniff
from schemas.source import Array
from schemas.store.arrow import DEPTH, IMAGES, Camera
from schemas.store.dataset import DataFile, Dataset

SMALLEST = {"h264": 2, "av1": 64}  # pixels of a side that the encoder takes


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """One camera that is exported."""

    camera: Camera
    key: str  # the feature's name
    header: ImageHeader  # of its first frame
    is_video: bool
    why: str  # it is no video although videos were asked for; empty where that needs no reason

    @property
    def shape(self) -> tuple[int, int, int]:
        """Give height, width and channels as LeRobot sees them: a video always has three."""
        return self.header.height, self.header.width, 3 if self.is_video else self.header.channels


def kept_cameras(dataset: Dataset, video: str) -> tuple[tuple[Kept, ...], dict[str, str]]:
    """Decide for every camera; second come the columns that are left out, with the reason.

    A video has a frame for every step, of one size, with 8 bits and an even number of rows and columns. Other cameras
    keep their encoded images as they are.
    """
    cameras = dataset.columns.cameras
    missing = np.zeros(len(cameras), np.int64)
    first: list[ImageHeader | None] = [None] * len(cameras)
    for entry in dataset.manifest["files"] if cameras else ():
        file = DataFile(dataset.folder, entry["path"])  # not kept open: there may be many
        lengths = file.index.lengths
        missing += (lengths == 0).sum(axis=0)
        for number in range(len(cameras)):
            if first[number] is None:
                first[number] = _first(file, lengths, number)
    kept, left_out = list[Kept](), dict[str, str]()
    for camera, key, header, count in zip(cameras, keys(cameras), first, missing.tolist(), strict=True):
        if header is None:
            left_out[camera.column] = "it has no frame in any episode"
            continue
        why = "" if video == "none" else _why_no_video(camera, header, missing=count, smallest=SMALLEST[video])
        kept.append(Kept(camera=camera, key=key, header=header, is_video=video != "none" and not why, why=why))
    return tuple(kept), left_out


def _first(file: DataFile, lengths: Array, number: int) -> ImageHeader | None:
    rows = np.flatnonzero(lengths[:, number])
    image = file.image(int(rows[0]), number) if len(rows) else None
    return None if image is None else sniff(image)


def _why_no_video(camera: Camera, header: ImageHeader, *, missing: int, smallest: int) -> str:
    size = f"{header.height} x {header.width}"
    if camera.is_depth:
        return "a depth is no picture"
    if header.bits > 8:
        return f"{header.bits} bits a channel"
    if missing:
        return f"{missing} frames are missing"
    if header.height % 2 or header.width % 2:
        return f"{size}: a video's sides are even"
    if min(header.height, header.width) < smallest:
        return f"{size}: the encoder takes no less than {smallest} x {smallest}"
    return ""


def keys(cameras: Sequence[Camera]) -> list[str]:
    """Name each feature by the camera's role, or by its own name where it has no role or the role is a name, too."""
    leaves = {camera.leaf for camera in cameras}
    taken = set[str]()
    found = []
    for camera in cameras:
        word = camera.role if camera.role and camera.role not in leaves - {camera.leaf} else camera.leaf
        key = (DEPTH if camera.is_depth else IMAGES) + word.replace("/", "_")
        found.append(key if key not in taken else (DEPTH if camera.is_depth else IMAGES) + camera.leaf)
        taken.add(found[-1])
    return found
