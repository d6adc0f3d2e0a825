"""The command `oxe verify`."""

from pathlib import Path
from typing import Annotated

import typer

from oxe_tools.cli.console import FAILURES, DatasetDir, Json, fail, file_count, print_json, print_notes, progress


def verify(
    directory: DatasetDir,
    *,
    source: Annotated[str | None, typer.Option(help="The source; by default that of the last conversion.")] = None,
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
    from schemas.files.folder import open_folder
    from schemas.store.dataset import Dataset

    with progress() as bar:
        if (Path(directory) / RECORD).is_file():
            result = verify_export(Path(directory), source=source, progress=bar)
        else:
            dataset = Dataset(open_folder(directory), checked=False)
            bar.expect(len(dataset))
            result = run(dataset, source=source, progress=bar)
    if as_json:
        print_json(result.to_json())
    else:
        what = f"{result.episodes} episodes, {result.steps} steps, {result.numbers} numbers, {result.images} images"
        typer.echo(f"{directory}: {what} in {file_count(result.files)}; source {result.source}")
    print_notes(result.notes)
    for difference in result.first:
        typer.echo(difference, err=True)
    if not result.ok:
        fail(f"{directory}: {result.differences} differences", FAILURES)
