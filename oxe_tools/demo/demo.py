"""`oxe demo`: record, convert and verify the recordings of three labs, and compare them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from oxe_tools.demo.recorder import EPISODES, LABS, motion, record
from pipelines.convert.convert import ConversionReport, convert
from pipelines.convert.folders import make_output
from pipelines.verify import Verification, verify
from schemas.declarations import catalog
from schemas.declarations.spec import DatasetSpec
from schemas.episode import Episode
from schemas.errors import DatasetError
from schemas.source import Array
from schemas.store.dataset import open_dataset

VIEW = "eef_delta"
SHOWN_STEP = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class LabResult:
    """The converted recording of one lab."""

    spec: DatasetSpec
    report: ConversionReport
    verification: Verification
    stored: Episode
    viewed: Episode
    error: float  # largest difference between the view's actions and the true motion, in metres or radians

    def before(self) -> list[tuple[str, Array]]:
        """Return the action of one step as the lab recorded it, with the lab's own names."""
        paths = dict.fromkeys(path for expr in self.spec.action_parts for path in sorted(expr.paths()))
        return [(path, np.ravel(self.stored.raw[path][SHOWN_STEP])) for path in paths]  # type: ignore[index]

    def after(self) -> Array:
        """Return the action of the same step after conversion, in the common view."""
        return np.asarray(self.viewed.action[SHOWN_STEP])


def demo(out: Path, *, overwrite: bool, say: Callable[[str], None]) -> list[LabResult]:
    """Record, convert and verify the data of three labs in the folder `out`.

    Raises DatasetError if the converted actions differ from the true motion.
    """
    folders = ("recordings", "datasets")
    make_output(out, source=None, marks=folders, pattern="(recordings|datasets|rlds)/.*", overwrite=overwrite)
    for name in folders:
        (out / name).mkdir()
    labs = []
    for name in LABS:
        source, target = out / "recordings" / name, out / "datasets" / name
        say(f"recording {name}")
        record(name, source)
        say(f"converting {name}")
        report = convert(catalog.dataset(name), target, source=str(source))
        dataset = open_dataset(target)
        verification = verify(dataset, source=str(source))
        views = [dataset.episode(i, VIEW) for i in range(EPISODES)]
        error = max(float(np.abs(views[i].action - motion(i).deltas()).max()) for i in range(EPISODES))
        if report.kept != EPISODES or not verification.ok or error > 1e-4:
            raise DatasetError(f"{target}: verification failed: {verification.first}, error {error}")
        labs.append(
            LabResult(
                spec=dataset.spec,
                report=report,
                verification=verification,
                stored=dataset.episode(0),
                viewed=views[0],
                error=error,
            )
        )
    return labs
