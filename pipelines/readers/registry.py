"""Formats and where their readers are; a reader's module is imported only when it is used."""

from importlib import import_module

from pipelines.readers.source import Reader
from schemas.errors import UsageError, did_you_mean

READERS = {"rlds": "pipelines.readers.rlds:RldsReader"}


def open_source(uri: str, name: str) -> Reader:
    """Open a source of the format `name`."""
    if name not in READERS:
        raise UsageError(f"unknown format '{name}'{did_you_mean(name, READERS)}")
    module, _, cls = READERS[name].partition(":")
    reader: Reader = getattr(import_module(module), cls)(uri)
    return reader
