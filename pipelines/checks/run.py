"""`check_datasets`: apply the rules to datasets, on an engine, and report what was findings."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from pipelines.beam.combine import combine
from pipelines.beam.engine import THIS_PROCESS, Engine
from pipelines.beam.progress import Progress, silent
from pipelines.beam.workers import running_workers
from pipelines.checks import images, kept, numbers
from pipelines.checks.about import about, judged, learned
from pipelines.checks.batch import About
from pipelines.checks.check import Check
from pipelines.checks.duplicates import Look, Signed, duplicates
from pipelines.checks.findings import NotAssessable, RuleFinding
from pipelines.checks.images.look import LooksPass
from pipelines.checks.kept import Result
from pipelines.checks.look_at import look_at
from pipelines.checks.parts import CheckPart, parts_of, sample
from pipelines.checks.passes import ImagesPass, NumbersPass
from pipelines.checks.records import of_table
from pipelines.checks.report import Report
from pipelines.checks.settings import Settings
from pipelines.checks.stale import of_ranges, of_records
from pipelines.checks.table import columns_of
from pipelines.conventions.check import Conventions, contradictions
from schemas.source import Array
from schemas.store.columns import ROWS
from schemas.store.dataset import Dataset

STEPS_OF_IMAGES = 1 << 12  # number of steps of a part whose images one worker reads


def check_datasets(
    datasets: Sequence[Dataset],
    *,
    settings: Settings | None = None,
    all_frames: bool = False,
    recompute: bool = False,
    engine: Engine = THIS_PROCESS,
    progress: Progress = silent,
) -> Report:
    """Check one dataset, or several and also search for duplicates between them.

    The result of each dataset is kept in its `meta/checks.parquet` and used as long as nothing changes on which it
    depends; with `recompute`, it is computed again. Images are decoded on a sample of each episode's frames, or all of
    them with `all_frames`.
    """
    chosen = settings or Settings()
    results = []
    with running_workers(engine) as running:
        for member, dataset in enumerate(datasets):
            key = kept.key_of(dataset, chosen, all_frames=all_frames)
            result = None if recompute else kept.read(dataset, key)
            if result is None:
                result = _check(dataset, settings=chosen, all_frames=all_frames, engine=running, progress=progress)
                if not any(finding.rule == "stale_stats" for finding in result.findings):
                    key = kept.key_of(dataset, chosen, all_frames=all_frames)  # the check may have computed statistics
                kept.write(dataset, result, key, rules=chosen.active())
            results.append(result.of_member(member))
        between = _between(datasets, settings=chosen, engine=running) if len(datasets) > 1 else []
    return Report.of(datasets, results, between, settings=chosen)


def _check(dataset: Dataset, *, settings: Settings, all_frames: bool, engine: Engine, progress: Progress) -> Result:
    """Apply every rule that is not switched off to one dataset."""
    rules = settings.active()
    stale = list(of_records(dataset)) if "stale_stats" in rules else []  # before the statistics are computed again
    known = about(dataset, rules=settings.rules, engine=engine)
    conventions: Conventions = {}
    if (batch := sample(dataset, known)) is not None:
        known = learned(known, batch, rules=rules)
        conventions = judged(known, batch) if "convention" in rules else {}
    every: list[Check[Any]] = [*numbers.CHECKS, *images.CHECKS]
    checks = [check for check in every if check.rule in rules]
    silent_rules = {check.rule: why for check in checks if (why := _why_not(check.why_not(known), dataset))}
    checks = [check for check in checks if check.rule not in silent_rules]
    applied = frozenset(check.rule for check in checks)
    findings = [
        *stale,
        *(finding for finding in of_table(known, dataset) if finding.rule in rules),
        *_contradicted(conventions),
    ]
    measures: dict[str, Any] = {}
    progress.expect(len(dataset))
    gathered = _gathered(dataset, known, NumbersPass(rules=applied), engine=engine)
    if any(check.rule in applied for check in images.CHECKS):
        looked = ImagesPass(rules=applied, all_frames=all_frames)
        seen = _gathered(dataset, known, looked, engine=engine, steps=STEPS_OF_IMAGES, progress=progress)
    else:
        seen = {}
        progress(len(dataset), 0)
    for totals in (gathered, seen):
        findings += [RuleFinding.from_json(data) for data in totals.get("0.findings", {"findings": ()})["findings"]]
        measures |= columns_of(totals.get("0.episodes", {}))
    for check in checks:
        findings += check.of_dataset(known, measures) if measures else ()
    if "stale_stats" in rules:
        findings += of_ranges(known, gathered)
    looks = []
    if measures:
        table = dataset.episodes.select("split", "instructions").collect()[measures["episode"]]
        signed = Signed(about=known, splits=table["split"].to_list(), columns=measures)
        searched = duplicates([signed], look=_look([dataset], [known], engine))
        findings += [finding for finding in searched if finding.rule in rules]
        tasks = [texts[0] if texts else "" for texts in table["instructions"].to_list()]
        looks = look_at(known, measures, tasks)
    return Result(
        findings=sorted(findings, key=RuleFinding.order),
        not_assessable=[NotAssessable(member=0, rule=rule, why=why) for rule, why in sorted(silent_rules.items())],
        look_at=looks,
        conventions=conventions,
    )


def _contradicted(judged: Conventions) -> Iterator[RuleFinding]:
    """Yield a finding for each aspect that the motion contradicts."""
    for aspect, one in contradictions(judged):
        message = f"{aspect}: {one.evidence}"
        yield RuleFinding(member=0, rule="convention", dims=(aspect,), value=one.confidence, message=message)


def _why_not(reason: str | None, dataset: Dataset) -> str | None:
    return reason if dataset.manifest["steps"] else "the dataset has no steps"


def _gathered(
    dataset: Dataset,
    known: About,
    work: NumbersPass | ImagesPass | LooksPass,
    *,
    engine: Engine,
    steps: int = ROWS,
    positions: Array | None = None,
    progress: Progress = silent,
) -> dict[str, dict[str, Any]]:
    """Let workers read a dataset, or some episodes, part by part; returns the merged results by key."""
    parts = parts_of(dataset, known, steps=steps, positions=positions)

    def done(part: CheckPart) -> None:
        progress(part.episodes, 0)

    return combine(work, parts, engine=engine.for_parts(len(parts)), shared=dataset.folder, done=done)


def _look(datasets: Sequence[Dataset], known: Sequence[About], engine: Engine) -> Look:
    """Return a function that looks at the images of some episodes."""

    def look(number: int, positions: Array) -> Array:
        dataset, about = datasets[number], known[number]
        totals = _gathered(dataset, about, LooksPass(), engine=engine, steps=STEPS_OF_IMAGES, positions=positions)
        return columns_of(totals[f"{about.member}.episodes"])["look"]

    return look


def _between(datasets: Sequence[Dataset], *, settings: Settings, engine: Engine) -> list[RuleFinding]:
    """Search for episodes of one dataset that are in another one as well."""
    signed = []
    for member, dataset in enumerate(datasets):
        known = replace(about(dataset, rules=settings.rules, member=member, engine=engine), raw=())  # need no columns
        totals = _gathered(dataset, known, NumbersPass(rules=frozenset()), engine=engine)
        measures = columns_of(totals.get(f"{member}.episodes", {}))
        if measures:
            splits = dataset.episodes.select("split").collect()["split"][measures["episode"]].to_list()
            signed.append(Signed(about=known, splits=splits, columns=measures))
    by_member = [signed_one.about for signed_one in signed]
    look = _look([datasets[known.member] for known in by_member], by_member, engine)
    findings = duplicates(signed, between=True, look=look) if len(signed) > 1 else ()
    return sorted((finding for finding in findings if finding.rule in settings.active()), key=RuleFinding.order)
