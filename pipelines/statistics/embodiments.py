"""Which datasets may be counted as one: recordings of one embodiment, in the same words."""

from collections.abc import Sequence

from pipelines.statistics.numbers import Selection, spaces
from schemas.errors import UsageError
from schemas.store.dataset import Dataset
from stats.compare import meaning


def check_mergeable(datasets: Sequence[Dataset], selection: Selection) -> None:
    """Refuse, with the reason, what does not have equal robot, controller, rate and Spaces, or does not know them."""
    first, *others = datasets
    facts = _facts(first, selection)
    for what, value in facts.items():
        if value in {None, "unknown"}:
            raise UsageError(f"{first.uri}: its {what} is not known, so it cannot be merged with others")
    for other in others:
        for what, value in _facts(other, selection).items():
            if value != facts[what]:
                raise _refused(first, other, f"{what} is {facts[what]} and {value}")
        _check_spaces(first, other, selection)
    digests = [dataset.manifest["xxh3_128"] for dataset in datasets]
    if len(set(digests)) < len(digests):
        raise UsageError("one dataset is named twice: its steps would count twice")


def _facts(dataset: Dataset, selection: Selection) -> dict[str, str | float | None]:
    embodiment = dataset.spec.embodiment
    return {
        "robot": embodiment.robot,
        "controller": embodiment.controller,
        "control_hz": rate(dataset, selection),
    }


def rate(dataset: Dataset, selection: Selection) -> float | None:
    """Give the steps per second of what is selected: those of its view, or as stored."""
    of_view = dataset.view(selection.view).control_hz if selection.view else None
    return of_view or dataset.spec.control_hz


def _check_spaces(first: Dataset, other: Dataset, selection: Selection) -> None:
    ours, theirs = spaces(first, selection), spaces(other, selection)
    if ours.keys() != theirs.keys():
        raise _refused(first, other, f"they have {', '.join(ours)} and {', '.join(theirs)}")
    for name, space in ours.items():
        if words := meaning(space, theirs[name]):
            raise _refused(first, other, f"{name}: {words}")
        if unknown := space.unknowns():
            raise _refused(first, other, f"{name}: {', '.join(unknown)} is not known, so it may differ")


def _refused(first: Dataset, other: Dataset, why: str) -> UsageError:
    return UsageError(f"{first.uri} and {other.uri} cannot be counted as one: {why}")
