"""Find the data files of episodes that the table of episodes lists in a wrong file, and the files that are not listed.

Only the footers of the data files are read, and the column `episode_index` of those that contradict the table.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property

from pipelines.readers.folder import SourceFolder
from pipelines.readers.lerobot.columns import EPISODE, ParquetRows, open_parquet, reading, value_range
from pipelines.readers.lerobot.paths import EpisodePaths
from schemas.errors import SourceError

ENDING = ".parquet"


@dataclass(frozen=True)
class DataFiles:
    """The data files of a dataset, and the episodes that each one contains."""

    folder: SourceFolder
    paths: EpisodePaths

    @cached_property
    def listed(self) -> dict[str, list[int]]:
        """The rows of the table of episodes, by the data file that the table lists."""
        rows: dict[str, list[int]] = {}
        for row in range(len(self.paths.episodes)):
            rows.setdefault(self.paths.data(row), []).append(row)
        return rows

    @cached_property
    def unlisted(self) -> tuple[str, ...]:
        """The Parquet files in the same folders as the data files, which the table does not list."""
        folders = dict.fromkeys(name.rpartition("/")[0] for name in self.listed)
        names = (f"{below}/{name}" if below else name for below in folders for name in self.folder.names(below))
        return tuple(name for name in names if name.endswith(ENDING) and name not in self.listed)

    def file(self, row: int) -> str:
        """Return the file with the rows of an episode; the listed one if no other file, or several, have them."""
        return self.moved.get(row) or self.paths.data(row)

    @cached_property
    def moved(self) -> Mapping[int, str]:
        """The files of the episodes that are not in the listed file, but in exactly one other; empty before version 3.

        In version 2, the name of a file contains the episode.
        """
        if not self.paths.info.is_v3 or len(self.listed) + len(self.unlisted) < 2:
            return {}
        wrong = [name for name in self.listed if self._contradicts(name)]
        if not wrong:
            return {}
        contents = {name: self._episodes(name) for name in (*wrong, *self.unlisted)}
        moved = {}
        for name in wrong:
            for row in self.listed[name]:
                index = self.paths.indices[row]
                places = [other for other, episodes in contents.items() if index in episodes]
                if index not in contents[name] and len(places) == 1:
                    moved[row] = places[0]
        return moved

    def _contradicts(self, name: str) -> bool:
        """Whether the footer of a file shows other rows or episodes than the table; True if it cannot be read."""
        lengths, path = self._lengths, self.folder.path(name)
        rows = [row for row in self.listed[name] if lengths[row]]
        with suppress(SourceError), reading(path), open_parquet(self.folder, name) as file:
            if EPISODE not in file.schema_arrow.names or file.metadata.num_rows != sum(lengths[row] for row in rows):
                return True
            indices = [self.paths.indices[row] for row in rows]
            return value_range(file, EPISODE) != ((min(indices), max(indices)) if indices else None)
        return True

    @cached_property
    def _lengths(self) -> list[int]:
        return self.paths.episodes.column("length")

    def _episodes(self, name: str) -> set[int]:
        """Return the episodes in a file; none if it cannot be read."""
        with suppress(SourceError), open_parquet(self.folder, name) as file:
            if EPISODE in file.schema_arrow.names:
                return set(ParquetRows(file, [], self.folder.path(name)).runs(EPISODE))
        return set()

    def contains(self, row: int) -> bool:
        """Whether the file of an episode has rows of it."""
        return self.paths.indices[row] in self._episodes(self.file(row))

    def notes(self) -> list[str]:
        """Describe the episodes that are read from another file than the listed one."""
        if not self.moved:
            return []
        row, name = next(iter(self.moved.items()))
        example = f"episode {self.paths.indices[row]} in {self.paths.data(row)}: its rows are read from {name}"
        return [f"meta/ lists {len(self.moved)} episodes in the wrong data file, such as {example}"]
