"""Helpers that read sources, for the tests of all formats."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipelines.readers.reader import Reader, plan
from pipelines.readers.registry import load_reader
from schemas.declarations.formats import BUILT_IN
from schemas.source import Array, RawEpisode, Unreadable

ARM = """
[embodiment]
name       = "arm"
robot      = "arm"
controller = "joint_position"
action     = { origin = "commanded", parts = { joints = "joint a b, rad, absolute" } }
"""  # the embodiment of the sources that tests write


@dataclass(frozen=True, slots=True)
class Opener:
    """Opens sources of one format with the keys in `layout`; without any, the layout is guessed."""

    format: str

    def __call__(self, uri: Path | str, **layout: Any) -> Reader:
        source = BUILT_IN[self.format](format=self.format, **layout) if layout else None
        reader: Reader = load_reader(self.format)(str(uri), source)
        return reader


@dataclass(frozen=True, slots=True)
class Reading:
    """Reads whole sources of one format; `layout` contains keys of a declaration."""

    opened: Callable[..., Reader]

    def read(self, uri: Path | str, columns: set[str] | None = None, **layout: Any) -> list[RawEpisode | Unreadable]:
        """Read everything, and check that every planned episode is one value, in order."""
        reader = self.opened(str(uri), **layout)
        values = [value for ref in plan(reader.files()) for value in reader.read(ref, columns)]
        planned = sum(part.count for parts in reader.files().values() for part in parts)
        assert [value.index for value in values if value.index is not None] == list(range(planned))
        return values

    def episodes(self, uri: Path | str, **layout: Any) -> list[RawEpisode]:
        """Read a source and check that every episode can be read."""
        values = self.read(uri, **layout)
        assert [value.detail for value in values if isinstance(value, Unreadable)] == []
        return [value for value in values if isinstance(value, RawEpisode)]

    def outcome(self, uri: Path | str, columns: set[str] | None = None, **layout: Any) -> list[str]:
        """Return `ok` or the reason of the error for each value."""
        values = self.read(uri, columns, **layout)
        return [value.reason if isinstance(value, Unreadable) else "ok" for value in values]

    def details(self, uri: Path | str, **layout: Any) -> str:
        """Join the messages of all errors."""
        return "; ".join(value.detail for value in self.read(uri, **layout) if isinstance(value, Unreadable))


def decoded(image: Any) -> Array:
    """Decode with Pillow."""
    return np.asarray(Image.open(io.BytesIO(image)))
