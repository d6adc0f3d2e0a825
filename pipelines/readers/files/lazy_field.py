"""A field of an episode that is described but not read."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.readers.fields import Leaf


@dataclass(frozen=True, slots=True, kw_only=True)
class LazyField:
    """One field of one episode; `read` returns its first steps."""

    leaf: Leaf
    count: int = 1  # steps; 1 for a per-episode value
    read: Callable[[int], Any]
    cells: Sequence[bytes] | None = None  # a table column as texts, in case the first episode's holds texts
