"""`statistics`: compute exact statistics of one dataset, or of several counted as one."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

from pipelines.beam.combine import combine
from pipelines.beam.engine import THIS_PROCESS, Engine
from pipelines.beam.workers import running_workers
from pipelines.statistics.cache import cached, store
from pipelines.statistics.embodiments import check_mergeable, rate
from pipelines.statistics.numbers import DatasetPart, Selection, parts_of, spaces, vectors
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
class CountPass:
    """A picklable CountFunction for one pass: it returns the next histogram of each search.

    In the first pass it also returns the moments.
    """

    selection: Selection
    searches: Mapping[str, Search]  # vector -> search that is not finished

    def __call__(self, part: DatasetPart) -> Iterator[tuple[str, Moments | Histogram]]:
        """Count one part; the key is `<vector>` for a histogram and `<vector>.<member>` for moments."""
        for batch in vectors(part, self.selection):
            for name, search in self.searches.items():
                if not search.bits:
                    yield f"{name}.{part.member}", Moments.of(batch[name])
                yield name, Histogram.of(batch[name], search)


def statistics(
    *datasets: Dataset, selection: Selection | None = None, engine: Engine = THIS_PROCESS, recompute: bool = False
) -> Statistics:
    """Compute the exact statistics of a selection; every engine returns the same.

    The statistics of a single dataset are cached in its `meta/stats.json`; with `recompute`, the cache is not read.
    Several datasets are counted as if they were one. Raises UsageError, which names the difference, if they are not
    recordings of one embodiment.
    """
    chosen = _normalized(selection or Selection())
    if len(datasets) > 1:
        check_mergeable(datasets, chosen)
    may_cache = len(datasets) == 1 and not _depends_on_findings(chosen)
    if may_cache and not recompute and (record := cached(datasets[0], chosen)):
        return record
    computed = _compute(datasets, chosen, engine)
    if may_cache:
        store(datasets[0], computed)
    return computed


def _normalized(selection: Selection) -> Selection:
    """Rewrite the condition in its canonical form."""
    return replace(selection, filters=str(filters.parse(selection.filters)) if selection.filters else None)


def _depends_on_findings(selection: Selection) -> bool:
    """Whether the episodes depend on the last check, which is not part of the cache's key."""
    return bool(selection.filters and filters.rules(filters.parse(selection.filters)))


def _compute(datasets: Sequence[Dataset], selection: Selection, engine: Engine) -> Statistics:
    parts = [part for i, dataset in enumerate(datasets) for part in parts_of(dataset, selection, member=i)]
    space_of = spaces(datasets[0], selection)
    sizes = {name: len(space) * (selection.chunk if name in CHUNKED else 1) for name, space in space_of.items()}

    with running_workers(engine.for_parts(len(parts))) as running:

        def count(searches: Mapping[str, Search]) -> dict[str, dict[str, Any]]:
            count_pass = CountPass(selection=selection, searches=searches)
            return combine(count_pass, parts, engine=running, shared=datasets[0].folder)

        first = count({name: Search.of([], dims=size) for name, size in sizes.items()})
        moments = {name: [Moments.from_json(first[f"{name}.{i}"]) for i in range(len(datasets))] for name in space_of}
        totals = {name: reduce(Moments.merge, of_members) for name, of_members in moments.items()}
        _check_counts(totals, selection)
        histograms = {name: Histogram.from_json(first[name]) for name in space_of}
        quantiles = _quantiles(totals, histograms, count)
    summaries = {
        name: Summary.of(
            space,
            totals[name],
            quantiles=quantiles[name],
            histogram=histograms[name],
            is_action=name != "state",
        )
        for name, space in space_of.items()
    }
    counts = [
        (sum(part.episodes for part in parts if part.member == i), total.count)
        for i, total in enumerate(moments["action"])
    ]
    return _record(datasets, selection, summaries=summaries, counts=counts)


def _quantiles(
    totals: Mapping[str, Moments],
    histograms: Mapping[str, Histogram],
    count: Callable[[Mapping[str, Search]], Mapping[str, dict[str, Any]]],
) -> dict[str, Array]:
    """Repeat passes over the data until every order statistic is known.

    Returns the quantiles of each vector, [7, D].
    """
    searches = {
        name: Search.of(ranks(WANTED, total.count), dims=len(total.low)).narrowed(histograms[name])
        for name, total in totals.items()
    }
    while todo := {name: search for name, search in searches.items() if search.bits < ALL}:
        counts = count(todo)
        searches |= {name: search.narrowed(Histogram.from_json(counts[name])) for name, search in todo.items()}
    return {name: interpolated(search, WANTED, totals[name].count) for name, search in searches.items()}


def _check_counts(totals: Mapping[str, Moments], selection: Selection) -> None:
    for name, total in totals.items():
        if not total.count:
            masked = f"view '{selection.view}' masks them all"
            why = f"no episode has {selection.chunk} steps" if name in CHUNKED else masked
            raise UsageError(f"no steps to count: {why}")


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
            manifest=dataset.digest,
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
