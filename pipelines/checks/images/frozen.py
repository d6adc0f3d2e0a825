"""`frozen_camera`: a camera that repeats one frame while the robot moves."""

from collections.abc import Iterator

import numpy as np

from pipelines.checks.batch import About
from pipelines.checks.check import Check, Measures
from pipelines.checks.findings import RuleFinding
from pipelines.checks.images.black import no_cameras
from pipelines.checks.images.read import CameraFrames, EpisodeImages
from schemas.source import Array

SAME = 0.25  # mean difference of grey thumbnails below which frames are one frame that was encoded twice
USUAL = 0.5  # a repetition is unusual if that of the median episode is shorter than this share of it


def no_cameras_or_state(about: About) -> str | None:
    """Return a reason if motions cannot be seen in images or states."""
    return no_cameras(about) or (None if about.state else "there are no states")


def _repeats(frames: CameraFrames) -> Array:
    """Return whether the frame after each step is the same one, [T] bool."""
    repeats = np.zeros(len(frames.sizes), bool)
    repeats[:-1] = (
        (frames.sizes[1:] == frames.sizes[:-1]) & (frames.sums[1:] == frames.sums[:-1]) & (frames.sizes[1:] > 0)
    )
    if not frames.sums.any():  # version 2 has no checksums
        repeats[:] = False
    steps, changes = frames.changes
    repeats[steps[changes < SAME]] = True
    return repeats


def measures(images: EpisodeImages) -> Measures:
    """Return of each camera the longest repetition while the robot moves, `repeat` [1, C, 3].

    It has the first step, the number of steps, and the motion meanwhile as a share of the usual range; and the longest
    repetition at any time, `still` [1, C].
    """
    out = np.zeros((1, len(images.about.cameras), 3))
    still = np.zeros((1, len(images.about.cameras)))
    motion = images.motion
    for number, name in enumerate(images.about.cameras):
        repeats = _repeats(images.cameras[name])
        edges = np.flatnonzero(np.diff(np.concatenate([[0], repeats.astype(np.int8), [0]])))
        for first, stop in edges.reshape(-1, 2).tolist():
            still[0, number] = max(still[0, number], stop - first)
            moved = 0.0 if motion is None else float(np.abs(motion[first:stop].sum(axis=0)).max(initial=0))
            if moved > images.about.rules.frozen_camera.motion and stop - first > out[0, number, 1]:
                out[0, number] = first, stop - first, moved
    return {"repeat": out, "still": still}


def of_dataset(about: About, measured: Measures) -> Iterator[RuleFinding]:
    """Find episodes with a repetition that is long, and longer than those of other episodes."""
    limits = about.rules.frozen_camera
    least = max(3, round(limits.seconds * (about.control_hz or 0)))
    usual = np.median(measured["still"], axis=0)
    for cameras, episode in zip(measured["repeat"], measured["episode"].tolist(), strict=True):
        is_frozen = (cameras[:, 1] >= least) & (usual < USUAL * cameras[:, 1])
        if len(measured["repeat"]) == 1:
            is_frozen = cameras[:, 1] >= least
        if not is_frozen.any():
            continue
        chosen = np.flatnonzero(is_frozen).tolist()
        longest = int(cameras[chosen, 1].max())
        names = tuple(about.cameras[k] for k in chosen)
        spans = tuple((int(cameras[k, 0]), int(cameras[k, 0] + cameras[k, 1]) + 1) for k in chosen)
        yield RuleFinding(
            member=about.member,
            rule="frozen_camera",
            episode=episode,
            steps=spans,
            dims=names,
            value=float(longest),
            message=f"{', '.join(names)} shows one frame for {longest + 1} steps while the robot moves",
        )


CHECK = Check(rule="frozen_camera", why_not=no_cameras_or_state, measures=measures, of_dataset=of_dataset)
