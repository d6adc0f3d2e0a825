"""The episodes that a LeRobotDataset declares: `meta/episodes.jsonl` or `meta/episodes/`, tasks and splits."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.readers.folder import SourceFolder
from pipelines.readers.lerobot.info import Info, described
from schemas.errors import SourceError
from schemas.source import Field

TABLE, TABLES = "meta/episodes.jsonl", "meta/episodes"
TASKS = {False: "meta/tasks.jsonl", True: "meta/tasks.parquet"}  # by: is it v3?
PLACES = ("data/", "videos/", "meta/", "stats/", "dataset_from_index", "dataset_to_index")  # where, not what
COUNTS = {"episode_index", "length"}  # which the rows of an episode must agree with, and so say themselves
MAX_STEPS = 10_000_000
REST = "unassigned"  # the split of episodes that no declared split holds


@dataclass(frozen=True, slots=True)
class Episodes:
    """One row per declared episode, in the order of `episode_index`."""

    table: pa.Table
    where: str

    def __len__(self) -> int:
        """Count them."""
        return len(self.table)

    def row(self, number: int) -> dict[str, Any]:
        """Give all that is declared about one."""
        (row,) = self.table.slice(number, 1).to_pylist()
        return dict(row)

    def column(self, name: str) -> list[Any]:
        """Give one value for each; nothing where there is no such column."""
        return self.table[name].to_pylist() if name in self.table.column_names else [None] * len(self)

    def fields(self) -> dict[str, Field]:
        """Describe the columns that say what an episode is, by their names."""
        return {
            column.name: _field(column)
            for column in self.table.schema
            if not column.name.startswith(PLACES) and column.name not in COUNTS
        }


def _field(column: pa.Field) -> Field:
    kind = column.type
    if pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return Field(path=column.name, kind="number", dtype=str(kind.to_pandas_dtype().__name__), per_step=False)
    return Field(path=column.name, kind="text", ragged=int(pa.types.is_list(kind)), per_step=False)


def load(folder: SourceFolder, info: Info) -> Episodes:
    """Read the table; one that is missing or does not count its episodes is a SourceError."""
    where = folder.path(TABLES if info.is_v3 else TABLE)
    table = _from_parquet(folder, where) if info.is_v3 else _from_lines(folder, where)
    for name in ("episode_index", "length"):
        if name not in table.column_names or not pa.types.is_integer(table[name].type) or table[name].null_count:
            raise SourceError(f"'{name}' is not a whole number in each row", reason="bad_info", file=where)
    table = table.sort_by("episode_index")
    indices, lengths = table["episode_index"].to_pylist(), table["length"].to_pylist()
    if len(set(indices)) < len(indices) or min(indices, default=0) < 0:
        raise SourceError("an episode_index is negative or stands there twice", reason="bad_info", file=where)
    if lengths and not 0 <= min(lengths) <= max(lengths) <= MAX_STEPS:
        raise SourceError(f"lengths from {min(lengths)} to {max(lengths)} steps", reason="bad_info", file=where)
    return Episodes(table, where)


def _from_parquet(folder: SourceFolder, where: str) -> pa.Table:
    names = [f"{TABLES}/{chunk}/{name}" for chunk in folder.names(TABLES) for name in folder.names(f"{TABLES}/{chunk}")]
    tables = [_small_table(folder, name) for name in names if name.endswith(".parquet")]
    if not tables:
        raise SourceError("no such files: they say which episodes there are", reason="bad_info", file=where)
    try:
        return pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowInvalid as error:
        raise SourceError(f"the files do not hold the same columns ({error})", reason="bad_info", file=where) from error


def _small_table(folder: SourceFolder, name: str) -> pa.Table:
    """Read a Parquet file of descriptions, without the statistics that LeRobot puts there."""
    path = folder.path(name)
    content = described(folder, name)
    try:
        file = pq.ParquetFile(pa.BufferReader(content))
        wanted = [column for column in file.schema_arrow.names if not column.startswith("stats/")]
        size = sum(file.metadata.row_group(i).total_byte_size for i in range(file.num_row_groups))
        if size > 16 * max(len(content), 1 << 24):
            raise SourceError(f"would take {size} bytes", reason="too_large", file=path)
        table = file.read(columns=wanted, use_threads=False)
    except pa.ArrowException as error:
        raise SourceError("not a whole Parquet file", reason="bad_info", file=path) from error
    return pa.table({column: _simple(table[column]) for column in table.column_names})


def _simple(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Keep numbers, texts and lists of texts; write anything else as JSON."""
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
    rows = _lines(folder, TABLE)
    names = dict.fromkeys(name for row in rows for name in row)
    try:
        return pa.table(
            {name: _typed([row.get(name) for row in rows]) for name in names if not name.startswith("stats")}
        )
    except (pa.ArrowInvalid, OverflowError) as error:
        raise SourceError(f"a value that is too large ({error})", reason="bad_info", file=where) from error


