"""The error for a folder without recordings of a known format: what was looked for, and what it contains."""

import re
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

from pipelines.readers.alike import visible
from pipelines.readers.endings import EPISODE_NAMES, IMAGES, PACKED, VIDEOS
from pipelines.readers.find import HDF5_NAMES, ROSBAG_NAMES, ZARR_NAMES
from pipelines.readers.folder import SourceFolder
from schemas.errors import UsageError

MAX_DEPTH, MAX_FILES, MAX_SHOWN = 3, 2000, 6  # levels of folders and files to list; endings to show
RLDS_SHARD = re.compile(r".*\.tfrecord(-\d+-of-\d+)?")
LOOKED_FOR = (
    "RLDS (features.json), "
    f"HDF5 ({', '.join(HDF5_NAMES)}), LeRobot v2 and v3 (meta/info.json), Zarr ({', '.join(ZARR_NAMES)}, .zgroup), "
    f"ROS bags ({', '.join(ROSBAG_NAMES)}, metadata.yaml) and episodes as folders or files ({', '.join(EPISODE_NAMES)})"
)


def unknown_error(uri: str) -> UsageError:
    """Return the error for a place where no format is recognized: what was looked for, and what the folder contains."""
    name = PurePosixPath(uri.rstrip("/")).name
    folder = SourceFolder.at(uri)
    files = _files(folder)
    is_file = not files and folder.files.local is not None and folder.files.local.is_file()
    hints = _hints([name] if is_file else files)
    content = "" if is_file else f"; it contains {_counts(files)}"
    return UsageError(f"{uri}: no recordings are recognized here{content}{hints}. Looked for {LOOKED_FOR}")


def _files(folder: SourceFolder) -> list[str]:
    """List the files in a folder and up to three levels below it; hidden ones are left out."""
    files: list[str] = []
    stack = [("", 0)]
    while stack and len(files) < MAX_FILES:
        below, depth = stack.pop(0)
        for name in visible(folder, below):
            path = f"{below}/{name}" if below else name
            is_folder = folder.is_local or "." not in name.strip(".")
            if is_folder and folder.is_folder(path):
                stack += [(path, depth + 1)] if depth < MAX_DEPTH else []
            else:
                files.append(path)
    return files


def _counts(files: Sequence[str]) -> str:
    """Count files by ending, the most frequent first, each with an example."""
    by_ending: dict[str, list[str]] = {}
    for file in files:
        by_ending.setdefault(_ending(file), []).append(file)
    ordered = sorted(by_ending.items(), key=lambda item: (-len(item[1]), item[0]))
    shown = [f"{len(paths)} {ending or 'files without an ending'} (such as {min(paths)})" for ending, paths in ordered]
    more = [f"and {len(shown) - MAX_SHOWN} other types of files"] if len(shown) > MAX_SHOWN else []
    limit = "at least " if len(files) >= MAX_FILES else ""
    return limit + ", ".join([*shown[:MAX_SHOWN], *more]) if files else "no files"


def _ending(file: str) -> str:
    """Return the ending of a file; the last two if the file is packed.

    >>> _ending("a/toy-train.tfrecord-00000-of-00001.gz")
    '.tfrecord.gz'
    """
    suffixes = re.sub(r"-\d+-of-\d+", "", PurePosixPath(file).name)
    endings = PurePosixPath(suffixes).suffixes
    return "".join(endings[-2:] if endings and endings[-1].lower() in PACKED else endings[-1:]).lower()


def _hints(files: Sequence[str]) -> str:
    """Return what is missing or in the way, for layouts that are known but not read."""
    names = {PurePosixPath(file).name for file in files}
    packed = [file for file in files if file.lower().endswith(PACKED)]
    tests: Mapping[str, bool] = {
        "LeRobot before v2 (meta_data/info.json, *.arrow) is not read: convert it with LeRobot's own script": any(
            file.startswith("meta_data/") or file.endswith(".arrow") for file in files
        ),
        "it looks like LeRobot without its folder meta: copy meta from where the data came": any(
            re.search(r"(^|/)chunk-\d+/", file) for file in files
        ),
        "the RLDS shards have no features.json: copy it from where the shards came": any(
            map(RLDS_SHARD.fullmatch, names)
        ),
        f"{packed[0] if packed else ''} is compressed or an archive: unpack it": bool(packed),
        "videos alone hold no actions: a folder for each episode, with the videos and a table, is read": bool(files)
        and all(file.lower().endswith(VIDEOS) for file in files),
        "pickles, also as .pt or .pth, are never read: save their arrays with numpy.savez": any(
            file.endswith((".pkl", ".pickle", ".pt", ".pth")) for file in files
        ),
        "if this folder is one episode, name the folder above it, or declare format = 'folder' and episodes = '.'": any(
            file.lower().endswith(IMAGES) for file in files
        )
        and any(file.endswith(".json") and "/" not in file for file in files),
        "for a JSON file per episode, declare format = 'folder' and episodes = '*.json'": bool(files)
        and all(file.endswith(".json") and "/" not in file for file in files),
    }
    return "".join(f"; {hint}" for hint, applies in tests.items() if applies)
