"""Check whether the datasets of a locked mixture have changed since it was locked."""

from collections.abc import Iterator
from os.path import normpath
from pathlib import Path

from schemas.files.folder import is_local
from schemas.mixture.lock import Lock, LockedSource
from schemas.store.dataset import Dataset
from schemas.views.digests import outdated

AGAIN = "run 'oxe mix lock' again with --overwrite"


def place(uri: str, beside: Path) -> str:
    """Resolve a URI that may be relative to the folder `beside`."""
    return normpath(beside / uri) if is_local(uri) else uri


def cannot_compare(lock: Lock) -> str | None:
    """Return why the views of a lock cannot be compared with the current views; None if they can."""
    reasons = (outdated(source.view_digest, "the lock", fix=AGAIN) for source in lock.sources.values())
    return next(filter(None, reasons), None)


def changes(lock: Lock, source: LockedSource, dataset: Dataset) -> Iterator[str]:
    """Yield a description of each change in a source since it was locked. Its data files are not read."""
    if dataset.digest != source.manifest:
        yield f"the dataset has changed: it now has {len(dataset)} episodes and {dataset.manifest['steps']} steps"
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
            yield f"{file['path']} has {size} bytes, expected {file['bytes']}"
