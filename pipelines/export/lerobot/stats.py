"""Statistics of a LeRobotDataset, for each episode and for the whole dataset.

Statistics of numbers are exact. Image statistics are computed from a sample: up to 10 evenly spaced frames of each
episode, including the first and the last. Of each frame, every n-th pixel in both directions is used. The number n is
chosen so that the longer side has 64 to 127 pixels; all pixels are used if it is shorter.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from schemas.source import Array
from stats.levels import FIGURES, Levels

FRAMES, SIDE = 10, 64  # sampled frames of an episode, sampled pixels along the longer side
FeatureStats = dict[str, Any]


def sampled_frames(steps: int) -> set[int]:
    """Return the frames of an episode that count in the image statistics.

    >>> sorted(sampled_frames(12))
    [0, 1, 2, 4, 5, 6, 7, 9, 10, 11]
    """
    return set(np.round(np.linspace(0, steps - 1, min(steps, FRAMES))).astype(int).tolist())


def pixel_stride(height: int, width: int) -> int:
    """Return n, where every n-th pixel of a frame in both directions counts in the image statistics."""
    return max(1, max(height, width) // SIDE)


def vector_stats(values: Array) -> FeatureStats:
    """Return the statistics of one episode's column, [T] or [T, D], as lists."""
    x = values.reshape(len(values), -1).astype(np.float64)
    figures = {"min": x.min(axis=0), "max": x.max(axis=0), "mean": x.mean(axis=0), "std": x.std(axis=0)}
    figures |= dict(zip(FIGURES, np.quantile(x, list(FIGURES.values()), axis=0), strict=True))
    return {**{name: figure.tolist() for name, figure in figures.items()}, "count": [len(x)]}


def image_stats(channels: Sequence[Levels], *, frames: int, unit: float) -> FeatureStats:
    """Return the statistics of a camera, [C, 1, 1]; `unit` is the pixel value that counts as 1."""
    each = [levels.figures(unit) for levels in channels]
    return {**{name: [[[figures[name]]] for figures in each] for name in each[0]}, "count": [frames]}


def merge_channels(samples: Iterable[Sequence[Levels]]) -> list[Levels]:
    """Merge the histograms of several frames, episodes or shards, channel by channel."""
    total: list[Levels] = []
    for channels in samples:
        total = [a.merge(b) for a, b in zip(total, channels, strict=True)] if total else list(channels)
    return total


def index_stats(lengths: Sequence[int], tasks: Mapping[int, int], *, fps: float) -> dict[str, FeatureStats]:
    """Return the exact statistics of the index columns.

    `lengths` has the number of steps of each episode; `tasks` maps each task_index to its number of steps.
    """
    steps, count = np.array(lengths, np.int64), sum(lengths)
    frame = np.arange(steps.max())
    frames = Levels(frame, len(steps) - np.searchsorted(np.sort(steps), frame, "right"))
    times = Levels((frame / fps).astype(np.float32), frames.counts)
    numbers = Levels(np.arange(len(steps)), steps)
    of_tasks = Levels.counted(np.array(list(tasks)), np.array(list(tasks.values())))
    columns = {"timestamp": times, "frame_index": frames, "episode_index": numbers, "task_index": of_tasks}
    figures = {name: _listed(levels.figures(), count) for name, levels in columns.items()}
    last = count - 1
    even = {"min": 0.0, "max": float(last), "mean": last / 2, "std": float(np.sqrt((count**2 - 1) / 12))}
    figures["index"] = _listed(even | {name: last * q for name, q in FIGURES.items()}, count)
    return figures


def _listed(figures: Mapping[str, float], count: int) -> FeatureStats:
    return {**{name: [value] for name, value in figures.items()}, "count": [count]}
