"""Episodes with a file for each time step, as CALVIN stores them."""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import Any

import numpy as np

from pipelines.readers.alike import template
from pipelines.readers.fields import Leaf, array_leaf, check_same, check_size
from pipelines.readers.files.arrays import StoredArray, stored_arrays
from pipelines.readers.files.damage import reading
from pipelines.readers.files.lazy_field import LazyField
from pipelines.readers.files.media import read_file
from pipelines.readers.files.tables import TABLE_LIMIT, object_columns
from pipelines.readers.folder import SourceFolder
from pipelines.readers.names import covers, matching, natural_key
from pipelines.readers.pixels import collect_bytes, encode
from schemas.declarations.formats import FolderSource
from schemas.errors import SourceError, UsageError
from schemas.limits import COLUMN_BYTES, MAX_STEPS
from schemas.source import Array

STEP_RANGES = "ep_start_end_ids.npy"  # CALVIN's name for the list of first and last steps
STEP_NAME = re.compile(r"((steps?|frames?|time|t|obs)[ _-]*)?[0-9]+", re.IGNORECASE)
ARRAYS = (".npz", ".npy")
SAMPLE = 5  # files of which the shapes are compared
NUMBER = re.compile(r"[0-9]+(?=[^0-9]*$)")  # the last number in a name


@dataclass(frozen=True, slots=True)
class StepRanges:
    """The episodes of a folder of step files: the files of each one, by the path of its first."""

    episodes: dict[str, tuple[str, ...]]
    outside: tuple[str, ...]  # step files that belong to no episode


def read_ranges(folder: SourceFolder, below: str, source: FolderSource) -> StepRanges:
    """Read the list of the first and last step of each episode, and name the files of each.

    Raises SourceError if two ranges overlap, or if they are not pairs of numbers.
    """
    names = _joined(below, matching(_child(folder, below), str(source.step_files)))
    by_number = {int(match[0]): name for name in names if (match := NUMBER.search(name.rpartition(".")[0]))}
    listed = f"{below}/{source.step_ranges}".lstrip("/")
    if folder.size(listed) is None or len(by_number) < len(names) or not names:
        problem = (
            "no such file (source.step_ranges)"
            if folder.size(listed) is None
            else f"the files called '{source.step_files}' (source.step_files) do not have different numbers"
            if names
            else f"no file here is called '{source.step_files}' (source.step_files)"
        )
        raise UsageError(f"{folder.path(listed)}: {problem}")
    ranges = _checked(stored_arrays(folder, listed)["values"], folder.path(listed))
    episodes = [[by_number.get(i) or _numbered(names[0], i) for i in range(start, stop + 1)] for start, stop in ranges]
    used = {name for files in episodes for name in files}
    outside = tuple(name for name in names if name not in used)
    return StepRanges({files[0]: tuple(files) for files in episodes}, outside)


def _child(folder: SourceFolder, below: str) -> SourceFolder:
    return folder.child(below) if below else folder


def _joined(below: str, names: Sequence[str]) -> tuple[str, ...]:
    return tuple(f"{below}/{name}".lstrip("/") for name in names)


def _numbered(name: str, number: int) -> str:
    """Return the name of the step file with another number."""
    stem, dot, ending = name.rpartition(".")
    return NUMBER.sub(lambda match: f"{number:0{len(match[0])}d}", stem) + dot + ending


def _checked(array: StoredArray, where: str) -> list[tuple[int, int]]:
    """Read the ranges, in order."""
    header = array.header()
    if header.dtype.kind not in "iu" or len(header.shape) != 2 or header.shape[1] != 2 or header.size > COLUMN_BYTES:
        message = f"expected whole numbers [episodes, 2], got {header.dtype} {list(header.shape)}"
        raise SourceError(message, reason="bad_ends", file=where)
    array.check()
    ranges = sorted((int(first), int(last)) for first, last in array.read())
    for first, last in ranges:
        if not 0 <= first <= last < first + MAX_STEPS:
            raise SourceError(f"the range {first} to {last} is not one of steps", reason="bad_ends", file=where)
    for (start, end), (first, last) in pairwise(ranges):
        if first <= end:
            message = f"the ranges {start} to {end} and {first} to {last} overlap (both ends belong to an episode)"
            raise SourceError(message, reason="bad_ends", file=where)
    return ranges


def folder_steps(folder: SourceFolder, episode: str, source: FolderSource) -> tuple[str, ...]:
    """List the step files of the folder of an episode, in the order of their numbers; a gap is an error."""
    names = matching(_child(folder, episode), str(source.step_files))
    if not names:
        message = f"no file here is called '{source.step_files}' (source.step_files)"
        raise SourceError(message, reason="missing_file")
    ordered = sorted(names, key=natural_key)
    if not covers(source.unnumbered, "step_files"):
        hint = "if the names do not count the steps, declare source.unnumbered = ['step_files']"
        numbers = [NUMBER.search(name.rpartition(".")[0]) for name in ordered]
        for (before, low), (after, high) in pairwise(zip(ordered, numbers, strict=True)):
            if low is None or high is None or int(high[0]) != int(low[0]) + 1:
                message = f"steps are missing between {before} and {after}; {hint}"
                raise SourceError(message, reason="frame_count")
    return _joined(episode, ordered)


