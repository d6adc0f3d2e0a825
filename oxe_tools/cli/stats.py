"""The command `oxe stats`."""

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
    say,
)
from schemas.errors import UsageError

if TYPE_CHECKING:
    from schemas.source import Array
    from stats.record import Statistics
    from stats.summary import Summary

# A copy of the type in stats/formats.py, which is not imported here because it imports numpy.
Form: TypeAlias = Literal["native", "openvla", "lerobot", "openpi"]
BLOCKS = " ▁▂▃▄▅▆▇█"


def stats(
    target: Annotated[str, typer.Argument(metavar="DIR|NAME", help="A converted dataset; with --from, NAME[@digest].")],
    *,
    view: Annotated[str | None, typer.Option(help="Use the actions of this view.")] = None,
    split: Annotated[str | None, typer.Option(help="Use only this split.")] = None,
    filters: Annotated[
        str | None,
        typer.Option(
            "--filter", metavar="COND", help="A condition on episodes, such as 'length >= 20 and id != \"a\"'."
        ),
    ] = None,
    chunk: Annotated[int, typer.Option(min=0, metavar="H", help="Also compute statistics of chunks of H actions.")] = 0,
    merge: Annotated[
        list[str] | None,
        typer.Option(metavar="DIR2", help="Add this dataset of the same embodiment; may be repeated."),
    ] = None,
    form: Annotated[Form | None, typer.Option("--format", help="Write a statistics file in this format.")] = None,
    out: Annotated[Path | None, typer.Option(help="The file to write; by default stdout.")] = None,
    diff: Annotated[
        str | None,
        typer.Option(metavar="DIR2|FILE", help="List the differences from other statistics, and which of them matter."),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="CHECKPOINT|FILE", help="Show how much is outside the range of a checkpoint's training data."
        ),
    ] = None,
    publish: Annotated[
        str | None, typer.Option(metavar="URI", help="Add the statistics to the registry at URI.")
    ] = None,
    source: Annotated[str | None, typer.Option("--from", metavar="URI", help="Fetch NAME from this registry.")] = None,
    workers: Workers = 1,
    runner: Runner = None,
    beam_options: BeamOptions = "",
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Compute exact normalization statistics.

    They can also be compared, written for a trainer, published to a registry or fetched from one.

    \b
    Example: oxe stats bridge --view openvla --format openvla --out dataset_statistics.json
    """
    from oxe_tools import statistics as work
    from pipelines.beam.engine import Engine
    from pipelines.statistics.numbers import Selection
    from stats import registry

    modes = {"--diff": diff, "--against": against, "--publish": publish, "--format or --out": form or out}
    _check_exclusive(modes)
    _check_exclusive({"--diff": diff, "--against": against, "--merge": merge, "--from": source})
    selection = Selection(view=view, split=split, filters=filters, chunk=chunk)
    engine = Engine(workers=workers, runner=runner, options=beam_words(beam_options))
    if diff or against:
        comparison = work.compare_with(target, diff or against or "", selection=selection, engine=engine)
        (print_json if as_json else _show_comparison)(comparison.to_json())
        if comparison.matters:
            fail(f"{target}: differences from {comparison.theirs} that matter", FAILURES)
        return
    record = work.compute_or_fetch(target, merge or [], source=source, selection=selection, engine=engine)
    if publish:
        name = registry.publish(record, publish)
        print_json({"published": name, "uri": publish}) if as_json else say(f"{publish}: {name}")
    elif form or out:
        work.write_statistics(record, form or "native", out=out, overwrite=overwrite)
        if out:
            written = {"out": str(out), "format": form or "native", "name": record.name}
            print_json(written) if as_json else say(f"{out}: {written['format']} statistics of {record.name}")
    elif as_json:
        print_json(record.to_json())
    else:
        _show_statistics(record)


def _check_exclusive(options: Mapping[str, object]) -> None:
    """Raise UsageError if more than one of these options is set."""
    given = [name for name, value in options.items() if value]
    if len(given) > 1:
        raise UsageError(f"{' and '.join(given)}: pass only one of them")


def _show_statistics(record: "Statistics") -> None:
    """Print the range, unit, distribution and flags of each dimension."""
    chosen = [f"view {record.view}" if record.view else "as stored"]
    chosen += [f"split {record.split}"] if record.split else []
    chosen += [record.filters] if record.filters else []
    members = f" ({', '.join(member.dataset for member in record.members)})" if len(record.members) > 1 else ""
    size = f"{record.episodes} episodes, {record.steps} steps"
    say(f"{record.name}{members}: {', '.join(chosen)}; {size}")
    for name, summary in record.vectors.items():
        say()
        if summary.mean.ndim == 1:
            columns = (name, "unit", "min", "q01", "q01 to q99", "q99", "max", "mean", "std", "flags")
            print_table(columns, _rows(summary))
        else:
            low, high = (f(axis=0) for f in (summary.q01.min, summary.q99.max))
            ranges = [f"{d.name} {a:.4g} .. {b:.4g}" for d, a, b in zip(summary.space.dims, low, high, strict=True)]
            say(f"{name}: {summary.count} chunks of {len(summary.mean)} steps; q01 .. q99: {', '.join(ranges)}")


def _rows(summary: "Summary") -> Iterator[tuple[str, ...]]:
    flags = summary.flags
    for i, dim in enumerate(summary.space.dims):
        figures = [f"{getattr(summary, word)[i]:.4g}" for word in ("min", "q01", "q99", "max", "mean", "std")]
        notes = [flags.get(dim.name, ""), "" if summary.mask[i] else "not normalized"]
        drawn = "" if flags.get(dim.name) == "constant" else sparkline(summary.sketch[i])
        yield (dim.name, dim.unit, *figures[:2], drawn, *figures[2:], ", ".join(filter(None, notes)))


def sparkline(counts: "Array") -> str:
    """Draw counts as a line of blocks.

    >>> import numpy as np
    >>> sparkline(np.array([0, 1, 8]))
    ' ▁█'
    """
    top = max(1, int(counts.max()))
    return "".join(BLOCKS[-(-8 * int(count) // top)] for count in counts)


def _show_comparison(comparison: dict[str, Any]) -> None:
    """Print the differences between a dataset and other statistics."""
    say(f"{comparison['ours']} compared with {comparison['theirs']}")
    for vector, shares in comparison["outside"].items():
        listed = ", ".join(f"{name} {share:.1%}" for name, share in shares.items())
        say(f"{vector}: share outside the range of the other: {listed}")
    for finding in comparison["findings"]:
        place = ".".join(filter(None, (finding["vector"], finding["dimension"])))
        say(f"{'MATTERS' if finding['matters'] else 'note'}: {place}: {finding['what']}: {finding['detail']}")
    if not comparison["findings"]:
        say("no significant differences")
