"""The commands `oxe mix`: they parse, call one function, and print."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from oxe_tools.cli.console import FAILURES, Json, Overwrite, fail, print_json, print_table, progress

if TYPE_CHECKING:
    from pipelines.mix.report import DrawTest, MixtureSummary

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
        summary = mixtures.lock(
            mixture,
            data=data,
            out=out,
            engine=Engine(workers=workers),
            dry_run=dry_run,
            overwrite=overwrite,
            progress=bar,
        )
    _show_mixture(summary, as_json=as_json)


@app.command()
def stats(locked: Locked, *, as_json: Json = False) -> None:
    """Show shares, repeats, hours, the effective number of sources, and what is on both sides of a split.

    \b
    Example: oxe mix stats kitchen.lock
    """
    from oxe_tools import mixtures

    _show_mixture(mixtures.stats(locked), as_json=as_json)


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
        print_json({"ok": not found, "drift": found})
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
        print_json({"same": not found, "differences": found})
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

    test = mixtures.sample(locked, draws, seed=seed)
    if as_json:
        print_json(test.to_json())
    else:
        _show_draws(test)
    if not test.ok:
        fail(f"{locked}: {draws} draws do not follow the shares (p = {test.p:.2g})", FAILURES)


def _show_mixture(summary: "MixtureSummary", *, as_json: bool) -> None:
    """Show what a mixture is made of."""
    if as_json:
        print_json(summary.to_json())
        return
    size = f"{summary.episodes} episodes, {summary.steps} steps, {summary.hours:.3g} hours"
    typer.echo(f"{summary.name}{': ' + summary.lock if summary.lock else ''}")
    typer.echo(f"view {summary.view or '(as stored)'}: {size}; an epoch has {summary.epoch} draws")
    columns = ("source", "episodes", "steps", "hours", "nominal", "share", "repeats", "groups", "licence")
    rows = []
    for name, row in summary.sources.items():
        hours = "" if row.hours is None else f"{row.hours:.3g}"
        shares = f"{row.nominal:.2%}", f"{row.share:.2%}", f"{row.repeats:.3g}"
        counts = str(row.episodes), str(row.steps), hours
        rows.append((name, *counts, *shares, str(row.strata), row.license or "not stated"))
    print_table(columns, rows, padded=True)
    typer.echo(f"as varied as {summary.effective_sources:.2f} sources of equal share")
    for name, row in summary.sources.items():
        if row.masked:
            typer.echo(f"{name}: masked, for it has none: {', '.join(row.masked)}")
    for name, why in summary.left_out.items():
        typer.echo(f"left out: {name}: {why}")
    for line in summary.differences:
        typer.echo(f"the sources differ: {line}")
    for what, count in asdict(summary.leakage).items():
        if count and what != "validation_episodes":
            typer.echo(f"leakage: {what.replace('_', ' ')}: {count} episodes")


def _show_draws(test: "DrawTest") -> None:
    """Show a sample beside its shares."""
    rows = [(name, f"{row.share:.3%}", f"{row.expected:.1f}", str(row.draws)) for name, row in test.sources.items()]
    print_table(["source", "share", "expected", "drawn"], rows)
    typer.echo(f"{test.draws} draws with seed {test.seed}: p = {test.p:.3g} (chi-squared)")
