"""What an export says of itself."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What was written."""

    out: str
    episodes: int
    steps: int
    files: int
    without_steps: int  # episodes left out because the view masks all their steps
    view: str | None
    cameras: Mapping[str, Any] = field(default_factory=dict)  # key in the export -> how it is kept
    left_out: Mapping[str, str] = field(default_factory=dict)  # column of the dataset -> why the format cannot hold it

    notes: tuple[str, ...] = ()  # what the user should know before using it

    def to_json(self) -> dict[str, Any]:
        """Give the machine-readable form of `oxe export --json`."""
        return {name: getattr(self, name) for name in self.__slots__}
