"""The command `oxe eval`: it parses, calls one function, writes what it found, and prints."""

import json
import sys
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from oxe_tools.cli.console import Dtype, Json, print_json, print_table
from schemas.errors import MissingExtraError, UsageError

if TYPE_CHECKING:
    from finetune.policy.scores import Scores

FIGURES, PICTURE = "eval.json", "eval.svg"


class Part(StrEnum):
    """The parts of a lock."""

    VAL = "val"
    TRAIN = "train"


def evaluate(
    *,
    model: Annotated[str, typer.Option(metavar="DIR", help="A checkpoint, or the name of one on the Hub.")],
    lock: Annotated[str, typer.Option(metavar="MIX", help="A locked mixture, whose recorded steps are looked at.")],
    open_loop: Annotated[
        bool, typer.Option("--open-loop", help="Compare with recorded actions; nothing is acted on. The only way yet.")
    ] = False,
    part: Annotated[Part, typer.Option(help="What was held out, or what is trained on.")] = Part.VAL,
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="Only the first N steps.")] = None,
    shuffle_images: Annotated[
        bool, typer.Option("--shuffle-images", help="Show each step the image of another: accuracy must fall.")
    ] = False,
    batch: Annotated[int, typer.Option(min=1, metavar="N", help="Steps at a time.")] = 8,
    dtype: Annotated[Dtype, typer.Option(help="The numbers to compute with.")] = Dtype.FLOAT32,
    device: Annotated[str, typer.Option(metavar="NAME", help="Where to compute: cpu, cuda, cuda:1, mps.")] = "cpu",
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where eval.json and eval.svg go; by default MODEL-eval.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare what a policy would do with what was recorded, for each dataset and dimension.

    \b
    Example: oxe eval --open-loop --model runs/kitchen/step-00000600 --lock kitchen.lock --part train
    """
    if not open_loop:
        raise UsageError("say --open-loop: policies are compared with recorded actions; no simulator is run here")
    try:
        from finetune.policy.evaluate import EvaluationOptions
        from finetune.policy.evaluate import evaluate as judged
    except ModuleNotFoundError as error:
        raise MissingExtraError(str(error.name), extra="finetune") from error
    from tqdm import tqdm

    from oxe_tools import mixtures

    place = mixtures.found_lock(lock)[0]
    options = EvaluationOptions(
        part=part.value, limit=limit, shuffle=shuffle_images, batch=batch, dtype=dtype.value, device=device
    )
    with tqdm(total=limit, unit=" steps", disable=None, file=sys.stderr) as bar:
        scores = judged(model, place, options, watch=bar.update)
    told = {"model": model, "lock": str(place), "part": part.value, "images": "shuffled" if shuffle_images else "own"}
    found = _write(scores, out or Path(f"{Path(model).name}-eval"), told)
    (print_json if as_json else _show_scores)(found)


def _write(scores: "Scores", out: Path, told: Mapping[str, Any]) -> dict[str, Any]:
    """Write figures and picture into a folder, and return the figures; those of an earlier evaluation are replaced."""
    from oxe_tools.plot import svg

    found = {**told, **scores.to_json()}
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / FIGURES).write_text(json.dumps(found, indent=1) + "\n")
        (out / PICTURE).write_text(svg(scores, title=f"{told['model']}, part {told['part']}, {told['images']} images"))
    except OSError as error:
        raise UsageError(f"{out}: cannot be written to ({error})") from error
    return {**found, "out": str(out)}


def _show_scores(found: Mapping[str, Any]) -> None:
    """Show how far predicted and recorded actions are apart, beside those of always doing the mean."""
    for name, source in found["sources"].items():
        typer.echo(f"{name}: {source['steps']} steps, {_accuracy(source)}")
        columns = ("dimension", "token accuracy", "L1 normalized", "L1", "of the mean action", "unit")
        rows = []
        for dim, one in source["dims"].items():
            figures = (f"{one['token_accuracy']:.3f}", f"{one['l1']:.4f}", f"{one['l1_metric']:.4g}")
            rows.append((dim, *figures, f"{one['mean_action']['l1_metric']:.4g}", one["unit"]))
        print_table(columns, rows)
        typer.echo(f"always doing the mean action: {_accuracy(source['mean_action'])}")
    typer.echo(f"all: {found['steps']} steps of {found['part']} with {found['images']} images, {_accuracy(found)}")
    typer.echo(f"figures and picture: {found['out']}")


def _accuracy(found: Mapping[str, Any]) -> str:
    return f"token accuracy {found['token_accuracy']:.3f}, L1 {found['l1']:.4f} (normalized)"
