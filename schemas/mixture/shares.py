"""From weights to shares: exact fractions, rounded once, whatever the order of the file."""

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from fractions import Fraction

from schemas.declarations import catalog
from schemas.errors import SpecError, ViewError
from schemas.mixture.spec import MixtureSpec
from schemas.views.views import view


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """What one source gets: its `steps`, its `share` of the draws, and how often an epoch `repeats` each step."""

    steps: int
    share: float
    repeats: float
    nominal: float  # its share before caps


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """What each source of a mixture gets; `epoch` is in draws, `left_out` gives a reason for each other source."""

    sources: Mapping[str, Share]
    epoch: int
    left_out: Mapping[str, str]


def shares(spec: MixtureSpec, steps: Mapping[str, int], *, absent: Mapping[str, str] | None = None) -> Shares:
    """Turn weights into shares, given how many steps each source has in the mixture's view.

    `relative` weights are multiplied by the steps, as in OpenVLA's loader; an epoch then draws each step of a source as
    often as its weight says. A `share` weight is only divided by the sum of weights, one with a `temperature` T is
    multiplied by the steps to the power of 1/T; an epoch then has as many draws as there are steps. Caps hold back what
    exceeds them, and the others get that in proportion. Computed in fractions and rounded once. A source that cannot
    take part, for a reason found here or given in `absent`, is a SpecError, or is left out if `missing` is `skip`; it
    is always one if nothing remains.

    >>> from schemas.mixture.spec import mixture
    >>> steps = {"bridge_orig": 2_135_463, "fractal20220817_data": 3_786_400}
    >>> shares(mixture("openvla/bridge_rt_1"), steps).sources["bridge_orig"]
    Share(steps=2135463, share=0.3606066199099844, repeats=1.0, nominal=0.3606066199099844)
    """
    left_out = {**_absent(spec, steps, absent or {}), **spec.excluded}
    sizes = {source: int(steps[source]) for source in spec.weights if source not in left_out}
    draws = {source: Fraction(spec.weights[source]) * _sized(spec, size) for source, size in sizes.items()}
    total = sum(draws.values(), Fraction())
    epoch = total if spec.weighting == "relative" else Fraction(sum(sizes.values()))
    parts = filled(draws, {source: _bound(spec, size, epoch) for source, size in sizes.items()}, where=spec.name)
    of_source = {
        source: Share(
            steps=sizes[source],
            share=float(part),
            repeats=float(part * epoch / sizes[source]),
            nominal=float(draws[source] / total),
        )
        for source, part in parts.items()
    }
    return Shares(sources=of_source, epoch=int(epoch), left_out=left_out)


def filled(weights: Mapping[str, Fraction], bounds: Mapping[str, Fraction], *, where: str) -> dict[str, Fraction]:
    """Share out 1 in proportion to weights without exceeding bounds: min(bound, level * weight), the level as needed.

    >>> third = Fraction(1, 3)
    >>> filled({"a": Fraction(8), "b": Fraction(1), "c": Fraction(1)}, dict.fromkeys("abc", Fraction(1, 2)), where="m")
    {'a': Fraction(1, 2), 'b': Fraction(1, 4), 'c': Fraction(1, 4)}
    """
    room = sum(bounds.values(), Fraction())
    if room < 1:
        raise SpecError(f"{where}: caps leave only {float(room):.3g} of the draws to all sources together; raise them")
    open_, rest, out = sum(weights.values(), Fraction()), Fraction(1), dict.fromkeys(weights, Fraction())
    for name in sorted(weights, key=lambda name: bounds[name] / weights[name]):  # the tightest first
        out[name] = min(bounds[name], rest * weights[name] / open_)
        open_, rest = open_ - weights[name], rest - out[name]
    return out


def _sized(spec: MixtureSpec, size: int) -> Fraction:
    """Say what a source's steps multiply its weight by."""
    if spec.weighting == "temperature" and spec.temperature is not None:
        return Fraction(size ** (1 / spec.temperature))
    return Fraction(size if spec.weighting == "relative" else 1)


def _bound(spec: MixtureSpec, size: int, epoch: Fraction) -> Fraction:
    share = Fraction(spec.caps.share)
    return share if spec.caps.repeats is None else min(share, Fraction(spec.caps.repeats) * size / epoch)


def _absent(spec: MixtureSpec, steps: Mapping[str, int], known: Mapping[str, str]) -> dict[str, str]:
    """Say of each source that should take part and cannot why; refuse what `missing` does not allow."""
    wanted = spec.weights.keys() - spec.excluded.keys()
    absent = {
        source: why
        for source in spec.weights
        if source in wanted and (why := known.get(source) or _why_not(spec, source, steps))
    }
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
    if source in spec.sources and spec.sources[source].uri:  # whose dataset says itself what it can give
        return "it has no steps" if not steps.get(source) else None
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
