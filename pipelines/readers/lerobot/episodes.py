"""Read the declared episodes, tasks and splits of a LeRobotDataset from `meta/`."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.readers.folder import SourceFolder
from pipelines.readers.lerobot.info import DatasetInfo, read_description
from schemas.errors import SourceError
from schemas.limits import MAX_ROWS, MAX_STEPS, check_limit
from schemas.parsing import parse_json
from schemas.source import Field

TABLE, TABLES = "meta/episodes.jsonl", "meta/episodes"
TASKS = {False: "meta/tasks.jsonl", True: "meta/tasks.parquet"}  # keyed by whether the dataset is v3
LOCATION_COLUMNS = (
    "data/",
    "videos/",
    "meta/",
    "stats/",
    "dataset_from_index",
    "dataset_to_index",
)  # columns that say where an episode is stored, not what it is
COUNT_COLUMNS = {"episode_index", "length"}  # known from the rows of the episode
REST = "unassigned"  # the split of episodes that are in no declared split


@dataclass(frozen=True, slots=True)
class EpisodeTable:
    """The table of declared episodes, sorted by `episode_index`."""

    table: pa.Table
    where: str

    def __len__(self) -> int:
        """Return the number of episodes."""
        return len(self.table)

    def row(self, number: int) -> dict[str, Any]:
        """Return all values of one episode."""
        (row,) = self.table.slice(number, 1).to_pylist()
        return dict(row)

    def column(self, name: str) -> list[Any]:
        """Return the values of a column; if there is no such column, the values are all None."""
        return self.table[name].to_pylist() if name in self.table.column_names else [None] * len(self)

    def fields(self) -> dict[str, Field]:
        """Describe the columns with per-episode values, by name."""
        return {
            column.name: _field(column)
            for column in self.table.schema
            if not column.name.startswith(LOCATION_COLUMNS) and column.name not in COUNT_COLUMNS
        }


def _field(column: pa.Field) -> Field:
    kind = column.type
    if pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return Field(path=column.name, kind="number", dtype=str(kind.to_pandas_dtype().__name__), per_step=False)
    return Field(path=column.name, kind="text", ragged=int(pa.types.is_list(kind)), per_step=False)


def load(folder: SourceFolder, info: DatasetInfo) -> EpisodeTable:
    """Read the table of episodes; raise SourceError if it is missing, or if an index or a length is wrong."""
    where = folder.path(TABLES if info.is_v3 else TABLE)
    table = _from_parquet(folder, where) if info.is_v3 else _from_lines(folder, where)
    for name in ("episode_index", "length"):
        if name not in table.column_names or not pa.types.is_integer(table[name].type) or table[name].null_count:
            raise SourceError(f"'{name}' is not an integer in every row", reason="bad_info", file=where)
    table = table.sort_by("episode_index")
    indices, lengths = table["episode_index"].to_pylist(), table["length"].to_pylist()
    if len(set(indices)) < len(indices) or min(indices, default=0) < 0:
        raise SourceError("an episode_index is negative or occurs twice", reason="bad_info", file=where)
    if lengths and not 0 <= min(lengths) <= max(lengths) <= MAX_STEPS:
        raise SourceError(
            f"lengths range from {min(lengths)} to {max(lengths)} steps; expected 0 to {MAX_STEPS}",
            reason="bad_info",
            file=where,
        )
    return EpisodeTable(table, where)


def _from_parquet(folder: SourceFolder, where: str) -> pa.Table:
    names = [f"{TABLES}/{chunk}/{name}" for chunk in folder.names(TABLES) for name in folder.names(f"{TABLES}/{chunk}")]
    tables = [_read_table(folder, name) for name in names if name.endswith(".parquet")]
    if not tables:
        raise SourceError("no Parquet files, so the episodes are unknown", reason="bad_info", file=where)
    try:
        return pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowInvalid as error:
        raise SourceError(f"the files have different columns ({error})", reason="bad_info", file=where) from error


def _read_table(folder: SourceFolder, name: str) -> pa.Table:
    """Read a Parquet file of metadata; its columns of statistics are left out."""
    path = folder.path(name)
    content = read_description(folder, name)
    try:
        file = pq.ParquetFile(pa.BufferReader(content))
        names = [column for column in file.schema_arrow.names if not column.startswith("stats/")]
        size = sum(file.metadata.row_group(i).total_byte_size for i in range(file.num_row_groups))
        check_limit(file.metadata.num_rows, MAX_ROWS, "rows", where=path)
        if size > 16 * max(len(content), 1 << 24):
            raise SourceError(f"the table would take {size} bytes of memory", reason="too_large", file=path)
        table = file.read(columns=names, use_threads=False)
    except pa.ArrowException as error:
        raise SourceError("the Parquet file is damaged or incomplete", reason="bad_info", file=path) from error
    return pa.table({column: _simplify(table[column]) for column in table.column_names})


def _simplify(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Keep numbers, texts and lists of texts; convert other columns to JSON."""
    kind = column.type
    if pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return column
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return column.cast(pa.string())
    if pa.types.is_list(kind) and (pa.types.is_string(kind.value_type) or pa.types.is_large_string(kind.value_type)):
        return column.cast(pa.list_(pa.string()))
    return pa.chunked_array([_as_json(column.to_pylist())])


