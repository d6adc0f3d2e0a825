"""Divide the rows of a table into episodes, by the ends of the episodes, an id for each row, or flags at last rows.

A table has the rows of many episodes, one after another. All formats with tables describe their columns as
`RowColumn`s; the columns are read block by block, and only those that say where the episodes end.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np

from schemas.declarations.formats import TableSource
from schemas.errors import SourceError, UsageError, did_you_mean
from schemas.source import Array

UNDIVIDED = {"several_episodes", "bad_ends"}  # the reasons of a guess for a table that no key can divide
LIFE = r"(episode|ep|traj|trajectory|demo|demonstration|rollout)s?"
NUMBER = r"(id|ids|idx|index|indices|num|number|no|nr|name|uuid|key)"
ID = re.compile(rf"{LIFE}{NUMBER}?|(trial|run){NUMBER}")  # names without `_`, in lower case
FLAG = re.compile(
    rf"(next|is)?({LIFE})?(terminals?|timeouts?|terminations?|truncations?|terminated|truncated|dones?)"
    rf"|is({LIFE})?(last|end|final)(step)?|{LIFE}(last|end|ends|final)"
)
FIRST = re.compile(rf"is({LIFE})?(first|start)(step)?|{LIFE}(first|start|starts)")
ENDS = re.compile(rf"({LIFE})?ends?(index|indices|idx)?|({LIFE}){NUMBER}?ends|{LIFE}dataindexto")


@dataclass(frozen=True, slots=True)
class RowColumn:
    """A column of a table: its shape [N, ...], and its values, read in blocks when they are needed."""

    shape: tuple[int, ...]
    kind: str  # numpy's letter of the type: b, i, u, f; O for texts
    blocks: Callable[[], Iterable[Array]]

    @property
    def rows(self) -> int:
        """The number of rows."""
        return self.shape[0] if self.shape else 0

    def values(self) -> Iterator[Array]:
        """Yield the values block by block, each block as a flat array."""
        for block in self.blocks():
            yield np.asarray(block).reshape(-1)


Table: TypeAlias = Mapping[str, RowColumn]  # by dotted path; only columns with one value per row can divide it


@dataclass(frozen=True, slots=True)
class EpisodeRows:
    """Which rows of a table belong to which episode."""

    ends: Array  # [E] int64: for each episode, the row after its last one
    rows: int  # rows of the table
    ids: tuple[Any, ...] = ()  # the ids of the first and the last episode, if a column has them

    def __len__(self) -> int:
        """Return the number of episodes."""
        return len(self.ends)

    def bounds(self, number: int) -> tuple[int, int]:
        """Return the first row of an episode, and one past its last row."""
        return int(self.ends[number - 1]) if number else 0, int(self.ends[number])

    def rows_after_end(self) -> int:
        """Return the number of rows after the end of the last episode."""
        return max(0, self.rows - (int(self.ends[-1]) if len(self.ends) else 0))

    def rest(self) -> SourceError | None:
        """Return the error that counts the rows after the last episode's end; None if there are none."""
        if not (rows := self.rows_after_end()):
            return None
        message = f"{rows} steps come after the end of the last episode and belong to no episode"
        return SourceError(message, reason="undeclared_record")


def check_apart(tables: Iterable[tuple[str, EpisodeRows]]) -> None:
    """Raise UsageError if an episode seems to continue in the next table; `tables` has their places, in order.

    The last id of a table is then the first one of the next. Tables with one episode may all have the same id.
    """
    for (place, rows), (after, later) in pairwise(tables):
        if len(rows) > 1 and rows.ids and later.ids and rows.ids[1] == later.ids[0]:
            message = f"{place}: the rows of episode {_shown(rows.ids[1])} continue in {after}"
            raise UsageError(f"{message}; the rows of an episode must be in one table, so join the two")


