"""How `oxe train --plan` looks to a person on a terminal."""

from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from finetune.training.plan import Plan  # it needs torch

GIB = 2**30
WAYS = {"none": "one process", "ddp": "copies (ddp)", "fsdp": "parts (fsdp)"}


def plan(found: "Plan") -> None:
    """Show what each way to run takes."""
    model = found.footprint
    typer.echo(
        f"{model.parameters:,} parameters, {model.trained:,} of them trained. GiB for each process at most, without "
        "what Python and the libraries take (about 0.6):"
    )
    columns = ("processes", "way", "samples at a time", "checkpointed", "weights", "gradients", "AdamW")
    table = Table(*columns, "activations", "gathered", "peak", box=None, pad_edge=False)
    for need in found.ways:
        sizes = (need.weights, need.gradients, need.moments, need.activations, need.gathered, need.peak)
        how = (str(need.world), WAYS[need.way], str(need.micro), "yes" if need.checkpointed else "no")
        table.add_row(*how, *(f"{size / GIB:.2f}" for size in sizes))
    Console(highlight=False, width=200).print(table)
