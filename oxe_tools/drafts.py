"""`oxe inspect --draft`: where the proposal goes, and how it names its source."""

from os.path import relpath
from pathlib import Path

from pipelines.draft.draft import draft as propose
from pipelines.draft.write import Proposal
from pipelines.readers.registry import open_source
from schemas.errors import UsageError


def draft(source: str, target: str, *, limit: int | None, overwrite: bool) -> Proposal:
    """Propose a declaration of `source` and write it to the file `target`, unless that is `-`.

    A relative source is named as seen from the file's folder, where declarations are read from.
    """
    file = None if target == "-" else Path(target)
    if file and file.suffix != ".toml":
        raise UsageError(f"--draft {target}: a declaration is a .toml file, or - to print it")
    if file and file.exists() and not overwrite:
        raise UsageError(f"{target} is there already; --overwrite replaces it")
    reader = open_source(source)
    place = reader.uri
    if file and "://" not in place and not Path(place).is_absolute():
        place = relpath(place, file.parent)
    proposed = propose(reader, place, limit=limit)
    if file:
        file.write_text(proposed.text(), encoding="utf-8")
    return proposed
