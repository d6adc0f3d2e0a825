"""What one file, or a part of it, gives to an episode."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.readers.fields import Leaf


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """One field of one episode: its description, its number of steps, and how to read the first of them."""

    leaf: Leaf
    count: int = 1  # steps; of a value, 1
    read: Callable[[int], Any]
    cells: Sequence[bytes] | None = None  # a table's cells as texts, for a column that elsewhere holds texts
