"""Output folders: made new, or replaced when they are ours and the user says so."""

import shutil
from collections.abc import Collection
from pathlib import Path

from schemas.errors import UsageError


def make_output(out: Path, *, source: str | None, ours: Collection[str], overwrite: bool) -> None:
    """Make an empty folder at `out`.

    What exists there is replaced only with `overwrite`, and only if it holds the names `ours`: nobody's home directory
    is removed by a typing error. An output inside its source, or around it, is refused.
    """
    check_apart(out, source)
    try:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            if not out.is_dir():
                raise UsageError(f"{out}: is a file; name a folder")
            if not overwrite:
                raise UsageError(f"{out}: exists; give --overwrite to replace it")
            if not set(ours) <= {path.name for path in out.iterdir()}:
                raise UsageError(f"{out}: was not written by this command; --overwrite will not remove it")
            shutil.rmtree(out)
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{out}: cannot be written ({error})") from error


def check_apart(out: Path, source: str | None) -> None:
    """Refuse an output inside its source, or around it."""
    here, there = out.resolve(), _local(source)
    if there and (here == there or here in there.parents or there in here.parents):
        raise UsageError(f"{out}: the output and its source {source} lie inside one another")


def _local(source: str | None) -> Path | None:
    """Give the place of a source on this machine; None for one that is elsewhere."""
    path = (source or "").removeprefix("file://")
    return Path(path).expanduser().resolve() if path and "://" not in path else None
