"""The command `oxe verify`."""

from pathlib import Path
from typing import Annotated

import typer

from oxe_tools.cli.console import (
    FAILURES,
    DatasetDir,
    FollowLinks,
    Json,
    fail,
    file_count,
    print_json,
    print_notes,
    progress,
    say,
)


def verify(
    directory: DatasetDir,
    *,
    source: Annotated[str | None, typer.Option(help="The source; by default that of the last conversion.")] = None,
    follow_links: FollowLinks = False,
    digests_only: Annotated[
        bool, typer.Option("--digests-only", help="Check only digests and counts; decode nothing, read no source.")
    ] = False,
    sample: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Compare only N episodes, spread evenly over the dataset.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare a dataset with its source, value by value.

    Every number, image byte, count, digest and index entry is compared. The source of an export is the dataset that was
    exported.

    \b
    Example: oxe verify bridge
    """
    from pipelines.export.ledger import RECORD
    from pipelines.export.verify import verify_export
    from pipelines.verify import verify as run
    from schemas.errors import UsageError
    from schemas.files.folder import open_folder
    from schemas.store.dataset import Dataset

    if digests_only and sample:
        raise UsageError("--digests-only and --sample: pass only one of them")
    with progress() as bar:
        if (Path(directory) / RECORD).is_file():
            if digests_only or sample:
                option = "--sample" if sample else "--digests-only"
                raise UsageError(f"{directory}: {option} is for converted datasets, and this is an export")
            result = verify_export(Path(directory), source=source, follow_links=follow_links, progress=bar)
        else:
            dataset = Dataset(open_folder(directory), checked=False)
            bar.expect(min(sample or len(dataset), len(dataset)))
            result = run(
                dataset,
                source=source,
                follow_links=follow_links,
                digests_only=digests_only,
                sample=sample,
                progress=bar,
            )
    if as_json:
        print_json(result.to_json())
    else:
        what = f"{result.episodes} episodes, {result.steps} steps, {result.numbers} numbers, {result.images} images"
        say(f"{directory}: {what} in {file_count(result.files)}; source {result.source}")
    print_notes(result.notes)
    for difference in result.first:
        say(difference, err=True)
    if not result.ok:
        fail(f"{directory}: {result.differences} differences", FAILURES)
