"""The table of formats and their readers; a reader's module is imported on first use."""

from collections.abc import Callable
from functools import partial
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path

from pipelines.readers.bounded import BoundedReader
from pipelines.readers.endings import PICKLES
from pipelines.readers.find import find_sources, several_sources_error
from pipelines.readers.folder import pickle_error
from pipelines.readers.links import links_followed
from pipelines.readers.reader import Reader
from pipelines.readers.unknown import unknown_error
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
# Packages that only some formats need, and the extras that install them.
EXTRAS = {
    "h5py": "hdf5",
    "zarr": "zarr",
    "av": "lerobot",
    **dict.fromkeys(("apsw", "google", "lz4", "mcap", "rosbags", "ruamel", "zstandard"), "mcap"),
}


def open_source(uri: str, source: SourceSpec | None = None, *, follow_links: bool = False) -> Reader:
    """Open a source as `source` declares it; if it is None, guess the location, format and layout from the files.

    With `follow_links`, links that leave a local source are followed.

    Raises UsageError, which lists the sources, if a folder contains more than one, and SourceError if it cannot be
    read, whatever its reader raises.
    """
    with links_followed(follow=follow_links):
        if source is None:
            format_name, location = guess(uri)
            return BoundedReader(location, partial(load_reader(format_name), location))
        reader = load_reader(source.format)
        try:
            return BoundedReader(uri, partial(open_with, reader, uri, source))
        except UsageError as error:
            raise _other_sources_error(uri, source.format, error) from error


def open_with(reader: Callable[..., Reader], uri: str, source: SourceSpec) -> Reader:
    """Open a source with a reader.

    Our readers are called with the table `source` of the declaration. A reader of another package is called with its
    own `Source` if it defines one, and otherwise with `source.options` as keyword arguments.
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


def _other_sources_error(uri: str, format_name: str, error: UsageError) -> UsageError:
    """Return the error for a declared format that is wrong; it names the sources and formats that are there instead."""
    sources = find_sources(uri)
    others = [source for source in sources if source.uri.rstrip("/") != uri.rstrip("/")]
    if others:
        return several_sources_error(uri, others)
    return (
        UsageError(f"{error}; it looks like {sources[0].format}")
        if sources and sources[0].format != format_name
        else error
    )


def load_reader(format_name: str) -> Callable[..., Reader]:
    """Import the reader of a format: ours, or one that another package declares as an entry point.

    Raises SpecError if the format is unknown, and MissingExtraError if its library is not installed.
    """
    if format_name not in READERS:
        plugins = entry_points(group=GROUP)
        if format_name not in plugins.names:
            raise SpecError(f"unknown format '{format_name}'{did_you_mean(format_name, {*READERS, *plugins.names})}")
        plugin: Callable[..., Reader] = plugins[format_name].load()
        return plugin
    module, _, class_name = READERS[format_name].partition(":")
    try:
        ours: Callable[..., Reader] = getattr(import_module(module), class_name)
    except ModuleNotFoundError as error:
        if error.name not in EXTRAS:
            raise
        raise MissingExtraError(error.name, extra=EXTRAS[error.name]) from error
    return ours


def guess(uri: str) -> tuple[str, str]:
    """Return the format and the location of the source at or below `uri`.

    Raises UsageError if there are several. If there is none, the error says what was looked for and what is there.
    """
    if uri.rstrip("/").endswith(PICKLES):
        raise pickle_error(uri)
    sources = find_sources(uri)
    if len(sources) > 1:
        raise several_sources_error(uri, sources)
    if not sources and is_local(uri) and not Path(absolute(uri)).exists():
        raise UsageError(f"{uri}: no such file or folder")
    if not sources:
        raise unknown_error(uri)
    return sources[0].format, sources[0].uri
