"""Files that lie beside an episode's own: texts, and a video for each camera, found by patterns with placeholders."""

import re
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from glob import escape, has_magic
from typing import Any

from pipelines.readers.fields import LIMIT, VALUE_LIMIT
from pipelines.readers.folder import SourceFolder, inside
from pipelines.readers.names import matching
from pipelines.readers.pixels import gathered
from schemas.errors import MissingExtraError, SourceError

PLACEHOLDER = re.compile(r"\{([^{}]+)\}")  # of a per-episode value: `recordings/MP4/{metadata.wrist_cam_serial}.mp4`
SHOWN = 4


@dataclass(frozen=True, slots=True)
class Beside:
    """The folder of one file."""

    folder: SourceFolder
    below: str  # the folder's name in the source; "" for its top

    def find(self, pattern: str, values: Callable[[str], Any], *, missing: str) -> str:
        """Name the one file that a pattern means; where there is none, the SourceError has the reason `missing`."""
        here = self.folder.child(self.below) if self.below else self.folder
        if has_magic(pattern):
            filled = PLACEHOLDER.sub(lambda found: escape(_word(values(found[1]), found[1])), pattern)
            found = matching(here, filled)
        else:
            filled = PLACEHOLDER.sub(lambda found: _word(values(found[1]), found[1]), pattern)
            found = (filled,) if here.size(inside(filled, where=self.below)) is not None else ()
        if not found:
            raise SourceError(f"there is no '{filled}' beside it", reason=missing)
        if len(found) > 1:
            shown = ", ".join(found[:SHOWN]) + (", ..." if len(found) > SHOWN else "")
            raise SourceError(f"{len(found)} files fit '{filled}': {shown}; one is meant", reason="ambiguous_file")
        return f"{self.below}/{found[0]}".lstrip("/")

    def text(self, name: str) -> str:
        """Read a small text file."""
        if (self.folder.size(name) or 0) > VALUE_LIMIT:
            raise SourceError(f"{name} has more than {VALUE_LIMIT} bytes", reason="too_large")
        try:
            return self.folder.read(name).decode()
        except UnicodeError as error:
            raise SourceError(f"{name} is not UTF-8", reason="bad_utf8") from error

    def video(self, name: str, *, frames: int, used: int, images: str) -> list[bytes]:
        """Decode the first `used` frames of a video that must have `frames`."""
        kind, local = video_type(), self.folder.files.local
        try:
            with ExitStack() as stack:
                file = str(local / name) if local else stack.enter_context(self.folder.open_parts(name))
                video = kind(file, where=self.folder.path(name))
                stack.callback(video.close)
                if (count := video.count()) != frames:
                    message = f"{count} frames, the episode's other columns have {frames} rows"
                    raise SourceError(message, reason="frame_count")
                return gathered(video.read(0, used, images=images), "the frames", limit=LIMIT)
        except SourceError as error:
            raise error.at(prefix=name) from error

    def sizes(self, pattern: str) -> dict[str, int]:
        """Tell the sizes of the files that a pattern means, whatever stands in its placeholders."""
        here = self.folder.child(self.below) if self.below else self.folder
        names = matching(here, PLACEHOLDER.sub("*", pattern))
        return {f"{self.below}/{name}": size or 0 for name, size in here.sizes(names).items()}


def _word(value: Any, path: str) -> str:
    """Write a value into a file's name; a number of JSON that is whole has no point."""
    if value is None or isinstance(value, bool | list):
        raise SourceError(f"{path} is {value!r}, which names no file", reason="missing_file")
    return f"{value:.0f}" if isinstance(value, float) and value.is_integer() else str(value)


def video_type() -> Any:
    """Give the class that reads videos, or say what to install."""
    try:
        from pipelines.readers.video import Video  # noqa: PLC0415 - only sources with videos need its library
    except ModuleNotFoundError as error:
        raise MissingExtraError("av", extra="lerobot") from error
    return Video
