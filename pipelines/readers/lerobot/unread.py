"""Count the files of a LeRobotDataset that no episode refers to."""

import re
from collections.abc import Collection, Iterator
from contextlib import suppress

from pipelines.readers.folder import SourceFolder
from pipelines.readers.lerobot.locate import DataFiles
from pipelines.readers.lerobot.paths import EpisodePaths
from pipelines.readers.reader import LeftOut
from schemas.errors import SourceError

DESCRIPTIONS = re.compile(r"\..*|meta|README.*|LICENSE.*|oxe_.*|features\.json", re.IGNORECASE)  # in the folder itself
VIDEOS = (".mp4", ".mkv", ".avi", ".mov", ".webm")
ENDINGS = (
    ".parquet",
    *VIDEOS,
    ".png",
    ".jpg",
    ".jpeg",
    ".json",
    ".jsonl",
    ".txt",
    ".md",
)  # a name with another ending may be a folder
MAX_LEVELS = 6


def unread_files(folder: SourceFolder, paths: EpisodePaths, data: DataFiles) -> list[LeftOut]:
    """Count the data files, the videos and the other files that are not read, each kind with an example.

    Files of features in `source.ignore` are not counted. In folders of images, only folders of episodes are compared.
    """
    features = paths.info.features
    used = {*data.listed, *data.moved.values(), *_videos(paths)}
    tops = {name.partition("/")[0] for name in used if "/" in name} | {"data", "videos"}
    names = folder.names()
    files = [name for top in sorted(tops.intersection(names)) for name in _walk(folder, top)]
    unused = [name for name in files if name not in used]
    images = [key for key, feature in features.items() if feature.dtype == "image"]
    stills, roots = _unused_images(folder, paths, images)
    others = [name for name in names if name not in tops | roots and not DESCRIPTIONS.fullmatch(name)]
    others = [name for name in others if name not in used and not (name == "images" and not images)]
    kinds = {
        "data files": [name for name in unused if name.endswith(".parquet")],
        "videos": [name for name in unused if name.endswith(VIDEOS)],
    }
    counted = {name for listed in kinds.values() for name in listed}
    kinds["folders of images"] = [*stills, *(["images"] if not images and "images" in names else [])]
    kinds["other files and folders"] = [*(name for name in unused if name not in counted), *others]
    return [LeftOut(what, len(listed), listed[0]) for what, listed in kinds.items() if listed]


def _videos(paths: EpisodePaths) -> set[str]:
    """Return the video files of all cameras, also of ignored ones."""
    names = set[str]()
    for key, feature in paths.info.features.items():
        if feature.dtype == "video":
            with suppress(SourceError):
                names.update(paths.clip(key, row).file for row in range(len(paths.episodes)))
    return names


def _unused_images(folder: SourceFolder, paths: EpisodePaths, images: Collection[str]) -> tuple[list[str], set[str]]:
    """Return the folders of images of no episode, and the folders at the top that contain images."""
    used: dict[str, set[str]] = {}  # folder above -> folders of episodes
    for key in images:
        with suppress(SourceError):
            for row in range(len(paths.episodes)):
                above, _, name = paths.image(key, row, 0).rpartition("/")[0].rpartition("/")
                used.setdefault(above, set()).add(name)
    unused = [
        f"{above}/{name}"
        for above, expected in used.items()
        if above
        for name in folder.names(above)
        if name not in expected and name[0] != "." and f"{above}/{name}" not in used
    ]
    return unused, {above.partition("/")[0] for above in used}


def _walk(folder: SourceFolder, below: str, level: int = 1) -> Iterator[str]:
    """Yield the files in a folder and the folders in it; hidden ones are left out."""
    for name in folder.names(below):
        path = f"{below}/{name}"
        if name[0] == ".":
            continue
        inside = () if name.endswith(ENDINGS) else folder.names(path)
        if inside and level < MAX_LEVELS:
            yield from _walk(folder, path, level + 1)
        else:
            yield path
