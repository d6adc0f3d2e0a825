"""What a caller hands to `standardize`, told apart: columns of T values, and values of the whole episode."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from schemas.declarations.spec import DatasetSpec
from schemas.errors import SourceError
from schemas.source import Array, Ragged

PER_EPISODE = ("episode_metadata.", "traj_metadata.")  # whatever lies below has no steps


def columns_and_metadata(
    steps: Mapping[str, Any], declared: Mapping[str, str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Flatten a dict of raw values; lists of numbers become arrays, arrays of texts lists.

    `declared` gives the path as the declaration spells it for one with "/" read as "."; others keep their spelling.
    None is no value, and where any column has steps, neither is a column without a single number.
    """
    columns: dict[str, Any] = {}
    metadata: dict[str, Any] = {}
    for given, raw in _flat(steps):
        dotted = given.replace("/", ".")
        path, value = declared.get(dotted, given), _value(raw, given)
        if value is None:
            continue
        is_column = bool(value.ndim) if isinstance(value, np.ndarray) else isinstance(value, list | Ragged)
        (columns if is_column and not dotted.startswith(PER_EPISODE) else metadata)[path] = value
    if any(len(column) for column in columns.values()):
        columns = {path: column for path, column in columns.items() if not _is_empty(column)}
    return columns, metadata


def aligned(
    spec: DatasetSpec, columns: Mapping[str, Any], read: Collection[str]
) -> tuple[dict[str, Any], dict[str, Any], int]:
    """Tell columns from values of the whole episode by their length, and count the steps.

    Those in `read` must agree, but for a single text; columns of another length belong to the whole episode.
    """
    if not columns:
        raise SourceError(f"{spec.name}: an episode without a single column")
    single = [path for path in spec.language_keys if path in columns and len(columns[path]) == 1]
    sure = {path: len(columns[path]) for path in columns if path in read and path not in single}
    lengths = sure or {path: len(column) for path, column in columns.items()}
    shortest, longest = min(lengths, key=lengths.__getitem__), max(lengths, key=lengths.__getitem__)
    if lengths[shortest] != lengths[longest]:
        unequal = f"{longest} has {lengths[longest]} steps, {shortest} has {lengths[shortest]}"
        raise SourceError(f"{spec.name}: columns of unequal length: {unequal}", reason="unequal_lengths")
    length = lengths[shortest]
    kept = {path: column for path, column in columns.items() if len(column) == length}
    return kept, {path: column for path, column in columns.items() if path not in kept}, length


def _flat(steps: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """List the values of a nested dict under dotted paths."""
    for key, value in steps.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _value(value: Any, path: str) -> Any:
    """Make an array of numbers, a list of texts or images, or one value of the whole episode."""
    if value is None or isinstance(value, str | bytes | Ragged):
        return value
    if isinstance(value, list | tuple):
        first = next((item for item in value if item is not None), None)
        if first is None or isinstance(first, str | bytes | memoryview):
            return list(value) if first is not None or not value else None
    try:
        column = value if isinstance(value, np.ndarray) else np.asarray(value)
    except ValueError as error:
        raise SourceError(f"{path}: neither numbers nor texts of one shape ({error})") from error
    return _texts(column) if column.dtype.kind in "OSU" else column


def _texts(column: Array) -> Any:
    """Unpack an array of texts or images, also one of shape [T, 1]; one that holds nothing but None is no value."""
    is_column = column.ndim > 1 and column.size == len(column)
    values = (column.reshape(-1) if is_column else column).tolist()
    return None if isinstance(values, list) and values and all(item is None for item in values) else values


def _is_empty(column: Array | Sequence[Any] | Ragged) -> bool:
    return not (column.size if isinstance(column, np.ndarray) else len(column))
