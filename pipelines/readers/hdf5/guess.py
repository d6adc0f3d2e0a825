"""Guess the layout of HDF5 files without a declaration: their episodes, per-episode datasets and JSON texts."""

from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import h5py

from pipelines.readers.documents import EXACT
from pipelines.readers.folder import SourceFolder
from pipelines.readers.groups import EpisodeGroups, guess_groups, listed
from pipelines.readers.hdf5 import tree
from pipelines.readers.hdf5.columns import value_field
from pipelines.readers.hdf5.episode import PARENT, Hdf5Episode
from pipelines.readers.lengths import per_episode_paths
from pipelines.readers.names import covers
from schemas.declarations.formats import Hdf5Source
from schemas.errors import SourceError
from schemas.limits import VALUE_BYTES
from schemas.parsing import parse_json

MAX_FILES, MAX_EPISODES = 10, 5  # files, and episodes of each of them, that a guess rests on
MAX_VALUES = 20  # values in the JSON texts of an episode
INSTRUCTION = {"lang", "language", "instruction", "task", "prompt", "description"}


@dataclass(frozen=True, slots=True)
class Hdf5Guess:
    """The guessed table `source`, and why each of its keys was guessed."""

    source: Hdf5Source
    groups: EpisodeGroups
    why: Mapping[str, str] = field(default_factory=dict)


def guess_source(folder: SourceFolder, names: Collection[str], *, where: str) -> Hdf5Guess:
    """Guess the layout from the first files that can be opened.

    Raises UsageError, which starts with `where`, if the episodes may be in several places.
    """
    with ExitStack() as stack:
        files: dict[str, h5py.File] = {}
        for name in islice(names, MAX_FILES):
            try:
                files[name] = stack.enter_context(tree.open_hdf5(folder, name))
            except SourceError:  # reported when the file is read
                continue
        groups = guess_groups({name: tree.Hdf5Tree(file) for name, file in files.items()}, where=where)
        source = Hdf5Source(format="hdf5", episodes=groups.pattern, ignore=groups.ignore)
        sample = [
            episode for name, file in files.items() for episode in _episodes(file, name, folder=folder, source=source)
        ]
        whole = _per_episode(sample)
        in_json = _in_json(sample)
        why = groups.reasons(whole, episodes=len(sample))
        if in_json:
            why["in_json"] = f"{listed(in_json)}, values in texts that hold JSON objects"
        return Hdf5Guess(source.model_copy(update={"per_episode": whole, "in_json": in_json}), groups, why)


def _episodes(file: h5py.File, name: str, *, folder: SourceFolder, source: Hdf5Source) -> Iterator[Hdf5Episode]:
    """Open the first episodes of a file that can be opened."""
    try:
        groups = tree.match_groups(file, source.episodes or "/", source.ignore)[:MAX_EPISODES]
    except (SourceError, *tree.DAMAGE):
        return
    for group in groups:
        try:
            yield Hdf5Episode(file, group, folder=folder, file_name=name, source=source)
        except (SourceError, *tree.DAMAGE):
            continue


def _per_episode(sample: Collection[Hdf5Episode]) -> tuple[str, ...]:
    """Return the datasets that can be per-episode values and have no row per step."""
    shapes = [
        {path: dataset.shape for path, dataset in episode.datasets.items() if dataset.shape and dataset.size}
        for episode in sample
    ]
    texts = {path for episode in sample for path, one in episode.datasets.items() if h5py.check_string_dtype(one.dtype)}
    paths = per_episode_paths(shapes, texts)
    datasets = [(path, dataset) for episode in sample for path, dataset in episode.datasets.items()]
    return tuple(
        path for path in paths if all(_fits(inner, dataset) for inner, dataset in datasets if covers([path], inner))
    )


def _fits(path: str, dataset: h5py.Dataset) -> bool:
    try:
        value_field(path, dataset.dtype, dataset.shape)
    except SourceError:
        return False
    return bool(dataset.dtype.itemsize * dataset.size <= VALUE_BYTES)


def _in_json(sample: Collection[Hdf5Episode]) -> tuple[str, ...]:
    """Return the paths of values in the JSON texts that every episode has: all at their top, and instructions."""
    common: dict[str, int] = {}
    for episode in sample:
        for path in islice(_json_paths(episode), MAX_VALUES):
            common[path] = common.get(path, 0) + 1
    return tuple(path for path, count in common.items() if count == len(sample))


def _json_paths(episode: Hdf5Episode) -> Iterator[str]:
    texts = [path for path, dataset in episode.datasets.items() if dataset.shape == ()]
    for path in [*episode.attributes, *texts]:
        content = _json_object(episode, path)
        for keys, value in _values(content or {}):
            is_instruction = isinstance(value, str) and INSTRUCTION & {*keys[-1].lower().split("_")}
            if is_instruction or (len(keys) == 1 and not covers([PARENT], path)):
                yield ".".join((path, *keys))


def _json_object(episode: Hdf5Episode, path: str) -> dict[str, Any] | None:
    """Return the JSON object that a text holds; None if it does not hold one."""
    try:
        leaf, text = episode.per_episode(path)
        content = parse_json(text) if leaf and isinstance(text, str) and text.lstrip().startswith("{") else None
    except (SourceError, ValueError, RecursionError, *tree.DAMAGE):
        return None
    return content if isinstance(content, dict) else None


def _values(content: Mapping[str, Any], keys: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield the texts, booleans and numbers in a JSON object and in the objects inside, with their keys."""
    for key, value in content.items():
        if isinstance(value, dict):
            yield from _values(value, (*keys, key))
        elif key and "." not in key and (isinstance(value, str | float) or _is_exact(value)):
            yield (*keys, key), value


def _is_exact(value: Any) -> bool:
    """Whether a value is a boolean, or an integer that a float64 represents."""
    return isinstance(value, int) and abs(value) <= EXACT
