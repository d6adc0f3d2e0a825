"""The commands `oxe datasets`."""

from typing import Annotated, Any

import typer

from oxe_tools.cli.console import (
    FAILURES,
    USAGE,
    Declaration,
    FollowLinks,
    Json,
    Recordings,
    fail,
    print_json,
    print_table,
    say,
    say_text,
)

Shown = Annotated[
    str,
    typer.Argument(
        metavar="NAME|SPEC.toml|DIR",
        help="A shipped dataset or embodiment, a declaration file, or an exported dataset.",
    ),
]

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="List, show and check the declared datasets.")


@app.command("list")
def list_datasets(*, as_json: Json = False) -> None:
    """List the declared datasets.

    Each row has the robot, the control rate, the number of episodes and the views.

    \b
    Example: oxe datasets list
    """
    from oxe_tools import datasets

    rows = [datasets.row(declared) for declared in datasets.all_specs()]
    if as_json:
        print_json({"datasets": rows})
    else:
        print_table(["dataset", "robot", "Hz", "episodes", "views"], map(_row, rows))


def _row(dataset: dict[str, Any]) -> tuple[str, ...]:
    hz, episodes = ("" if dataset[key] is None else f"{dataset[key]:,g}" for key in ("control_hz", "episodes"))
    return (dataset["name"], dataset["robot"], hz, episodes, " ".join(dataset["views"]))


@app.command()
def show(declaration: Shown, *, as_json: Json = False) -> None:
    """Show what is known about one dataset or one embodiment.

    For a dataset, this includes its vectors, cameras, views, size, source and known problems; for an embodiment, how
    recordings of the robot store its vectors.

    \b
    Example: oxe datasets show taco_play
    Example: oxe datasets show so101_travel
    """
    from oxe_tools import datasets, robots
    from schemas.declarations import catalog

    if declaration in catalog.embodiment_names():
        robot = catalog.robot(declaration)
        if as_json:
            print_json(robots.details(robot))
        else:
            say_text(robots.section(robot))
        return
    spec = catalog.dataset(declaration)
    if as_json:
        print_json(datasets.details(spec))
    else:
        say_text(datasets.section(spec))


@app.command()
def check(
    declaration: Declaration,
    *,
    source: Recordings = None,
    limit: Annotated[int, typer.Option(min=0, metavar="N", help="Number of episodes to read.")] = 3,
    follow_links: FollowLinks = False,
    as_json: Json = False,
) -> None:
    """Check a declaration against a source.

    The keys, shapes and ranges of the first episodes are compared, which is faster than a conversion.

    \b
    Example: oxe datasets check bridge_dataset --source data/bridge_dataset/1.0.0
    """
    from pipelines.inspect.check import check as run
    from schemas.declarations import catalog

    spec = catalog.dataset(declaration)
    uri = source or catalog.source_of(declaration, spec)
    if uri is None:
        fail(f"{spec.name}: the declaration names no source; pass --source", USAGE)
    checked = run(spec, uri, episodes=limit, follow_links=follow_links)
    if as_json:
        print_json(checked.to_json())
    else:
        say(f"{spec.name}: {checked.read} episodes read, {checked.dropped} of them dropped by filters")
        for note in checked.notes:
            say(f"note: {note}")
    for problem in checked.problems:
        say(problem, err=True)
    if not checked.ok:
        fail(f"{spec.name}: {len(checked.problems)} problems", FAILURES)
