"""Find, describe and read the fields of one episode in an open HDF5 file."""

from collections.abc import Collection, Mapping
from math import prod
from typing import Any

import h5py

from pipelines.readers.documents import json_leaf, json_value, value_at
from pipelines.readers.fields import Leaf, check_same, or_ignore
from pipelines.readers.folder import SourceFolder
from pipelines.readers.hdf5 import tree
from pipelines.readers.hdf5.columns import byte_size, column, leaf_of, value, value_field
from pipelines.readers.names import covers
from pipelines.readers.sidecars import Sidecars, placeholders
from schemas.declarations.formats import Hdf5Source
from schemas.errors import SourceError, SpecError, did_you_mean
from schemas.limits import EPISODE_BYTES, MAX_FIELDS, VALUE_BYTES, check_limit
from schemas.source import Column, Field

EPISODE_PATH, OWN, PARENT = "episode_path", "attrs", "parent"  # a field of every source; prefixes of attributes
FILE, EPISODE = "file", "episode"  # placeholders: the file's name without its ending, and the group's name


class Hdf5Episode:
    """One episode: the datasets below its group, its attributes, and the sidecar files that the declaration names."""

    start = 0  # the row of the datasets with the first step

    def __init__(self, file: h5py.File, name: str, *, folder: SourceFolder, file_name: str, source: Hdf5Source) -> None:
        """List the datasets and attributes of the group `name`; no values are read."""
        group = tree.group_at(file, name)
        self.source = source
        self.datasets, empty_groups = tree.datasets(group, source.ignore)
        self.empty = _empty_datasets(self.datasets, source.per_episode)
        self.empty_groups = tuple(empty_groups)
        self.attributes = _attributes(group, source.ignore)
        below, _, last = file_name.rpartition("/")
        self.sidecars = Sidecars(folder, below)
        self._values: dict[str, tuple[Leaf | None, Any]] = {
            EPISODE_PATH: (_text_leaf(EPISODE_PATH), f"{file_name}{name.rstrip('/')}"),
            FILE: (_text_leaf(FILE), last.rpartition(".")[0]),
            EPISODE: (_text_leaf(EPISODE), name.rpartition("/")[2]),
        }

    def leaves(self) -> dict[str, Leaf]:
        """Describe the fields that hold values; raise SpecError if the declaration names one that is missing."""
        source = self.source
        self._check_keys()
        stored = {path: dataset for path, dataset in self.datasets.items() if path not in self.empty}
        leaves = [self._describe(path, dataset) for path, dataset in stored.items()]
        for path in (EPISODE_PATH, *self.attributes, *source.beside, *source.in_json):
            leaf, _ = self.per_episode(path)
            if leaf is None:
                raise SpecError(
                    f"source.in_json: there is nothing at '{path}'{did_you_mean(path, self._candidates(path))}"
                )
            leaves.append(leaf)
        leaves += [
            Leaf(Field(path=path, kind="image", dtype="uint8", shape=(None, None, 3)), "video")
            for path in source.videos
        ]
        by_path: dict[str, Leaf] = {}
        for leaf in leaves:
            if leaf.field.path in by_path:
                raise SourceError(f"two fields are called {leaf.field.path}", reason="unsupported_field")
            by_path[leaf.field.path] = leaf
        return by_path

    def empty_shapes(self) -> dict[str, str]:
        """Describe what holds no values: `the shape is [6, 0]` or `an empty group`, by path."""
        shapes = {path: f"the shape is {list(self.datasets[path].shape)}" for path in sorted(self.empty)}
        return shapes | dict.fromkeys(self.empty_groups, "an empty group")

    def _check_keys(self) -> None:
        """Raise SpecError if a key of `source` names a field that the episode lacks."""
        source, paths = self.source, [*self.datasets, *self.source.videos]
        missing = [("frames", path) for path in source.frames if path not in self.datasets]
        for key, prefixes in (("per_episode", source.per_episode), ("drop_last", source.drop_last)):
            missing += [(key, prefix) for prefix in prefixes if not any(covers([prefix], path) for path in paths)]
        for key, path in missing:
            raise SpecError(f"source.{key}: there is no '{path}'{did_you_mean(path, paths)}")
        known = [*self._values, *self.attributes, *source.beside, *source.in_json]
        for key, patterns in (("beside", source.beside), ("videos", source.videos)):
            for pattern in patterns.values():
                for path in placeholders(pattern):
                    if path not in {*known, *self.datasets}:
                        raise SpecError(f"source.{key}: '{{{path}}}' is not a value{did_you_mean(path, known)}")

    def per_episode(self, path: str) -> tuple[Leaf | None, Any]:
        """Describe and read a per-episode value; return (None, None) if the attribute or key is missing."""
        if path not in self._values:
            self._values[path] = None, None  # stops a pattern that refers to itself
            self._values[path] = self._per_episode(path)
        return self._values[path]

    def _per_episode(self, path: str) -> tuple[Leaf | None, Any]:
        source = self.source
        if path in source.in_json:
            return self._in_json(path)
        if path in source.beside:
            name = self.sidecars.find(source.beside[path], self._value, missing="missing_file")
            return _text_leaf(path), self.sidecars.text(name)
        if path in self.datasets:
            leaf = self._leaf(path)
            return leaf, self._stored_value(leaf) if leaf.form == "value" else None
        if path not in self.attributes:
            return None, None
        holder, name = self.attributes[path]
        attribute = holder.attrs.get_id(name)
        size = attribute.dtype.itemsize * prod(attribute.shape or ())
        check_limit(size, VALUE_BYTES, "bytes for one value per episode", what=path)
        field = value_field(path, attribute.dtype, attribute.shape)
        return Leaf(field, "value"), value(field, holder.attrs[name])

    def _stored_value(self, leaf: Leaf) -> Any:
        return value(leaf.field, self.datasets[leaf.field.path][()])

    def _value(self, path: str) -> Any:
        return self.per_episode(path)[1]

    def _in_json(self, path: str) -> tuple[Leaf | None, Any]:
        base, keys = self._text_and_keys(path)
        leaf, text = self.per_episode(base) if base else (None, None)
        if text is None:
            return None, None
        if leaf is None or leaf.field.kind != "text" or leaf.field.ragged:
            raise SourceError(f"{base} is not a text; source.in_json says it is", reason="bad_json")
        content = value_at(text, keys, path=base)
        return (None, None) if content is None else (json_leaf(path, content), json_value(content))

    def _text_and_keys(self, path: str) -> tuple[str, list[str]]:
        """Split a path of `in_json` into the longest prefix that is the path of a text, and the keys in that text."""
        words = path.split(".")
        texts = {*self.attributes, *self.datasets, *self.source.beside}
        ends = [end for end in range(1, len(words)) if ".".join(words[:end]) in texts]
        return (".".join(words[: ends[-1]]), words[ends[-1] :]) if ends else ("", words)

    def _candidates(self, path: str) -> list[str]:
        """List the paths that the error for a wrong path of `in_json` chooses suggestions from."""
        base, keys = self._text_and_keys(path)
        if not base:
            return [*self.attributes, *self.source.beside]
        content = value_at(self.per_episode(base)[1] or "null", keys[:-1], path=base)
        prefix = path.removesuffix(keys[-1])
        return [f"{prefix}{key}" for key in content] if isinstance(content, dict) else []

    def read(
        self, expected: Mapping[str, Leaf], columns: Collection[str] | None
    ) -> tuple[dict[str, Column], dict[str, Any]]:
        """Read the columns and the per-episode values; raise SourceError if they differ from the first episode's."""
        self._check(expected)
        leaves = [leaf for path, leaf in expected.items() if columns is None or path in columns]
        metadata: dict[str, Any] = {}
        for leaf in leaves:
            if not leaf.field.per_step:
                actual, metadata[leaf.field.path] = self.per_episode(leaf.field.path)
                if actual:
                    check_same(leaf, actual)
        stored = [leaf for leaf in leaves if leaf.field.per_step and leaf.form != "video"]
        numbers = sum(byte_size(self.datasets[leaf.field.path]) for leaf in stored if leaf.form == "numbers")
        check_limit(numbers, EPISODE_BYTES, "bytes of numbers in one episode")
        steps = {leaf.field.path: self._column(leaf) for leaf in stored}
        rows = len(next(iter(steps.values()))) if steps else self._rows(expected)
        steps |= {leaf.field.path: self._video(leaf.field.path, rows) for leaf in leaves if leaf.form == "video"}
        return steps, metadata

    def _check(self, expected: Mapping[str, Leaf]) -> None:
        """Raise SourceError if the episode lacks a field of the first episode, or has one that the first lacks."""
        known = expected.keys() - {EPISODE_PATH, *self.source.beside, *self.source.in_json, *self.source.videos}
        actual = self.datasets.keys() | self.attributes.keys()
        missing = sorted(path for path in known - actual if not covers([OWN, PARENT], path))
        more = sorted(actual - known - self.empty)
        if missing:
            raise SourceError(f"'{missing[0]}' is missing, but the first episode has it", reason="contradicts_fields")
        if more:
            message = f"'{more[0]}' is not in the first episode; {or_ignore(more[0])}"
            raise SourceError(message, reason="contradicts_fields")

    def _rows(self, expected: Mapping[str, Leaf]) -> int:
        """Return the number of steps from the shape of a dataset, for when no column is read."""
        paths = [path for path, leaf in expected.items() if leaf.field.per_step and path in self.datasets]
        return self._count(paths[0]) if paths else 0

    def _count(self, path: str) -> int:
        shape = self.datasets[path].shape
        return max(0, shape[0] - covers(self.source.drop_last, path)) if shape else 0

    def _describe(self, path: str, dataset: h5py.Dataset) -> Leaf:
        return leaf_of(path, dataset, self.source.per_episode, frames=self.source.frames)

    def _leaf(self, path: str) -> Leaf:
        """Describe a dataset; raise SourceError if it does not match the declaration, as the first episode's did."""
        try:
            return self._describe(path, self.datasets[path])
        except SpecError as error:
            raise SourceError(str(error), reason="contradicts_fields") from error

    def _column(self, leaf: Leaf) -> Column:
        path = leaf.field.path
        dataset = self.datasets[path]
        actual = self._leaf(path)
        if actual.form == "value" or dataset.shape[0]:  # the encoding of a dataset without frames is unknown
            check_same(leaf, actual)
        images = self.source.images or "png"
        rows, frames = self._count(path), self.source.frames
        return column(leaf, dataset, start=self.start, rows=rows, images=images, frames=frames)

    def _video(self, path: str, rows: int) -> Column:
        name = self.sidecars.find(self.source.videos[path], self._value, missing="missing_video")
        more = covers(self.source.drop_last, path)
        return self.sidecars.video(name, frames=rows + more, used=rows, images=self.source.images or "jpeg 95")


def _empty_datasets(datasets: Mapping[str, h5py.Dataset], per_episode: Collection[str]) -> frozenset[str]:
    """Return the datasets without values: [T, 0], or without rows although others have rows."""
    shapes = {path: dataset.shape for path, dataset in datasets.items() if dataset.shape}
    has_rows = any(shape[0] for path, shape in shapes.items() if not covers(per_episode, path))
    return frozenset(path for path, shape in shapes.items() if 0 in shape[1:] or (has_rows and not shape[0]))


def _text_leaf(path: str) -> Leaf:
    return Leaf(Field(path=path, kind="text", per_step=False), "value")


def _attributes(group: h5py.Group, ignore: Collection[str]) -> dict[str, tuple[h5py.Group, str]]:
    """Return where the attributes of a group and of its parent are: the group and the attribute's name, by path."""
    holders = {OWN: group} if group.name == "/" else {OWN: group, PARENT: group.parent}
    check_limit(sum(len(owner.attrs) for owner in holders.values()), MAX_FIELDS, "attributes", what=group.name)
    by_path = {f"{prefix}.{name}": (owner, name) for prefix, owner in holders.items() for name in owner.attrs}
    return {path: attribute for path, attribute in by_path.items() if not covers(ignore, path)}
