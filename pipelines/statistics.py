"""`statistics`: the numeric columns of one dataset, or of several as one, become one record of exact statistics."""

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

from pipelines.folders import write_atomically
from pipelines.numbers import Part, Selection, parts_of, spaces, vectors
from pipelines.records import Engine
from schemas import filters, layout
from schemas.errors import StatsError, UsageError
from schemas.spaces import Space
from schemas.store import Dataset
from stats.moments import Moments
from stats.quantiles import ALL, Histogram, Search, interpolated, ranks
from stats.record import FORMAT, Member, Statistics
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
    *datasets: Dataset, selection: Selection | None = None, engine: Engine | None = None, recompute: bool = False
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
    computed = _computed(datasets, chosen, engine or Engine())
    if len(datasets) == 1:
        _keep(datasets[0], computed)
    return computed


def _spelled(selection: Selection) -> Selection:
    return replace(selection, filters=str(filters.parse(selection.filters)) if selection.filters else None)


def _computed(datasets: Sequence[Dataset], selection: Selection, engine: Engine) -> Statistics:
    from pipelines.beam.combine import combine  # noqa: PLC0415 - Beam takes seconds to import, kept statistics none

    parts = [part for i, dataset in enumerate(datasets) for part in parts_of(dataset, selection, member=i)]
    meaning = spaces(datasets[0], selection)
    sizes = {name: len(space) * (selection.chunk if name in CHUNKED else 1) for name, space in meaning.items()}

    def counted(searches: Mapping[str, Search]) -> dict[str, dict[str, Any]]:
        work = Count(selection=selection, searches=searches)
        return combine(work, parts, engine=engine, shared=datasets[0].path / layout.META)

    first = counted({name: Search.of([], dims=size) for name, size in sizes.items()})
    moments = {
        name: [Moments.from_json(first[f"{name}.{i}"]) for i in range(len(datasets))] for name in meaning
    }
    totals = {name: reduce(Moments.merge, found) for name, found in moments.items()}
    _check_counts(totals, selection)
    histograms = {name: Histogram.from_json(first[name]) for name in meaning}
    searches = {
        name: Search.of(ranks(WANTED, totals[name].count), dims=size).narrowed(histograms[name])
        for name, size in sizes.items()
    }
    while todo := {name: search for name, search in searches.items() if search.bits < ALL}:
        found = counted(todo)
        searches |= {name: search.narrowed(Histogram.from_json(found[name])) for name, search in todo.items()}
    summaries = {
        name: Summary.of(
            space,
            totals[name],
            quantiles=interpolated(searches[name], WANTED, totals[name].count),
            histogram=histograms[name],
            is_action=name != "state",
        )
        for name, space in meaning.items()
    }
    episodes = Counter[int]()
    for part in parts:
        episodes[part.member] += len(part.starts)
    return _record(datasets, selection, summaries=summaries, counts=[(episodes[i], total.count) for i, total in enumerate(moments["action"])])


def _check_counts(totals: Mapping[str, Moments], selection: Selection) -> None:
    for name, total in totals.items():
        if not total.count:
            why = f"no episode has {selection.chunk} steps" if name in CHUNKED else f"view '{selection.view}' masks them all"
            raise UsageError(f"there are no steps to count: {why}")


def _record(
    datasets: Sequence[Dataset], selection: Selection, *, summaries: Mapping[str, Summary], counts: Sequence[tuple[int, int]]
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
        name=members[0].dataset if len(members) == 1 else embodiment.name,
        members=tuple(sorted(members, key=lambda member: (member.dataset, member.manifest))),
        view=selection.view,
        split=selection.split,
        filters=selection.filters,
        robot=embodiment.robot,
        controller=embodiment.controller,
        control_hz=datasets[0].spec.control_hz,
        vectors=summaries,
    )


def kept(dataset: Dataset, selection: Selection) -> Statistics | None:
    """Find statistics in `meta/stats.json`: those of this very content and view, or None."""
    digest = dataset.view(selection.view).digest if selection.view else None
    for found in read_kept(dataset):
        member = found.members[0]
        is_current = (member.manifest, member.view_digest) == (dataset.manifest["xxh3_128"], digest)
        if is_current and found.key == (selection.view or "", selection.split or "", selection.filters or "", selection.chunk):
            return found
    return None


def read_kept(dataset: Dataset) -> list[Statistics]:
    """Read all of `meta/stats.json`; a damaged one is a StatsError."""
    path = dataset.path / layout.STATS
    if not path.is_file():
        return []
    try:
        entries = json.loads(path.read_bytes())["statistics"]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise StatsError(f"{path}: cannot be read ({error!r}); remove it, it will be computed again") from error
    return [Statistics.from_json(entry, where=str(path)) for entry in entries]


def _keep(dataset: Dataset, computed: Statistics) -> None:
    """Add statistics to `meta/stats.json`, where it can be written; those of an earlier content go."""
    path = dataset.path / layout.STATS
    if not os.access(path.parent, os.W_OK):
        return
    current = dataset.manifest["xxh3_128"]
    found = {other.key: other for other in read_kept(dataset) if other.members[0].manifest == current}
    found[computed.key] = computed
    entries = [found[key].to_json() for key in sorted(found)]
    write_atomically(path, json.dumps({"format": FORMAT, "statistics": entries}).encode() + b"\n")


def check_mergeable(datasets: Sequence[Dataset], selection: Selection) -> None:
    """Refuse, with the reason, datasets that are not recordings of one embodiment in the same words."""
    first, *others = datasets
    facts = _facts(first, selection)
    for what, value in facts.items():
        if value is None or "unknown" in str(value):
            raise UsageError(f"{first.path}: its {what} is not known, so it cannot be merged with others")
    for other in others:
        for what, value in _facts(other, selection).items():
            if value != facts[what]:
                raise UsageError(f"{other.path}: its {what} is {_short(value)}, that of {first.path} is {_short(facts[what])}; statistics of different embodiments are not merged")
    digests = [dataset.manifest["xxh3_128"] for dataset in datasets]
    if len(set(digests)) < len(digests):
        raise UsageError("a dataset is named twice; its steps would count twice")


def _facts(dataset: Dataset, selection: Selection) -> dict[str, Any]:
    """Name what must be equal for two datasets to be counted as one."""
    embodiment = dataset.spec.embodiment
    meaning = {
        f"{name} space": {key: value for key, value in space.to_json().items() if key != "name"}
        for name, space in spaces(dataset, selection).items()
    }
    return {
        "robot": embodiment.robot,
        "controller": embodiment.controller,
        "control_hz": dataset.spec.control_hz,
        "vectors": sorted(meaning),
        **meaning,
    }
