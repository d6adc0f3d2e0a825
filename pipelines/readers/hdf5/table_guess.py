"""Guess whether the groups or files of HDF5 sources are tables with the rows of many episodes."""

from collections.abc import Collection
from dataclasses import replace
from itertools import islice
from typing import Any

import h5py

from pipelines.readers.episode_rows import UNDIVIDED, RowGuess, guess_column, guess_ends
from pipelines.readers.episode_rows import guess as guess_key
from pipelines.readers.folder import SourceFolder
from pipelines.readers.hdf5 import tree
from pipelines.readers.hdf5.episode import Hdf5Episode
from pipelines.readers.hdf5.guess import Hdf5Guess
from pipelines.readers.hdf5.rows import Hdf5Table, row_table
from schemas.declarations.formats import Hdf5Source
from schemas.errors import SourceError

WHOLE_FILE = Hdf5Source(format="hdf5", episodes="/")
MAX_FILES = 8  # files that are looked at


def table_key(episode: Hdf5Episode, *, is_file: bool) -> RowGuess | None:
    """Return the key that divides the rows of a file or group; None if nothing in it shows more than one episode.

    Flags in a group say nothing: a group is an episode in all known layouts, and its flags may mean success.
    """
    table = row_table(episode.datasets)
    return guess_key(table) if is_file else guess_ends(table) or guess_column(table)


def guess_rows(guess: Hdf5Guess, folder: SourceFolder, names: Collection[str]) -> Hdf5Guess:
    """Add the key that divides the rows to a guess, from the first table of the first files that can be read.

    Columns outside the guessed groups that show several episodes make the whole file a table: the groups are then
    something else, such as the weights of a policy.
    """
    for name in islice(names, MAX_FILES):
        try:
            with tree.open_hdf5(folder, name) as file, tree.reading(folder.path(name)):
                groups = tree.match_groups(file, guess.source.episodes or "/", guess.source.ignore)
                if not guess.source.is_whole_file and _outside(file, groups):
                    guess = Hdf5Guess(WHOLE_FILE, replace(guess.groups, pattern="/"))
                    groups = ["/"]
                for group in groups[:1]:
                    where: dict[str, Any] = {"folder": folder, "file_name": name}
                    whole = guess.source.is_whole_file
                    key = table_key(Hdf5Episode(file, group, source=guess.source, **where), is_file=whole)
                    if key:
                        source = _source(guess.source, key)
                        return _with_key(guess, key, Hdf5Table(file, group, source=source, **where))
        except SourceError as error:
            if error.reason in UNDIVIDED:
                raise
    return guess


def _outside(file: h5py.File, groups: Collection[str]) -> RowGuess | None:
    """Return the key that divides the rows of the datasets outside some groups."""
    datasets, _ = tree.datasets(file["/"], [group.strip("/").replace("/", ".") for group in groups])
    return guess_key(row_table(datasets))


def _source(source: Hdf5Source, key: RowGuess) -> Hdf5Source:
    at = None if source.is_whole_file else source.episodes
    return source.model_copy(update={"episodes": at, "per_episode": (), **key.keys})


def _with_key(guess: Hdf5Guess, key: RowGuess, table: Hdf5Table) -> Hdf5Guess:
    """Return the guess with the key, and with those of the datasets that are neither per step nor per episode."""
    why = {name: text for name, text in guess.why.items() if name != "per_episode"}
    if table.source.episodes is None:
        why.pop("episodes", None)
    odd = {name: tuple(paths) for name, paths in table.odd_paths().items()}
    why |= {name: f"{[*paths]}, because their rows are neither steps nor episodes" for name, paths in odd.items()}
    odd = {name: (*getattr(table.source, name), *paths) for name, paths in odd.items()}
    source = table.source.model_copy(update=odd)
    return replace(guess, source=source, why={**why, key.key: str(key)})
