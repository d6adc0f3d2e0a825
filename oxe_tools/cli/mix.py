"""The commands `oxe mix`."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from oxe_tools.cli.console import (
    FAILURES,
    Json,
    Overwrite,
    fail,
    named_numbers,
    print_json,
    print_table,
    print_warning,
    progress,
    say,
)

if TYPE_CHECKING:
    from pipelines.mix.report import DrawTest, MixtureSummary

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Lock mixtures, check locks, and test their draws.")

Mixture = Annotated[str, typer.Argument(metavar="MIX", help="A mixture: a shipped name or a TOML file.")]
Locked = Annotated[str, typer.Argument(metavar="MIX", help="A lock, or the TOML file next to it.")]


@app.command()
def lock(
    mixture: Mixture,
    *,
    data: Annotated[str | None, typer.Option(metavar="DIR", help="The folder of the datasets without a uri.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="The lock to write; by default NAME.lock next to the TOML file or in the current folder."),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Number of processes that compute statistics.")] = 1,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the summary; write nothing.")] = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Lock a mixture.

    A lock contains the digests of the datasets, and the episodes, steps, shares and statistics of the mixture.

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
    """Show the summary of a lock.

    This includes shares, repeats, hours, the effective number of sources, and leakage between splits.

    \b
    Example: oxe mix stats kitchen.lock
    """
    from oxe_tools import mixtures

    _show_mixture(mixtures.stats(locked), as_json=as_json)


@app.command()
def verify(
    locked: Locked,
    *,
    deep: Annotated[bool, typer.Option("--deep", help="Also read every data file and lock the mixture again.")] = False,
    as_json: Json = False,
) -> None:
    """List what has changed since the lock.

    The datasets, views, statistics, files and the mixture file are compared with the lock.

    \b
    Example: oxe mix verify kitchen.lock
    """
    from oxe_tools import mixtures

    drift = mixtures.verify(locked, deep=deep)
    if as_json:
        print_json({"ok": not drift, "drift": drift})
    for line in drift:
        say(line, err=True)
    if drift:
        fail(f"{locked}: {len(drift)} changes since the lock", FAILURES)
    if not as_json:
        say(f"{locked}: unchanged since the lock")


@app.command()
def diff(
    first: Annotated[str, typer.Argument(metavar="LOCK", help="A lock.")],
    second: Annotated[str, typer.Argument(metavar="LOCK2", help="Another lock.")],
    *,
    as_json: Json = False,
) -> None:
    """List the differences between two locks.

    The exit code is 1 if there are any.

    \b
    Example: oxe mix diff monday.lock tuesday.lock
    """
    from oxe_tools import mixtures

    differences = mixtures.diff(first, second)
    if as_json:
        print_json({"same": not differences, "differences": differences})
    else:
        for line in differences or ["no differences"]:
            say(line)
    if differences:
        raise typer.Exit(FAILURES)


@app.command()
def sample(
    locked: Locked,
    *,
    draws: Annotated[int, typer.Option(min=1, metavar="N", help="Number of draws.")] = 100_000,
    seed: Annotated[int | None, typer.Option(min=0, help="The seed; by default that of the lock.")] = None,
    as_json: Json = False,
) -> None:
    """Draw from a lock and test the draws.

    The counts are tested against the shares (chi-squared). The exit code is 1 if they do not fit.

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
    """Print the summary of a mixture, and its warnings to stderr."""
    for warning in summary.warnings:
        print_warning(warning)
    if as_json:
        print_json(summary.to_json())
        return
    size = f"{summary.episodes} episodes, {summary.steps} steps, {summary.hours:.3g} hours"
    say(f"{summary.name}{': ' + summary.lock if summary.lock else ''}")
    say(f"view {summary.view or '(as stored)'}: {size}; an epoch has {summary.epoch} draws")
    columns = ("source", "episodes", "steps", "hours", "nominal", "share", "repeats", "groups", "licence")
    rows = []
    for name, row in summary.sources.items():
        hours = "" if row.hours is None else f"{row.hours:.3g}"
        shares = f"{row.nominal:.2%}", f"{row.share:.2%}", f"{row.repeats:.3g}"
        counts = str(row.episodes), str(row.steps), hours
        rows.append((name, *counts, *shares, str(row.strata), row.license or "not stated"))
    print_table(columns, rows, padded=True)
    say(f"effective number of sources: {summary.effective_sources:.2f}")
    if summary.paraphrases:
        count = sum(map(len, summary.paraphrases.values()))
        say(f"paraphrases: {count}, of {len(summary.paraphrases)} instructions")
    for line in _source_lines(summary):
        say(line)
    for name, why in summary.left_out.items():
        say(f"left out: {name}: {why}")
    for line in summary.differences:
        say(f"the sources differ: {line}")
    for what, count in asdict(summary.leakage).items():
        if count and what != "validation_episodes":
            say(f"leakage: {what.replace('_', ' ')}: {count} episodes")


def _source_lines(summary: "MixtureSummary") -> Iterator[str]:
    """Yield the lines about single sources: masked and constant dimensions, and what is held out."""
    for name, row in summary.sources.items():
        if row.masked:
            yield f"{name}: masked dimensions, which it does not have: {', '.join(row.masked)}"
        if row.constant:
            yield f"{name}: constant dimensions: {named_numbers(row.constant)}"
    for name, part in summary.holdout.items():
        yield f"{name}: {part}{'; ' + part.advice if part.advice else ''}"


def _show_draws(test: "DrawTest") -> None:
    """Print the draws of each source next to its share."""
    rows = [(name, f"{row.share:.3%}", f"{row.expected:.1f}", str(row.draws)) for name, row in test.sources.items()]
    print_table(["source", "share", "expected", "drawn"], rows)
    say(f"{test.draws} draws with seed {test.seed}: p = {test.p:.3g} (chi-squared)")
