"""One episode of an opened HDF5 file: which fields it has, and where each of them is."""

from collections.abc import Collection, Mapping
from typing import Any

import h5py

from pipelines.readers.beside import PLACEHOLDER, Beside
from pipelines.readers.documents import inside, json_leaf, json_value
from pipelines.readers.fields import Leaf, check_same
from pipelines.readers.folder import SourceFolder
from pipelines.readers.hdf5 import tree
from pipelines.readers.hdf5.columns import column, leaf_of, value, value_field
from pipelines.readers.names import covers
from schemas.declarations.formats import Hdf5Source
from schemas.errors import SourceError, SpecError, did_you_mean
from schemas.source import Column, Field

PLACE, OWN, PARENT = "episode_path", "attrs", "parent"  # per-episode fields that every source has, or may have
FILE, EPISODE = "file", "episode"  # placeholders: the file's name without its ending, the group's own name


class Held:
    """One episode: the datasets below its group, its attributes, and what the declaration names beside the file."""

    def __init__(self, file: h5py.File, name: str, *, folder: SourceFolder, file_name: str, source: Hdf5Source) -> None:
        """Walk the group `name`; no values are read."""
        group = tree.group_at(file, name)
        self.source = source
        self.datasets = tree.datasets(group, source.ignore)
        self.attributes = _attributes(group, source.ignore)
        below, _, last = file_name.rpartition("/")
        self.beside = Beside(folder, below)
        self._values: dict[str, tuple[Leaf | None, Any]] = {
            PLACE: (_text(PLACE), f"{file_name}{name.rstrip('/')}"),
            FILE: (_text(FILE), last.rpartition(".")[0]),
            EPISODE: (_text(EPISODE), name.rpartition("/")[2]),
        }

    def leaves(self) -> dict[str, Leaf]:
        """Describe every field; what the declaration names and the episode does not have is a SpecError."""
        source = self.source
        self._check_keys()
        found = [self._described(path, dataset) for path, dataset in self.datasets.items()]
        for path in (PLACE, *self.attributes, *source.beside, *source.in_json):
            leaf, _ = self.once(path)
            if leaf is None:
                raise SpecError(f"source.in_json: there is nothing at '{path}'{did_you_mean(path, self._near(path))}")
            found.append(leaf)
        found += [
            Leaf(Field(path=path, kind="image", dtype="uint8", shape=(None, None, 3)), "video")
            for path in source.videos
        ]
        named: dict[str, Leaf] = {}
        for leaf in found:
            if leaf.field.path in named:
                raise SourceError(f"two fields are called {leaf.field.path}", reason="unsupported_field")
            named[leaf.field.path] = leaf
        return named

    def _check_keys(self) -> None:
        """Refuse keys that name what the episode does not have."""
        source, paths = self.source, [*self.datasets, *self.source.videos]
        missing = [("frames", path) for path in source.frames if path not in self.datasets]
        for key, prefixes in (("per_episode", source.per_episode), ("drop_last", source.drop_last)):
            missing += [(key, prefix) for prefix in prefixes if not any(covers([prefix], path) for path in paths)]
        for key, path in missing:
            raise SpecError(f"source.{key}: there is no '{path}'{did_you_mean(path, paths)}")
        known = [*self._values, *self.attributes, *source.beside, *source.in_json]
        for key, patterns in (("beside", source.beside), ("videos", source.videos)):
            for pattern in patterns.values():
                for path in PLACEHOLDER.findall(pattern):
                    if path not in {*known, *self.datasets}:
                        raise SpecError(f"source.{key}: '{{{path}}}' is no value{did_you_mean(path, known)}")

    def once(self, path: str) -> tuple[Leaf | None, Any]:
        """Describe and read a value of the whole episode; None twice for an attribute or a key that is not there."""
        if path not in self._values:
            self._values[path] = None, None  # for a pattern that needs itself
            self._values[path] = self._once(path)
        return self._values[path]

    def _once(self, path: str) -> tuple[Leaf | None, Any]:
        source = self.source
        if path in source.in_json:
            return self._in_json(path)
        if path in source.beside:
            name = self.beside.find(source.beside[path], self._word, missing="missing_file")
            return _text(path), self.beside.text(name)
        if path in self.datasets:
            leaf = self._leaf(path)
            return leaf, value(leaf.field, self.datasets[path][()]) if leaf.form == "value" else None
        if path not in self.attributes:
            return None, None
        holder, name = self.attributes[path]
        held = holder.attrs.get_id(name)
        field = value_field(path, held.dtype, held.shape)
        return Leaf(field, "value"), value(field, holder.attrs[name])

    def _word(self, path: str) -> Any:
        return self.once(path)[1]

    def _in_json(self, path: str) -> tuple[Leaf | None, Any]:
        base, keys = self._base(path)
        leaf, text = self.once(base) if base else (None, None)
        if text is None:
            return None, None
        if leaf is None or leaf.field.kind != "text" or leaf.field.ragged:
            raise SourceError(f"{base} is no text, as source.in_json says it is", reason="bad_json")
        found = inside(text, keys, path=base)
        return (None, None) if found is None else (json_leaf(path, found), json_value(found))

    def _base(self, path: str) -> tuple[str, list[str]]:
        """Take a path of `in_json` apart: the longest part that is a text, and the keys inside it."""
        words = path.split(".")
        texts = {*self.attributes, *self.datasets, *self.source.beside}
        ends = [end for end in range(1, len(words)) if ".".join(words[:end]) in texts]
        return (".".join(words[: ends[-1]]), words[ends[-1] :]) if ends else ("", words)

    def _near(self, path: str) -> list[str]:
        """Name what a path of `in_json` may have meant."""
        base, keys = self._base(path)
        if not base:
            return [*self.attributes, *self.source.beside]
        there = inside(self.once(base)[1] or "null", keys[:-1], path=base)
        above = path.removesuffix(keys[-1])
        return [f"{above}{key}" for key in there] if isinstance(there, dict) else []

    def read(
        self, wanted: Mapping[str, Leaf], columns: Collection[str] | None
    ) -> tuple[dict[str, Column], dict[str, Any]]:
        """Read what there is per step, and what there is once; what is not as in the first episode is a SourceError."""
        self._check(wanted)
        asked = [leaf for path, leaf in wanted.items() if columns is None or path in columns]
        metadata: dict[str, Any] = {}
        for leaf in asked:
            if not leaf.field.per_step:
                found, metadata[leaf.field.path] = self.once(leaf.field.path)
                if found:
                    check_same(leaf, found)
        held = [leaf for leaf in asked if leaf.field.per_step and leaf.form != "video"]
        steps = {leaf.field.path: self._column(leaf) for leaf in held}
        rows = len(next(iter(steps.values()))) if steps else self._rows(wanted)
        steps |= {leaf.field.path: self._video(leaf.field.path, rows) for leaf in asked if leaf.form == "video"}
        return steps, metadata

    def _check(self, wanted: Mapping[str, Leaf]) -> None:
        """Refuse an episode that lacks a dataset of the first one, or holds more: that would be lost."""
        known = wanted.keys() - {PLACE, *self.source.beside, *self.source.in_json, *self.source.videos}
        found = self.datasets.keys() | self.attributes.keys()
        missing = sorted(path for path in known - found if not covers([OWN, PARENT], path))
        more = sorted(found - known)
        if missing:
            raise SourceError(f"there is no '{missing[0]}', which the first episode has", reason="contradicts_fields")
        if more:
            message = f"'{more[0]}' is not in the first episode; leave it out with source.ignore = ['{more[0]}']"
            raise SourceError(message, reason="contradicts_fields")

    def _rows(self, wanted: Mapping[str, Leaf]) -> int:
        """Count the steps where no column is read."""
        paths = [path for path, leaf in wanted.items() if leaf.field.per_step and path in self.datasets]
        return self._count(paths[0]) if paths else 0

    def _count(self, path: str) -> int:
        shape = self.datasets[path].shape
        return max(0, shape[0] - covers(self.source.drop_last, path)) if shape else 0

    def _described(self, path: str, dataset: h5py.Dataset) -> Leaf:
        return leaf_of(path, dataset, self.source.per_episode, frames=self.source.frames)

    def _leaf(self, path: str) -> Leaf:
        """Describe a dataset; what does not fit the declaration is wrong with this episode, not with that."""
        try:
            return self._described(path, self.datasets[path])
        except SpecError as error:
            raise SourceError(str(error), reason="contradicts_fields") from error

    def _column(self, leaf: Leaf) -> Column:
        path = leaf.field.path
        dataset = self.datasets[path]
        found = self._leaf(path)
        if found.form == "value" or dataset.shape[0]:  # a camera without a frame cannot show how it is encoded
            check_same(leaf, found)
        images = self.source.images or "png"
        return column(leaf, dataset, rows=self._count(path), images=images, frames=self.source.frames)

    def _video(self, path: str, rows: int) -> Column:
        name = self.beside.find(self.source.videos[path], self._word, missing="missing_video")
        more = covers(self.source.drop_last, path)
        return self.beside.video(name, frames=rows + more, used=rows, images=self.source.images or "jpeg 95")


def _text(path: str) -> Leaf:
    return Leaf(Field(path=path, kind="text", per_step=False), "value")


def _attributes(group: h5py.Group, ignore: Collection[str]) -> dict[str, tuple[h5py.Group, str]]:
    """Find the attributes of a group, and of the one it lies in."""
    holders = {OWN: group} if group.name == "/" else {OWN: group, PARENT: group.parent}
    named = {f"{prefix}.{name}": (held, name) for prefix, held in holders.items() for name in held.attrs}
    return {path: place for path, place in named.items() if not covers(ignore, path)}
