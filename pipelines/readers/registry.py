"""Formats and where their readers are; a reader's module is imported only when it is used."""

from collections.abc import Callable
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path

from pipelines.readers.find import PICKLES, several, sources
from pipelines.readers.folder import pickle_refused
from pipelines.readers.reader import Reader
from schemas.declarations.formats import GROUP, PluginSource, SourceSpec
from schemas.declarations.spec import validated
from schemas.errors import MissingExtraError, SpecError, UsageError, did_you_mean
from schemas.files.folder import absolute, is_local

READERS = {
    "rlds": "pipelines.readers.rlds.reader:RldsReader",
    "hdf5": "pipelines.readers.hdf5.reader:Hdf5Reader",
    "lerobot": "pipelines.readers.lerobot.reader:LerobotReader",
    "zarr": "pipelines.readers.zarr.reader:ZarrReader",
    "rosbag": "pipelines.readers.rosbag.reader:RosbagReader",
    "folder": "pipelines.readers.files.reader:EpisodeFilesReader",
}
# Packages that only some formats need, and the extra that brings them.
EXTRAS = {
    "h5py": "hdf5",
    "zarr": "zarr",
    "av": "lerobot",
    **dict.fromkeys(("apsw", "lz4", "mcap", "rosbags", "ruamel", "zstandard"), "mcap"),
}


def open_source(uri: str, source: SourceSpec | None = None) -> Reader:
    """Open a source as its declaration tells; without one, place, format and layout are guessed from what lies there.

    A folder that holds several sources is a UsageError that names them.
    """
    if source is None:
        form, place = guess(uri)
        return reader_of(form)(place)
    try:
        return opened(reader_of(source.format), uri, source)
    except UsageError as error:
        raise _elsewhere(uri, source.format, error) from error


def opened(reader: Callable[..., Reader], uri: str, source: SourceSpec) -> Reader:
    """Open a source with a reader: ours takes its table of the declaration.

    One of another package takes the table that it names as `Source`; where it names none, `options` as keywords.
    """
    if not isinstance(source, PluginSource):
        return reader(uri, source)
    table: type[SourceSpec] | None = getattr(reader, "Source", None)
    if table is not None:
        keys = {**source.model_dump(exclude={"options"}), **source.options}
        return reader(uri, validated(table, keys, f"{uri}: source.options"))
    try:
        return reader(uri, **source.options)
    except TypeError as error:
        raise SpecError(
            f"{uri}: the reader of '{source.format}' does not take these source.options ({error})"
        ) from error


def _elsewhere(uri: str, form: str, error: UsageError) -> UsageError:
    """Say what there is instead of a source of the declared format."""
    found = sources(uri)
    others = [one for one in found if one.uri.rstrip("/") != uri.rstrip("/")]
    if others:
        return several(uri, others)
    return UsageError(f"{error}; it looks like {found[0].format}") if found and found[0].format != form else error


def reader_of(form: str) -> Callable[..., Reader]:
    """Import the reader of a format: ours, or the one that another package gives as an entry point."""
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


def guess(uri: str) -> tuple[str, str]:
    """Say which format lies at `uri` or below, and where; RLDS where nothing does: its reader says what is missing."""
    if uri.rstrip("/").endswith(PICKLES):
        raise pickle_refused(uri)
    found = sources(uri)
    if len(found) > 1:
        raise several(uri, found)
    if not found and is_local(uri) and not Path(absolute(uri)).exists():
        raise UsageError(f"{uri}: no such file or folder")
    return (found[0].format, found[0].uri) if found else ("rlds", uri)
