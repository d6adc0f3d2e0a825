"""The command `oxe inspect`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from oxe_tools.cli.console import (
    FAILURES,
    FollowLinks,
    Json,
    fail,
    print_json,
    print_table,
    progress,
    reason_counts,
    say,
    say_text,
)

if TYPE_CHECKING:
    from pipelines.inspect.draft.write import Proposal
    from pipelines.inspect.inspect import Inspection
    from pipelines.readers.find import SourceLocation


def inspect(
    source: Annotated[str, typer.Argument(help="A source: a folder, a file, or an fsspec URI.")],
    *,
    limit: Annotated[int | None, typer.Option(min=1, help="Read only the first N episodes.")] = None,
    draft: Annotated[
        str | None,
        typer.Option(
            metavar="SPEC.toml", help="Draft a declaration from the data and write it to this file; - prints it."
        ),
    ] = None,
    follow_links: FollowLinks = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file at --draft.")] = False,
    as_json: Json = False,
) -> None:
    """Show the fields of a source, and draft its declaration.

    If a folder contains several sources, they are listed.

    \b
    Example: oxe inspect data/bridge_dataset/1.0.0
    """
    from pipelines.inspect.inspect import inspect as run
    from pipelines.readers.find import find_sources
    from pipelines.readers.links import links_followed

    with links_followed(follow=follow_links):
        listed = find_sources(source)
    if len(listed) > 1 and draft is None:
        _show_sources(listed, as_json=as_json)
        return
    if len(listed) == 1 and listed[0].uri.rstrip("/") != source.rstrip("/"):
        say(f"{source}: reading its only source, {listed[0].uri}", err=True)
    proposal = None
    if draft:
        from oxe_tools import drafts
        from pipelines.inspect.draft.sample import EPISODES

        proposal = drafts.draft(source, draft, limit=limit, overwrite=overwrite, follow_links=follow_links)
        if draft == "-" and not as_json:
            say_text(proposal.text())
            return
        limit = limit or EPISODES
    with progress() as bar:
        inspection = run(source, limit=limit, follow_links=follow_links, progress=bar)
    if as_json:
        drafted = {"draft": proposal.to_json()} if proposal else {}
        print_json(inspection.to_json() | drafted)
    else:
        _show_inspection(inspection)
    if proposal and not as_json:
        _show_draft(str(draft), proposal)
    if inspection.unreadable:
        counts = reason_counts(inspection.unreadable)
        fail(f"episodes that cannot be read: {counts}; first {inspection.first_unreadable}", FAILURES)


def _show_sources(listed: "Sequence[SourceLocation]", *, as_json: bool) -> None:
    """Print the sources of a folder."""
    if as_json:
        print_json({"sources": [{"format": each.format, "uri": each.uri} for each in listed]})
        return
    print_table(["format", "source"], [(each.format, each.uri) for each in listed])
    say(f"{len(listed)} sources; inspect one of them, for example: oxe inspect {listed[0].uri}")


def _show_inspection(inspection: "Inspection") -> None:
    """Print the fields of a source."""
    episodes, steps = _counts(inspection)
    say(f"{inspection.format}: {episodes}, {steps}")
    rows = []
    for path, field in inspection.features.items():
        limits = "" if field.range is None else " .. ".join(f"{limit:.4g}" for limit in field.range)
        sample = str(field.samples[0])[:40] if field.samples else ""
        shape = "x".join("?" if d is None else str(d) for d in field.shape)
        encoding = ", ".join(filter(None, (field.encoding, *field.depths)))
        rows.append((path, field.dtype, shape, limits, encoding, sample))
    print_table(["field", "type", "shape", "range", "encoding", "first value"], rows)
    if 0 < inspection.read < inspection.episodes:
        say(f"The ranges and first values are those of {inspection.read} of {episodes.partition(' (')[0]}.")
    for note in (*inspection.coverage.sentences(), *inspection.notes):
        say(f"Note: {note}")
    if inspection.declaration:
        say("The source contains its own declaration, oxe_spec.toml, which 'oxe convert DIR --out ...' uses.")


def _counts(inspection: "Inspection") -> tuple[str, str]:
    """Format the numbers of episodes and steps; a number that may be too small says what it was counted from."""
    splits = ", ".join(f"{name} {split['episodes']}" for name, split in inspection.splits.items())
    counted, files = inspection.files_counted, inspection.files
    least = "" if counted == files else "at least "
    episodes = f"{least}{inspection.episodes} episodes"
    where = "" if counted == files else f" from {counted} of {files} files"
    if inspection.total_steps is not None:
        return f"{episodes} ({splits}){where}", f"{inspection.total_steps} steps"
    return f"{episodes} ({splits}){where}", f"at least {inspection.steps} steps from {inspection.read} of {episodes}"


def _show_draft(file: str, proposal: "Proposal") -> None:
    """Print what the user has to complete in a draft."""
    todo = proposal.todo()
    say()
    say(f"{file}: draft of the declaration of {proposal.name}, from {proposal.sample()}")
    if proposal.shipped:
        say(f"shipped declarations that fit these fields: {', '.join(proposal.shipped)}")
    say(f"to do: {', '.join(todo)}" if todo else "nothing is left to do; review it before you use it")
    say(f"next: oxe datasets check {file}")
