"""Which episodes of a file are in which split: robomimic's masks, lists of names inside the file."""

from collections.abc import Sequence
from math import prod

import h5py

from pipelines.readers.fields import VALUE_LIMIT
from pipelines.readers.hdf5 import tree
from pipelines.readers.hdf5.columns import check_storage
from pipelines.readers.names import natural
from pipelines.readers.reader import SPLIT
from schemas.errors import SourceError

REST = "rest"  # of those that no mask names


def split_name(mask: str) -> str:
    """Name a split by the last word of its mask's place."""
    return mask.rpartition("/")[2]


def split_groups(file: h5py.File, pattern: str, masks: Sequence[str]) -> dict[str, list[str]]:
    """Name the groups of each split, in the order of their numbers.

    A group that a mask names and the file does not have is named too; one that two masks name is a SourceError.
    """
    found = tree.groups(file, pattern)
    if not masks:
        return {SPLIT: found}
    above = "/".join(["", *pattern.strip("/").split("/")[:-1], ""])
    places = {path.rpartition("/")[2]: path for path in found}
    taken: dict[str, str] = {}
    for mask in masks:
        for name in _names(file, mask):
            if name in taken:
                message = f"'{name}' is in {taken[name]} and in {mask}: one episode has one split"
                raise SourceError(message, reason="contradicts_fields")
            taken[name] = mask
    splits: dict[str, list[str]] = {split_name(mask): [] for mask in masks}
    for name, mask in taken.items():
        splits[split_name(mask)].append(places.pop(name, above + name))
    splits[REST] = list(places.values())
    return {split: sorted(paths, key=natural) for split, paths in splits.items()}


def _names(file: h5py.File, mask: str) -> list[str]:
    """Read one mask."""
    node = tree.node_at(file, mask)
    is_list = isinstance(node, h5py.Dataset) and len(node.shape or ()) == 1 and h5py.check_string_dtype(node.dtype)
    if not is_list or node.dtype.itemsize * prod(node.shape) > VALUE_LIMIT:
        raise SourceError(f"{mask} is no list of names, as source.splits says it is", reason="contradicts_fields")
    check_storage(mask, node)
    try:
        return [name.decode() if isinstance(name, bytes) else str(name) for name in node[()]]
    except UnicodeError as error:
        raise SourceError(f"{mask} is not UTF-8", reason="bad_utf8") from error
