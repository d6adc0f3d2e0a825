"""What a reader makes of a source, for the tests of all formats."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipelines.readers.reader import Reader, plan
from pipelines.readers.registry import reader_of
from schemas.declarations.formats import OURS
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
    """Opens sources of one format: as `layout` declares, which has the keys of its table; guessed where it has none."""

    format: str

    def __call__(self, uri: Path | str, **layout: Any) -> Reader:
        source = OURS[self.format](format=self.format, **layout) if layout else None
        reader: Reader = reader_of(self.format)(str(uri), source)
        return reader


@dataclass(frozen=True, slots=True)
class Reading:
    """Reads whole sources of one format; `layout` has the keys of a declaration."""

    opened: Callable[..., Reader]

    def read(self, uri: Path | str, columns: set[str] | None = None, **layout: Any) -> list[RawEpisode | Unreadable]:
        """Read everything; every planned episode is one value, in order."""
        reader = self.opened(str(uri), **layout)
        values = [value for ref in plan(reader.files()) for value in reader.read(ref, columns)]
        planned = sum(part.count for parts in reader.files().values() for part in parts)
        assert [value.index for value in values if value.index is not None] == list(range(planned))
        return values

    def episodes(self, uri: Path | str, **layout: Any) -> list[RawEpisode]:
        """Read a source without a fault."""
        values = self.read(uri, **layout)
        assert [value.detail for value in values if isinstance(value, Unreadable)] == []
        return [value for value in values if isinstance(value, RawEpisode)]

    def outcome(self, uri: Path | str, columns: set[str] | None = None, **layout: Any) -> list[str]:
        """Say of each value `ok`, or the reason why not."""
        values = self.read(uri, columns, **layout)
        return [value.reason if isinstance(value, Unreadable) else "ok" for value in values]

    def details(self, uri: Path | str, **layout: Any) -> str:
        """Join what is said of the faults."""
        return "; ".join(value.detail for value in self.read(uri, **layout) if isinstance(value, Unreadable))


def decoded(image: Any) -> Array:
    """Decode with Pillow."""
    return np.asarray(Image.open(io.BytesIO(image)))
