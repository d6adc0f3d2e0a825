"""Formats and where their readers are; a reader's module is imported only when it is used."""

from importlib import import_module

from pipelines.readers.folder import SourceFolder
from pipelines.readers.source import Reader
from schemas.errors import MissingExtraError
from schemas.tables import SourceSpec

READERS = {
    "rlds": "pipelines.readers.rlds:RldsReader",
    "hdf5": "pipelines.readers.hdf5:Hdf5Reader",
}
EXTRAS = {"h5py": "hdf5"}  # packages that only one format needs
HDF5_NAMES = (".hdf5", ".h5", ".hdf")


def open_source(uri: str, told: SourceSpec | None = None) -> Reader:
    """Open a source as its declaration tells; without one, format and layout are guessed from what lies there."""
    form, layout = (told.format, told.layout()) if told else (_guess(uri), {})
    name, _, cls = READERS[form].partition(":")
    try:
        module = import_module(name)
    except ModuleNotFoundError as error:
        if error.name not in EXTRAS:
            raise
        raise MissingExtraError(error.name, extra=EXTRAS[error.name]) from error
    reader: Reader = getattr(module, cls)(uri, **layout)
    return reader


def _guess(uri: str) -> str:
    if uri.rstrip("/").endswith(HDF5_NAMES):
        return "hdf5"
    names = SourceFolder.at(uri).names()
    return "hdf5" if "features.json" not in names and any(name.endswith(HDF5_NAMES) for name in names) else "rlds"
