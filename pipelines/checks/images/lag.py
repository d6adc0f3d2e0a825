"""`camera_lag`: an episode whose camera shows a motion later or earlier than in other episodes."""

from collections.abc import Iterator

import numpy as np

from pipelines.checks.batch import About
from pipelines.checks.check import Check, Measures
from pipelines.checks.findings import RuleFinding
from pipelines.checks.images.frozen import no_cameras_or_state
from pipelines.checks.images.read import CameraFrames, EpisodeImages
from schemas.source import Array

LAGS = np.arange(-10, 11)  # steps by which the images may be late
FEWEST, SHORTEST = 5, 20  # episodes with a clear lag; steps that are compared
ONSETS = 2  # times that the motion begins or ends, below which nothing can be said


def measures(images: EpisodeImages) -> Measures:
    """Return the correlation of changes in the images with the speed of the state, `camera_fit` [1, C, 21].

    It is 0 where nothing can be said.
    """
    fit = np.zeros((1, len(images.about.cameras), len(LAGS)), np.float32)
    motion = images.motion
    if motion is not None:
        speed = np.sqrt(np.square(motion).sum(axis=1))
        for number, name in enumerate(images.about.cameras):
            fit[0, number] = _fit(images.cameras[name], speed)
    return {"camera_fit": fit}


def _fit(frames: CameraFrames, speed: Array) -> Array:
    """Correlate the changes of neighbouring frames with the speed, for each of LAGS."""
    out = np.zeros(len(LAGS), np.float32)
    steps, changes = frames.changes
    starts = np.flatnonzero(np.diff(steps, prepend=-2) != 1)
    lengths = np.diff(np.append(starts, len(steps)))
    if not len(lengths) or lengths.max() < SHORTEST:
        return out
    longest = slice(int(starts[lengths.argmax()]), int(starts[lengths.argmax()] + lengths.max()))
    steps, energy = steps[longest], changes[longest]
    own = speed[steps]
    if np.abs(np.diff(own > 0.5 * own.max(initial=0))).sum() < ONSETS:
        return out
    rows = steps - LAGS[:, None]  # [21, n]
    inside = ((rows >= 0) & (rows < len(speed) - 1)).astype(np.float32)
    counts = inside.sum(axis=1)
    theirs = speed[np.clip(rows, 0, len(speed) - 1)] * inside
    ours = energy * inside
    per_count = 1 / np.maximum(counts, 1)[:, None]
    theirs = (theirs - theirs.sum(axis=1, keepdims=True) * per_count) * inside
    ours = (ours - ours.sum(axis=1, keepdims=True) * per_count) * inside
    products, sizes = (theirs * ours).sum(axis=1), (theirs**2).sum(axis=1) * (ours**2).sum(axis=1)
    np.divide(products, np.sqrt(sizes), out=out, where=(counts >= SHORTEST) & (sizes > 0), casting="same_kind")
    return out


def of_dataset(about: About, measured: Measures) -> Iterator[RuleFinding]:
    """Compare the lag of each episode with the median one of the same camera."""
    limits = about.rules.camera_lag
    late: dict[int, list[tuple[str, int]]] = {}
    for number, camera in enumerate(about.cameras):
        fit = measured["camera_fit"][:, number].astype(np.float64)
        best, rows = fit.argmax(axis=1), np.arange(len(fit))
        is_clear = fit[rows, best] >= limits.fit
        if is_clear.sum() < FEWEST:
            continue
        usual = int(np.median(best[is_clear]))
        gain = fit[rows, best] - fit[:, max(0, usual - 1) : usual + 2].max(axis=1)
        unusual = is_clear & (np.abs(best - usual) > limits.steps) & (gain > limits.gain)
        for row in np.flatnonzero(unusual).tolist():
            late.setdefault(row, []).append((camera, int(best[row] - usual)))
    for row, cameras in late.items():
        said = [f"{name} {abs(steps)} steps {'later' if steps > 0 else 'earlier'}" for name, steps in cameras]
        yield RuleFinding(
            member=about.member,
            rule="camera_lag",
            episode=int(measured["episode"][row]),
            dims=tuple(name for name, _ in cameras),
            value=float(max((steps for _, steps in cameras), key=abs)),
            message=f"shows the motion at another time than in other episodes: {', '.join(said)}",
        )


CHECK = Check(rule="camera_lag", why_not=no_cameras_or_state, measures=measures, of_dataset=of_dataset)
