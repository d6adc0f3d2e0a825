"""`camera_swap`: an episode in which two cameras are exchanged, from its start or from some step on."""

from collections.abc import Iterator
from itertools import combinations

import numpy as np

from pipelines.checks.batch import About
from pipelines.checks.check import Check, Measures
from pipelines.checks.findings import RuleFinding
from pipelines.checks.images.black import no_cameras
from pipelines.checks.images.read import SIDE, EpisodeImages

FEWEST = 4  # episodes, below which no camera has a usual image


def why_not(about: About) -> str | None:
    """Return a reason if there are not two cameras."""
    if len(about.cameras) == 1:
        return "there is one colour camera"
    return no_cameras(about)


def measures(images: EpisodeImages) -> Measures:
    """Return the median image of the first and the last frames of each camera, `median` [1, C, 2, 192]; NaN: none."""
    out = np.full((1, len(images.about.cameras), 2, 192), np.nan, np.float32)
    for number, name in enumerate(images.about.cameras):
        ends = images.cameras[name].ends
        if ends.shape[1]:
            blocks = ends.reshape(2, -1, 8, SIDE // 8, 8, SIDE // 8, 3).mean(axis=(3, 5))
            out[0, number] = np.median(blocks, axis=1).reshape(2, -1)
    return {"median": out}


def of_dataset(about: About, measured: Measures) -> Iterator[RuleFinding]:
    """Find pairs of cameras of which each looks like the other one does in the median episode."""
    median = measured["median"].astype(np.float64)
    if np.isfinite(median).all(axis=(1, 2, 3)).sum() < FEWEST:
        return
    usual = np.nanmedian(median, axis=(0, 2))  # [C, 192]
    apart = np.abs(median[:, :, :, None] - usual).mean(axis=-1)  # [E, C, 2, C]
    ratio = about.rules.camera_swap.ratio
    for first, second in combinations(range(len(about.cameras)), 2):
        swapped = (apart[:, first, :, second] < ratio * apart[:, first, :, first]) & (
            apart[:, second, :, first] < ratio * apart[:, second, :, second]
        )
        for row in np.flatnonzero(swapped.any(axis=1)).tolist():
            when = "" if swapped[row].all() else " at its start" if swapped[row, 0] else " at its end"
            names = about.cameras[first], about.cameras[second]
            yield RuleFinding(
                member=about.member,
                rule="camera_swap",
                episode=int(measured["episode"][row]),
                dims=names,
                message=f"{names[0]} and {names[1]} are exchanged{when}",
            )


CHECK = Check(rule="camera_swap", why_not=why_not, measures=measures, of_dataset=of_dataset)
