"""The command `oxe merge`."""

from pathlib import Path
from typing import Annotated

import typer

from oxe_tools.cli.console import Dtype, Json, print_json, print_note, say
from schemas.errors import MissingExtraError


def merge(
    *,
    adapter: Annotated[
        Path, typer.Option(metavar="DIR", help="LoRA adapters: a checkpoint of 'oxe train', or a folder saved by peft.")
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where to write the merged checkpoint.")],
    base: Annotated[
        str | None, typer.Option(metavar="DIR", help="The base checkpoint; by default the one that the adapters name.")
    ] = None,
    dtype: Annotated[
        Dtype | None, typer.Option(help="The floating-point type to write; by default that of the base.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Merge LoRA adapters into their base model.

    Nothing is written if the merged model predicts otherwise than the base with its adapters.

    \b
    Example: oxe merge --adapter runs/kitchen/step-00005000 --out kitchen-merged
    """
    try:
        from finetune.policy.merge import merge as run
        from finetune.policy.policy import base_of
    except ModuleNotFoundError as error:
        raise MissingExtraError(str(error.name), extra="finetune") from error

    report = run(base or base_of(adapter), adapter, out, dtype=dtype.value if dtype else None, say=print_note)
    if as_json:
        print_json(report.to_json())
    else:
        say(
            f"{out}: {report.dtype}. Root mean square change of the self-test's logits: {report.effect:.3g} by the "
            f"adapters, {report.exact:.3g} by merging, {report.rounded:.3g} by merging and rounding to {report.dtype}"
        )
