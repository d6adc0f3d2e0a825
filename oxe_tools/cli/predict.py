"""The command `oxe predict`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from oxe_tools.cli.console import Dtype, Json, numbers, print_json, print_note, say
from schemas.errors import MissingExtraError, UsageError
from schemas.parsing import parse_json


class HeadKind(StrEnum):
    """The heads of OpenVLA-OFT."""

    L1 = "l1"
    DIFFUSION = "diffusion"
    DISCRETE = "discrete"


class Bounds(StrEnum):
    """The normalizations of OpenVLA-OFT."""

    BOUNDS = "bounds"
    BOUNDS_Q99 = "bounds_q99"


def predict(
    *,
    model: Annotated[
        str, typer.Option(metavar="DIR", help="A checkpoint folder, or the name of a checkpoint on the Hub.")
    ],
    processor: Annotated[
        str | None, typer.Option(metavar="DIR", help="The folder of tokenizer and preprocessor; by default --model.")
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="The weights that --model lacks: the base of adapters, or of heads alone."),
    ] = None,
    image: Annotated[
        list[Path],
        typer.Option(metavar="FILE", help="A camera image; repeat it for more cameras and steps, the oldest first."),
    ],
    proprio: Annotated[
        str | None,
        typer.Option(
            metavar="JSON", help="The state of the robot in the units of the dataset, for example '[0.1, 0]'."
        ),
    ] = None,
    instruction: Annotated[str, typer.Option(metavar="TEXT", help="What the robot should do.")],
    unnorm_key: Annotated[
        str | None, typer.Option(metavar="KEY", help="The dataset whose statistics unnormalize the action.")
    ] = None,
    head: Annotated[
        HeadKind | None,
        typer.Option(help="For OpenVLA-OFT: discrete reads actions from tokens; by default as the files say."),
    ] = None,
    chunk: Annotated[
        int | None, typer.Option(metavar="N", help="For OpenVLA-OFT's own files: how many actions are predicted.")
    ] = None,
    normalize: Annotated[
        Bounds | None, typer.Option(help="For OpenVLA-OFT's own files: how actions were normalized in training.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="For diffusion heads: the seed of the noise.")
    ] = None,
    diffusion_steps: Annotated[
        int | None, typer.Option(metavar="N", help="For diffusion heads: the number of steps, by default 50.")
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
    """Predict an action with an OpenVLA checkpoint, or a chunk of actions with one of OpenVLA-OFT.

    \b
    Example: oxe predict --model openvla-7b --image front.png --instruction "close the pot" --unnorm-key bridge_orig
    """
    try:
        from finetune.models.acting import Sampling
        from finetune.models.layouts import Stated
        from finetune.policy.act import act
    except ModuleNotFoundError as error:
        raise MissingExtraError(str(error.name), extra="finetune") from error

    prediction = act(
        model,
        image,
        instruction,
        base=base,
        stated=Stated(head=head.value if head else None, chunk=chunk, normalize=normalize.value if normalize else None),
        processor=processor,
        proprio=None if proprio is None else _vector(proprio),
        sampling=Sampling(seed=seed, steps=diffusion_steps),
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
        return
    is_chunk = prediction.action.ndim > 1
    for i, action in enumerate(prediction.action if is_chunk else [prediction.action], start=1):
        say(f"action{f' {i}' if is_chunk else ''}: {numbers(action)}")
    if prediction.token_ids is not None:
        say(f"token ids: {' '.join(map(str, prediction.token_ids.ravel()))}")
    if prediction.not_actions:
        say(f"tokens that are not actions: {prediction.not_actions} of {prediction.action.size}")


def _vector(text: str) -> list[float]:
    """Parse the numbers of a proprio. Raises UsageError if they are not a JSON list of numbers."""
    try:
        values = parse_json(text)
    except ValueError as error:
        raise UsageError(f"--proprio: not valid JSON ({error}); write a list of numbers, such as '[0.1, 0]'") from error
    if not isinstance(values, list) or not all(type(value) in {int, float} for value in values):
        raise UsageError("--proprio: expected a JSON list of numbers, such as '[0.1, 0]'")
    try:
        return [float(value) for value in values]
    except OverflowError as error:
        raise UsageError(f"--proprio: {error}") from error
