"""Output folders: made new, or replaced when they are ours and the user says so."""

import os
import re
import shutil
import uuid
from collections.abc import Collection
from pathlib import Path

from schemas.errors import UsageError


def make_output(out: Path, *, source: str | None, ours: Collection[str], holds: str = ".*", overwrite: bool) -> None:
    """Make an empty folder at `out`.

    What exists there is replaced only with `overwrite`, and only if the names `ours` are in it and no file that does
    not match `holds` (a regular expression of relative paths): nobody's work is removed by a typing error. An output
    inside its source, or around it, is refused.
    """
    check_apart(out, source)
    try:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            if not out.is_dir():
                raise UsageError(f"{out}: is a file; name a folder")
            if not overwrite:
                raise UsageError(f"{out}: exists; give --overwrite to replace it")
            _check_ours(out, ours, holds)
            shutil.rmtree(out)
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{out}: cannot be written ({error})") from error


def check_apart(out: Path, source: str | None) -> None:
    """Refuse an output inside its source, or around it."""
    here, there = out.resolve(), _local(source)
    if there and (here == there or here in there.parents or there in here.parents):
        raise UsageError(f"{out}: the output and its source {source} lie inside one another")


def _check_ours(out: Path, ours: Collection[str], holds: str) -> None:
    """Refuse to remove a folder that something else wrote, or wrote into."""
    if not set(ours) <= {path.name for path in out.iterdir()}:
        raise UsageError(f"{out}: was not written by this command; --overwrite will not remove it")
    files = (path.relative_to(out).as_posix() for path in out.rglob("*") if not path.is_dir() or path.is_symlink())
    stranger = next((name for name in files if not re.fullmatch(holds, name)), None)
    if stranger:
        raise UsageError(f"{out}: holds {stranger}, which this command did not write; --overwrite will not remove it")


def _local(source: str | None) -> Path | None:
    """Give the place of a source on this machine; None for one that is elsewhere."""
    path = (source or "").removeprefix("file://")
    return Path(path).expanduser().resolve() if path and "://" not in path else None


def write_atomically(path: Path, content: bytes) -> None:
    """Write a small file so that it is either whole or not there."""
    tmp = path.parent / f"tmp-{uuid.uuid4().hex}"
    try:
        with tmp.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        tmp.rename(path)
    except OSError as error:
        tmp.unlink(missing_ok=True)
        raise UsageError(f"{path}: cannot be written ({error})") from error
