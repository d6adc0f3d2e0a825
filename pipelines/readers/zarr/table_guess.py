"""Guess how the rows of a Zarr store are divided into episodes."""

from functools import partial
from typing import Any

from pipelines.readers.episode_rows import RowGuess, divide, guess, guess_ends
from pipelines.readers.zarr.arrays import ZarrRows, arrays_of, open_root
from pipelines.readers.zarr.buffer import is_step, path_of, row_table
from pipelines.readers.zarr.store import SourceStore, StoreFiles
from schemas.declarations.formats import ZarrSource
from schemas.errors import SourceError


def guess_rows(files: StoreFiles) -> tuple[ZarrSource, dict[str, str]]:
    """Return the layout of a store, and the keys that were guessed; both are the default ones if nothing shows another.

    Raises SourceError if the store cannot be read.
    """
    source = ZarrSource(format="zarr")
    arrays = _arrays(files, source)
    if source.ends_at in arrays:
        return source, {}
    steps = source.steps if any(is_step(source, place) for place in arrays) else ""
    rows = {place.replace("/", "."): ZarrRows(array, place) for place, array in arrays.items()}
    if ends := guess_ends(row_table(rows)):
        place = next(place for place in arrays if place.replace("/", ".") == ends.value)
        return _guessed(source, RowGuess("episode_ends", place, ends.evidence), steps=steps)
    whole = ZarrSource(format="zarr", steps=steps, fill=tuple(path_of(source, place) for place in arrays))
    key = guess(row_table(_step_rows(files, whole)))
    if key is None:
        return source, {}
    source, guesses = _guessed(source, key, steps=steps)
    try:
        divide(row_table(_step_rows(files, source)), source)
    except SourceError as error:
        if error.reason != "missing_chunk":
            raise
        flags = (key.value,) if isinstance(key.value, str) else key.value
        guesses["fill"] = f"{list(flags)}, because chunks are missing, as zarr leaves out those without a true flag"
        source = source.model_copy(update={"fill": flags})
    return source, guesses


def _arrays(files: StoreFiles, source: ZarrSource) -> dict[str, Any]:
    store = SourceStore(files, path_of=partial(path_of, source), fill=source.fill)
    return arrays_of(store, open_root(store), lambda _: False)


def _step_rows(files: StoreFiles, source: ZarrSource) -> dict[str, ZarrRows]:
    arrays = _arrays(files, source)
    return {path_of(source, place): ZarrRows(array, place) for place, array in arrays.items() if is_step(source, place)}


def _guessed(source: ZarrSource, key: RowGuess, *, steps: str) -> tuple[ZarrSource, dict[str, str]]:
    keys: dict[str, Any] = key.keys
    guesses = {key.key: str(key)}
    if steps != source.steps:
        keys["steps"] = steps
        guesses["steps"] = f'"{steps}", because there is no array below "{source.steps}"'
    return source.model_copy(update=keys), guesses
