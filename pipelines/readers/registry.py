"""Formats and where their readers are; a reader's module is imported only when it is used."""

import re
from collections.abc import Callable, Collection
from importlib import import_module
from importlib.metadata import entry_points

from pipelines.lerobot import info as lerobot
from pipelines.readers.folder import SourceFolder, pickle_refused
from pipelines.readers.source import Reader
from schemas.errors import MissingExtraError, SpecError, UsageError, did_you_mean
from schemas.formats import GROUP, SourceSpec

READERS = {
    "rlds": "pipelines.readers.rlds:RldsReader",
    "hdf5": "pipelines.readers.hdf5:Hdf5Reader",
    "lerobot": "pipelines.readers.lerobot:LerobotReader",
    "zarr": "pipelines.readers.zarr:ZarrReader",
    "rosbag": "pipelines.readers.rosbag:RosbagReader",
    "folder": "pipelines.readers.episode_files:EpisodeFilesReader",
}
# Packages that only some formats need, and the extra that brings them.
EXTRAS = {
    "h5py": "hdf5",
    "zarr": "zarr",
    "av": "lerobot",
    **dict.fromkeys(("apsw", "lz4", "mcap", "rosbags", "ruamel", "zstandard"), "mcap"),
}
HDF5_NAMES = (".hdf5", ".h5", ".hdf")
ZARR_NAMES = (".zarr", ".zarr.zip")
ROSBAG_NAMES = (".mcap", ".db3", ".bag")
ROSBAG_METADATA = "metadata.yaml"
EPISODE_NAMES = (".npz", ".npy", ".csv", ".jsonl")
EPISODE_FOLDER = re.compile(r"[^.]*[A-Za-z_-][0-9]+|[0-9]{2,}")  # `episode_7`, `0007`; not `1.0.0`
PICKLES = (".pkl", ".pickle")


def open_source(uri: str, told: SourceSpec | None = None) -> Reader:
    """Open a source as its declaration tells; without one, format and layout are guessed from what lies there."""
    form, layout = (told.format, told.layout()) if told else (guess(uri), {})
    try:
        return _reader(form)(uri, **layout)
    except TypeError as error:
        if form in READERS:
            raise
        raise UsageError(f"{uri}: the reader of '{form}' does not take these source.options ({error})") from error


def _reader(form: str) -> Callable[..., Reader]:
    """Import a reader: ours, or the one that another package gives as an entry point."""
    if form not in READERS:
        plugins = entry_points(group=GROUP)
        if form not in plugins.names:
            raise SpecError(f"unknown format '{form}'{did_you_mean(form, {*READERS, *plugins.names})}")
        plugin: Callable[..., Reader] = plugins[form].load()
        return plugin
    name, _, cls = READERS[form].partition(":")
    try:
        ours: Callable[..., Reader] = getattr(import_module(name), cls)
    except ModuleNotFoundError as error:
        if error.name not in EXTRAS:
            raise
        raise MissingExtraError(error.name, extra=EXTRAS[error.name]) from error
    return ours


def guess(uri: str) -> str:
    """Say which format lies at `uri`, told by the names of its files; RLDS where they tell nothing."""
    name = uri.rstrip("/")
    if name.endswith(PICKLES):
        raise pickle_refused(uri)
    if name.endswith(HDF5_NAMES):
        return "hdf5"
    if name.endswith((*ZARR_NAMES, ".zip")):
        return "zarr"
    if name.endswith((*ROSBAG_NAMES, ROSBAG_METADATA)):
        return "rosbag"
    if name.endswith(EPISODE_NAMES):
        return "folder"
    folder = SourceFolder.at(uri)
    names = folder.names()
    looks = {
        "rlds": "features.json" in names,
        "hdf5": any(name.endswith(HDF5_NAMES) for name in names),
        "lerobot": bool(lerobot.roots(folder)),
        "zarr": any(name in {".zgroup", ".zmetadata", "zarr.json"} or name.endswith(ZARR_NAMES) for name in names),
        "rosbag": _holds_bag(names) or any(_holds_bag(folder.names(name)) for name in names if "." not in name),
        "folder": any(name.endswith((*EPISODE_NAMES, *PICKLES)) or EPISODE_FOLDER.fullmatch(name) for name in names),
    }
    return next((form for form, fits in looks.items() if fits), "rlds")


def _holds_bag(names: Collection[str]) -> bool:
    return any(name == ROSBAG_METADATA or name.endswith(ROSBAG_NAMES) for name in names)
