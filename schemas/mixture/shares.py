"""Compute shares from weights with exact fractions, which are rounded only at the end."""

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
    """The share of one source."""

    steps: int
    share: float  # share of the draws
    repeats: float  # expected draws of each step per epoch
    nominal: float  # share before caps are applied


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """The shares of a mixture."""

    sources: Mapping[str, Share]
    epoch: int  # number of draws
    left_out: Mapping[str, str]  # source -> reason


def shares(spec: MixtureSpec, steps: Mapping[str, int], *, absent: Mapping[str, str] | None = None) -> Shares:
    """Compute shares from weights and the number of steps of each source in the mixture's view.

    `relative` weights are multiplied by the source's number of steps, as in OpenVLA's loader. An epoch then draws each
    step of a source `weight` times on average. `share` weights are divided by their sum. `temperature` weights are
    multiplied by the number of steps to the power of 1/T. With `share` and `temperature`, an epoch has as many draws as
    the sources have steps. If a source's share exceeds a cap, the excess is divided among the other sources in
    proportion to their weights.

    A source is unavailable if it is unknown, does not have the view or has no steps, or if `absent` has a reason for
    it. If `missing` is `skip`, unavailable sources are left out. Raises SpecError if `missing` is not `skip` and a
    source is unavailable, or if no source is left.

    >>> from schemas.mixture.spec import mixture
    >>> steps = {"bridge_orig": 2_135_463, "fractal20220817_data": 3_786_400}
    >>> shares(mixture("openvla/bridge_rt_1"), steps).sources["bridge_orig"]
    Share(steps=2135463, share=0.3606066199099844, repeats=1.0, nominal=0.3606066199099844)
    """
    left_out = {**_absent(spec, steps, absent or {}), **spec.excluded}
    sizes = {source: int(steps[source]) for source in spec.weights if source not in left_out}
    draws = {source: Fraction(spec.weights[source]) * _size_factor(spec, size) for source, size in sizes.items()}
    total = sum(draws.values(), Fraction())
    epoch = total if spec.weighting == "relative" else Fraction(sum(sizes.values()))
    parts = water_filled(draws, {source: _bound(spec, size, epoch) for source, size in sizes.items()}, where=spec.name)
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


def water_filled(weights: Mapping[str, Fraction], bounds: Mapping[str, Fraction], *, where: str) -> dict[str, Fraction]:
    """Divide 1 in proportion to weights, but give no part more than its bound.

    Each part is min(bound, level * weight), with the level at which the parts add up to 1.

    >>> weights = {"a": Fraction(8), "b": Fraction(1), "c": Fraction(1)}
    >>> water_filled(weights, dict.fromkeys("abc", Fraction(1, 2)), where="m")
    {'a': Fraction(1, 2), 'b': Fraction(1, 4), 'c': Fraction(1, 4)}
    """
    room = sum(bounds.values(), Fraction())
    if room < 1:
        raise SpecError(f"{where}: caps: allow only {float(room):.3g} of the draws in total; raise them")
    open_, rest, out = sum(weights.values(), Fraction()), Fraction(1), dict.fromkeys(weights, Fraction())
    for name in sorted(weights, key=lambda name: bounds[name] / weights[name]):  # the tightest bound first
        out[name] = min(bounds[name], rest * weights[name] / open_)
        open_, rest = open_ - weights[name], rest - out[name]
    return out


def _size_factor(spec: MixtureSpec, size: int) -> Fraction:
    """Return the factor that a source's weight is multiplied by, based on its number of steps."""
    if spec.weighting == "temperature" and spec.temperature is not None:
        return Fraction(size ** (1 / spec.temperature))
    return Fraction(size if spec.weighting == "relative" else 1)


def _bound(spec: MixtureSpec, size: int, epoch: Fraction) -> Fraction:
    share = Fraction(spec.caps.share)
    return share if spec.caps.repeats is None else min(share, Fraction(spec.caps.repeats) * size / epoch)


def _absent(spec: MixtureSpec, steps: Mapping[str, int], known: Mapping[str, str]) -> dict[str, str]:
    """Return the unavailable sources and why.

    Raises SpecError if there are any and `missing` is "error", or if all sources are unavailable.
    """
    wanted = spec.weights.keys() - spec.excluded.keys()
    absent = {
        source: why
        for source in spec.weights
        if source in wanted and (why := known.get(source) or _why_not(spec, source, steps))
    }
    reasons = "; ".join(f"{source} ({why})" for source, why in absent.items())
    if absent and spec.missing == "error":
        fix = 'to train without them, list them under [excluded] or set missing = "skip"'
        raise SpecError(f"{spec.name}: {len(absent)} of {len(wanted)} sources are not available: {reasons}; {fix}")
    if len(absent) == len(wanted):
        raise SpecError(f"{spec.name}: none of the sources are available: {reasons}")
    return absent


def _why_not(spec: MixtureSpec, source: str, steps: Mapping[str, int]) -> str | None:
    """Return why a source is not available, or None if it is."""
    if source in spec.sources and spec.sources[source].uri:  # its view is checked when the dataset is opened
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
        return "its number of steps is unknown"
    return None if steps[source] > 0 else "it has no steps"