def step_fields(folder: SourceFolder, files: Sequence[str], source: FolderSource) -> dict[str, LazyField]:
    """Describe the fields of an episode whose steps are in `files`; raise SourceError if a file is missing."""
    if missing := [name for name, size in folder.sizes(files).items() if size is None]:
        shown = missing[0].rpartition("/")[2]
        message = f"{len(missing)} of {len(files)} step files are missing, such as {shown}"
        raise SourceError(message, reason="missing_file")
    if len({name[name.rfind(".") :].lower() for name in files}) > 1:
        raise SourceError("step files of several types: let source.step_files match one", reason="unsupported_field")
    if files[0].lower().endswith(".json"):
        return object_columns([read_file(folder, name, TABLE_LIMIT) for name in files], source.ignore)
    if not files[0].lower().endswith(ARRAYS):
        message = f"source.step_files reads npz, npy and json, not {files[0].rpartition('/')[2]}"
        raise SourceError(message, reason="unsupported_field")
    described = {}
    for path, array in stored_arrays(folder, files[0], ignore=source.ignore).items():
        leaf = _leaf(array)
        described[path] = LazyField(leaf=leaf, count=len(files), read=_column(folder, files, source, leaf=leaf))
    return described


def _leaf(array: StoredArray) -> Leaf:
    header = array.header()
    leaf = array_leaf(array.path, header.dtype, (1, *header.shape), is_value=False)
    array.check()
    return leaf


def _column(folder: SourceFolder, files: Sequence[str], source: FolderSource, *, leaf: Leaf) -> Callable[[int], Any]:
    """Return the function that reads one array of the first files."""
    path = leaf.field.path

    def step(name: str) -> Array:
        arrays = stored_arrays(folder, name, ignore=source.ignore)
        if path not in arrays:
            raise SourceError(f"'{path}' is missing in {name.rpartition('/')[2]}", reason="contradicts_fields")
        check_same(leaf, _leaf(arrays[path]))
        return arrays[path].read()

    def read(rows: int) -> Any:
        if leaf.form == "frames":
            images = (encode(np.ascontiguousarray(step(name)), source.images or "png") for name in files[:rows])
            return collect_bytes(images, path, limit=COLUMN_BYTES)
        if leaf.form == "texts":
            cells = (step(name).item() for name in files[:rows])
            return [cell.encode() if isinstance(cell, str) else cell for cell in cells]
        size = np.dtype(leaf.field.dtype).itemsize * prod(side or 0 for side in leaf.field.shape)
        check_size(leaf, rows=rows, size=size * rows)
        values = [step(name).astype(leaf.field.dtype, copy=False) for name in files[:rows]]
        return np.stack(values) if values else np.empty((0, *leaf.field.shape), leaf.field.dtype)

    return read


def step_like(folder: SourceFolder, below: str, names: Sequence[str]) -> str | None:
    """Return a pattern of files that each seem to hold one step; None if there are none.

    These are numbered files whose arrays have the same shapes in each, and vectors of different lengths, or no array
    with several rows. Numbered JSON files are steps if the folder of an episode holds no other table.
    """
    for ending in (*ARRAYS, ".json"):
        files = [name for name in names if name.lower().endswith(ending)]
        shapes = {template(name) for name in files}
        stems = [name.rpartition(".")[0] for name in files]
        if len(files) < 2 or len(shapes) > 1 or "#" not in min(shapes):
            continue
        if ending != ".npz" and not all(map(STEP_NAME.fullmatch, stems)):
            continue
        if ending == ".json":
            is_steps = bool(below) and not any(name.lower().endswith((*ARRAYS, ".csv", ".jsonl")) for name in names)
        else:
            sample = [files[i * (len(files) - 1) // (SAMPLE - 1)] for i in range(SAMPLE)]
            is_steps = _are_steps([array_shapes(folder, f"{below}/{name}".lstrip("/")) for name in sample])
        if is_steps:
            return f"{min(shapes).partition('#')[0]}*{ending}"
    return None


def array_shapes(folder: SourceFolder, name: str) -> dict[str, tuple[np.dtype, tuple[int, ...]]]:
    """Return the types and shapes of the arrays in a file; empty if it cannot be read."""
    try:
        with reading(name):
            headers = {path: array.header() for path, array in stored_arrays(folder, name).items()}
    except SourceError:  # it is reported when the episode is read
        return {}
    return {path: (header.dtype, header.shape) for path, header in headers.items()}


def _are_steps(files: Sequence[dict[str, tuple[np.dtype, tuple[int, ...]]]]) -> bool:
    """Whether files with arrays of these types and shapes each hold one step."""
    shapes = [shape for kind, shape in files[0].values() if not (kind == np.uint8 and len(shape) == 3)]
    if any(other != files[0] for other in files) or not any(shapes):
        return False
    lengths = {shape[0] for shape in shapes if len(shape) == 1}
    rows = Counter(shape[0] for shape in shapes if len(shape) == 2 and shape[0] != shape[1])
    if any(count > 1 and row >= max(lengths, default=0) for row, count in rows.items()):
        return False  # two arrays have the same rows, which are the steps
    return len(lengths) > 1 or (bool(lengths) and all(len(shape) < 2 for shape in shapes))
