"""Create output folders, or replace those that the same command wrote."""

import re
from collections.abc import Collection
from pathlib import Path

from schemas.errors import UsageError
from schemas.files import durable
from schemas.files.folder import absolute


def make_output(out: Path, *, source: str | None, marks: Collection[str], pattern: str = ".*", overwrite: bool) -> None:
    """Create an empty folder at `out`.

    With `overwrite`, an existing folder is replaced, but only if it contains all the names in `marks` and the relative
    path of each file matches the regular expression `pattern`. This protects other folders from a mistyped path.

    Raises UsageError if a folder exists and may not be replaced, and if `out` is inside its source or contains it.
    """
    check_not_nested(str(out), source)
    try:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            if not out.is_dir():
                raise UsageError(f"{out}: is a file; --out needs a folder")
            if not overwrite:
                raise UsageError(f"{out}: exists; pass --overwrite to replace it")
            if not set(marks) <= {path.name for path in out.iterdir()}:
                raise UsageError(f"{out}: was not written by this command; --overwrite will not remove it")
            check_no_foreign_files(out, pattern=pattern)
            durable.remove_folder(out)
        durable.make_folder(out)
    except OSError as error:
        raise UsageError(f"{out}: cannot be written ({error})") from error


def check_not_nested(out: str, source: str | None) -> None:
    """Raise UsageError if the output is inside its source or contains it."""
    if source is None:
        return
    ours, theirs = (absolute(uri).rstrip("/") + "/" for uri in (out, source))
    if ours.startswith(theirs) or theirs.startswith(ours):
        raise UsageError(f"{out}: the output and its source {source} overlap; pass another --out")


def check_no_foreign_files(out: Path, *, pattern: str) -> None:
    """Raise UsageError if the relative path of a file in `out` does not match the regular expression `pattern`."""
    files = (path.relative_to(out).as_posix() for path in out.rglob("*") if not path.is_dir() or path.is_symlink())
    foreign = next((name for name in files if not re.fullmatch(pattern, name)), None)
    if foreign:
        raise UsageError(f"{out}: contains {foreign}, which this command did not write; --overwrite will not remove it")
