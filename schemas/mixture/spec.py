"""`MixtureSpec`: the declaration of a mixture, which has the datasets to train on together and their weights.

Each mixture is one TOML file. Those of the Open X-Embodiment projects are in `schemas/mixtures/`. docs/mixtures.md
explains the keys. `shares.py` computes shares from the weights, and `lock.py` has locked mixtures.
"""

from collections import Counter
from math import inf
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeAlias

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from schemas.declarations import toml
from schemas.declarations.spec import validated
from schemas.declarations.tables import Model
from schemas.errors import SpecError, UsageError, did_you_mean
from schemas.mixture import filters, paraphrases

HERE = Path(__file__).parents[1] / "mixtures"


def _above_zero(weight: float) -> float:
    if not 0 < weight < inf:
        raise ValueError("must be a number above 0; to leave the dataset out, list it under [excluded]")
    return weight


def _positive(number: float) -> float:
    if not 0 < number < inf:
        raise ValueError("must be a number above 0")
    return number


def _normalized(text: str) -> str:
    try:
        return str(filters.parse(text))
    except UsageError as error:
        raise ValueError(": ".join(line.strip() for line in str(error).splitlines()[:2])) from None


Weight = Annotated[float, Field(strict=True), AfterValidator(_above_zero)]
Positive = Annotated[float, Field(strict=True), AfterValidator(_positive)]
Proportion = Annotated[float, Field(strict=True, gt=0, lt=1)]
Condition = Annotated[str, AfterValidator(_normalized)]
Paraphrases = Annotated[dict[str, tuple[str, ...]], AfterValidator(paraphrases.checked)]
Convention: TypeAlias = Literal["frame", "rotation", "gripper", "origin"]


class MixtureSource(Model):
    """The dataset and the episodes of a source, if it is not the whole dataset with the source's name."""

    dataset: str | None = None  # default: the source's name
    uri: str | None = None  # URI of the published dataset; may be relative to the folder of the TOML file
    scenes: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    filter: Condition | None = None


class Caps(Model):
    """Limits for every source. The share above a limit is divided among the other sources in proportion."""

    share: Annotated[float, Field(strict=True, gt=0, le=1)] = 1  # share of the draws
    repeats: Positive | None = None  # expected draws of each step per epoch


class Holdout(Model):
    """Episodes that are held out for validation, in groups with the same value of `by`."""

    by: str = "instruction"  # column of the episode table
    share: Proportion = 0.05  # share of the groups


class Normalize(Model):
    """How actions are normalized: with the statistics of their dataset, or of all datasets with their embodiment."""

    method: Literal["bounds_q99", "bounds", "normal"] = "bounds_q99"
    per: Literal["dataset", "embodiment"] = "dataset"
    constant: Literal["keep", "zero"] = "keep"  # label of a constant dimension that is not normalized; zero: OpenVLA's
    grippers: Literal["keep", "normalize"] = (
        "keep"  # whether the grippers of actions are normalized; OFT does for ALOHA
    )


