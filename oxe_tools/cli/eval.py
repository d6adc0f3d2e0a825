"""The command `oxe eval`."""

import json
import sys
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from oxe_tools.cli.console import Dtype, Json, Overwrite, print_json, print_note, print_table, say
from schemas.errors import MissingExtraError, UsageError

if TYPE_CHECKING:
    from finetune.policy.scores import Scores

FIGURES, PLOT = "eval.json", "eval.svg"


class LockPart(StrEnum):
    """The two parts of a locked mixture."""

    VAL = "val"
    TRAIN = "train"


def evaluate(
    *,
    model: Annotated[
        str, typer.Option(metavar="DIR", help="A checkpoint folder, or the name of a checkpoint on the Hub.")
    ],
    lock: Annotated[str, typer.Option(metavar="MIX", help="A locked mixture with the recorded steps.")],
    open_loop: Annotated[
        bool,
        typer.Option(
            "--open-loop", help="Compare predictions with recorded actions; required, as nothing else is supported yet."
        ),
    ] = False,
    part: Annotated[LockPart, typer.Option(help="The part to evaluate: held-out or training episodes.")] = LockPart.VAL,
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="Evaluate only the first N steps.")] = None,
    shuffle_images: Annotated[
        bool, typer.Option("--shuffle-images", help="Give each step the image of another step; accuracy should fall.")
    ] = False,
    batch: Annotated[int, typer.Option(min=1, metavar="N", help="Steps per batch.")] = 8,
    dtype: Annotated[Dtype, typer.Option(help="The floating-point type to compute with.")] = Dtype.FLOAT32,
    device: Annotated[
        str, typer.Option(metavar="NAME", help="The device to compute on: cpu, cuda, cuda:1, mps.")
    ] = "cpu",
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="The folder for eval.json and eval.svg; by default one beside the model."),
    ] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Compare predicted with recorded actions.

    Errors are reported for each dataset and action dimension.

    \b
    Example: oxe eval --open-loop --model runs/kitchen/step-00000600 --lock kitchen.lock --part train
    """
    if not open_loop:
        raise UsageError(
            "--open-loop is required: predictions are compared with recorded actions, simulators are not supported"
        )
    try:
        from finetune.policy.evaluate import EvaluationOptions
        from finetune.policy.evaluate import evaluate as score
    except ModuleNotFoundError as error:
        raise MissingExtraError(str(error.name), extra="finetune") from error
    from tqdm import tqdm

    from oxe_tools import mixtures

    lock_path, images = mixtures.find_lock(lock)[0], "shuffled" if shuffle_images else "own"
    folder = out or _beside(model, part=part.value, images=images)
    for name in (FIGURES, PLOT):
        if (folder / name).exists() and not overwrite:
            raise UsageError(f"{folder / name}: exists; pass --overwrite to replace it, or name another --out")
    options = EvaluationOptions(
        part=part.value, limit=limit, shuffle=shuffle_images, batch=batch, dtype=dtype.value, device=device
    )
    with tqdm(total=limit, unit=" steps", disable=None, file=sys.stderr) as bar:
        scores = score(model, lock_path, options, watch=bar.update, say=print_note)
    inputs = {"model": model, "lock": str(lock_path), "part": part.value, "images": images}
    result = _write(scores, folder, inputs)
    (print_json if as_json else _show_scores)(result)


def _beside(model: str, *, part: str, images: str) -> Path:
    """Return a folder beside a model, whose name has its run and step, and the kind of the evaluation.

    The folder of a model from the Hub is in the current folder.
    """
    folder = Path(model)
    here = folder.resolve() if folder.exists() else folder
    names = [here.parent.name, here.name] if here.name.startswith("step-") else [here.name]
    kind = [part] if images == "own" else [part, images]
    return (folder.parent if folder.exists() else Path()) / "-".join(["eval", *names, *kind])


def _write(scores: "Scores", out: Path, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Write eval.json and eval.svg to the folder `out`.

    Returns the content of eval.json and the path `out`.
    """
    from oxe_tools.plot import svg
    from schemas.files import durable

    figures = {**inputs, **scores.to_json()}
    try:
        durable.write(out / FIGURES, json.dumps(figures, indent=1).encode() + b"\n")
        plot = svg(scores, title=f"{inputs['model']}, part {inputs['part']}, {inputs['images']} images")
        durable.write(out / PLOT, plot.encode())
    except OSError as error:
        raise UsageError(f"{out}: cannot be written ({error})") from error
    return {**figures, "out": str(out)}


def _show_scores(result: Mapping[str, Any]) -> None:
    """Print the errors of the predictions, and for comparison those of always predicting the mean action."""
    for name, source in result["sources"].items():
        say(f"{name}: {source['steps']} steps, {_accuracy(source)}")
        columns = ("dimension", "token accuracy", "L1 normalized", "L1", "L1 of the mean action", "unit", "no action")
        rows = []
        for dim, one in source["dims"].items():
            figures = (f"{one['token_accuracy']:.3f}", f"{one['l1']:.4f}", f"{one['l1_metric']:.4g}")
            last = (f"{one['mean_action']['l1_metric']:.4g}", one["unit"], f"{one['not_actions']:.1%}")
            rows.append((dim, *figures, *last))
        print_table(columns, rows)
        say(f"always predicting the mean action: {_accuracy(source['mean_action'])}")
    say(f"all: {result['steps']} steps of {result['part']} with {result['images']} images, {_accuracy(result)}")
    say(f"figures and plot: {result['out']}")


def _accuracy(errors: Mapping[str, Any]) -> str:
    share = errors["not_actions"]
    words = f"; {share:.1%} of the tokens are not actions" if share else ""
    return f"token accuracy {errors['token_accuracy']:.3f}, L1 {errors['l1']:.4f} (normalized){words}"
