"""Output folders: made new, or replaced when they are ours and the user says so."""

import re
import shutil
from collections.abc import Collection
from pathlib import Path

from schemas.errors import UsageError
from schemas.files.folder import absolute


def make_output(out: Path, *, source: str | None, ours: Collection[str], holds: str = ".*", overwrite: bool) -> None:
    """Make an empty folder at `out`.

    What exists there is replaced only with `overwrite`, and only if the names `ours` are in it and no file that does
    not match `holds` (a regular expression of relative paths): nobody's work is removed by a typing error. An output
    inside its source, or around it, is refused.
    """
    check_apart(str(out), source)
    try:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            if not out.is_dir():
                raise UsageError(f"{out}: is a file; name a folder")
            if not overwrite:
                raise UsageError(f"{out}: exists; give --overwrite to replace it")
            if not set(ours) <= {path.name for path in out.iterdir()}:
                raise UsageError(f"{out}: was not written by this command; --overwrite will not remove it")
            check_ours(out, holds=holds)
            shutil.rmtree(out)
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{out}: cannot be written ({error})") from error


def check_apart(out: str, source: str | None) -> None:
    """Refuse an output inside its source, or around it."""
    if source is None:
        return
    here, there = (absolute(uri).rstrip("/") + "/" for uri in (out, source))
    if here.startswith(there) or there.startswith(here):
        raise UsageError(f"{out}: the output and its source {source} lie inside one another")


def check_ours(out: Path, *, holds: str) -> None:
    """Refuse to remove a folder that something else wrote into: each file matches `holds`."""
    files = (path.relative_to(out).as_posix() for path in out.rglob("*") if not path.is_dir() or path.is_symlink())
    stranger = next((name for name in files if not re.fullmatch(holds, name)), None)
    if stranger:
        raise UsageError(f"{out}: holds {stranger}, which this command did not write; --overwrite will not remove it")