def row_count_error(path: str, count: int, rows: EpisodeRows) -> SourceError:
    """Return the error for an array that has neither a row per step nor a row per episode."""
    wrong = f"{path} has {count} rows, but there are {rows.rows} steps and {len(rows)} episodes"
    if is_near(count, rows.rows):
        advice = f"it may be damaged; leave it out with source.ignore = ['{path}']"
    else:
        advice = f"if it describes every episode, declare source.per_episode = ['{path}'], else source.ignore"
    return SourceError(f"{wrong}; {advice}", reason="unsupported_field")


def is_near(count: int, rows: int) -> bool:
    """Whether an array has so many rows that it may be a damaged column: more than half of them, but not twice."""
    return rows < 2 * count < 4 * rows


def divide(table: Table, source: TableSource) -> EpisodeRows:
    """Divide a table as the source declares.

    Raises SourceError if a column is missing, does not have the values that the key expects, or has another number of
    rows than the other columns of the key, and if the ends decrease or lie after the last row.
    """
    if source.episode_ends is not None:
        return _rows_by_ends(_path(table, source.episode_ends, "episode_ends"), table)
    if source.episode_column is not None:
        path = _path(table, source.episode_column, "episode_column")
        ends, ids = _runs(path, table[path])
        _check_ids(path, ids, ends)
        return EpisodeRows(ends, table[path].rows, (ids[0], ids[-1]) if ids else ())
    paths = [_path(table, path, "episode_flags") for path in source.episode_flags or ()]
    rows = {table[path].rows for path in paths}
    if len(rows) > 1:
        listed = ", ".join(f"{path} has {table[path].rows}" for path in paths)
        raise SourceError(f"source.episode_flags: {listed} rows", reason="unequal_lengths")
    return EpisodeRows(_flag_ends({path: table[path] for path in paths}), rows.pop())


def find_path(table: Collection[str], declared: str) -> str | None:
    """Return the path of a column; slashes in it may be written instead of dots. None if there is no such column."""
    return next((path for path in (declared, declared.strip("/").replace("/", ".")) if path in table), None)


def _path(table: Table, declared: str, key: str) -> str:
    path = find_path(table, declared)
    if path is None:
        message = f"source.{key}: there is no column '{declared}'{did_you_mean(declared, table)}"
        raise SourceError(message, reason="no_episodes")
    if not _is_plain(table[path]):
        message = f"source.{key}: {path} has the shape {list(table[path].shape)}; expected one value per row"
        raise SourceError(message, reason="bad_ends")
    return path


# --- ends ---


def checked_ends(path: str, ends: Array) -> Array:
    """Return the ends of the episodes as int64 [E]; raise SourceError if they decrease."""
    starts = np.concatenate([np.zeros(1, np.int64), ends.astype(np.int64)])
    if (np.diff(starts) < 0).any():
        at = int(np.argmax(np.diff(starts) < 0))
        message = f"{path}: episode {at} ends at row {starts[at + 1]}, before it starts at {starts[at]}"
        raise SourceError(message, reason="bad_ends")
    return starts[1:]


def _rows_by_ends(path: str, table: Table) -> EpisodeRows:
    """Divide a table by an array of ends; the number of rows is that of most other columns which reach the last end."""
    column = table[path]
    if column.kind not in "iu":
        raise SourceError(f"{path}: expected a list of ends, which are integers", reason="bad_ends")
    ends = checked_ends(path, _joined(column))
    last = int(ends[-1]) if len(ends) else 0
    counts = Counter(other.rows for name, other in table.items() if name != path and other.rows >= max(1, last))
    if not counts:
        rows = max((other.rows for name, other in table.items() if name != path), default=0)
        message = f"{path}: the last episode ends at row {last}, but there are only {rows} rows"
        raise SourceError(message, reason="bad_ends")
    return EpisodeRows(ends, counts.most_common(1)[0][0])


def _joined(column: RowColumn) -> Array:
    blocks = [*column.values()]
    return np.concatenate(blocks) if blocks else np.empty(0, np.int64)


