"""Read the images, videos and texts of an episode; a missing frame is an error."""

import re
from collections.abc import Sequence
from contextlib import closing
from fnmatch import fnmatchcase
from itertools import pairwise

from pipelines.readers.fields import Leaf
from pipelines.readers.files.lazy_field import LazyField
from pipelines.readers.folder import LFS_MARK, SourceFolder, lfs_pointer_error
from pipelines.readers.names import natural_key
from pipelines.readers.pixels import collect_bytes
from pipelines.readers.sidecars import video_type
from schemas.errors import SourceError
from schemas.limits import COLUMN_BYTES, MAX_STEPS, VALUE_BYTES, above_limit
from schemas.source import Field


def read_file(folder: SourceFolder, name: str, limit: int) -> bytes:
    """Read a file of at most `limit` bytes."""
    with folder.open(name) as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise above_limit(limit, "bytes", where=folder.path(name))
    if data.startswith(LFS_MARK):
        raise lfs_pointer_error(folder.path(name))
    return data


def text_field(folder: SourceFolder, name: str, path: str, *, ignore_lines: str | None) -> LazyField:
    """Describe the lines of a text file; empty lines and lines that match the pattern `ignore_lines` are left out."""
    try:
        lines = [line.strip() for line in read_file(folder, name, VALUE_BYTES).decode("utf-8-sig").splitlines()]
    except UnicodeError as error:
        raise SourceError("not UTF-8", reason="bad_utf8") from error
    texts = [line for line in lines if line and not (ignore_lines and fnmatchcase(line, ignore_lines))]
    field = Field(path=path, kind="text", ragged=1, per_step=False)
    return LazyField(leaf=Leaf(field, "value"), read=lambda _: texts)


def image_field(folder: SourceFolder, below: str, path: str, *, names: Sequence[str], is_numbered: bool) -> LazyField:
    """Describe the images of a folder, in the order of their numbers; a gap in the numbers is an error."""
    ordered = sorted(names, key=natural_key)
    if is_numbered:
        _check_numbers(ordered, path)
    if len(ordered) > MAX_STEPS:
        raise SourceError(f"{path}: more than {MAX_STEPS} images", reason="too_large")

    return images_field(folder, [f"{below}/{name}".lstrip("/") for name in ordered], path)


def images_field(folder: SourceFolder, files: Sequence[str], path: str) -> LazyField:
    """Describe images by the paths of their files; a missing or empty file is an error when they are read."""

    def image(file: str) -> bytes:
        try:
            data = read_file(folder, file, COLUMN_BYTES)
        except SourceError as error:
            raise error.at(prefix=path) from error
        if not data:
            raise SourceError(f"{path}: {file.rpartition('/')[2]} is empty", reason="bad_image")
        return data

    def span(start: int, end: int) -> list[bytes]:
        return collect_bytes(map(image, files[start:end]), path, limit=COLUMN_BYTES)

    encoding = "png" if files[0].lower().endswith("png") else "jpeg"
    field = Field(path=path, kind="image", dtype="uint8", shape=(None, None, 3), encoding=encoding)
    return LazyField(leaf=Leaf(field, "blobs"), count=len(files), read=lambda rows: span(0, rows), span=span)


def _check_numbers(names: Sequence[str], path: str) -> None:
    numbers = [re.findall(r"[0-9]+", name.rpartition(".")[0]) for name in names]
    hint = f"; if the names are not numbered by frame, declare source.unnumbered = ['{path}']"
    for name, digits in zip(names, numbers, strict=True):
        if not digits:
            message = f"{path}: {name} has no number{hint}, or, if it is not a frame, source.ignore = ['{name}']"
            raise SourceError(message, reason="frame_count")
    for (before, low), (after, high) in pairwise(zip(names, numbers, strict=True)):
        if int(high[-1]) != int(low[-1]) + 1:
            raise SourceError(f"{path}: frames are missing between {before} and {after}{hint}", reason="frame_count")


def video_field(folder: SourceFolder, name: str, path: str, *, images: str) -> LazyField:
    """Describe the frames of a video; `images` says how they are encoded."""
    video_class = video_type()

    def span(start: int, end: int) -> list[bytes]:
        with closing(video_class.at(folder, name)) as video:
            return collect_bytes(video.read(start, end - start, images=images), path, limit=COLUMN_BYTES)

    with closing(video_class.at(folder, name)) as video:
        count = video.count()
    encoding = "png" if images == "png" else "jpeg"
    field = Field(path=path, kind="image", dtype="uint8", shape=(None, None, 3), encoding=encoding)
    return LazyField(leaf=Leaf(field, "video"), count=count, read=lambda rows: span(0, rows), span=span)
