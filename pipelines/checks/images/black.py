"""`black_camera`: black frames, and frames that cannot be decoded."""

from collections.abc import Iterator

import numpy as np

from pipelines.checks.batch import About
from pipelines.checks.check import Check
from pipelines.checks.findings import RuleFinding
from pipelines.checks.images.read import FEW_BYTES, SIDE, CameraFrames, EpisodeImages
from schemas.source import Array

SLACK = 1.1  # a frame that was not decoded is black if it has at most this share of a black frame's bytes


def no_cameras(about: About) -> str | None:
    """Return a reason if there are no colour cameras."""
    return None if about.cameras else "there are no colour cameras"


def _black(frames: CameraFrames, about: About) -> Array:
    """Return whether each step is black, [T] bool; those that were not decoded are judged by their number of bytes."""
    limits = about.rules.black_camera
    is_black = np.zeros(len(frames.sizes), bool)
    flat = frames.grey.reshape(-1, SIDE * SIDE)
    decoded = flat @ np.full(flat.shape[1], 1 / flat.shape[1], np.float32) < limits.mean
    decoded[decoded] = flat[decoded].std(axis=1) < limits.std
    if not decoded.any():
        return is_black
    if decoded.all():
        return np.asarray(frames.sizes > 0)
    largest = frames.sizes[frames.steps[decoded]].max()
    others = np.median(frames.sizes[frames.steps[~decoded]])
    if largest < FEW_BYTES * others:
        is_black = (frames.sizes > 0) & (frames.sizes <= SLACK * largest)
    is_black[frames.steps] = decoded
    return is_black


def of_episodes(images: EpisodeImages) -> Iterator[RuleFinding]:
    """Name the cameras with black or broken frames; one finding per episode."""
    bad = {name: _black(frames, images.about) for name, frames in images.cameras.items()}
    counts = {name: int(mask.sum()) for name, mask in bad.items() if mask.any()}
    broken = {name: frames.broken for name, frames in images.cameras.items() if frames.broken}
    if not counts and not broken:
        return
    anywhere = np.zeros(images.length, bool)
    for mask in bad.values():
        anywhere |= mask
    anywhere[[step for steps in broken.values() for step in steps]] = True
    said = [f"{name} is black in {count} of {images.length} steps" for name, count in counts.items()]
    said += [f"{len(steps)} frames of {name} cannot be decoded" for name, steps in broken.items()]
    yield RuleFinding(
        member=images.about.member,
        rule="black_camera",
        episode=images.episode,
        steps=ranges_of(anywhere),
        dims=tuple(sorted(counts.keys() | broken.keys())),
        value=float(max([*counts.values(), *map(len, broken.values())])) / images.length,
        message="; ".join(said),
    )


def ranges_of(mask: Array) -> tuple[tuple[int, int], ...]:
    """Return the runs of a mask as ranges.

    >>> ranges_of(np.array([True, True, False, True]))
    ((0, 2), (3, 4))
    """
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(np.int8), [0]]))).tolist()
    return tuple(zip(edges[::2], edges[1::2], strict=True))


CHECK = Check(rule="black_camera", why_not=no_cameras, of_episodes=of_episodes)
