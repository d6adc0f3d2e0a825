"""Mixtures: which datasets are trained on together, and how large each one's share of the draws is.

One TOML file each; those of the Open X-Embodiment projects are in `schemas/mixtures/`. docs/mixtures.md explains them;
`shares.py` turns the weights into shares, and `lock.py` has what a mixture was when it was locked.
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
from schemas.mixture import filters

HERE = Path(__file__).parents[1] / "mixtures"


def _above_zero(weight: float) -> float:
    if not 0 < weight < inf:
        raise ValueError("a weight is a number above 0; leave a dataset out under [excluded]")
    return weight


def _positive(number: float) -> float:
    if not 0 < number < inf:
        raise ValueError("must be a number above 0")
    return number


def _spelled(text: str) -> str:
    try:
        return str(filters.parse(text))
    except UsageError as error:
        raise ValueError(str(error)) from None


Weight = Annotated[float, Field(strict=True), AfterValidator(_above_zero)]
Positive = Annotated[float, Field(strict=True), AfterValidator(_positive)]
Part = Annotated[float, Field(strict=True, gt=0, lt=1)]
Condition = Annotated[str, AfterValidator(_spelled)]  # in its one spelling
Convention: TypeAlias = Literal["frame", "rotation", "gripper", "origin"]


class MixtureSource(Model):
    """Where a source comes from, if not from the whole dataset of its name, and which of its episodes belong to it."""

    dataset: str | None = None  # the source's own name, if it is not said
    uri: str | None = None  # of the published dataset; a relative one from the folder of the TOML file
    scenes: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    filter: Condition | None = None


class Caps(Model):
    """What no source may exceed; what is taken away goes to the others in proportion."""

    share: Annotated[float, Field(strict=True, gt=0, le=1)] = 1  # of the draws
    repeats: Positive | None = None  # expected draws of each step in an epoch


class Holdout(Model):
    """Episodes that are kept back for validation, in groups: those of one value of `by` stay together."""

    by: str = "instruction"  # a column of the episode table
    share: Part = 0.05  # of the groups


class Normalize(Model):
    """How actions are normalized: with the statistics of each dataset, or of all those of one embodiment."""

    method: Literal["bounds_q99", "bounds", "normal"] = "bounds_q99"
    per: Literal["dataset", "embodiment"] = "dataset"


class MixtureSpec(Model):
    """One mixture. A source is what has one weight: the dataset of its name, or what `sources` says."""

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*(/[A-Za-z0-9][A-Za-z0-9_.-]*)*$")]
    citation: str | None = None
    view: str | None = None  # which view of each dataset; None is the stored action
    seed: Annotated[int, Field(strict=True, ge=0, lt=2**63)] = 0
    weighting: Literal["relative", "share", "temperature"]
    temperature: Positive | None = None  # only with that weighting
    missing: Literal["error", "skip"] = "error"
    filter: Condition | None = None  # on the episodes of every source
    scene: str | None = None  # the column of the episode table that tells the scene
    balance: str | None = None  # a column of the episode table: its values get equal parts of a source's draws
    accept: tuple[Convention, ...] = ()  # what the sources' Spaces may differ in
    dims: tuple[str, ...] = ()  # names of the action's dimensions; one that a source lacks is masked there
    weights: dict[str, Weight]
    sources: dict[str, MixtureSource] = Field(default_factory=dict)
    excluded: dict[str, str] = Field(default_factory=dict)  # source to reason
    caps: Caps = Caps()
    holdout: Holdout | None = None
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
            raise ValueError('temperature: goes with weighting = "temperature", and is needed there')
        if len(set(self.dims)) < len(self.dims):
            raise ValueError("dims: a name is given twice")
        return self

    @model_validator(mode="after")
    def _steps_count_once(self) -> Self:
        scenes = [(self.dataset_of(name), scene) for name, part in self.sources.items() for scene in part.scenes or ()]
        for (dataset, scene), count in Counter(scenes).items():
            if count > 1:
                raise ValueError(
                    f"sources: scene '{scene}' of {dataset} is in {count} sources; its steps would count twice"
                )
            if dataset in self.weights and dataset not in self.sources:
                raise ValueError(f"weights.{dataset}: is given whole and in scenes; its steps would count twice")
        return self

    def dataset_of(self, source: str) -> str:
        """Name the dataset that a source is taken from."""
        return (self.sources[source].dataset if source in self.sources else None) or source

    def filter_of(self, source: str) -> str | None:
        """Give the condition that a source's episodes meet: the mixture's, its own, and its scenes."""
        own = self.sources.get(source, MixtureSource())
        parts = [self.filter, own.filter]
        if own.scenes:
            if not self.scene:
                raise SpecError(
                    f'{self.name}: sources.{source}: has scenes; say which column tells them: scene = "..."'
                )
            parts.append(" or ".join(f'{self.scene} contains "{scene}"' for scene in own.scenes))
        told = [part for part in parts if part]
        return str(filters.parse(" and ".join(f"({part})" for part in told))) if told else None

    def to_json(self) -> dict[str, Any]:
        """Give the self-contained form that stands in a lock."""
        return self.model_dump(mode="json", exclude_defaults=True)


def mixture_names() -> tuple[str, ...]:
    """List the mixtures declared here, such as `openvla/oxe_magic_soup`."""
    return tuple(sorted(path.relative_to(HERE).with_suffix("").as_posix() for path in HERE.rglob("*.toml")))


def mixture(target: str) -> MixtureSpec:
    """Load a mixture: a name of `mixture_names()`, its last part if only one ends so, or a TOML file.

    >>> mixture("oxe_magic_soup_plus_minus").name
    'openvla/oxe_magic_soup_plus_minus'
    """
    names = mixture_names()
    found = [name for name in names if target in {name, name.rpartition("/")[2]}]
    if len(found) == 1:
        path = HERE / f"{found[0]}.toml"
    elif found:
        raise SpecError(f"{len(found)} mixtures are called '{target}'; say {' or '.join(found)}")
    elif not target.endswith(".toml"):
        raise SpecError(f"unknown mixture '{target}'{did_you_mean(target, names)}")
    else:
        path = Path(target)
    return load(toml.read(path, missing=f"{target}: no such mixture"), where=str(path))


def load(text: str, *, where: str) -> MixtureSpec:
    """Read a mixture; `where` names it in errors."""
    return validated(MixtureSpec, toml.tables(text, where), where)
