"""`mix lock`: lock a mixture and the datasets that it names."""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import pyarrow as pa
import xxhash

from pipelines.beam.engine import THIS_PROCESS, Engine
from pipelines.beam.progress import Progress, silent
from pipelines.mix.sources import OpenedSource, open_mixture_source, source_uri
from pipelines.statistics.statistics import statistics
from schemas.errors import DatasetError, UnreachableError, UsageError, ViewError
from schemas.mixture import lock
from schemas.mixture.lock import EPISODES, TRAIN, Lock, LockedSource, Stratum
from schemas.mixture.paraphrases import check_known
from schemas.mixture.shares import Share, shares, water_filled
from schemas.mixture.spec import MixtureSpec
from schemas.mixture.unify import unified


def make_lock(
    spec: MixtureSpec,
    *,
    beside: Path,
    data: str | None = None,
    located_by: Lock | None = None,
    engine: Engine = THIS_PROCESS,
    progress: Progress = silent,
) -> tuple[Lock, pa.Table]:
    """Lock a mixture: open its datasets, and select and count episodes and steps.

    Returns the lock and the table of its episodes. Relative URIs are resolved against `beside`, the folder of the lock.
    A source without a URI is looked up in the folder `data`. If `located_by`, an older lock, is passed, the URIs of its
    sources and its treatment of constant dimensions are used instead. Raises SpecError if the actions of the sources
    have different meanings, if a source is missing and the spec does not allow that, or if an instruction that has
    paraphrases is in no step.
    """
    sources: dict[str, OpenedSource] = {}
    absent: dict[str, str] = {}
    for name in sorted(spec.weights.keys() - spec.excluded.keys()):  # the sources of a lock are sorted by name
        try:
            earlier = located_by.sources.get(name) if located_by else None
            uri = earlier.uri if earlier else source_uri(spec, name, beside=beside, data=data)
            sources[name] = open_mixture_source(spec, name, uri=uri, beside=beside, progress=progress)
        except (DatasetError, UsageError, ViewError, UnreachableError) as error:
            absent[name] = str(error)
    plan = shares(spec, {name: source.stage(TRAIN).steps for name, source in sources.items()}, absent=absent)
    taken = [source for source in sources.values() if source.name in plan.sources]
    dims, differences = unified(spec, {source.name: source.space for source in taken})
    check_known(spec.paraphrases, set().union(*(source.instructions for source in taken)), where=spec.name)
    keys, records = _statistics(spec, taken, engine)
    texts_digest = lock.paraphrases_digest(spec.to_json())
    optional: dict[str, Any] = {"paraphrases_digest": texts_digest} if texts_digest else {}
    table = pa.Table.from_pylist([row for source in taken for row in source.rows], EPISODES)
    locked = Lock(
        version=lock.VERSION,
        name=spec.name,
        spec=spec.to_json(),
        spec_digest=lock.digest(spec.to_json()),
        seed=spec.seed,
        view=spec.view,
        dims=dims,
        method=spec.normalize.method,
        constant=located_by.constant if located_by else spec.normalize.constant,
        grippers=located_by.grippers if located_by else spec.normalize.grippers,
        epoch=plan.epoch,
        sources={
            source.name: _locked(source, plan.sources[source.name], spec=spec, epoch=plan.epoch, key=key)
            for source, key in zip(taken, keys, strict=True)
        },
        differences=tuple(differences),
        left_out=dict(plan.left_out),
        statistics=records,
        episodes=xxhash.xxh3_128_hexdigest(lock.encoded_table(table)),
        **optional,
    )
    return locked, table


def _statistics(
    spec: MixtureSpec, taken: Sequence[OpenedSource], engine: Engine
) -> tuple[list[str], dict[str, dict[str, Any]]]:
    """Compute the statistics that normalize each source.

    Returns the key of each source's statistics, and the statistics by key. Sources may share a key.
    """
    keys = [
        source.dataset.spec.embodiment.name if spec.normalize.per == "embodiment" else source.name for source in taken
    ]
    records = {}
    for key in dict.fromkeys(keys):
        members = [source for source, other in zip(taken, keys, strict=True) if other == key]
        datasets = [source.dataset for source in members]
        selections = {source.selection for source in members}
        if len(selections) > 1:
            raise UsageError(
                f"{key}: sources of this embodiment have different filters, so they cannot be counted as one"
            )
        records[key] = statistics(*datasets, selection=members[0].selection, engine=engine).to_json()
    return keys, records


def _locked(source: OpenedSource, share: Share, *, spec: MixtureSpec, epoch: int, key: str) -> LockedSource:
    declared, manifest = source.dataset.spec, source.dataset.manifest
    return LockedSource(
        uri=source.uri,
        dataset=manifest["dataset"],
        manifest=source.dataset.digest,
        embodiment=declared.embodiment.name,
        robot=declared.embodiment.robot,
        controller=declared.embodiment.controller,
        control_hz=declared.control_hz,
        license=declared.license,
        view_digest=source.dataset.view(spec.view).digest if spec.view else None,
        space=source.space.to_json(),
        filter=source.selection.filters,
        stages=source.stages(),
        nominal=share.nominal,
        share=share.share,
        repeats=share.repeats,
        strata=_strata(source.strata(), share, spec=spec, epoch=epoch, where=f"{spec.name}: {source.name}"),
        statistics=key,
    )


def _strata(steps: Mapping[str, int], share: Share, *, spec: MixtureSpec, epoch: int, where: str) -> dict[str, Stratum]:
    """Distribute the share of a source over its strata.

    The strata get equal shares, unless `caps.repeats` limits one of them.
    """
    whole, one = Fraction(share.share), Fraction(1)
    bounds = dict.fromkeys(steps, one)
    if spec.caps.repeats is not None:  # 1e-9 is a tolerance, as the share is rounded
        most = Fraction(spec.caps.repeats) * Fraction(1 + 1e-9) / epoch / whole
        bounds = {key: min(one, most * count) if len(steps) > 1 else one for key, count in steps.items()}
    parts = water_filled(dict.fromkeys(steps, one), bounds, where=where)
    return {
        key: Stratum(
            steps=steps[key],
            share=float(part * whole),
            repeats=float(part * whole * epoch / steps[key]),
        )
        for key, part in parts.items()
    }
