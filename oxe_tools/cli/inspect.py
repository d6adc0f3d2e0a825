"""The command `oxe inspect`: it parses, calls one function, and prints."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from oxe_tools.cli.console import FAILURES, Json, counted, fail, print_json, print_table, progress

if TYPE_CHECKING:
    from pipelines.inspect.draft.write import Proposal
    from pipelines.inspect.inspect import Inspection
    from pipelines.readers.find import SourceLocation


def inspect(
    source: Annotated[str, typer.Argument(help="A source: a folder, a file, or an fsspec URI.")],
    *,
    limit: Annotated[int | None, typer.Option(min=1, help="Read only the first N episodes.")] = None,
    draft: Annotated[
        str | None, typer.Option(metavar="SPEC.toml", help="Write a declaration proposed from the data; - prints it.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file of --draft.")] = False,
    as_json: Json = False,
) -> None:
    """Show what a source holds, and draft its declaration; list the sources of a folder that holds several.

    \b
    Example: oxe inspect data/bridge_dataset/1.0.0
    """
    from pipelines.inspect.inspect import inspect as run
    from pipelines.readers.find import find_sources

    listed = find_sources(source)
    if len(listed) > 1 and draft is None:
        _show_sources(listed, as_json=as_json)
        return
    if len(listed) == 1 and listed[0].uri.rstrip("/") != source.rstrip("/"):
        typer.echo(f"the only source found below {source}: {listed[0].uri}", err=True)
    proposed = None
    if draft:
        from oxe_tools import drafts
        from pipelines.inspect.draft.sample import EPISODES

        proposed = drafts.draft(source, draft, limit=limit, overwrite=overwrite)
        if draft == "-" and not as_json:
            typer.echo(proposed.text(), nl=False)
            return
        limit = limit or EPISODES
    with progress() as bar:
        inspection = run(source, limit=limit, progress=bar)
    if as_json:
        drafted = {"draft": proposed.to_json()} if proposed else {}
        print_json(inspection.to_json() | drafted)
    else:
        _show_inspection(inspection)
    if proposed and not as_json:
        _show_draft(str(draft), proposed)
    if inspection.unreadable:
        counts = counted(inspection.unreadable)
        fail(f"unreadable episodes: {counts}; the first one: {inspection.first_unreadable}", FAILURES)


def _show_sources(listed: "Sequence[SourceLocation]", *, as_json: bool) -> None:
    """Show the sources that lie in a folder."""
    if as_json:
        print_json({"sources": [{"format": found.format, "uri": found.uri} for found in listed]})
        return
    print_table(["format", "source"], [(found.format, found.uri) for found in listed])
    typer.echo(f"{len(listed)} sources: name one, such as: oxe inspect {listed[0].uri}")


def _show_inspection(inspection: "Inspection") -> None:
    """Show what a source holds."""
    splits = ", ".join(f"{name} {split['episodes']}" for name, split in inspection.splits.items())
    counts = f"{inspection.episodes} episodes ({splits}), {inspection.steps} steps in {inspection.read} read"
    typer.echo(f"{inspection.format}: {counts}")
    rows = []
    for path, field in inspection.features.items():
        limits = "" if field.range is None else " .. ".join(f"{limit:.4g}" for limit in field.range)
        sample = str(field.samples[0])[:40] if field.samples else ""
        shape = "x".join("?" if d is None else str(d) for d in field.shape)
        rows.append((path, field.dtype, shape, limits, field.encoding or "", sample))
    print_table(["field", "type", "shape", "range", "encoding", "first value"], rows)
    if "episodes_at" in inspection.source:
        typer.echo(f'Each episode is at "{inspection.source["episodes_at"]}": declare that as source.episodes.')
    for note in inspection.notes:
        typer.echo(f"Note: {note}")
    if inspection.declaration:
        typer.echo("It carries its own declaration (oxe_spec.toml): 'oxe convert DIR --out ...' will find it.")


def _show_draft(file: str, proposed: "Proposal") -> None:
    """Show what is left to do in a draft."""
    left = proposed.todo()
    typer.echo(f"\n{file}: a draft of {proposed.name}'s declaration from {proposed.episodes} episodes")
    if proposed.shipped:
        typer.echo(f"shipped declarations that fit these fields: {', '.join(proposed.shipped)}")
    typer.echo(f"still to do: {', '.join(left)}" if left else "nothing is left open; read it before you use it")
    typer.echo(f"then: oxe datasets check {file}")
