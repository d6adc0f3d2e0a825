"""The command `oxe upgrade`."""

from typing import Annotated

import typer

from oxe_tools.cli.console import DatasetDir, Json, file_count, print_json, progress


def upgrade(
    directory: DatasetDir,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be read; write nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Add checksums to a dataset that an older version of oxe-tools wrote, in place.

    Its data files are read and compared with their digests, but not written again. Locks and statistics remain valid.
    A run that was interrupted continues where it stopped.

    \b
    Example: oxe upgrade bridge
    """
    from pipelines.upgrade import upgrade as run

    with progress() as bar:
        report = run(directory, dry_run=dry_run, progress=bar)
    if as_json:
        print_json(report.to_json())
    elif report.upgraded_from is None:
        typer.echo(f"{directory}: has schema version {report.schema_version} already; nothing was written")
    else:
        what = f"schema version {report.upgraded_from} to {report.schema_version}"
        size = f"{report.bytes / 1e6:.1f} MB of {file_count(report.read)}"
        typer.echo(
            f"{directory}: {what}: {size} would be read; nothing was written"
            if dry_run
            else f"{directory}: {what}: read {size}, {report.seconds:.1f} s"
        )
