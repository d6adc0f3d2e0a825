"""Mixtures: which datasets are trained on together, and how large each one's share of the draws is.

One TOML file each; those of the Open X-Embodiment projects are in `schemas/mixtures/`. docs/mixtures.md explains them.
"""

import re
import tomllib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from fractions import Fraction
from math import inf
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from schemas import catalog
from schemas.errors import SpecError, ViewError, did_you_mean
from schemas.spec import validated
from schemas.tables import Model
from schemas.views import view

HERE = Path(__file__).parent / "mixtures"


def _above_zero(weight: float) -> float:
    if not 0 < weight < inf:
        raise ValueError("a weight is a number above 0; leave a dataset out under [excluded]")
    return weight


Weight = Annotated[float, Field(strict=True), AfterValidator(_above_zero)]


class MixtureSource(Model):
    """A source that is not a whole dataset: the episodes of one dataset that were recorded in these scenes."""

    dataset: str
    scenes: Annotated[tuple[str, ...], Field(min_length=1)]


class MixtureSpec(Model):
    """One mixture. A source is what has one weight: the dataset of its name, or what `sources` says."""

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*(/[A-Za-z0-9][A-Za-z0-9_.-]*)*$")]
    citation: str | None = None
    view: str | None = None  # which view of each dataset; None is the stored action
    weighting: Literal["relative", "share"]
    missing: Literal["error", "skip"] = "error"
    weights: dict[str, Weight]
    sources: dict[str, MixtureSource] = Field(default_factory=dict)
    excluded: dict[str, str] = Field(default_factory=dict)  # source to reason

    @model_validator(mode="after")
    def _sources_match(self) -> Self:
        for table, names in (("sources", self.sources), ("excluded", self.excluded)):
            for name in names:
                if name not in self.weights:
                    raise ValueError(f"{table}.{name}: has no weight{did_you_mean(name, self.weights)}")
        if not self.weights.keys() - self.excluded.keys():
            raise ValueError("weights: the mixture is empty; name at least one dataset that is not excluded")
        scenes = [(part.dataset, scene) for part in self.sources.values() for scene in part.scenes]
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
        return self.sources[source].dataset if source in self.sources else source


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
    try:
        return load(path.read_text(encoding="utf-8"), where=str(path))
    except FileNotFoundError:
        raise SpecError(f"{target}: no such mixture") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"{path}: cannot be read ({error})") from error


def load(text: str, *, where: str) -> MixtureSpec:
    """Read a mixture; `where` names it in errors."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SpecError(f"{where}: not TOML ({error}){_given_twice(text)}") from error
    return validated(MixtureSpec, data, where)


def _given_twice(text: str) -> str:
    """Name the keys that a table of the file gives twice, which TOML forbids without naming them."""
    tables = re.split(r"^\s*\[.*", text, flags=re.MULTILINE)
    counts = (Counter(re.findall(r"^\s*[\"']?([\w./-]+)[\"']?\s*=", table, re.MULTILINE)) for table in tables)
    twice = [key for count in counts for key, times in count.items() if times > 1]
    return f"; given twice: {', '.join(twice)}" if twice else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """What one source gets: its `steps`, its `share` of the draws, and how often an epoch `repeats` each step."""

    steps: int
    share: float
    repeats: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """What each source of a mixture gets; `epoch` is in draws, `left_out` gives a reason for each other source."""

    sources: Mapping[str, Share]
    epoch: int
    left_out: Mapping[str, str]


def shares(spec: MixtureSpec, steps: Mapping[str, int]) -> Shares:
    """Turn weights into shares, given how many steps each source has in the mixture's view.

    `relative` weights are multiplied by the steps, as in OpenVLA's loader; an epoch then draws each step of a source as
    often as its weight says. A `share` weight is only divided by the sum of weights; an epoch then has as many draws
    as there are steps. Computed in fractions and rounded once. A source that cannot take part is a SpecError, or is
    left out if `missing` is `skip`; it is always one if nothing remains.

    >>> steps = {"bridge_orig": 2_135_463, "fractal20220817_data": 3_786_400}
    >>> shares(mixture("openvla/bridge_rt_1"), steps).sources["bridge_orig"]
    Share(steps=2135463, share=0.3606066199099844, repeats=1.0)
    """
    left_out = {**_absent(spec, steps), **spec.excluded}
    weights = {source: Fraction(weight) for source, weight in spec.weights.items() if source not in left_out}
    sizes = {source: int(steps[source]) for source in weights}
    relative = spec.weighting == "relative"
    draws = {source: weight * sizes[source] if relative else weight for source, weight in weights.items()}
    total = sum(draws.values(), Fraction())
    epoch = total if relative else Fraction(sum(sizes.values()))
    of_source = {
        source: Share(
            steps=sizes[source], share=float(part / total), repeats=float(part / total * epoch / sizes[source])
        )
        for source, part in draws.items()
    }
    return Shares(sources=of_source, epoch=int(epoch), left_out=left_out)


def _absent(spec: MixtureSpec, steps: Mapping[str, int]) -> dict[str, str]:
    """Say of each source that should take part and cannot why; refuse what `missing` does not allow."""
    wanted = spec.weights.keys() - spec.excluded.keys()
    absent = {source: why for source in spec.weights if source in wanted and (why := _why_not(spec, source, steps))}
    told = "; ".join(f"{source} ({why})" for source, why in absent.items())
    if absent and spec.missing == "error":
        fix = 'name them under [excluded] or set missing = "skip"'
        raise SpecError(
            f"{spec.name}: {len(absent)} of {len(wanted)} cannot take part: {told}. To go on without, {fix}"
        )
    if len(absent) == len(wanted):
        raise SpecError(f"{spec.name}: nothing is left to draw from: {told}")
    return absent


def _why_not(spec: MixtureSpec, source: str, steps: Mapping[str, int]) -> str | None:
    """Say why a source cannot take part: it is unknown, without the view, or without steps."""
    dataset = spec.dataset_of(source)
    name = catalog.name_of(dataset)
    if name is None and (spec.view or source not in steps):
        close = get_close_matches(dataset, catalog.dataset_names(), n=1)
        return "unknown dataset" + (f", did you mean '{close[0]}'?" if close else "")
    if spec.view and name:
        try:
            view(catalog.dataset(name), spec.view)
        except ViewError as error:
            return str(error)
    if source not in steps:
        return "its number of steps is not given"
    return None if steps[source] > 0 else "it has no steps"
