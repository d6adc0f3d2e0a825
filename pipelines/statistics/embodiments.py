"""Check whether datasets may be counted as one: they must be recordings of one embodiment with equal Spaces."""

from collections.abc import Sequence

from pipelines.statistics.numbers import Selection, spaces
from schemas.errors import UsageError
from schemas.store.dataset import Dataset
from stats.compare import meaning


def check_mergeable(datasets: Sequence[Dataset], selection: Selection) -> None:
    """Raise UsageError unless all datasets have the same known robot, controller, control rate and Spaces."""
    first, *others = datasets
    facts = _facts(first, selection)
    for what, value in facts.items():
        if value in {None, "unknown"}:
            raise UsageError(f"{first.uri}: the {what} is not known, so it cannot be merged with other datasets")
    for other in others:
        for what, value in _facts(other, selection).items():
            if value != facts[what]:
                raise _not_mergeable(first, other, f"{what} is {facts[what]} and {value}")
        _check_spaces(first, other, selection)
    digests = [dataset.digest for dataset in datasets]
    if len(set(digests)) < len(digests):
        raise UsageError("a dataset is named twice; its steps would be counted twice")


def _facts(dataset: Dataset, selection: Selection) -> dict[str, str | float | None]:
    embodiment = dataset.spec.embodiment
    return {
        "robot": embodiment.robot,
        "controller": embodiment.controller,
        "control_hz": rate(dataset, selection),
    }


def rate(dataset: Dataset, selection: Selection) -> float | None:
    """Return the control rate of a selection in steps per second, or None if it is unknown.

    If the view resamples the steps, this is the rate of the view.
    """
    of_view = dataset.view(selection.view).control_hz if selection.view else None
    return of_view or dataset.spec.control_hz


def _check_spaces(first: Dataset, other: Dataset, selection: Selection) -> None:
    ours, theirs = spaces(first, selection), spaces(other, selection)
    if ours.keys() != theirs.keys():
        raise _not_mergeable(first, other, f"they have {', '.join(ours)} and {', '.join(theirs)}")
    for name, space in ours.items():
        if difference := meaning(space, theirs[name]):
            raise _not_mergeable(first, other, f"{name}: {difference}")
        if unknown := space.unknowns():
            raise _not_mergeable(first, other, f"{name}: {', '.join(unknown)} is not known, so it may differ")


def _not_mergeable(first: Dataset, other: Dataset, why: str) -> UsageError:
    return UsageError(f"{first.uri} and {other.uri} cannot be counted as one: {why}")
