"""The command `oxe predict`: it parses, calls one function, and prints."""

from pathlib import Path
from typing import Annotated

import typer

from oxe_tools.cli.console import Dtype, Json, numbers, print_json
from schemas.errors import MissingExtraError


def predict(
    *,
    model: Annotated[str, typer.Option(metavar="DIR", help="A checkpoint, or the name of one on the Hub.")],
    processor: Annotated[
        str | None, typer.Option(metavar="DIR", help="Where tokenizer and preprocessor are, if not in --model.")
    ] = None,
    image: Annotated[list[Path], typer.Option(metavar="FILE", help="What the camera sees; one for each camera.")],
    instruction: Annotated[str, typer.Option(metavar="TEXT", help="What the robot should do.")],
    unnorm_key: Annotated[
        str | None, typer.Option(metavar="KEY", help="The dataset whose statistics give the action its units.")
    ] = None,
    center_crop: Annotated[
        bool | None,
        typer.Option(
            "--center-crop/--no-center-crop",
            help="See the middle 90%, as after training on crops; by default as the checkpoint says, or not.",
        ),
    ] = None,
    dtype: Annotated[Dtype, typer.Option(help="The numbers to compute with.")] = Dtype.FLOAT32,
    device: Annotated[str, typer.Option(metavar="NAME", help="Where to compute: cpu, cuda, cuda:1, mps.")] = "cpu",
    as_json: Json = False,
) -> None:
    """Predict the action for one image and instruction with an OpenVLA checkpoint.

    \b
    Example: oxe predict --model openvla-7b --image front.png --instruction "close the pot" --unnorm-key bridge_orig
    """
    try:
        from finetune.policy.act import act
    except ModuleNotFoundError as error:
        raise MissingExtraError(str(error.name), extra="finetune") from error

    found = act(
        model,
        image,
        instruction,
        processor=processor,
        unnorm_key=unnorm_key,
        center_crop=center_crop,
        dtype=dtype.value,
        device=device,
    )
    if as_json:
        print_json(found.to_json())
    else:
        typer.echo(f"action: {numbers(found.action)}")
        typer.echo(f"token ids: {' '.join(map(str, found.token_ids))}")
