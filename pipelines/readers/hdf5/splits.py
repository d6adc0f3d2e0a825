"""Assign the episodes of a file to splits by robomimic's masks: lists of episode names inside the file."""

from collections.abc import Collection, Sequence
from math import prod

import h5py

from pipelines.readers.hdf5 import tree
from pipelines.readers.hdf5.columns import check_storage
from pipelines.readers.names import natural_key
from pipelines.readers.reader import SPLIT
from schemas.errors import SourceError
from schemas.limits import VALUE_BYTES

REST = "rest"  # the split of episodes that are in no mask


def split_name(mask: str) -> str:
    """Return the last part of a mask's path, which is the name of its split."""
    return mask.rpartition("/")[2]


def split_groups(
    file: h5py.File, pattern: str, masks: Sequence[str], *, ignore: Collection[str] = ()
) -> dict[str, list[str]]:
    """Return the paths of the groups in each split, in the order of their numbers.

    Paths in `ignore` that start with a slash are left out. Groups that a mask names are included even if they are
    missing from the file. Raises SourceError if a group is in two masks.
    """
    paths = tree.match_groups(file, pattern, ignore)
    if not masks:
        return {SPLIT: paths}
    prefix = "/".join(["", *pattern.strip("/").split("/")[:-1], ""])
    path_by_name = {path.rpartition("/")[2]: path for path in paths}
    mask_by_name: dict[str, str] = {}
    for mask in masks:
        for name in _names(file, mask):
            if name in mask_by_name:
                message = f"'{name}' is in {mask_by_name[name]} and in {mask}: one episode has one split"
                raise SourceError(message, reason="contradicts_fields")
            mask_by_name[name] = mask
    splits: dict[str, list[str]] = {split_name(mask): [] for mask in masks}
    for name, mask in mask_by_name.items():
        splits[split_name(mask)].append(path_by_name.pop(name, prefix + name))
    splits[REST] = list(path_by_name.values())
    return {split: sorted(members, key=natural_key) for split, members in splits.items()}


def _names(file: h5py.File, mask: str) -> list[str]:
    """Read the names in a mask."""
    node = tree.node_at(file, mask)
    is_list = isinstance(node, h5py.Dataset) and len(node.shape or ()) == 1 and h5py.check_string_dtype(node.dtype)
    if not is_list or node.dtype.itemsize * prod(node.shape) > VALUE_BYTES:
        raise SourceError(f"{mask} is not a list of names; source.splits says it is", reason="contradicts_fields")
    check_storage(mask, node)
    try:
        return [name.decode() if isinstance(name, bytes) else str(name) for name in node[()]]
    except UnicodeError as error:
        raise SourceError(f"{mask} is not UTF-8", reason="bad_utf8") from error
