"""`statistics`: the numeric columns of one dataset, or of several as one, become one record of exact statistics."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

from pipelines.beam.combine import combine
from pipelines.beam.engine import THIS_PROCESS, Engine
from pipelines.beam.workers import started
from pipelines.statistics.embodiments import check_mergeable, rate
from pipelines.statistics.kept import keep, kept
from pipelines.statistics.numbers import Part, Selection, parts_of, spaces, vectors
from schemas.errors import UsageError
from schemas.mixture import filters
from schemas.source import Array
from schemas.store.dataset import Dataset
from stats.moments import Moments
from stats.quantiles import ALL, Histogram, Search, interpolated, ranks
from stats.record import Member, Statistics
from stats.summary import QUANTILES, Summary

WANTED = tuple(QUANTILES.values())
CHUNKED = {"action_chunk", "action_relative"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """One pass: histograms as the searches need them next, and in the first pass moments; for one part, picklable."""

    selection: Selection
    searches: Mapping[str, Search]  # by vector; those that are not wanted any more are left out

    def __call__(self, part: Part) -> Iterator[tuple[str, Moments | Histogram]]:
        """Count; the keys are `<vector>` and, for moments, `<vector>.<member>`."""
        for found in vectors(part, self.selection):
            for name, search in self.searches.items():
                if not search.bits:
                    yield f"{name}.{part.member}", Moments.of(found[name])
                yield name, Histogram.of(found[name], search)


def statistics(
    *datasets: Dataset, selection: Selection | None = None, engine: Engine = THIS_PROCESS, recompute: bool = False
) -> Statistics:
    """Compute the statistics of a selection, exact and the same on every engine.

    Those of one dataset are kept in its `meta/stats.json` and found there the next time. Several datasets are counted
    as one if they are recordings of one embodiment; else a UsageError says what differs.
    """
    chosen = _spelled(selection or Selection())
    if len(datasets) > 1:
        check_mergeable(datasets, chosen)
    elif not recompute and (found := kept(datasets[0], chosen)):
        return found
    computed = _computed(datasets, chosen, engine)
    if len(datasets) == 1:
        keep(datasets[0], computed)
    return computed


def _spelled(selection: Selection) -> Selection:
    return replace(selection, filters=str(filters.parse(selection.filters)) if selection.filters else None)


def _computed(datasets: Sequence[Dataset], selection: Selection, engine: Engine) -> Statistics:
    parts = [part for i, dataset in enumerate(datasets) for part in parts_of(dataset, selection, member=i)]
    meaning = spaces(datasets[0], selection)
    sizes = {name: len(space) * (selection.chunk if name in CHUNKED else 1) for name, space in meaning.items()}

    with started(engine.sharing(len(parts))) as running:

        def counted(searches: Mapping[str, Search]) -> dict[str, dict[str, Any]]:
            work = Count(selection=selection, searches=searches)
            return combine(work, parts, engine=running, shared=datasets[0].folder)

        first = counted({name: Search.of([], dims=size) for name, size in sizes.items()})
        moments = {name: [Moments.from_json(first[f"{name}.{i}"]) for i in range(len(datasets))] for name in meaning}
        totals = {name: reduce(Moments.merge, found) for name, found in moments.items()}
        _check_counts(totals, selection)
        histograms = {name: Histogram.from_json(first[name]) for name in meaning}
        quantiles = _quantiles(totals, histograms, counted)
    summaries = {
        name: Summary.of(
            space,
            totals[name],
            quantiles=quantiles[name],
            histogram=histograms[name],
            is_action=name != "state",
        )
        for name, space in meaning.items()
    }
    counts = [
        (sum(part.episodes for part in parts if part.member == i), total.count)
        for i, total in enumerate(moments["action"])
    ]
    return _record(datasets, selection, summaries=summaries, counts=counts)


def _quantiles(
    totals: Mapping[str, Moments],
    histograms: Mapping[str, Histogram],
    counted: Callable[[Mapping[str, Search]], Mapping[str, dict[str, Any]]],
) -> dict[str, Array]:
    """Go on from the first pass until every order statistic is known; [7, D] for each vector."""
    searches = {
        name: Search.of(ranks(WANTED, total.count), dims=len(total.low)).narrowed(histograms[name])
        for name, total in totals.items()
    }
    while todo := {name: search for name, search in searches.items() if search.bits < ALL}:
        found = counted(todo)
        searches |= {name: search.narrowed(Histogram.from_json(found[name])) for name, search in todo.items()}
    return {name: interpolated(search, WANTED, totals[name].count) for name, search in searches.items()}


def _check_counts(totals: Mapping[str, Moments], selection: Selection) -> None:
    for name, total in totals.items():
        if not total.count:
            masked = f"view '{selection.view}' masks them all"
            why = f"no episode has {selection.chunk} steps" if name in CHUNKED else masked
            raise UsageError(f"there are no steps to count: {why}")


def _record(
    datasets: Sequence[Dataset],
    selection: Selection,
    *,
    summaries: Mapping[str, Summary],
    counts: Sequence[tuple[int, int]],
) -> Statistics:
    embodiment = datasets[0].spec.embodiment
    members = tuple(
        Member(
            dataset=dataset.manifest["dataset"],
            manifest=dataset.manifest["xxh3_128"],
            view_digest=dataset.view(selection.view).digest if selection.view else None,
            episodes=episodes,
            steps=steps,
        )
        for dataset, (episodes, steps) in zip(datasets, counts, strict=True)
    )
    return Statistics(
        name=members[0].dataset if len(members) == 1 else min(d.spec.embodiment.name for d in datasets),
        members=tuple(sorted(members, key=lambda member: (member.dataset, member.manifest))),
        view=selection.view,
        split=selection.split,
        filters=selection.filters,
        robot=embodiment.robot,
        controller=embodiment.controller,
        control_hz=rate(datasets[0], selection),
        vectors=summaries,
    )
