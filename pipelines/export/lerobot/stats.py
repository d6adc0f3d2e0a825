"""The statistics of a LeRobotDataset: of each episode by itself, and of the whole, exact.

Those of images are of a sample: up to 10 frames of each episode, evenly spaced with the first and the last among them,
and of each every n-th pixel in both directions so that the longer side has 64 to 127 (all, if it is shorter).
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from schemas.source import Array
from stats.levels import FIGURES, Levels

FRAMES, SIDE = 10, 64
Figures = dict[str, Any]


def sampled(steps: int) -> set[int]:
    """Choose the frames of an episode.

    >>> sorted(sampled(12))
    [0, 1, 2, 4, 5, 6, 7, 9, 10, 11]
    """
    return set(np.round(np.linspace(0, steps - 1, min(steps, FRAMES))).astype(int).tolist())


def every(height: int, width: int) -> int:
    """Say which pixels of a frame are counted: every n-th."""
    return max(1, max(height, width) // SIDE)


def of_values(values: Array) -> Figures:
    """Give the figures of one episode's column, [T] or [T, D], as lists."""
    x = values.reshape(len(values), -1).astype(np.float64)
    found = {"min": x.min(axis=0), "max": x.max(axis=0), "mean": x.mean(axis=0), "std": x.std(axis=0)}
    found |= dict(zip(FIGURES, np.quantile(x, list(FIGURES.values()), axis=0), strict=True))
    return {**{name: figure.tolist() for name, figure in found.items()}, "count": [len(x)]}


def of_pixels(channels: Sequence[Levels], *, frames: int, unit: float) -> Figures:
    """Give the figures of a camera, [C, 1, 1]; `unit` is the level that counts as 1."""
    each = [levels.figures(unit) for levels in channels]
    return {**{name: [[[figures[name]]] for figures in each] for name in each[0]}, "count": [frames]}


def merged(samples: Iterable[Sequence[Levels]]) -> list[Levels]:
    """Join the samples of several frames, episodes or shards, channel by channel."""
    total: list[Levels] = []
    for channels in samples:
        total = [a.merge(b) for a, b in zip(total, channels, strict=True)] if total else list(channels)
    return total


def of_index(lengths: Sequence[int], tasks: Mapping[int, int], *, fps: float) -> dict[str, Figures]:
    """Give the exact figures of the columns that count steps, episodes and tasks, from the episodes' lengths."""
    steps, count = np.array(lengths, np.int64), sum(lengths)
    frame = np.arange(steps.max())
    frames = Levels(frame, len(steps) - np.searchsorted(np.sort(steps), frame, "right"))
    times = Levels((frame / fps).astype(np.float32), frames.counts)
    numbers = Levels(np.arange(len(steps)), steps)
    of_tasks = Levels.counted(np.array(list(tasks)), np.array(list(tasks.values())))
    found = {"timestamp": times, "frame_index": frames, "episode_index": numbers, "task_index": of_tasks}
    figures = {name: _listed(levels.figures(), count) for name, levels in found.items()}
    last = count - 1
    even = {"min": 0.0, "max": float(last), "mean": last / 2, "std": float(np.sqrt((count**2 - 1) / 12))}
    figures["index"] = _listed(even | {name: last * q for name, q in FIGURES.items()}, count)
    return figures


def _listed(figures: Mapping[str, float], count: int) -> Figures:
    return {**{name: [value] for name, value in figures.items()}, "count": [count]}
