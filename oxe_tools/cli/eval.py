"""The command `oxe eval`: it parses, calls one function, writes what was found, and prints."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from tqdm import tqdm

from oxe_tools.cli import show, show_eval
from oxe_tools.cli.console import Json
from oxe_tools.cli.predict import Dtype
from schemas.errors import MissingExtraError, UsageError


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
        from finetune.policy.evaluate import Asked
        from finetune.policy.evaluate import evaluate as judged
    except ModuleNotFoundError as error:
        raise MissingExtraError(str(error.name), extra="finetune") from error
    from oxe_tools import mixtures
    from oxe_tools.evaluation import write

    place = mixtures.found_lock(lock)[0]
    asked = Asked(part=part.value, limit=limit, shuffle=shuffle_images, batch=batch, dtype=dtype.value, device=device)
    with tqdm(total=limit, unit=" steps", disable=None, file=sys.stderr) as bar:
        scores = judged(model, place, asked, watch=bar.update)
    told = {"model": model, "lock": str(place), "part": part.value, "images": "shuffled" if shuffle_images else "own"}
    found = write(scores, out or Path(f"{Path(model).name}-eval"), told)
    (show.as_json if as_json else show_eval.evaluation)(found)
