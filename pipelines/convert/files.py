"""The files of a published dataset: whether all that the manifest lists are there and intact, and at their places."""

import xxhash

from schemas.errors import DatasetError
from schemas.files.folder import Folder
from schemas.parsing import parse_json
from schemas.store import layout
from schemas.store.checks import FIX, damaged, unreadable
from schemas.store.dataset import Dataset
from schemas.store.manifest import digests

BLOCK = 1 << 20  # number of bytes that are hashed at a time


def find_damage(out: Folder, *, contents: bool = False) -> dict[str, DatasetError]:
    """Return the error of each file of the dataset that is missing, has another size, or is a damaged table.

    The manifest alone does not show that a dataset is finished. With `contents`, data files and their indexes are read
    and compared with their digests, too. Raises DatasetError if the manifest is damaged.
    """
    dataset = Dataset(out)
    listed = digests(dataset.manifest)
    expected: dict[str, tuple[int | None, str]] = {}
    for file in dataset.manifest["files"]:
        index = layout.index_file(file["path"])
        expected[file["path"]] = file["bytes"], file["xxh3_128"]
        expected[index] = file.get("index_bytes"), listed[index]  # version 2 does not record the sizes of index files
    damage: dict[str, DatasetError] = {}
    for name, size in out.sizes(expected).items():
        wanted, digest = expected[name]
        if size is None:
            damage[name] = DatasetError(f"{out.place(name)}: is missing; {FIX}")
        elif wanted not in {None, size}:
            damage[name] = DatasetError(f"{out.place(name)}: has {size} bytes, expected {wanted}; {FIX}")
        elif contents:
            try:
                if digest_of(out, name) != digest:
                    damage[name] = damaged(out.place(name), "its digest is not that of the manifest")
            except OSError as error:
                damage[name] = unreadable(out.place(name), error)
    for name in listed.keys() - expected.keys():
        try:
            dataset.read_listed(name)
        except DatasetError as error:
            damage[name] = error
    return damage


def check_files(out: Folder) -> None:
    """Raise DatasetError if a file of the dataset is missing, has another size, or is a damaged table."""
    for error in find_damage(out).values():
        raise error


def digest_of(out: Folder, name: str) -> str | None:
    """Compute the digest of a file; None if it is missing."""
    digest = xxhash.xxh3_128()
    try:
        with out.open(name) as file:
            while block := file.read(BLOCK):
                digest.update(block)
    except FileNotFoundError:
        return None
    return digest.hexdigest()


def settle(out: Folder) -> None:
    """Move each file that belongs to the manifest to its place, if a killed command left it in `meta/pending/`.

    Does nothing in a dataset of version 2, where `meta/pending/` has the result of an upgrade that goes on later.
    """
    content = out.read_many([layout.MANIFEST]).get(layout.MANIFEST) if out.names(layout.PENDING) else None
    if content is None:
        return
    manifest = parse_json(content)
    if manifest["schema_version"] < 3:
        return
    for name, digest in digests(manifest).items():
        waiting = out.read_many([layout.pending(name)]).get(layout.pending(name))
        if waiting is not None and xxhash.xxh3_128_hexdigest(waiting) == digest:
            out.write(name, waiting)
    out.remove(layout.PENDING)
