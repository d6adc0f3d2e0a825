"""The datasets of a locked mixture, and whether they are still what was locked."""

from collections.abc import Iterator
from os.path import normpath
from pathlib import Path

from schemas.files.folder import is_local
from schemas.mixture.lock import Lock, LockedSource
from schemas.store.dataset import Dataset
from schemas.views.digests import outdated

AGAIN = "run 'oxe mix lock' again with --overwrite"


def place(uri: str, beside: Path) -> str:
    """Follow a URI from the folder that it is relative to."""
    return normpath(beside / uri) if is_local(uri) else uri


def cannot_compare(lock: Lock) -> str | None:
    """Why a lock's views cannot be compared with today's; None if they can be."""
    found = (outdated(source.view_digest, "the lock", fix=AGAIN) for source in lock.sources.values())
    return next(filter(None, found), None)


def changes(lock: Lock, source: LockedSource, dataset: Dataset) -> Iterator[str]:
    """Name what of a source has changed, as far as that shows without reading its data files."""
    if dataset.manifest["xxh3_128"] != source.manifest:
        yield f"the dataset has changed: {len(dataset)} episodes and {dataset.manifest['steps']} steps now"
        return
    view = dataset.view(lock.view).digest if lock.view else None
    if view != source.view_digest:
        yield f"the code or declaration of the view '{lock.view}' has changed"
    files = dataset.manifest["files"]
    sizes = dataset.folder.sizes([file["path"] for file in files])
    for file in files:
        size = sizes[file["path"]]
        if size is None:
            yield f"{file['path']} is missing"
        elif size != file["bytes"]:
            yield f"{file['path']} has {size} bytes and not {file['bytes']}"
