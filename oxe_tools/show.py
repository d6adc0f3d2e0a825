"""How results look to a person on a terminal."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from schemas.source import Array
from schemas.spaces import Space

if TYPE_CHECKING:
    from oxe_tools.demo import Lab  # it draws pictures, which takes libraries that no other command needs


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
    if found["declaration"]:
        typer.echo("It carries its own declaration (oxe_spec.toml): 'oxe convert DIR --out ...' will find it.")


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
        words = [word for word in ("frame", "rotation", "gripper") if getattr(space, word) == "unknown"]
        for what in ("unit", "mode"):
            words += [f"the {what} of {dim.name}" for dim in space.dims if getattr(dim, what) == "unknown"]
        if words:
            typer.echo(f"{name}: {space.name}: not known: {', '.join(words)}", err=True)


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


def _numbers(values: Array) -> str:
    return " ".join(f"{x:.4g}" for x in np.atleast_1d(values))


def _print(table: Table) -> None:
    Console(width=None if Console().is_terminal else 140, highlight=False).print(table)
