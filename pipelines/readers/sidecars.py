"""Find and read the sidecar files of an episode: texts and videos that a pattern with placeholders names."""

import re
from collections.abc import Callable, Collection, Iterable
from contextlib import closing, suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from glob import escape, has_magic
from typing import Any

from pipelines.readers.folder import SourceFolder, safe_path
from pipelines.readers.names import matching
from pipelines.readers.pixels import collect_bytes
from schemas.errors import MissingExtraError, SourceError
from schemas.limits import COLUMN_BYTES, VALUE_BYTES, check_limit

# The path of a per-episode value, and the digits of a number, as in `MP4/{metadata.serial}.mp4` and `{episode:04}.mp4`.
PLACEHOLDER = re.compile(r"\{([^{}:]+)(?::0([1-9]))?\}")
MAX_SHOWN = 4


@dataclass(frozen=True, slots=True)
class Sidecars:
    """The sidecar files of one file of a source: those in the same folder and below."""

    folder: SourceFolder
    below: str  # the folder of the file, relative to the source; "" if it is the source's folder

    def find(self, pattern: str, values: Callable[[str], Any], *, missing: str) -> str:
        """Return the name of the only file that matches a pattern.

        `values` returns the value of a placeholder. Raises SourceError if several files match, and SourceError with the
        reason `missing` if no file does.
        """
        folder = self.folder.child(self.below) if self.below else self.folder

        def word(match: re.Match[str]) -> str:
            return _word(values(match[1]), match[1]).zfill(int(match[2] or 0))

        if has_magic(pattern):
            filled = PLACEHOLDER.sub(lambda match: escape(word(match)), pattern)
            names = matching(folder, filled)
        else:
            filled = PLACEHOLDER.sub(word, pattern)
            names = (filled,) if folder.size(safe_path(filled, where=self.below)) is not None else ()
        if not names:
            raise SourceError(f"there is no '{filled}' next to it", reason=missing)
        if len(names) > 1:
            shown = ", ".join(names[:MAX_SHOWN]) + (", ..." if len(names) > MAX_SHOWN else "")
            raise SourceError(f"{len(names)} files match '{filled}': {shown}; expected one", reason="ambiguous_file")
        return f"{self.below}/{names[0]}".lstrip("/")

    def text(self, name: str) -> str:
        """Read a small text file."""
        check_limit(self.folder.size(name) or 0, VALUE_BYTES, "bytes", what=name)
        try:
            return self.folder.read(name).decode()
        except UnicodeError as error:
            raise SourceError(f"{name} is not UTF-8", reason="bad_utf8") from error

    def video(self, name: str, *, frames: int, used: int, images: str) -> list[bytes]:
        """Return the first `used` frames of a video, encoded; raise SourceError unless it has `frames` in total."""
        try:
            with closing(video_type().at(self.folder, name)) as video:
                if (count := video.count()) != frames:
                    message = f"{count} frames, but the episode's other columns have {frames} rows"
                    raise SourceError(message, reason="frame_count")
                return collect_bytes(video.read(0, used, images=images), "the frames", limit=COLUMN_BYTES)
        except SourceError as error:
            raise error.at(prefix=name) from error

    def oddities(self, patterns: Iterable[str]) -> list[str]:
        """Describe the first video that matches each pattern, if it is shown in an unusual way."""
        return oddities(self.folder, [name for pattern in patterns for name in [*self.sizes(pattern)][:1]])

    def sizes(self, pattern: str) -> dict[str, int]:
        """Return the sizes of the files that match a pattern; a placeholder matches any text in a file name."""
        folder = self.folder.child(self.below) if self.below else self.folder
        names = matching(folder, PLACEHOLDER.sub("*", pattern))
        return {f"{self.below}/{name}".lstrip("/"): size or 0 for name, size in folder.sizes(names).items()}


def oddities(folder: SourceFolder, names: Iterable[str]) -> list[str]:
    """Describe how the frames of videos are shown, if that is unusual; a video that cannot be read is left out."""
    notes = []
    for name in names:
        with suppress(SourceError), closing(video_type().at(folder, name)) as video:
            notes += [f"{name} {oddity}." for oddity in video.oddities()]
    return notes


def placeholders(pattern: str) -> list[str]:
    """Return the paths of the per-episode values in a pattern."""
    return [match[1] for match in PLACEHOLDER.finditer(pattern)]


def is_sidecar(name: str, folders: Collection[str], patterns: Iterable[str]) -> bool:
    """Whether a file may match one of the patterns in one of the folders; a placeholder matches any text in a name."""
    words = name.split("/")
    inner = [words[depth:] for depth in range(len(words)) if "/".join(words[:depth]) in folders]
    globs = [PLACEHOLDER.sub("*", pattern).split("/") for pattern in patterns]
    return any(len(path) == len(parts) and all(map(fnmatchcase, path, parts)) for path in inner for parts in globs)


def _word(value: Any, path: str) -> str:
    """Format a value for a file name; a whole float is written without a decimal point."""
    if value is None or isinstance(value, bool | list):
        raise SourceError(f"{path} is {value!r}, which cannot be part of a file name", reason="missing_file")
    return f"{value:.0f}" if isinstance(value, float) and value.is_integer() else str(value)


def video_type() -> Any:
    """Import the class that reads videos; raise MissingExtraError if its library is not installed."""
    try:
        from pipelines.readers.video import Video  # noqa: PLC0415 - only sources with videos need its library
    except ModuleNotFoundError as error:
        raise MissingExtraError("av", extra="lerobot") from error
    return Video
