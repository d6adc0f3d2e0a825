"""The command `oxe convert`."""

from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from oxe_tools.cli.console import (
    FAILURES,
    BeamOptions,
    Declaration,
    FollowLinks,
    Json,
    Overwrite,
    Recordings,
    Workers,
    beam_words,
    fail,
    file_count,
    print_json,
    print_notes,
    progress,
    reason_counts,
    say,
)

if TYPE_CHECKING:
    from pipelines.convert.convert import DryRun
    from schemas.declarations.spec import DatasetSpec


def convert(
    declaration: Declaration,
    *,
    out: Annotated[str, typer.Option(help="Where to write the dataset: a folder or an fsspec URI.")],
    source: Recordings = None,
    split: Annotated[str | None, typer.Option(help="Convert only this split.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Convert only the first N episodes.")] = None,
    keep_raw: Annotated[
        bool, typer.Option("--keep-raw/--no-keep-raw", help="Also store the source's own fields, as raw.*.")
    ] = True,
    materialize: Annotated[
        list[str] | None, typer.Option(metavar="VIEW", help="Also store this view as a column; may be repeated.")
    ] = None,
    workers: Workers = 1,
    runner: Annotated[
        str | None, typer.Option(help="Run on a Beam runner: FlinkRunner, SparkRunner, DataflowRunner.")
    ] = None,
    beam_options: BeamOptions = "",
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first episode that cannot be read.")] = False,
    max_quarantine: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Stop when more than N episodes cannot be read.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check the declaration against the source; write nothing.")
    ] = False,
    append: Annotated[
        bool, typer.Option("--append", help="Add the files that are new in the source since the last conversion.")
    ] = False,
    follow_links: FollowLinks = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Convert a source to a dataset in the unified format.

    \b
    Example: oxe convert bridge_dataset --source data/bridge_dataset/1.0.0 --out bridge
    """
    from oxe_tools import drafts
    from pipelines.beam.engine import Engine
    from pipelines.conventions.check import contradictions, of_dataset
    from pipelines.convert import convert as work
    from pipelines.convert.records import Options
    from schemas.declarations import catalog
    from schemas.errors import UnreachableError
    from schemas.store.dataset import open_dataset

    spec = drafts.declared(declaration)
    source = source or catalog.source_of(declaration, spec)
    options = Options(
        split=split,
        limit=limit,
        keep_raw=keep_raw,
        materialize=tuple(materialize or ()),
        follow_links=follow_links,
    )
    if dry_run:
        planned = work.dry_run(spec, source=source, options=options, append_to=out if append else None)
        if as_json:
            print_json(planned.to_json())
        else:
            _show_plan(planned)
        print_notes(planned.notes)
        return
    with progress() as bar:
        report = work.convert(
            spec,
            out,
            source=source,
            options=options,
            engine=Engine(workers=workers, runner=runner, options=beam_words(beam_options)),
            max_quarantine=0 if strict else max_quarantine,
            append=append,
            overwrite=overwrite,
            progress=bar,
        )
    contradicted: dict[str, Any] = {}
    try:
        contradicted = dict(contradictions(of_dataset(open_dataset(out))))
    except UnreachableError as error:  # a store that is written with other credentials than it is read with
        say(f"{out}: the motion was not compared with the declaration: {error}", err=True)
    listed = [{"aspect": aspect, **one.to_json()} for aspect, one in contradicted.items()]
    (print_json if as_json else _show_report)(report.to_json() | {"contradictions": listed})
    _show_unknowns(spec)
    for aspect, one in contradicted.items():
        say(f"{out}: the motion contradicts the declared {aspect} of the action: {one.evidence}", err=True)
    print_notes(report.notes)
    for problem in report.problems[:5]:
        say(f"quarantined: episode {problem.index}: {problem.reason}: {problem.detail} ({problem.file})", err=True)
    quarantined = Counter(problem.reason for problem in report.problems) if append else report.quarantined
    if quarantined:
        fail(f"{out}: quarantined {reason_counts(quarantined)}; see meta/quarantine.parquet", FAILURES)


def _show_plan(planned: "DryRun") -> None:
    """Print what the conversion would read and write."""
    size = f"{planned.bytes / 1e6:.1f} MB in {file_count(planned.files)}"
    say(f"{planned.dataset}: {planned.episodes} episodes, {size}")
    say(f"action: {', '.join(planned.action)}")
    say(f"state: {', '.join(planned.state) or 'none'}")
    say(f"cameras: {', '.join(planned.cameras) or 'none'}")
    say(f"views: {', '.join(planned.views) or 'none'}")
    say("nothing was written")


def _show_report(report: dict[str, Any]) -> None:
    """Print the counts of a conversion."""
    episodes = report["episodes"]
    say(f"{report['out']}: {report['steps']} steps in {file_count(report['files'])}, {report['seconds']:.1f} s")
    left_out = (
        f"dropped ({reason_counts(episodes['dropped'])}) + quarantined ({reason_counts(episodes['quarantined'])})"
    )
    say(f"episodes: {episodes['source']} in the source = {episodes['kept']} kept + {left_out}")


def _show_unknowns(spec: "DatasetSpec") -> None:
    """Print the conventions that are unknown in the declaration."""
    for space in filter(None, (spec.action_space, spec.state_space)):
        if words := space.unknowns():
            say(f"{spec.name}: {space.name}: not known: {', '.join(words)}", err=True)
