"""The command `oxe merge`: it parses, calls one function, and prints."""

from pathlib import Path
from typing import Annotated

import typer

from oxe_tools.cli.console import Dtype, Json, print_json
from schemas.errors import MissingExtraError


def merge(
    *,
    adapter: Annotated[Path, typer.Option(metavar="DIR", help="Adapters: a checkpoint of a LoRA training, or peft's.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the whole checkpoint is written.")],
    base: Annotated[
        str | None, typer.Option(metavar="DIR", help="What they were trained on; by default what they name.")
    ] = None,
    dtype: Annotated[
        Dtype | None, typer.Option(help="The numbers that are written; by default those of the base.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Add adapters to the weights of their base, if the merged model answers as the unmerged one.

    \b
    Example: oxe merge --adapter runs/kitchen/step-00005000 --out kitchen-merged
    """
    try:
        from finetune.policy.merge import merge as merged
        from finetune.policy.policy import base_of
    except ModuleNotFoundError as error:
        raise MissingExtraError(str(error.name), extra="finetune") from error

    found = merged(base or base_of(adapter), adapter, out, dtype=dtype.value if dtype else None)
    if as_json:
        print_json(found.to_json())
    else:
        typer.echo(
            f"{out}: {found.dtype}. Root mean square over the logits of the self-test: the adapters change "
            f"{found.effect:.3g}, merging {found.exact:.3g}, and with the rounding to {found.dtype} {found.rounded:.3g}"
        )
