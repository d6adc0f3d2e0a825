"""The commands `oxe mix`: they parse, call one function, and print."""

from pathlib import Path
from typing import Annotated

import typer

from oxe_tools.cli import show
from oxe_tools.cli.console import FAILURES, Json, Overwrite, fail, progress

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Lock mixtures, check them, draw from them.")

Mixture = Annotated[str, typer.Argument(metavar="MIX", help="A mixture: a shipped name or a TOML file.")]
Locked = Annotated[str, typer.Argument(metavar="MIX", help="A lock, or the TOML file that it lies beside.")]


@app.command()
def lock(
    mixture: Mixture,
    *,
    data: Annotated[str | None, typer.Option(metavar="DIR", help="Where the datasets without a uri are.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="The lock; by default NAME.lock beside the TOML file, or here.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes on this machine, for statistics.")] = 1,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count and show; write nothing.")] = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Pin a mixture: its datasets by their digests, its episodes, steps, shares and statistics.

    \b
    Example: oxe mix lock kitchen.toml --out kitchen.lock
    """
    from oxe_tools import mixtures
    from pipelines.beam.engine import Engine

    with progress() as bar:
        found = mixtures.lock(
            mixture,
            data=data,
            out=out,
            engine=Engine(workers=workers),
            dry_run=dry_run,
            overwrite=overwrite,
            progress=bar,
        )
    (show.as_json if as_json else show.mixture)(found.to_json())


@app.command()
def stats(locked: Locked, *, as_json: Json = False) -> None:
    """Show shares, repeats, hours, the effective number of sources, and what is on both sides of a split.

    \b
    Example: oxe mix stats kitchen.lock
    """
    from oxe_tools import mixtures

    (show.as_json if as_json else show.mixture)(mixtures.stats(locked).to_json())


@app.command()
def verify(
    locked: Locked,
    *,
    deep: Annotated[bool, typer.Option("--deep", help="Read every data file, and lock the mixture again.")] = False,
    as_json: Json = False,
) -> None:
    """Say what has changed since the lock: datasets, view code, statistics, files, the mixture itself.

    \b
    Example: oxe mix verify kitchen.lock
    """
    from oxe_tools import mixtures

    found = mixtures.verify(locked, deep=deep)
    if as_json:
        show.as_json({"ok": not found, "drift": found})
    for line in found:
        typer.echo(line, err=True)
    if found:
        fail(f"{locked}: {len(found)} changes since the lock", FAILURES)
    if not as_json:
        typer.echo(f"{locked}: as it was locked")


@app.command()
def diff(
    first: Annotated[str, typer.Argument(metavar="LOCK", help="A lock.")],
    second: Annotated[str, typer.Argument(metavar="LOCK2", help="Another one.")],
    *,
    as_json: Json = False,
) -> None:
    """Say in words what two locks differ in; exit 1 if they do.

    \b
    Example: oxe mix diff monday.lock tuesday.lock
    """
    from oxe_tools import mixtures

    found = mixtures.diff(first, second)
    if as_json:
        show.as_json({"same": not found, "differences": found})
    else:
        typer.echo("\n".join(found) or "no difference")
    if found:
        raise typer.Exit(FAILURES)


@app.command()
def sample(
    locked: Locked,
    *,
    draws: Annotated[int, typer.Option(min=1, metavar="N", help="How often to draw.")] = 100_000,
    seed: Annotated[int | None, typer.Option(min=0, help="Another seed than the lock's.")] = None,
    as_json: Json = False,
) -> None:
    """Draw, count, and test the counts against the shares (chi-squared); exit 1 where they do not fit.

    \b
    Example: oxe mix sample kitchen.lock --draws 100000
    """
    from oxe_tools import mixtures

    found = mixtures.sample(locked, draws, seed=seed)
    (show.as_json if as_json else show.draws)(found.to_json())
    if not found.ok:
        fail(f"{locked}: {draws} draws do not follow the shares (p = {found.p:.2g})", FAILURES)
