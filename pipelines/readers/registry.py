"""Formats and where their readers are; a reader's module is imported only when it is used."""

from importlib import import_module

from pipelines.readers.source import Reader

READERS = {"rlds": "pipelines.readers.rlds:RldsReader"}


def open_source(uri: str, name: str = "rlds") -> Reader:
    """Open a source of the format `name`."""
    module, _, cls = READERS[name].partition(":")
    reader: Reader = getattr(import_module(module), cls)(uri)
    return reader
