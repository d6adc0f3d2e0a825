"""The commands `oxe datasets`: they parse, call one function, and print."""

from typing import Annotated, Any

import typer

from oxe_tools.cli.console import FAILURES, USAGE, Declaration, Json, Recordings, fail, print_json, print_table

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Look up the declared datasets.")


@app.command("list")
def list_datasets(*, as_json: Json = False) -> None:
    """List the declared datasets: robot, control rate, episodes and views.

    \b
    Example: oxe datasets list
    """
    from oxe_tools import datasets

    rows = [datasets.row(declared) for declared in datasets.listed()]
    if as_json:
        print_json({"datasets": rows})
    else:
        print_table(["dataset", "robot", "Hz", "episodes", "views"], map(_row, rows))


def _row(dataset: dict[str, Any]) -> tuple[str, ...]:
    hz, episodes = ("" if dataset[key] is None else f"{dataset[key]:,g}" for key in ("control_hz", "episodes"))
    return (dataset["name"], dataset["robot"], hz, episodes, " ".join(dataset["views"]))


@app.command()
def show(declaration: Declaration, *, as_json: Json = False) -> None:
    """Tell what is known about one dataset: vectors, cameras, views, size, source, and what to beware of.

    \b
    Example: oxe datasets show taco_play
    """
    from oxe_tools import datasets
    from schemas.declarations import catalog

    spec = catalog.dataset(declaration)
    if as_json:
        print_json(datasets.details(spec))
    else:
        typer.echo(datasets.section(spec))


@app.command()
def check(
    declaration: Declaration,
    *,
    source: Recordings = None,
    limit: Annotated[int, typer.Option(min=0, metavar="N", help="Read the first N episodes.")] = 3,
    as_json: Json = False,
) -> None:
    """Compare a declaration's keys, shapes and ranges with a source, before a long conversion.

    \b
    Example: oxe datasets check bridge_dataset --source data/bridge_dataset/1.0.0
    """
    from pipelines.inspect.check import check as run
    from schemas.declarations import catalog

    spec = catalog.dataset(declaration)
    uri = source or catalog.source_of(declaration, spec)
    if uri is None:
        fail(f"{spec.name}: its declaration names no source; give --source", USAGE)
    found = run(spec, uri, episodes=limit)
    if as_json:
        print_json(found.to_json())
    else:
        typer.echo(f"{spec.name}: {found.read} episodes read, {found.dropped} of them left out by its filters")
        for note in found.notes:
            typer.echo(f"note: {note}")
    for problem in found.problems:
        typer.echo(problem, err=True)
    if not found.ok:
        fail(f"{spec.name}: {len(found.problems)} problems", FAILURES)
