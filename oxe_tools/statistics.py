"""Compute statistics of datasets, compare them, write them to files, and fetch them from a registry."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipelines.beam.engine import Engine
from pipelines.statistics.numbers import Selection
from pipelines.statistics.outside import count_outside
from pipelines.statistics.statistics import statistics
from schemas.errors import UsageError, did_you_mean
from schemas.files.folder import LocalFolder, open_folder
from schemas.store import layout
from schemas.store.dataset import open_dataset
from stats.compare import Finding, Outside, compare
from stats.formats import Form, encode, load
from stats.formats import label as label_of
from stats.norm import NormStats
from stats.record import Statistics
from stats.registry import fetch


def stats(
    *paths: str | Path,
    view: str | None = None,
    split: str | None = None,
    filters: str | None = None,
    chunk: int = 0,
    workers: int = 1,
) -> Statistics:
    """Return the exact statistics of one published dataset, or of several that are counted as one.

    Several datasets must be of the same embodiment. The statistics of a single dataset are cached in its
    `meta/stats.json`. `filters` is a condition on episodes, such as `length >= 20 and split == "train"`. If `chunk` is
    not 0, statistics of chunks of `chunk` consecutive actions are included.

        norm = stats("kitchen", view="eef_delta").norm("action")
        norm.normalize(action)  # in [-1, 1]
    """
    selection = Selection(view=view, split=split, filters=filters, chunk=chunk)
    return statistics(*(open_dataset(path) for path in paths), selection=selection, engine=Engine(workers=workers))


def compute_or_fetch(
    target: str, others: Sequence[str], *, source: str | None, selection: Selection, engine: Engine
) -> Statistics:
    """Compute the statistics of `target` and `others`, counted as one dataset.

    If `source` is the URI of a registry, the statistics of `target` are fetched from it instead.
    """
    if source is None:
        datasets = [open_dataset(path) for path in [target, *others]]
        return statistics(*datasets, selection=selection, engine=engine)
    if others or selection != Selection():
        raise UsageError(
            "--from fetches published statistics; it cannot be combined with a view, split, filter, chunk or merge"
        )
    return fetch(target, source)


def write_statistics(record: Statistics, form: Form, *, out: Path | None, overwrite: bool) -> None:
    """Write statistics in the format `form` to stdout or to the file `out`."""
    content = encode(record, form)
    if out is None:
        sys.stdout.write(content.decode())
        return
    if out.exists() and not overwrite:
        raise UsageError(f"{out}: exists; pass --overwrite to replace it")
    LocalFolder(out.parent).write(out.name, content)


@dataclass(frozen=True, slots=True, kw_only=True)
class StatisticsComparison:
    """The differences between a dataset and other statistics."""

    ours: str
    theirs: str
    names: Mapping[str, tuple[str, ...]]  # vector -> names of its dimensions
    outside: Mapping[str, Outside]
    findings: Sequence[Finding]

    @property
    def matters(self) -> bool:
        """Whether any finding matters."""
        return any(finding.matters for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        """Return the object that `oxe stats --diff --json` prints."""
        shares = {
            name: dict(zip(self.names[name], outside.share.tolist(), strict=True))
            for name, outside in self.outside.items()
        }
        findings = [asdict(finding) for finding in self.findings]
        return {
            "ours": self.ours,
            "theirs": self.theirs,
            "matters": self.matters,
            "outside": shares,
            "findings": findings,
        }


def compare_with(directory: str, other: str, *, selection: Selection, engine: Engine) -> StatisticsComparison:
    """Compare a dataset with `other`: another dataset, a statistics file, or a checkpoint folder.

    If `other` contains statistics of several datasets, `#NAME` at its end selects one.
    """
    dataset = open_dataset(directory)
    if open_folder(other).size(layout.MANIFEST) is not None:
        label, theirs = other, _norms(statistics(open_dataset(other), selection=selection, engine=engine))
    else:
        label, theirs = _select(other, dataset.manifest["dataset"], selection)
    ours = _norms(statistics(dataset, selection=selection, engine=engine))
    sizes = {name: len(norm.names) for name, norm in ours.items()}
    outside = count_outside(dataset, theirs, selection=selection, sizes=sizes, engine=engine)
    return StatisticsComparison(
        ours=directory,
        theirs=label,
        names={name: norm.names for name, norm in ours.items()},
        outside=outside,
        findings=compare(ours, theirs, outside),
    )


def _norms(record: Statistics) -> dict[str, NormStats]:
    return {name: record.norm(name) for name in ("action", "state") if name in record.vectors}


def _select(other: str, dataset: str, selection: Selection) -> tuple[str, dict[str, NormStats]]:
    """Select the statistics of one dataset in a file; returns their label and the statistics.

    If `other` ends with `#NAME`, the statistics NAME are selected. Otherwise it is the entry with the same dataset,
    view, split and condition, else the entry with the name of the dataset, else the only entry. Raises UsageError if
    none of these exists.
    """
    path, _, name = other.partition("#") if not Path(other).exists() else (other, "", "")
    known = load(path)
    preferred = label_of(dataset, view=selection.view, split=selection.split, filters=selection.filters)
    if name and name not in known:
        raise UsageError(f"{path}: no statistics of '{name}'{did_you_mean(name, known)}")
    name = name or next((key for key in (preferred, dataset) if key in known), "")
    if not name and len(known) > 1:
        fix = f"name one as {path}#NAME ({', '.join(known)})"
        raise UsageError(f"{path}: has statistics of {len(known)} datasets, but not of '{dataset}'; {fix}")
    name = name or next(iter(known))
    return f"{path}#{name}" if name else path, known[name]
