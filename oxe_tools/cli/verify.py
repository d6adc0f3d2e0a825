"""The command `oxe verify`: it parses, calls one function, and prints."""

from pathlib import Path
from typing import Annotated

import typer

from oxe_tools.cli.console import FAILURES, DatasetDir, Json, fail, files, print_json, progress


def verify(
    directory: DatasetDir,
    *,
    source: Annotated[str | None, typer.Option(help="The source, if not the one it was converted from.")] = None,
    as_json: Json = False,
) -> None:
    """Read a dataset and its source again and compare every number, image byte, count, digest and index entry.

    Of an export, the source is the dataset that it was made from.

    \b
    Example: oxe verify bridge
    """
    from pipelines.export.ledger import RECORD
    from pipelines.export.verify import verify_export
    from pipelines.verify import verify as run
    from schemas.store.dataset import open_dataset

    with progress() as bar:
        if (Path(directory) / RECORD).is_file():
            found = verify_export(Path(directory), source=source, progress=bar)
        else:
            dataset = open_dataset(directory)
            bar.expect(len(dataset))
            found = run(dataset, source=source, progress=bar)
    if as_json:
        print_json(found.to_json())
    else:
        what = f"{found.episodes} episodes, {found.steps} steps, {found.numbers} numbers, {found.images} images"
        typer.echo(f"{directory}: {what} in {files(found.files)}; source {found.source}")
    for difference in found.first:
        typer.echo(difference, err=True)
    if not found.ok:
        fail(f"{directory}: {found.differences} differences", FAILURES)
