"""The command `oxe train`: it parses, calls one function, and prints."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from oxe_tools.cli.console import INTERRUPTED, Json, Overwrite, print_json, print_table
from schemas.errors import MissingExtraError, UsageError

if TYPE_CHECKING:
    from tqdm import tqdm

    from finetune.recipe import Recipe
    from finetune.training.plan import Plan

GIB = 2**30
WAYS = {"none": "one process", "ddp": "copies (ddp)", "fsdp": "parts (fsdp)"}


def train(
    target: Annotated[str, typer.Argument(metavar="RECIPE", help="A recipe: a shipped name or a TOML file.")],
    *,
    lock: Annotated[
        str | None, typer.Option(metavar="MIX", help="A locked mixture; by default the one that the recipe names.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where the run is written, or goes on; by default its name.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a key of the recipe; may be repeated."),
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Print what memory the run needs, and end.")] = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Train a policy on a locked mixture, or go on with a run that was stopped.

    \b
    Example: oxe train tiny-cpu --lock kitchen.lock --out runs/kitchen
    """
    try:
        from finetune.recipe import recipe
        from finetune.training import train as training
    except ModuleNotFoundError as error:
        raise MissingExtraError(str(error.name), extra="finetune") from error
    from tqdm import tqdm

    asked = recipe(target).with_(settings or [])
    if plan:
        _plan(asked, as_json=as_json)
        return
    place = _lock(asked, target, lock)
    folder = out or Path(asked.name)
    hidden = True if os.environ.get("RANK", "0") != "0" else None  # torchrun's; None: if no terminal is there
    with tqdm(total=asked.train.steps, unit=" steps", disable=hidden, file=sys.stderr) as bar:
        found = training.train(asked, place, folder, overwrite=overwrite, say=_said_above(bar), watch=_shown_by(bar))
    if found is None:  # a process of torchrun that has nothing to tell
        return
    (print_json if as_json else _show_progress)(found.to_json())
    if not found.finished:
        typer.echo(f"{found.step} of {asked.train.steps} steps are done; the same command goes on", err=True)
        raise typer.Exit(INTERRUPTED)


def _plan(asked: "Recipe", *, as_json: bool) -> None:
    """Print what each way to run takes."""
    from finetune.training.plan import plan

    found = plan(asked)
    if as_json:
        print_json(found.to_json())
    else:
        _show_plan(found)


def _show_plan(plan: "Plan") -> None:
    """Show what each way to run takes."""
    model = plan.footprint
    typer.echo(
        f"{model.parameters:,} parameters, {model.trained:,} of them trained. GiB for each process at most, without "
        "what Python and the libraries take (about 0.6):"
    )
    columns = ("processes", "way", "samples at a time", "checkpointed", "weights", "gradients", "AdamW")
    rows = []
    for need in plan.ways:
        sizes = (need.weights, need.gradients, need.moments, need.activations, need.gathered, need.peak)
        how = (str(need.world), WAYS[need.way], str(need.micro), "yes" if need.checkpointed else "no")
        rows.append((*how, *(f"{size / GIB:.2f}" for size in sizes)))
    print_table((*columns, "activations", "gathered", "peak"), rows, width=200)


def _show_progress(found: Mapping[str, Any]) -> None:
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


def _lock(recipe: "Recipe", target: str, lock: str | None) -> Path:
    """Find the mixture: the one that is said, or the one that the recipe names from its own folder."""
    from oxe_tools import mixtures

    if lock is not None:
        return mixtures.found_lock(lock)[0]
    if recipe.data.lock is None:
        raise UsageError(f"{target}: names no locked mixture: say --lock MIX ('oxe mix lock' writes one), or data.lock")
    return mixtures.found_lock(str(Path(target).parent / recipe.data.lock))[0]


def _said_above(bar: "tqdm[Any]") -> Any:
    return lambda line: bar.write(line, file=sys.stderr)


def _shown_by(bar: "tqdm[Any]") -> Any:
    def watch(done: int, logged: Mapping[str, Any]) -> None:
        if not bar.n:  # the time of a step does not count what was before the first one
            bar.initial = bar.n = bar.last_print_n = done - 1
            bar.unpause()
        if told := logged.get("train"):
            bar.set_postfix_str(f"loss {told['loss']:.4g}, accuracy {told['token_accuracy']:.3f}", refresh=False)
        bar.update(done - bar.n)

    return watch