def _typed(values: list[Any]) -> pa.Array:
    """Give a column one type: that of its values, or text that holds them as JSON."""
    there = [value for value in values if value is not None]
    for kind, arrow in ((bool, pa.bool_()), (int, pa.int64()), (str, pa.string())):
        if all(type(value) is kind for value in there):
            return pa.array(values, arrow)
    if all(type(value) in {int, float} for value in there):
        return pa.array(values, pa.float64())
    if all(isinstance(value, list) and all(isinstance(item, str) for item in value) for value in there):
        return pa.array(values, pa.list_(pa.string()))
    return _as_json(values)


def _lines(folder: SourceFolder, name: str) -> list[dict[str, Any]]:
    path = folder.path(name)
    rows = []
    for number, line in enumerate(described(folder, name).splitlines(), 1):
        try:
            row = json.loads(line) if line.strip() else None
        except (ValueError, RecursionError) as error:
            raise SourceError(f"line {number} is not JSON", reason="bad_info", file=path) from error
        if row is not None and not isinstance(row, dict):
            raise SourceError(f"line {number} is no object", reason="bad_info", file=path)
        rows += [row] if row else []
    return rows


def tasks(folder: SourceFolder, info: Info) -> dict[int, str] | None:
    """Read the texts of the tasks by their numbers; None where there is no such file."""
    name = TASKS[info.is_v3]
    if folder.size(name) is None:
        return None
    rows: list[tuple[Any, Any]]
    if info.is_v3:
        table = _small_table(folder, name)
        texts = [column.name for column in table.schema if pa.types.is_string(column.type)]
        key = "task" if "task" in texts else next(iter(texts), "")
        rows = list(
            zip(*(table[c].to_pylist() if c in table.column_names else [] for c in ("task_index", key)), strict=False)
        )
    else:
        rows = [(row.get("task_index"), row.get("task")) for row in _lines(folder, name)]
    found: dict[int, str] = {}
    for number, text in rows:
        if not isinstance(number, int) or not isinstance(text, str) or found.setdefault(number, text) != text:
            message = f"task {number!r} is no number with one text"
            raise SourceError(message, reason="bad_info", file=folder.path(name))
    return found


def splits(info: Info, indices: Sequence[int]) -> dict[str, list[int]]:
    """Say which rows of the table each split holds, in the order of the episodes.

    A range may end after the last episode. Episodes that none holds are the split `unassigned`; where nothing is
    declared, all are `train`.
    """
    spans = {name: _span(name, span, info) for name, span in info.splits.items()}
    if not spans:
        return {"train": list(range(len(indices)))}
    found: dict[str, list[int]] = {name: [] for name in sorted(spans, key=lambda name: spans[name])}
    for row, index in enumerate(indices):
        holders = [name for name, (start, end) in spans.items() if start <= index < end]
        if len(holders) > 1:
            message = f"splits: episode {index} is in {' and in '.join(holders)}"
            raise SourceError(message, reason="bad_info", file=info.where)
        found.setdefault(holders[0] if holders else REST, []).append(row)
    return {name: rows for name, rows in found.items() if rows}


def _span(name: str, span: str, info: Info) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,12}):(\d{1,12})", span)
    if not match or not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*", name):
        message = f"splits: '{name}' is '{span}'; a name and a range of episodes such as '0:50' are needed"
        raise SourceError(message, reason="bad_info", file=info.where)
    return int(match[1]), int(match[2])


def oddities(info: Info, episodes: Episodes) -> list[str]:
    """Say what info.json counts otherwise than the table of episodes does."""
    counted = {"total_episodes": len(episodes), "total_frames": sum(episodes.column("length"))}
    said = [
        f"{key} is {info.totals[key]}, the episodes that are listed have {count}"
        for key, count in counted.items()
        if key in info.totals and info.totals[key] != count
    ]
    ends = {name: _span(name, span, info)[1] for name, span in info.splits.items()}
    last = max(episodes.column("episode_index"), default=-1) + 1
    said += [f"split '{name}' is {info.splits[name]}, there are {last}" for name, end in ends.items() if end > last]
    if unassigned := splits(info, episodes.column("episode_index")).get(REST):
        said.append(f"{len(unassigned)} episodes are in no split: they are read as '{REST}'")
    return said
