"""The command `oxe stats`: it parses, calls one function, and prints."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

import typer

from oxe_tools.cli.console import (
    FAILURES,
    BeamOptions,
    Json,
    Overwrite,
    Runner,
    Workers,
    beam_words,
    fail,
    print_json,
    print_table,
)
from schemas.errors import UsageError

if TYPE_CHECKING:
    from schemas.source import Array
    from stats.record import Statistics
    from stats.summary import Summary

Form: TypeAlias = Literal["native", "openvla", "lerobot", "openpi"]  # as in stats/formats.py, which imports numpy
BLOCKS = " ▁▂▃▄▅▆▇█"


def stats(
    target: Annotated[str, typer.Argument(metavar="DIR|NAME", help="A converted dataset; with --from, NAME[@digest].")],
    *,
    view: Annotated[str | None, typer.Option(help="Of this view's actions, at the steps that it keeps.")] = None,
    split: Annotated[str | None, typer.Option(help="Only this split.")] = None,
    filters: Annotated[
        str | None, typer.Option("--filter", metavar="COND", help="Only episodes like 'length >= 20 and id != \"a\"'.")
    ] = None,
    chunk: Annotated[int, typer.Option(min=0, metavar="H", help="Also of chunks of H consecutive actions.")] = 0,
    merge: Annotated[
        list[str] | None, typer.Option(metavar="DIR2", help="Count this dataset of the same embodiment in, too.")
    ] = None,
    form: Annotated[Form | None, typer.Option("--format", help="Write the file that a trainer reads.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the file here instead of on stdout.")] = None,
    diff: Annotated[str | None, typer.Option(metavar="DIR2|FILE", help="Say what differs, and if it matters.")] = None,
    against: Annotated[
        str | None, typer.Option(metavar="CHECKPOINT|FILE", help="Say how much lies outside what it was trained on.")
    ] = None,
    publish: Annotated[str | None, typer.Option(metavar="URI", help="Add them to the registry at URI.")] = None,
    source: Annotated[str | None, typer.Option("--from", metavar="URI", help="Fetch NAME from this registry.")] = None,
    workers: Workers = 1,
    runner: Runner = None,
    beam_options: BeamOptions = "",
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Compute exact normalization statistics, and write, compare, publish or fetch them.

    \b
    Example: oxe stats bridge --view openvla --format openvla --out dataset_statistics.json
    """
    from oxe_tools import statistics as work
    from pipelines.beam.engine import Engine
    from pipelines.statistics.numbers import Selection
    from stats import registry

    modes = {"--diff": diff, "--against": against, "--publish": publish, "--format or --out": form or out}
    _check_together(modes)
    _check_together({"--diff": diff, "--against": against, "--merge": merge, "--from": source})
    selection = Selection(view=view, split=split, filters=filters, chunk=chunk)
    engine = Engine(workers=workers, runner=runner, options=beam_words(beam_options))
    if diff or against:
        found = work.beside(target, diff or against or "", selection=selection, engine=engine)
        (print_json if as_json else _show_comparison)(found.to_json())
        if found.matters:
            fail(f"{target}: differs from {found.theirs} in what matters", FAILURES)
        return
    record = work.found(target, merge or [], source=source, selection=selection, engine=engine)
    if publish:
        name = registry.publish(record, publish)
        print_json({"published": name, "uri": publish}) if as_json else typer.echo(f"{publish}: {name}")
    elif form or out:
        work.write(record, form or "native", out=out, overwrite=overwrite)
        if out:
            told = {"out": str(out), "format": form or "native", "name": record.name}
            print_json(told) if as_json else typer.echo(f"{out}: {told['format']} statistics of {record.name}")
    elif as_json:
        print_json(record.to_json())
    else:
        _show_statistics(record)


def _check_together(options: Mapping[str, object]) -> None:
    """Refuse options that exclude one another."""
    given = [name for name, value in options.items() if value]
    if len(given) > 1:
        raise UsageError(f"{' and '.join(given)} do not go together")


def _show_statistics(record: "Statistics") -> None:
    """Show statistics: per dimension its range in its unit, its distribution, and what stands in the way."""
    chosen = [f"view {record.view}" if record.view else "as stored"]
    chosen += [f"split {record.split}"] if record.split else []
    chosen += [record.filters] if record.filters else []
    members = f" ({', '.join(member.dataset for member in record.members)})" if len(record.members) > 1 else ""
    size = f"{record.episodes} episodes, {record.steps} steps"
    typer.echo(f"{record.name}{members}: {', '.join(chosen)}; {size}")
    for name, summary in record.vectors.items():
        typer.echo()
        if summary.mean.ndim == 1:
            columns = (name, "unit", "min", "q01", "q01 to q99", "q99", "max", "mean", "std", "flags")
            print_table(columns, _rows(summary))
        else:
            low, high = (f(axis=0) for f in (summary.q01.min, summary.q99.max))
            ranges = [f"{d.name} {a:.4g} .. {b:.4g}" for d, a, b in zip(summary.space.dims, low, high, strict=True)]
            typer.echo(f"{name}: {summary.count} chunks of {len(summary.mean)} steps; q01 .. q99: {', '.join(ranges)}")


def _rows(summary: "Summary") -> Iterator[tuple[str, ...]]:
    flags = summary.flags
    for i, dim in enumerate(summary.space.dims):
        figures = [f"{getattr(summary, word)[i]:.4g}" for word in ("min", "q01", "q99", "max", "mean", "std")]
        notes = [flags.get(dim.name, ""), "" if summary.mask[i] else "not normalized"]
        drawn = "" if flags.get(dim.name) == "constant" else sparkline(summary.sketch[i])
        yield (dim.name, dim.unit, *figures[:2], drawn, *figures[2:], ", ".join(filter(None, notes)))


def sparkline(counts: "Array") -> str:
    """Draw counts as blocks.

    >>> import numpy as np
    >>> sparkline(np.array([0, 1, 8]))
    ' ▁█'
    """
    top = max(1, int(counts.max()))
    return "".join(BLOCKS[-(-8 * int(count) // top)] for count in counts)


def _show_comparison(found: dict[str, Any]) -> None:
    """Show a dataset beside other statistics."""
    typer.echo(f"{found['ours']} beside {found['theirs']}")
    for vector, shares in found["outside"].items():
        listed = ", ".join(f"{name} {share:.1%}" for name, share in shares.items())
        typer.echo(f"{vector}: share outside the other's range: {listed}")
    for finding in found["findings"]:
        place = ".".join(filter(None, (finding["vector"], finding["dimension"])))
        typer.echo(f"{'MATTERS' if finding['matters'] else 'note'}: {place}: {finding['what']}: {finding['detail']}")
    if not found["findings"]:
        typer.echo("no difference that is worth a word")
