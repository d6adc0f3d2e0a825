"""A field of an episode that is described first and read later."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.readers.fields import Leaf


@dataclass(frozen=True, slots=True, kw_only=True)
class LazyField:
    """One field of one episode; `read(n)` returns its first `n` steps."""

    leaf: Leaf
    count: int = 1  # steps; 1 for a per-episode value
    read: Callable[[int], Any]
    span: Callable[[int, int], Any] | None = None  # reads the steps from one up to another; None: `read` is as fast
    cells: Sequence[bytes] | None = None  # a table column as texts, for when the first episode's column is text

    def rows(self, start: int, end: int) -> Any:
        """Read the steps from `start` up to, but not including, `end`."""
        return self.span(start, end) if self.span else self.read(end)[start:]
