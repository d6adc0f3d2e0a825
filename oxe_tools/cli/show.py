"""How results look to a person on a terminal."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from schemas.source import Array
from schemas.spaces import Space
from stats.record import Statistics
from stats.summary import Summary

if TYPE_CHECKING:
    from oxe_tools.demo.demo import Lab  # it draws pictures, which takes libraries that no other command needs
    from pipelines.inspect.draft.write import Proposal


def as_json(value: Any) -> None:
    """Print one object."""
    typer.echo(json.dumps(value))


def counted(reasons: dict[str, int]) -> str:
    """List reasons with their counts.

    >>> counted({"bad_crc": 2, "zero_steps": 1})
    '2 bad_crc, 1 zero_steps'
    """
    return ", ".join(f"{count} {reason}" for reason, count in reasons.items()) or "none"


def inspection(found: dict[str, Any]) -> None:
    """Show what `oxe inspect` found."""
    splits = ", ".join(f"{name} {split['episodes']}" for name, split in found["splits"].items())
    typer.echo(
        f"{found['format']}: {found['episodes']} episodes ({splits}), {found['steps']} steps in {found['read']} read"
    )
    table = Table("field", "type", "shape", "range", "encoding", "first value", box=None, pad_edge=False)
    for path, field in found["features"].items():
        limits = "" if field["range"] is None else " .. ".join(f"{limit:.4g}" for limit in field["range"])
        sample = str(field["samples"][0])[:40] if field["samples"] else ""
        shape = "x".join("?" if d is None else str(d) for d in field["shape"])
        table.add_row(path, field["dtype"], shape, limits, field["encoding"] or "", sample)
    _print(table)
    if "episodes_at" in found["source"]:
        typer.echo(f'Each episode is at "{found["source"]["episodes_at"]}": declare that as source.episodes.')
    for note in found["notes"]:
        typer.echo(f"Note: {note}")
    if found["declaration"]:
        typer.echo("It carries its own declaration (oxe_spec.toml): 'oxe convert DIR --out ...' will find it.")


def sources(found: dict[str, Any]) -> None:
    """Show the sources that lie in a folder."""
    table = Table("format", "source", box=None, pad_edge=False)
    for row in found["sources"]:
        table.add_row(row["format"], row["uri"])
    _print(table)
    typer.echo(f"{len(found['sources'])} sources: name one, such as: oxe inspect {found['sources'][0]['uri']}")


def draft(file: str, proposed: "Proposal") -> None:
    """Show what is left to do in a draft."""
    left = proposed.todo()
    typer.echo(f"\n{file}: a draft of {proposed.name}'s declaration from {proposed.episodes} episodes")
    if proposed.shipped:
        typer.echo(f"shipped declarations that fit these fields: {', '.join(proposed.shipped)}")
    typer.echo(f"still to do: {', '.join(left)}" if left else "nothing is left open; read it before you use it")
    typer.echo(f"then: oxe datasets check {file}")


def datasets(rows: Sequence[dict[str, Any]]) -> None:
    """Show what `oxe datasets list` found."""
    table = Table("dataset", "robot", "Hz", "episodes", "views", box=None, pad_edge=False)
    for row in rows:
        hz, episodes = ("" if row[key] is None else f"{row[key]:,g}" for key in ("control_hz", "episodes"))
        table.add_row(row["name"], row["robot"], hz, episodes, " ".join(row["views"]))
    _print(table)


def conversion(report: dict[str, Any]) -> None:
    """Show the outcome of `oxe convert`."""
    episodes = report["episodes"]
    typer.echo(f"{report['out']}: {report['steps']} steps in {files(report['files'])}, {report['seconds']:.1f} s")
    left_out = f"dropped ({counted(episodes['dropped'])}) + quarantined ({counted(episodes['quarantined'])})"
    typer.echo(f"episodes: {episodes['source']} in the source = {episodes['kept']} kept + {left_out}")


def unknowns(name: str, spaces: Sequence[Space | None]) -> None:
    """Say which conventions the declaration does not know."""
    for space in filter(None, spaces):
        if words := space.unknowns():
            typer.echo(f"{name}: {space.name}: not known: {', '.join(words)}", err=True)


def notes(found: Sequence[str]) -> None:
    """Print on stderr what the user should know before using what was made."""
    for note in found:
        typer.echo(f"note: {note}", err=True)


def exported(report: Mapping[str, Any]) -> None:
    """Print what was exported, and how each camera is kept."""
    typer.echo(f"{report['out']}: {report['episodes']} episodes, {report['steps']} steps in {files(report['files'])}")
    for key, kept in report["cameras"].items():
        how = f"{kept['as']}, PSNR of each frame at least {kept['psnr']} dB" if kept["psnr"] else kept["as"]
        typer.echo(f"{key}: {how}{': ' + kept['why'] if kept['why'] else ''}")


def files(count: int) -> str:
    """Count files.

    >>> files(1)
    '1 file'
    """
    return f"{count} file{'s' * (count != 1)}"


def plan(planned: dict[str, Any]) -> None:
    """Show what `oxe convert --dry-run` would do."""
    size = f"{planned['bytes'] / 1e6:.1f} MB in {files(planned['files'])}"
    typer.echo(f"{planned['dataset']}: {planned['episodes']} episodes, {size}")
    typer.echo(f"action: {', '.join(planned['action'])}")
    typer.echo(f"state: {', '.join(planned['state']) or 'none'}")
    typer.echo(f"cameras: {', '.join(planned['cameras']) or 'none'}")
    typer.echo(f"views: {', '.join(planned['views']) or 'none'}")
    typer.echo("nothing was written")


def labs(found: "Sequence[Lab]", out: Path, *, step: int, view: str) -> None:
    """Show the demo: the same step of the same motion, as three labs recorded it and in one schema."""
    before = Table(
        "lab",
        "Hz",
        "recorded as",
        "values",
        title=f"Before: step {step} of one motion, in three labs' words",
        box=None,
        title_justify="left",
    )
    for lab in found:
        for i, (path, values) in enumerate(lab.before()):
            head = (lab.spec.name, f"{lab.spec.control_hz:g}") if i == 0 else ("", "")
            before.add_row(*head, path, _numbers(values))
    after = Table("lab", *(dim.name for dim in found[0].viewed.action_space.dims), "off the true motion", box=None)
    after.title = f"After: the same step in the view '{view}' (metres, radians, base frame, gripper 1 = open)"
    after.title_justify = "left"
    for lab in found:
        after.add_row(lab.spec.name, *(f"{x:.4f}" for x in lab.after()), f"{lab.error:.1e}")
    _print(before)
    typer.echo()
    _print(after)
    episodes = sum(lab.report.kept for lab in found)
    numbers, images = (sum(getattr(lab.verification, name) for lab in found) for name in ("numbers", "images"))
    typer.echo(f"\nVerified against the recordings: {episodes} episodes, {numbers} numbers and {images} images equal.")
    first = found[0].spec.name
    typer.echo("Try next:")
    typer.echo(f"  oxe inspect {out}/recordings/{first}")
    typer.echo(f"  oxe verify {out}/datasets/{first}")
    typer.echo(f"  oxe export rlds {out}/datasets/{first} --view {view} --out {out}/rlds/{first}")
    typer.echo(
        f"  python -c \"import oxe_tools; print(oxe_tools.open_dataset('{out}/datasets/{first}').episode(0).action)\""
    )


BLOCKS = " ▁▂▃▄▅▆▇█"


def statistics(record: Statistics) -> None:
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
            _print(_summary(name, summary))
        else:
            low, high = (f(axis=0) for f in (summary.q01.min, summary.q99.max))
            ranges = [f"{d.name} {a:.4g} .. {b:.4g}" for d, a, b in zip(summary.space.dims, low, high, strict=True)]
            typer.echo(f"{name}: {summary.count} chunks of {len(summary.mean)} steps; q01 .. q99: {', '.join(ranges)}")


def _summary(name: str, summary: Summary) -> Table:
    table = Table(
        name, "unit", "min", "q01", "q01 to q99", "q99", "max", "mean", "std", "flags", box=None, pad_edge=False
    )
    flags = summary.flags
    for i, dim in enumerate(summary.space.dims):
        numbers = [f"{getattr(summary, word)[i]:.4g}" for word in ("min", "q01", "q99", "max", "mean", "std")]
        notes = [flags.get(dim.name, ""), "" if summary.mask[i] else "not normalized"]
        drawn = "" if flags.get(dim.name) == "constant" else sparkline(summary.sketch[i])
        table.add_row(dim.name, dim.unit, *numbers[:2], drawn, *numbers[2:], ", ".join(filter(None, notes)))
    return table


def sparkline(counts: Array) -> str:
    """Draw counts as blocks.

    >>> sparkline(np.array([0, 1, 8]))
    ' ▁█'
    """
    top = max(1, int(counts.max()))
    return "".join(BLOCKS[-(-8 * int(count) // top)] for count in counts)


def comparison(found: dict[str, Any]) -> None:
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


def mixture(found: dict[str, Any]) -> None:
    """Show what a mixture is made of."""
    size = f"{found['episodes']} episodes, {found['steps']} steps, {found['hours']:.3g} hours"
    typer.echo(f"{found['name']}{': ' + found['lock'] if found['lock'] else ''}")
    typer.echo(f"view {found['view'] or '(as stored)'}: {size}; an epoch has {found['epoch']} draws")
    table = Table("source", "episodes", "steps", "hours", "nominal", "share", "repeats", "groups", "licence", box=None)
    for name, row in found["sources"].items():
        hours = "" if row["hours"] is None else f"{row['hours']:.3g}"
        shares = f"{row['nominal']:.2%}", f"{row['share']:.2%}", f"{row['repeats']:.3g}"
        counts = str(row["episodes"]), str(row["steps"]), hours
        table.add_row(name, *counts, *shares, str(row["strata"]), row["license"] or "not stated")
    _print(table)
    typer.echo(f"as varied as {found['effective_sources']:.2f} sources of equal share")
    for name, row in found["sources"].items():
        if row["masked"]:
            typer.echo(f"{name}: masked, for it has none: {', '.join(row['masked'])}")
    for name, why in found["left_out"].items():
        typer.echo(f"left out: {name}: {why}")
    for line in found["differences"]:
        typer.echo(f"the sources differ: {line}")
    for what, count in found["leakage"].items():
        if count and what != "validation_episodes":
            typer.echo(f"leakage: {what.replace('_', ' ')}: {count} episodes")


def draws(found: dict[str, Any]) -> None:
    """Show a sample beside its shares."""
    table = Table("source", "share", "expected", "drawn", box=None, pad_edge=False)
    for name, row in found["sources"].items():
        table.add_row(name, f"{row['share']:.3%}", f"{row['expected']:.1f}", str(row["draws"]))
    _print(table)
    typer.echo(f"{found['draws']} draws with seed {found['seed']}: p = {found['p']:.3g} (chi-squared)")


def action(values: Array, token_ids: Array) -> None:
    """Show one predicted action, and the tokens that it was decoded from."""
    typer.echo(f"action: {_numbers(values)}")
    typer.echo(f"token ids: {' '.join(map(str, token_ids.tolist()))}")


def training(found: Mapping[str, Any]) -> None:
    """Show how far a training came."""
    for kind in ("train", "eval"):
        if told := found.get(kind):
            words = f"loss {told['loss']:.4g}, token accuracy {told['token_accuracy']:.3f}, L1 {told['l1']:.4f}"
            typer.echo(f"{kind} at step {told['step']}: {words}")
    for name, row in (found.get("eval") or {}).get("sources", {}).items():
        dims = ", ".join(f"{dim} {errors['l1_metric']:.3g}" for dim, errors in row["dims"].items())
        typer.echo(f"{name}: L1 in its own units: {dims}")
    for image, times in found.get("broken", {}).items():
        typer.echo(f"could not be decoded, another step was shown ({times} times): {image}")
    typer.echo(f"{found['checkpoint']}: {found['step']} steps{'' if 'train' in found else ', all of them before'}")


def _numbers(values: Array) -> str:
    return " ".join(f"{x:.4g}" for x in np.atleast_1d(values))


def _print(table: Table) -> None:
    Console(width=None if Console().is_terminal else 140, highlight=False).print(table)
