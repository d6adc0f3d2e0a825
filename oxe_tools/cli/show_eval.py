"""How an evaluation looks to a person on a terminal."""

from typing import Any

import typer
from rich.console import Console
from rich.table import Table


def evaluation(found: dict[str, Any]) -> None:
    """Show how far predicted and recorded actions are apart, beside those of always doing the mean."""
    for name, source in found["sources"].items():
        typer.echo(f"{name}: {source['steps']} steps, {_accuracy(source)}")
        columns = ("dimension", "token accuracy", "L1 normalized", "L1", "of the mean action", "unit")
        table = Table(*columns, box=None, pad_edge=False)
        for dim, one in source["dims"].items():
            figures = (f"{one['token_accuracy']:.3f}", f"{one['l1']:.4f}", f"{one['l1_metric']:.4g}")
            table.add_row(dim, *figures, f"{one['mean_action']['l1_metric']:.4g}", one["unit"])
        _print(table)
        typer.echo(f"always doing the mean action: {_accuracy(source['mean_action'])}")
    typer.echo(f"all: {found['steps']} steps of {found['part']} with {found['images']} images, {_accuracy(found)}")
    typer.echo(f"figures and picture: {found['out']}")


def _accuracy(found: dict[str, Any]) -> str:
    return f"token accuracy {found['token_accuracy']:.3f}, L1 {found['l1']:.4f} (normalized)"


def _print(table: Table) -> None:
    Console(width=None if Console().is_terminal else 160, highlight=False).print(table)
