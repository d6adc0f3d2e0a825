"""`meta/info.json` of a LeRobotDataset: what it says about files and features, none of it trusted."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.readers.find import LOOKS, several, sources
from pipelines.readers.folder import SourceFolder, inside
from schemas.errors import SourceError, UsageError

INFO = "meta/info.json"
MAX_DESCRIPTION = 1 << 28  # bytes of one file of descriptions
V2 = {
    "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
    "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
    "image_path": "images/{image_key}/episode_{episode_index:06d}/frame_{frame_index:06d}.png",
}
V3 = {
    "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
    "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
    "image_path": "images/{image_key}/episode-{episode_index:06d}/frame-{frame_index:06d}.png",
}
PLACE = re.compile(r"\{(\w+)(?::0?([1-9])d)?\}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Feature:
    """What info.json says about one key; the Parquet files may say otherwise."""

    dtype: str
    shape: tuple[int, ...]
    names: tuple[str, ...]
    is_depth: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Info:
    """The parsed description."""

    where: str
    version: str
    fps: float | None
    robot: str | None
    chunks_size: int
    features: Mapping[str, Feature]
    splits: Mapping[str, str]
    templates: Mapping[str, str | None]  # as info.json has them
    totals: Mapping[str, Any]  # episodes, frames, ...: counts that may be wrong

    @property
    def is_v3(self) -> bool:
        """Say whether a file may hold several episodes."""
        return self.version.startswith("v3")

    @property
    def usual(self) -> Mapping[str, str]:
        """Give the templates that LeRobot itself writes in this version."""
        return V3 if self.is_v3 else V2


def root(uri: str) -> SourceFolder:
    """Find the one dataset at a place, or below it."""
    found = sources(uri, {"lerobot": LOOKS["lerobot"]})
    if not found:
        raise UsageError(f"{uri}: no LeRobotDataset here (no {INFO})")
    if len(found) > 1:
        raise several(uri, found)
    return SourceFolder.at(found[0].uri)


def described(folder: SourceFolder, name: str) -> bytes:
    """Read a file of descriptions, if it is no larger than such files are."""
    if (folder.size(name) or 0) > MAX_DESCRIPTION:
        raise SourceError(
            f"a description of more than {MAX_DESCRIPTION} bytes", reason="bad_info", file=folder.path(name)
        )
    return folder.read(name)


def load(folder: SourceFolder) -> Info:
    """Read info.json; what cannot be understood is a SourceError that names the key."""
    where, data = folder.path(INFO), described(folder, INFO)
    try:
        told = json.loads(data)
        version = str(told["codebase_version"])
        if not re.match(r"v[23]\.", version):
            raise SourceError(
                f"codebase_version is {version}, not v2.x or v3.x; LeRobot's own converters bring older ones there",
                reason="bad_info",
                file=where,
            )
        return Info(
            where=where,
            version=version,
            fps=float(told["fps"]) if told.get("fps") else None,
            robot=told.get("robot_type"),
            chunks_size=max(1, int(told.get("chunks_size") or 1000)),
            features={key: _feature(feature) for key, feature in told["features"].items()},
            splits={str(name): str(span) for name, span in (told.get("splits") or {}).items()},
            templates={key: _template(told.get(key)) for key in V2},
            totals={key: value for key, value in told.items() if key.startswith("total_")},
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise SourceError(
            f"not the info.json of a LeRobotDataset ({error!r})", reason="bad_info", file=where
        ) from error


def _template(told: Any) -> str | None:
    if told is not None and not isinstance(told, str):
        raise TypeError(f"{told!r} is no path")
    return told


def _feature(told: Mapping[str, Any]) -> Feature:
    about = {**(told.get("video_info") or {}), **(told.get("info") or {})}
    return Feature(
        dtype=str(told["dtype"]),
        shape=tuple(int(size) for size in told.get("shape") or ()),
        names=tuple(_names(told.get("names"))),
        is_depth=bool(about.get("is_depth_map") or about.get("video.is_depth_map")),
    )


def _names(told: Any) -> list[str]:
    """Flatten the names of a feature: a list, or lists by group, or numbers by name."""
    if isinstance(told, Mapping):
        lists = [value for value in told.values() if isinstance(value, list)]
        return [str(name) for value in lists for name in value] if lists else [str(name) for name in told]
    return [str(name) for name in told] if isinstance(told, list) else []


def filled(template: str, values: Mapping[str, int | str], *, where: str) -> str:
    """Fill a template's known names in; any other, and a path that leaves the source, is a SourceError.

    >>> filled("chunk-{chunk_index:03d}/x.mp4", {"chunk_index": 7}, where="info.json")
    'chunk-007/x.mp4'
    """

    def bad(word: str) -> SourceError:
        known = ", ".join(f"{{{name}}}" for name in values)
        message = f"the path '{template}': '{word}' cannot be filled in (known: {known})"
        return SourceError(message, reason="bad_info", file=where)

    def fill(match: re.Match[str]) -> str:
        if match[1] not in values:
            raise bad(match[0])
        return f"{values[match[1]]:0{match[2]}d}" if match[2] else str(values[match[1]])

    name = PLACE.sub(fill, template)
    if odd := re.search(r"[{}]", PLACE.sub("", template)):
        raise bad(odd[0])
    return inside(name, where=where)
