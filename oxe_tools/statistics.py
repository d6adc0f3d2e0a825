"""Statistics for users: of a folder, against a folder or a file, and by name from a registry."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipelines.beam.engine import Engine
from pipelines.statistics.numbers import Selection
from pipelines.statistics.outside import outside
from pipelines.statistics.statistics import statistics
from schemas.errors import UsageError, did_you_mean
from schemas.files.folder import LocalFolder, open_folder
from schemas.store import layout
from schemas.store.dataset import open_dataset
from stats.compare import Finding, Outside, compare
from stats.formats import Form, encode, label, load
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
    """Give the exact statistics of a published dataset, or of several of one embodiment as one.

    They are computed once and kept in the dataset's `meta/stats.json`. `filters` is a condition on episodes
    (`length >= 20 and split == "train"`); `chunk` adds statistics of so many consecutive actions.

        norm = stats("kitchen", view="eef_delta").norm("action")
        norm.normalize(action)  # in [-1, 1]
    """
    selection = Selection(view=view, split=split, filters=filters, chunk=chunk)
    return statistics(*(open_dataset(path) for path in paths), selection=selection, engine=Engine(workers=workers))


def found(
    target: str, others: Sequence[str], *, source: str | None, selection: Selection, engine: Engine
) -> Statistics:
    """Compute the statistics of the folder `target`, with `others` as one, or fetch them by name from a registry."""
    if source is None:
        datasets = [open_dataset(path) for path in [target, *others]]
        return statistics(*datasets, selection=selection, engine=engine)
    if others or selection != Selection():
        raise UsageError("--from fetches statistics as they were published: it takes no view, split, filter or merge")
    return fetch(target, source)


def write(record: Statistics, form: Form, *, out: Path | None, overwrite: bool) -> None:
    """Write the file that a trainer reads, to stdout or to `out`."""
    content = encode(record, form)
    if out is None:
        sys.stdout.write(content.decode())
        return
    if out.exists() and not overwrite:
        raise UsageError(f"{out}: exists; give --overwrite to replace it")
    LocalFolder(out.parent).write(out.name, content)


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A dataset beside other statistics."""

    ours: str
    theirs: str
    names: Mapping[str, tuple[str, ...]]  # of each vector's dimensions
    outside: Mapping[str, Outside]
    findings: Sequence[Finding]

    @property
    def matters(self) -> bool:
        """Say whether anything found matters."""
        return any(finding.matters for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        """Give the machine-readable form."""
        shares = {
            name: dict(zip(self.names[name], found.share.tolist(), strict=True)) for name, found in self.outside.items()
        }
        findings = [asdict(finding) for finding in self.findings]
        return {
            "ours": self.ours,
            "theirs": self.theirs,
            "matters": self.matters,
            "outside": shares,
            "findings": findings,
        }


def beside(directory: str, other: str, *, selection: Selection, engine: Engine) -> Comparison:
    """Compare a dataset with `other`: another dataset, a file of statistics, or a checkpoint's folder.

    `other` may end in `#NAME` where it has statistics of several datasets.
    """
    dataset = open_dataset(directory)
    if open_folder(other).size(layout.MANIFEST) is not None:
        named, theirs = other, _norms(statistics(open_dataset(other), selection=selection, engine=engine))
    else:
        named, theirs = _chosen(other, dataset.manifest["dataset"], selection)
    ours = _norms(statistics(dataset, selection=selection, engine=engine))
    sizes = {name: len(norm.names) for name, norm in ours.items()}
    found = outside(dataset, theirs, selection=selection, sizes=sizes, engine=engine)
    return Comparison(
        ours=directory,
        theirs=named,
        names={name: norm.names for name, norm in ours.items()},
        outside=found,
        findings=compare(ours, theirs, found),
    )


def _norms(found: Statistics) -> dict[str, NormStats]:
    return {name: found.norm(name) for name in ("action", "state") if name in found.vectors}


def _chosen(other: str, dataset: str, selection: Selection) -> tuple[str, dict[str, NormStats]]:
    """Take the statistics of one dataset out of a file, and say which: of the same view, split and condition if any."""
    path, _, name = other.partition("#") if not Path(other).exists() else (other, "", "")
    known = load(path)
    like_ours = label(dataset, view=selection.view, split=selection.split, filters=selection.filters)
    if name and name not in known:
        raise UsageError(f"{path}: no statistics of '{name}'{did_you_mean(name, known)}")
    name = name or next((word for word in (like_ours, dataset) if word in known), "")
    if not name and len(known) > 1:
        choice = f"name one: {path}#NAME ({', '.join(known)})"
        raise UsageError(f"{path}: statistics of {len(known)} datasets, none of '{dataset}'; {choice}")
    name = name or next(iter(known))
    return f"{path}#{name}" if name else path, known[name]