# --- ids ---


def _runs(path: str, column: RowColumn) -> tuple[Array, list[Any]]:
    """Return the end of each run of equal ids, and the id of each run; raise SourceError if a row has no id."""
    ends: list[int] = []
    ids: list[Any] = []
    start = 0
    for block in column.values():
        if block.dtype.kind == "f" and (missing := np.flatnonzero(np.isnan(block))).size:
            raise SourceError(f"{path}: row {start + missing[0]} has no id", reason="bad_ends")
        changes = np.flatnonzero(block[1:] != block[:-1]) + 1
        if start and len(block) and block[0] != ids[-1]:
            changes = np.concatenate([[0], changes])
        first = [0] if not start and len(block) else []
        ends += [start + int(change) for change in changes]
        ids += [block[at].item() if hasattr(block[at], "item") else block[at] for at in [*first, *changes]]
        start += len(block)
    return np.array([*ends, start] if ids else [], np.int64), ids


def _check_ids(path: str, ids: list[Any], ends: Array) -> None:
    """Raise SourceError if an id comes back after another one, because its rows are then not one episode."""
    seen: set[Any] = set()
    for number, episode in enumerate(ids):
        if episode in seen:
            row = int(ends[number - 1])
            message = (
                f"{path}: the id {_shown(episode)} comes back at row {row}, after rows of another episode; the rows of "
                f"an episode must follow one another"
            )
            raise SourceError(message, reason="bad_ends")
        seen.add(episode)


