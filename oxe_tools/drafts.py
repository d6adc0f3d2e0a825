"""Before there is a declaration: where a proposal goes, and what a folder without one holds."""

from os.path import relpath
from pathlib import Path

from pipelines.inspect.draft.draft import draft as propose
from pipelines.inspect.draft.write import Proposal
from pipelines.readers.find import find_sources, several_sources_error
from pipelines.readers.registry import open_source
from schemas.declarations import catalog
from schemas.declarations.spec import DatasetSpec
from schemas.errors import SpecError, UsageError


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


def declared(target: str) -> DatasetSpec:
    """Load a declaration; of a folder that has none, say which sources it holds and how one is declared."""
    try:
        return catalog.dataset(target)
    except SpecError as error:
        is_undeclared = Path(target).is_dir() and not (Path(target) / catalog.DECLARATION).is_file()
        sources = find_sources(target) if is_undeclared else ()
        if len(sources) > 1:
            raise several_sources_error(target, sources) from error
        if sources:
            draft = f"oxe inspect {sources[0].uri} --draft my_dataset.toml"
            raise SpecError(f"{error}; to have one drafted: {draft}") from error
        raise
