"""Read `meta/info.json` of a LeRobotDataset, which declares its paths and features; every value is checked."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pipelines.readers.find import FORMAT_PATTERNS, find_sources, several_sources_error
from pipelines.readers.folder import SourceFolder, safe_path
from schemas.errors import SourceError, UsageError
from schemas.limits import MAX_FIELDS, check_limit
from schemas.parsing import parse_json

INFO = "meta/info.json"
MODALITY = "meta/modality.json"  # names of groups of numbers, written by GR00T
MAX_NAMED = 4096  # numbers of a vector that may be named by groups
MAX_DESCRIPTION = 1 << 28  # bytes of one metadata file
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
PLACEHOLDER = re.compile(r"\{(\w+)(?::0?([1-9])d)?\}")


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureInfo:
    """A feature as info.json declares it; the Parquet files may differ."""

    dtype: str
    shape: tuple[int, ...]
    names: tuple[str, ...]
    is_depth: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetInfo:
    """The parsed info.json."""

    where: str
    version: str
    fps: float | None
    robot: str | None
    chunks_size: int
    features: Mapping[str, FeatureInfo]
    splits: Mapping[str, str]
    templates: Mapping[str, str | None]  # as in info.json
    totals: Mapping[str, Any]  # declared totals, such as the number of episodes; they may be wrong

    @property
    def is_v3(self) -> bool:
        """Whether the dataset is version 3, in which a file may contain several episodes."""
        return self.version.startswith("v3")

    @property
    def default_templates(self) -> Mapping[str, str]:
        """The path templates that LeRobot uses by default in this version."""
        return V3 if self.is_v3 else V2


def open_dataset(uri: str) -> SourceFolder:
    """Open the folder of the dataset at `uri` or below; raise UsageError if there is none, or more than one."""
    sources = find_sources(uri, {"lerobot": FORMAT_PATTERNS["lerobot"]})
    if not sources:
        raise UsageError(f"{uri}: no LeRobotDataset here (no {INFO})")
    if len(sources) > 1:
        raise several_sources_error(uri, sources)
    return SourceFolder.at(sources[0].uri)


def read_description(folder: SourceFolder, name: str) -> bytes:
    """Read a metadata file; raise SourceError if it is too large to be one."""
    check_limit(folder.size(name) or 0, MAX_DESCRIPTION, "bytes", where=folder.path(name))
    return folder.read(name)


def load(folder: SourceFolder) -> DatasetInfo:
    """Read info.json; raise SourceError if it does not describe a supported LeRobotDataset."""
    where, data = folder.path(INFO), read_description(folder, INFO)
    modality = read_description(folder, MODALITY) if folder.size(MODALITY) else b"{}"
    try:
        content = parse_json(data)
        version = str(content["codebase_version"])
        check_limit(len(content["features"]), MAX_FIELDS, "features", where=where)
        if not re.match(r"v[23]\.", version):
            raise SourceError(
                f"codebase_version is {version}, expected v2.x or v3.x; LeRobot has converters for older datasets",
                reason="bad_info",
                file=where,
            )
        return DatasetInfo(
            where=where,
            version=version,
            fps=float(content["fps"]) if content.get("fps") else None,
            robot=content.get("robot_type"),
            chunks_size=max(1, int(content.get("chunks_size") or 1000)),
            features=_named_by_groups({key: _feature(f) for key, f in content["features"].items()}, modality),
            splits={str(name): str(span) for name, span in (content.get("splits") or {}).items()},
            templates={key: _template(content.get(key)) for key in V2},
            totals={key: value for key, value in content.items() if key.startswith("total_")},
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise SourceError(
            f"not the info.json of a LeRobotDataset ({error!r})", reason="bad_info", file=where
        ) from error


def _template(template: Any) -> str | None:
    if template is not None and not isinstance(template, str):
        raise TypeError(f"{template!r} is not a path")
    return template


def _feature(content: Mapping[str, Any]) -> FeatureInfo:
    video_info = {**(content.get("video_info") or {}), **(content.get("info") or {})}
    return FeatureInfo(
        dtype=str(content["dtype"]),
        shape=tuple(int(size) for size in content.get("shape") or ()),
        names=tuple(_names(content.get("names"))),
        is_depth=bool(video_info.get("is_depth_map") or video_info.get("video.is_depth_map")),
    )


def _named_by_groups(features: dict[str, FeatureInfo], modality: bytes) -> dict[str, FeatureInfo]:
    """Replace names that mean nothing, such as `motor_3`, by those of the groups in `modality.json`: `left_arm_3`."""
    try:
        content = parse_json(modality)
    except ValueError:
        return features
    for which, feature in (("state", "observation.state"), ("action", "action")):
        listed = content.get(which) if isinstance(content, Mapping) else None
        names: dict[int, str] = {}
        for group, span in listed.items() if isinstance(listed, Mapping) else ():
            if isinstance(span, Mapping) and span.get("original_key", feature) == feature:
                start, end = span.get("start"), span.get("end")
                if isinstance(start, int) and isinstance(end, int) and 0 <= start < end <= MAX_NAMED:
                    names |= {start + i: f"{group}_{i}" for i in range(end - start)}
        known = features.get(feature)
        if known and len(known.shape) == 1 and sorted(names) == [*range(known.shape[0])] and _is_empty(known.names):
            features[feature] = replace(known, names=tuple(names[i] for i in range(known.shape[0])))
    return features


def _is_empty(names: Sequence[str]) -> bool:
    """Whether names only count: `motor_0`, `motor_1`."""
    return all(re.fullmatch(r"(motor|dim|state|action|axis)?[_ ]?\d+", name) for name in names)


def _names(content: Any) -> list[str]:
    """Return the names of a feature's dimensions as one list.

    info.json has them as a list, as several lists by group, or as the keys of an object.
    """
    if isinstance(content, Mapping):
        lists = [value for value in content.values() if isinstance(value, list)]
        return [str(name) for value in lists for name in value] if lists else [str(name) for name in content]
    return [str(name) for name in content] if isinstance(content, list) else []


def fill_template(template: str, values: Mapping[str, int | str], *, where: str) -> str:
    """Fill in a template; raise SourceError for an unknown placeholder or a path that leaves the source.

    >>> fill_template("chunk-{chunk_index:03d}/x.mp4", {"chunk_index": 7}, where="info.json")
    'chunk-007/x.mp4'
    """

    def error(word: str) -> SourceError:
        known = ", ".join(f"{{{name}}}" for name in values)
        message = f"the path '{template}': cannot fill in '{word}' (known: {known})"
        return SourceError(message, reason="bad_info", file=where)

    def fill(match: re.Match[str]) -> str:
        if match[1] not in values:
            raise error(match[0])
        return f"{values[match[1]]:0{match[2]}d}" if match[2] else str(values[match[1]])

    name = PLACEHOLDER.sub(fill, template)
    if brace := re.search(r"[{}]", PLACEHOLDER.sub("", template)):
        raise error(brace[0])
    return safe_path(name, where=where)
