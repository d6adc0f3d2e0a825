"""How each camera of a dataset is exported: as a video, as encoded images, or not at all."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipelines.export.images import as_png, checked, lerobot_channels, why_not_lerobot
from pipelines.export.plan import UNCHANGED
from schemas.episode import Episode, Frames
from schemas.errors import UsageError
from schemas.images import ImageHeader, sniff
from schemas.source import Array
from schemas.store.arrow import DEPTH, IMAGES, Camera
from schemas.store.data_file import DataFile
from schemas.store.dataset import Dataset

MIN_SIDE = {"h264": 2, "av1": 64}  # smallest height and width in pixels that each encoder accepts


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportCamera:
    """One camera that is exported."""

    source: Camera  # the camera in the dataset
    key: str  # feature name in the export
    header: ImageHeader  # header of the first frame
    is_video: bool
    why: str  # why it is not a video although videos were requested; otherwise empty
    is_recoded: bool = False  # its images are re-encoded as RGB PNGs

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels in LeRobot; a video always has three channels."""
        channels = 3 if self.is_video or self.is_recoded else lerobot_channels(self.header)
        return self.header.height, self.header.width, channels

    def frames(self, episode: Episode, *, where: str) -> Frames:
        """Return the images of an episode as they are exported; raise DatasetError for one that LeRobot cannot open."""
        images = episode.depth if self.source.is_depth else episode.images
        frames, where = images[self.source.leaf], f"{self.source.column}: {where}"
        if self.is_recoded:
            return as_png(frames, where=where)
        return checked(frames, lambda header: why_not_lerobot(header, is_depth=self.source.is_depth), where=where)


def export_cameras(
    dataset: Dataset, video: str, *, images: str = UNCHANGED
) -> tuple[tuple[ExportCamera, ...], dict[str, str]]:
    """Return the cameras to export, and a mapping from each column that is left out to the reason.

    A camera becomes a video if every step has a frame, all frames have 8 bits and one size, and height and width are
    even. Other cameras keep their encoded images; if LeRobot cannot open the first one, `images = "png"` re-encodes
    them, and otherwise UsageError is raised.
    """
    cameras = dataset.columns.cameras
    missing = np.zeros(len(cameras), np.int64)
    first: list[ImageHeader | None] = [None] * len(cameras)
    for entry in dataset.manifest["files"] if cameras else ():
        file = dataset.open_file(entry["path"])  # not kept open, since there may be many files
        lengths = file.index.lengths
        missing += (lengths == 0).sum(axis=0)
        for number in range(len(cameras)):
            if first[number] is None:
                first[number] = _first_header(file, lengths, number)
    exported, left_out = list[ExportCamera](), dict[str, str]()
    for camera, key, header, count in zip(cameras, feature_names(cameras), first, missing.tolist(), strict=True):
        if header is None:
            left_out[camera.column] = "no frame in any episode"
            continue
        why = "" if video == "none" else _why_not_video(camera, header, missing=count, min_side=MIN_SIDE[video])
        is_video = video != "none" and not why
        unreadable = "" if is_video else why_not_lerobot(header, is_depth=camera.is_depth)
        if unreadable and (images == UNCHANGED or header.bits > 8):
            raise UsageError(f"{dataset.uri}: {camera.column}: the first image is {unreadable}; {_fix(header)}")
        exported.append(
            ExportCamera(source=camera, key=key, header=header, is_video=is_video, why=why, is_recoded=bool(unreadable))
        )
    return tuple(exported), left_out


def _first_header(file: DataFile, lengths: Array, number: int) -> ImageHeader | None:
    rows = np.flatnonzero(lengths[:, number])
    image = file.image(int(rows[0]), number) if len(rows) else None
    return None if image is None else sniff(image)


def _fix(header: ImageHeader) -> str:
    if header.bits > 8:
        return "if it is depth, name it in [depth] of the declaration and convert again"
    return "pass --images png to re-encode such cameras"


def _why_not_video(camera: Camera, header: ImageHeader, *, missing: int, min_side: int) -> str:
    size = f"{header.height} x {header.width}"
    if camera.is_depth:
        return "a depth image cannot be a video"
    if header.bits > 8:
        return f"{header.bits} bits per channel"
    if missing:
        return f"{missing} frames are missing"
    if header.height % 2 or header.width % 2:
        return f"{size}: the height and width of a video must be even"
    if min(header.height, header.width) < min_side:
        return f"{size}: the encoder requires at least {min_side} x {min_side}"
    return ""


def feature_names(cameras: Sequence[Camera]) -> list[str]:
    """Return the feature name of each camera: its role, or its own name.

    Its own name is used if it has no role, or if its role is also the name of another camera.
    """
    leaves = {camera.leaf for camera in cameras}
    names = list[str]()
    for camera in cameras:
        prefix = DEPTH if camera.is_depth else IMAGES
        word = camera.role if camera.role and camera.role not in leaves - {camera.leaf} else camera.leaf
        name = prefix + word.replace("/", "_")
        names.append(name if name not in names else prefix + camera.leaf)
    return names