class MixtureSpec(Model):
    """One mixture. Each source has one weight, and is the dataset with its name unless `sources` names another one."""

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*(/[A-Za-z0-9][A-Za-z0-9_.-]*)*$")]
    citation: str | None = None
    view: str | None = None  # the view of each dataset; None: the stored action
    seed: Annotated[int, Field(strict=True, ge=0, lt=2**63)] = 0
    weighting: Literal["relative", "share", "temperature"]
    temperature: Positive | None = None  # the T of the weighting "temperature"; None for other weightings
    missing: Literal["error", "skip"] = "error"
    filter: Condition | None = None  # condition on the episodes of every source
    scene: str | None = None  # column of the episode table with the scene
    balance: str | None = None  # column of the episode table; its values get equal shares of a source's draws
    accept: tuple[Convention, ...] = ()  # conventions in which the sources' Spaces may differ
    dims: tuple[str, ...] = ()  # names of the action's dimensions; those that a source lacks are masked
    weights: dict[str, Weight]
    sources: dict[str, MixtureSource] = Field(default_factory=dict)
    excluded: dict[str, str] = Field(default_factory=dict)  # source -> reason
    caps: Caps = Caps()
    holdout: Holdout | None = None
    paraphrases: Paraphrases = Field(default_factory=dict)  # other texts for an instruction, drawn in training
    normalize: Normalize = Normalize()

    @model_validator(mode="after")
    def _keys_fit(self) -> Self:
        for table, names in (("sources", self.sources), ("excluded", self.excluded)):
            for name in names:
                if name not in self.weights:
                    raise ValueError(f"{table}.{name}: has no weight{did_you_mean(name, self.weights)}")
        if not self.weights.keys() - self.excluded.keys():
            raise ValueError("weights: the mixture is empty; name at least one dataset that is not excluded")
        if (self.weighting == "temperature") != (self.temperature is not None):
            raise ValueError('temperature: is required with weighting = "temperature", and only allowed there')
        if len(set(self.dims)) < len(self.dims):
            raise ValueError("dims: contains a name twice")
        return self

    @model_validator(mode="after")
    def _steps_count_once(self) -> Self:
        scenes = [(self.dataset_of(name), scene) for name, part in self.sources.items() for scene in part.scenes or ()]
        for (dataset, scene), count in Counter(scenes).items():
            if count > 1:
                raise ValueError(
                    f"sources: scene '{scene}' of {dataset} is in {count} sources; its steps would count more than once"
                )
            if dataset in self.weights and dataset not in self.sources:
                raise ValueError(
                    f"weights.{dataset}: is included both whole and by scenes; its steps would count twice"
                )
        return self

    def dataset_of(self, source: str) -> str:
        """Return the name of a source's dataset."""
        return (self.sources[source].dataset if source in self.sources else None) or source

    def filter_of(self, source: str) -> str | None:
        """Return the condition on a source's episodes: that of the mixture, that of the source, and its scenes."""
        own = self.sources.get(source, MixtureSource())
        parts = [self.filter, own.filter]
        if own.scenes:
            if not self.scene:
                raise SpecError(f'{self.name}: sources.{source}: scenes need the name of their column: scene = "..."')
            parts.append(" or ".join(f'{self.scene} contains "{scene}"' for scene in own.scenes))
        conditions = [part for part in parts if part]
        return str(filters.parse(" and ".join(f"({part})" for part in conditions))) if conditions else None

    def to_json(self) -> dict[str, Any]:
        """Return the self-contained JSON form used in a lock."""
        return self.model_dump(mode="json", exclude_defaults=True)


def mixture_names() -> tuple[str, ...]:
    """List the mixtures in the package, such as `openvla/oxe_magic_soup`."""
    return tuple(sorted(path.relative_to(HERE).with_suffix("").as_posix() for path in HERE.rglob("*.toml")))


def mixture(target: str) -> MixtureSpec:
    """Load a mixture: by its name in `mixture_names()`, by the last part of that name if it is unique, or from a file.

    >>> mixture("oxe_magic_soup_plus_minus").name
    'openvla/oxe_magic_soup_plus_minus'
    """
    names = mixture_names()
    matches = [name for name in names if target in {name, name.rpartition("/")[2]}]
    if len(matches) == 1:
        path = HERE / f"{matches[0]}.toml"
    elif matches:
        raise SpecError(f"{len(matches)} mixtures are named '{target}'; use {' or '.join(matches)}")
    elif not target.endswith(".toml"):
        raise SpecError(f"unknown mixture '{target}'{did_you_mean(target, names)}")
    else:
        path = Path(target)
    return load(toml.read(path, missing=f"{target}: no such file"), where=str(path))


def load(text: str, *, where: str) -> MixtureSpec:
    """Parse a mixture; `where` is its name in errors."""
    return validated(MixtureSpec, toml.tables(text, where), where)