def _as_json(values: Sequence[Any]) -> pa.Array:
    return pa.array([None if value is None else json.dumps(value, default=str) for value in values], pa.string())


def _from_lines(folder: SourceFolder, where: str) -> pa.Table:
    rows = _read_lines(folder, TABLE)
    names = dict.fromkeys(name for row in rows for name in row)
    try:
        return pa.table(
            {name: _to_array([row.get(name) for row in rows]) for name in names if not name.startswith("stats")}
        )
    except (pa.ArrowInvalid, OverflowError) as error:
        raise SourceError(f"a value is too large ({error})", reason="bad_info", file=where) from error


def _to_array(values: list[Any]) -> pa.Array:
    """Return values as a column; values of mixed types become JSON texts."""
    present = [value for value in values if value is not None]
    for kind, arrow in ((bool, pa.bool_()), (int, pa.int64()), (str, pa.string())):
        if all(type(value) is kind for value in present):
            return pa.array(values, arrow)
    if all(type(value) in {int, float} for value in present):
        return pa.array(values, pa.float64())
    if all(isinstance(value, list) and all(isinstance(item, str) for item in value) for value in present):
        return pa.array(values, pa.list_(pa.string()))
    return _as_json(values)


def _read_lines(folder: SourceFolder, name: str) -> list[dict[str, Any]]:
    path = folder.path(name)
    rows = []
    for number, line in enumerate(read_description(folder, name).splitlines(), 1):
        try:
            row = parse_json(line) if line.strip() else None
        except ValueError as error:
            raise SourceError(f"line {number} is not JSON", reason="bad_info", file=path) from error
        if row is not None and not isinstance(row, dict):
            raise SourceError(f"line {number} is not an object", reason="bad_info", file=path)
        rows += [row] if row else []
    return rows


def tasks(folder: SourceFolder, info: DatasetInfo) -> dict[int, str] | None:
    """Read the texts of the tasks by their numbers; None if the dataset has no file of tasks."""
    name = TASKS[info.is_v3]
    if folder.size(name) is None:
        return None
    rows: list[tuple[Any, Any]]
    if info.is_v3:
        table = _read_table(folder, name)
        texts = [column.name for column in table.schema if pa.types.is_string(column.type)]
        key = "task" if "task" in texts else next(iter(texts), "")
        rows = list(
            zip(*(table[c].to_pylist() if c in table.column_names else [] for c in ("task_index", key)), strict=False)
        )
    else:
        rows = [(row.get("task_index"), row.get("task")) for row in _read_lines(folder, name)]
    text_by_number: dict[int, str] = {}
    for number, text in rows:
        if not isinstance(number, int) or not isinstance(text, str) or text_by_number.setdefault(number, text) != text:
            message = f"task {number!r}: expected an integer with a single text"
            raise SourceError(message, reason="bad_info", file=folder.path(name))
    return text_by_number


def splits(info: DatasetInfo, indices: Sequence[int]) -> dict[str, list[int]]:
    """Return the rows of the table in each split, in the order of the episodes.

    A declared range may end after the last episode. Episodes that are in no declared split form the split `unassigned`.
    If no splits are declared, all episodes are in `train`. Raises SourceError if an episode is in several splits.
    """
    spans = {name: _span(name, span, info) for name, span in info.splits.items()}
    if not spans:
        return {"train": list(range(len(indices)))}
    rows_by_split: dict[str, list[int]] = {name: [] for name in sorted(spans, key=lambda name: spans[name])}
    for row, index in enumerate(indices):
        matches = [name for name, (start, end) in spans.items() if start <= index < end]
        if len(matches) > 1:
            message = f"splits: episode {index} is in {' and in '.join(matches)}"
            raise SourceError(message, reason="bad_info", file=info.where)
        rows_by_split.setdefault(matches[0] if matches else REST, []).append(row)
    return {name: rows for name, rows in rows_by_split.items() if rows}


def _span(name: str, span: str, info: DatasetInfo) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,12}):(\d{1,12})", span)
    if not match or not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*", name):
        message = f"splits: '{name}' is '{span}'; expected a name and a range of episodes such as '0:50'"
        raise SourceError(message, reason="bad_info", file=info.where)
    return int(match[1]), int(match[2])


def inconsistencies(info: DatasetInfo, episodes: EpisodeTable) -> list[str]:
    """Describe each contradiction between info.json and the table of episodes, and count episodes in no split."""
    actual = {"total_episodes": len(episodes), "total_frames": sum(episodes.column("length"))}
    notes = [
        f"{key} is {info.totals[key]}, but the listed episodes have {count}"
        for key, count in actual.items()
        if key in info.totals and info.totals[key] != count
    ]
    ends = {name: _span(name, span, info)[1] for name, span in info.splits.items()}
    end = max(episodes.column("episode_index"), default=-1) + 1
    notes += [
        f"split '{name}' is {info.splits[name]}, but there are {end} episodes"
        for name, stop in ends.items()
        if stop > end
    ]
    if unassigned := splits(info, episodes.column("episode_index")).get(REST):
        notes.append(f"{len(unassigned)} episodes are in no split: they are read as '{REST}'")
    return notes
