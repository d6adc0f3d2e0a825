"""The files of a published dataset: whether all that the manifest lists are there, and at their places."""

import xxhash

from schemas.errors import DatasetError
from schemas.files.folder import Folder
from schemas.parsing import parse_json
from schemas.store import layout
from schemas.store.checks import FIX
from schemas.store.dataset import Dataset
from schemas.store.manifest import digests


def check_files(out: Folder) -> None:
    """Raise DatasetError if a file of the dataset is missing or has another size, or if a table is damaged.

    The manifest alone does not show that a dataset is finished. The contents of data files are not read.
    """
    dataset = Dataset(out)
    expected: dict[str, int | None] = {}
    for file in dataset.manifest["files"]:
        expected |= {file["path"]: file["bytes"], layout.index_file(file["path"]): file.get("index_bytes")}
    for name, size in out.sizes(expected).items():
        if size is None:
            raise DatasetError(f"{out.place(name)}: is missing; {FIX}")
        if expected[name] not in {None, size}:  # version 2 does not record the sizes of index files
            raise DatasetError(f"{out.place(name)}: has {size} bytes, expected {expected[name]}; {FIX}")
    for name in digests(dataset.manifest):
        if name.startswith(layout.META):
            dataset.read_listed(name)


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
