"""Draft a declaration for a source, and load declarations; an error suggests how to draft a missing one."""

from contextlib import suppress
from os.path import relpath
from pathlib import Path

from pipelines.inspect.draft.draft import draft as propose
from pipelines.inspect.draft.write import Proposal
from pipelines.readers.find import SourceLocation, find_sources, several_sources_error
from pipelines.readers.registry import open_source
from schemas.declarations import catalog
from schemas.declarations.spec import DatasetSpec
from schemas.errors import SourceError, SpecError, UsageError
from schemas.files import durable
from schemas.text import masked


def draft(source: str, target: str, *, limit: int | None, overwrite: bool, follow_links: bool = False) -> Proposal:
    """Draft a declaration of `source` and write it to the file `target`, unless that is `-`.

    If the path of the source is relative, the draft contains it relative to the folder of `target`.
    """
    file = None if target == "-" else Path(target)
    if file and file.suffix != ".toml":
        raise UsageError(f"--draft {target}: expected a .toml file, or - to print the draft")
    if file and file.exists() and not overwrite:
        raise UsageError(f"{target}: exists; pass --overwrite to replace it")
    reader = open_source(source, follow_links=follow_links)
    uri = reader.uri
    if file and "://" not in uri and not Path(uri).is_absolute():
        uri = relpath(uri, file.parent)
    proposal = propose(reader, masked(uri), limit=limit)
    if file:
        durable.write(file, proposal.text().encode())
    return proposal


def declared(target: str) -> DatasetSpec:
    """Load a declaration.

    Raises SpecError if it cannot be loaded. If `target` is a folder without a declaration, the message names the
    sources in it and the command that drafts a declaration.
    """
    try:
        return catalog.dataset(target)
    except SpecError as error:
        sources: tuple[SourceLocation, ...] = ()
        if Path(target).is_dir() and not (Path(target) / catalog.DECLARATION).is_file():
            with suppress(SourceError):
                sources = find_sources(target)
        if len(sources) > 1:
            raise several_sources_error(target, sources) from error
        if sources:
            command = f"oxe inspect {sources[0].uri} --draft my_dataset.toml"
            raise SpecError(f"{error}; to draft one, run: {command}") from error
        raise
