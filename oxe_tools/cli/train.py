"""The command `oxe train`."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from oxe_tools.cli.console import (
    INTERRUPTED,
    Json,
    Overwrite,
    named_numbers,
    print_json,
    print_table,
    print_warning,
    say,
)
from schemas.errors import MissingExtraError, UsageError
from schemas.text import shown

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
        Path | None,
        typer.Option(metavar="DIR", help="The folder of the run, new or to resume; by default the recipe's name."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a key of the recipe; may be repeated."),
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Print the memory that the run needs, and exit.")] = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Train a policy on a locked mixture, or resume a run.

    \b
    Example: oxe train tiny-cpu --lock kitchen.lock --out runs/kitchen
    """
    try:
        from finetune.recipe import recipe as load_recipe
        from finetune.training import train as training
    except ModuleNotFoundError as error:
        raise MissingExtraError(str(error.name), extra="finetune") from error
    from tqdm import tqdm

    recipe = load_recipe(target).with_(settings or [])
    if plan:
        _plan(recipe, _planned_lock(recipe, target, lock), as_json=as_json)
        return
    lock_path = _find_lock(recipe, target, lock)
    folder = out or Path(recipe.name)
    hidden = True if os.environ.get("RANK", "0") != "0" else None  # torchrun sets RANK; None: no bar without a terminal
    with tqdm(total=recipe.train.steps, unit=" steps", disable=hidden, file=sys.stderr) as bar:
        result = training.train(
            recipe, lock_path, folder, overwrite=overwrite, say=_print_above(bar), watch=_advance(bar)
        )
    if result is None:  # under torchrun, only rank 0 reports
        return
    (print_json if as_json else _show_result)(result.to_json())
    if not result.finished:
        steps = f"{result.step} of {recipe.train.steps} steps are done"
        say(f"{steps}; run the same command to continue", err=True)
        raise typer.Exit(INTERRUPTED)


def _planned_lock(recipe: "Recipe", target: str, lock: str | None) -> Path | None:
    """Return the path of the lock that a plan reads; None if there is none yet, because a plan needs no data."""
    if lock is None and recipe.data.lock is None:
        return None
    path = _find_lock(recipe, target, lock)
    return path if lock is not None or path.exists() else None


def _plan(recipe: "Recipe", lock: Path | None, *, as_json: bool) -> None:
    """Print the estimated memory of each way to run a recipe, and the constant dimensions of its data."""
    from finetune.training.plan import plan

    memory = plan(recipe, lock=lock)
    for warning in memory.warnings:
        print_warning(warning)
    if as_json:
        print_json(memory.to_json())
    else:
        _show_plan(memory)


def _show_plan(plan: "Plan") -> None:
    """Print a table of the estimated memory, with one row for each way to run."""
    model = plan.footprint
    say(
        f"{model.parameters:,} parameters, {model.trained:,} of them trained. GiB per process at most, without "
        "the 0.6 GiB or so of Python and its libraries:"
    )
    columns = ("processes", "way", "samples at once", "checkpointed", "weights", "gradients", "AdamW", "average")
    rows = []
    for need in plan.ways:
        own = (need.weights, need.gradients, need.moments, need.average)
        sizes = (*own, need.activations, need.gathered, need.peak)
        how = (str(need.world), WAYS[need.way], str(need.micro), "yes" if need.checkpointed else "no")
        rows.append((*how, *(f"{size / GIB:.2f}" for size in sizes)))
    print_table((*columns, "activations", "gathered", "peak"), rows, width=200)
    for name, dims in plan.constant.items():
        say(f"{name}: constant dimensions: {named_numbers(dims)}")


def _show_result(result: Mapping[str, Any]) -> None:
    """Print the losses and the checkpoint of a run."""
    for kind in ("train", "eval"):
        if logged := result.get(kind):
            figures = f"loss {logged['loss']:.4g}, token accuracy {logged['token_accuracy']:.3f}, L1 {logged['l1']:.4f}"
            say(f"{kind} at step {logged['step']}: {figures}")
    for name, row in (result.get("eval") or {}).get("sources", {}).items():
        dims = ", ".join(f"{dim} {errors['l1_metric']:.3g}" for dim, errors in row["dims"].items())
        say(f"{name}: L1 in the units of the action: {dims}")
    for image, times in result.get("broken", {}).items():
        say(f"could not be decoded, replaced by another step {times} times: {image}")
    say(f"{result['checkpoint']}: {result['step']} steps{'' if 'train' in result else ', none of them in this run'}")


def _find_lock(recipe: "Recipe", target: str, lock: str | None) -> Path:
    """Return the path of the lock that --lock names or, without --lock, of the lock that the recipe names.

    The path in a recipe is relative to the recipe's folder.
    """
    from oxe_tools import mixtures

    if lock is not None:
        return mixtures.find_lock(lock)[0]
    if recipe.data.lock is None:
        raise UsageError(f"{target}: no locked mixture; pass --lock MIX (written by 'oxe mix lock') or set data.lock")
    return mixtures.find_lock(str(Path(target).parent / recipe.data.lock))[0]


def _print_above(bar: "tqdm[Any]") -> Any:
    return lambda line: bar.write(shown(line), file=sys.stderr)


def _advance(bar: "tqdm[Any]") -> Any:
    def watch(done: int, logged: Mapping[str, Any]) -> None:
        if not bar.n:  # do not count the time before the first step
            bar.initial = bar.n = bar.last_print_n = done - 1
            bar.unpause()
        if metrics := logged.get("train"):
            bar.set_postfix_str(f"loss {metrics['loss']:.4g}, accuracy {metrics['token_accuracy']:.3f}", refresh=False)
        bar.update(done - bar.n)

    return watch