def _shown(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


# --- flags ---


def _flag_ends(flags: Table) -> Array:
    """Return the row after each one with a true flag in any of the columns."""
    ends = np.empty(0, np.int64)
    for path, column in flags.items():
        if column.kind not in "biuf":
            raise SourceError(f"{path}: expected flags, which are true or false", reason="bad_ends")
        start = 0
        for block in column.values():
            odd = np.flatnonzero((block != 0) & (block != 1))
            if odd.size:
                message = f"{path}: row {start + odd[0]} is {block[odd[0]]}; expected true or false, or 1 or 0"
                raise SourceError(message, reason="bad_ends")
            ends = np.union1d(ends, start + 1 + np.flatnonzero(block))
            start += len(block)
    return ends


# --- guesses ---


@dataclass(frozen=True, slots=True)
class RowGuess:
    """The key that divides a table, as its names and values suggest."""

    key: str
    value: str | tuple[str, ...]
    evidence: str  # a sentence, such as `episode_id has 3 ids in 40 rows`

    @property
    def keys(self) -> dict[str, Any]:
        """The keys of `source`."""
        return {self.key: self.value}

    @property
    def shown(self) -> str:
        """The value as a declaration has it."""
        return json.dumps(self.value, ensure_ascii=False)

    def __str__(self) -> str:
        """Return the value and its evidence."""
        return f"{self.shown}, because {self.evidence}"

    def error(self) -> SourceError:
        """Return the error for a table that shows several episodes without a key that divides it."""
        as_one = "" if self.key == "episode_ends" else "; if it is one episode all the same, source.episode_flags = []"
        key = f"source.{self.key} = {self.shown}"
        message = f"this table seems to hold several episodes ({self.evidence}); declare {key}{as_one}"
        return SourceError(message, reason="several_episodes")


def guess(table: Table) -> RowGuess | None:
    """Return the key that divides a table into episodes; None if nothing in it shows more than one episode.

    An array of ends comes before a column of ids, and ids come before flags. Raises SourceError if the table shows
    several episodes that none of the keys can divide.
    """
    key = guess_ends(table) or guess_column(table) or guess_flags(table)
    if key is None:
        _refuse_firsts(table)
    return key


def guess_ends(table: Table) -> RowGuess | None:
    """Find an array that is named as the ends of episodes and rises to the number of rows."""
    for path, column in table.items():
        if not ENDS.fullmatch(_word(path)) or column.kind not in "iu" or len(column.shape) != 1 or not column.rows:
            continue
        try:
            rows = _rows_by_ends(path, table)
        except SourceError:
            continue
        if rows.rows - rows.ends[-1] == 1 and column.rows > 1:
            message = (
                f"{path} ends one row before the last: if it has the last row of each episode, write an array with the "
                f"row after it; if one incomplete step is left, declare source.episode_ends = '{path}'"
            )
            raise SourceError(message, reason="several_episodes")
        if rows.rows != column.rows and rows.ends[-1] > 0:
            return RowGuess("episode_ends", path, f"{path} has the ends of {len(rows)} episodes in {rows.rows} rows")
    return None


def guess_column(table: Table) -> RowGuess | None:
    """Find a column that is named as the id of an episode and has more than one id, but not one for each row."""
    named = [path for path, column in table.items() if ID.fullmatch(_word(path)) and _is_plain(column)]
    named = [path for path in named if table[path].kind in "iufO"]
    order = ("ep", "traj", "demo", "rollout")
    failure = None
    for path in sorted(named, key=lambda path: [not _word(path).startswith(stem) for stem in order]):
        column = table[path]
        try:
            ends, ids = _runs(path, column)
            if 1 < len(ids) < column.rows and not any(isinstance(one, float) and one % 1 for one in ids):
                _check_ids(path, ids, ends)
                return RowGuess("episode_column", path, f"{path} has {len(ids)} ids in {column.rows} rows")
        except SourceError as error:
            failure = failure or error
    if failure:
        raise failure
    return None


def guess_flags(table: Table) -> RowGuess | None:
    """Find columns that are named as ends of episodes and are true before the last row.

    Flags that stay true until the last row, as those of a success do, show no second episode.
    """
    flags = {
        path: column
        for path, column in table.items()
        if FLAG.fullmatch(_word(path)) and _is_plain(column) and column.kind in "biuf"
    }
    rows = max((column.rows for column in flags.values()), default=0)
    flags = {path: column for path, column in flags.items() if column.rows == rows}
    flags = {path: column for path, column in flags.items() if _is_flag(column)}
    ends = _flag_ends(flags)
    if not len(ends) or len(ends) == rows - int(ends[0]) + 1:
        return None
    return RowGuess("episode_flags", tuple(flags), f"{_either(flags)} true in {len(ends)} of {rows} rows")


def _refuse_firsts(table: Table) -> None:
    """Raise SourceError if a column marks the first rows of several episodes, which no key reads."""
    for path, column in table.items():
        if FIRST.fullmatch(_word(path)) and _is_plain(column) and column.kind in "biuf" and _is_flag(column):
            starts = _flag_ends({path: column}) - 1
            if len(starts) > 1 and len(starts) < column.rows:
                message = (
                    f"{path} marks the first rows of {len(starts)} episodes; add a column with an id for each row's "
                    f"episode, and declare it as source.episode_column"
                )
                raise SourceError(message, reason="several_episodes")


def _either(paths: Collection[str]) -> str:
    return f"{' or '.join(paths)} is" if len(paths) < 4 else f"one of {len(paths)} flags is"


def _is_flag(column: RowColumn) -> bool:
    return all(bool(((block == 0) | (block == 1)).all()) for block in column.values())


def _is_plain(column: RowColumn) -> bool:
    return len(column.shape) == 1 or (len(column.shape) == 2 and column.shape[1] == 1)


def _word(path: str) -> str:
    """Return the last word of a path in lower case, without underscores."""
    return re.sub(r"[^a-z0-9]", "", re.split(r"[./]", path)[-1].lower())


def is_row_key(path: str) -> bool:
    """Whether a column is named as one that divides a table into episodes.

    >>> is_row_key("terminals"), is_row_key("actions")
    (True, False)
    """
    return any(pattern.fullmatch(_word(path)) for pattern in (ENDS, ID, FLAG))
