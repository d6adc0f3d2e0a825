"""The command `oxe predict`."""

from pathlib import Path
from typing import Annotated

import typer

from oxe_tools.cli.console import Dtype, Json, numbers, print_json, print_note, say
from schemas.errors import MissingExtraError


def predict(
    *,
    model: Annotated[
        str, typer.Option(metavar="DIR", help="A checkpoint folder, or the name of a checkpoint on the Hub.")
    ],
    processor: Annotated[
        str | None, typer.Option(metavar="DIR", help="The folder of tokenizer and preprocessor; by default --model.")
    ] = None,
    image: Annotated[
        list[Path], typer.Option(metavar="FILE", help="A camera image; repeat the option for each camera.")
    ],
    instruction: Annotated[str, typer.Option(metavar="TEXT", help="What the robot should do.")],
    unnorm_key: Annotated[
        str | None, typer.Option(metavar="KEY", help="The dataset whose statistics unnormalize the action.")
    ] = None,
    center_crop: Annotated[
        bool | None,
        typer.Option(
            "--center-crop/--no-center-crop",
            help="Use the central 90% of the image, for models trained on crops; by default as the checkpoint says.",
        ),
    ] = None,
    lenient: Annotated[
        bool, typer.Option("--lenient", help="Count predicted tokens that are not actions, instead of failing.")
    ] = False,
    ignore_exif: Annotated[
        bool, typer.Option("--ignore-exif", help="Use the stored pixels of an image that its EXIF data turn.")
    ] = False,
    dtype: Annotated[Dtype, typer.Option(help="The floating-point type to compute with.")] = Dtype.FLOAT32,
    device: Annotated[
        str, typer.Option(metavar="NAME", help="The device to compute on: cpu, cuda, cuda:1, mps.")
    ] = "cpu",
    as_json: Json = False,
) -> None:
    """Predict an action with an OpenVLA checkpoint.

    \b
    Example: oxe predict --model openvla-7b --image front.png --instruction "close the pot" --unnorm-key bridge_orig
    """
    try:
        from finetune.policy.act import act
    except ModuleNotFoundError as error:
        raise MissingExtraError(str(error.name), extra="finetune") from error

    prediction = act(
        model,
        image,
        instruction,
        processor=processor,
        unnorm_key=unnorm_key,
        center_crop=center_crop,
        lenient=lenient,
        ignore_exif=ignore_exif,
        dtype=dtype.value,
        device=device,
        say=print_note,
    )
    if as_json:
        print_json(prediction.to_json())
    else:
        say(f"action: {numbers(prediction.action)}")
        say(f"token ids: {' '.join(map(str, prediction.token_ids))}")
        if prediction.not_actions:
            say(f"tokens that are not actions: {prediction.not_actions} of {len(prediction.token_ids)}")
