"""Find the arrays that belong to a whole episode, because their lengths are not the number of steps."""

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import TypeAlias

ACTIONS = {"action", "actions"}
MATRICES = {(3, 3), (3, 4), (4, 4)}  # shapes of a camera's matrix
FEW, RATIO = 16, 4  # a stream has more rows than FEW, or more than one for RATIO steps
Shape: TypeAlias = tuple[int, ...]


def per_episode_paths(episodes: Sequence[Mapping[str, Shape]], texts: Collection[str] = ()) -> tuple[str, ...]:
    """Return the arrays that have no row per step, from the shapes of all arrays in some episodes.

    The steps are the lengths of the actions, or, without actions, the most frequent lengths. An array belongs to the
    whole episode if its length is the same in all episodes, differs from the steps, and either the steps vary, or it
    cannot be a stream with a clock of its own: it is in `texts`, it has few rows, its shape is that of a camera's
    matrix, or another axis has the length of the steps. A group all of whose arrays belong to the episode is returned
    in their place.

    >>> shapes = {"init.q": (1, 9), "init.v": (1, 9)}
    >>> per_episode_paths([{"actions": (5, 7), **shapes}, {"actions": (6, 7), **shapes}])
    ('init',)
    """
    paths = [path for path in (episodes[0] if episodes else ()) if all(path in episode for episode in episodes)]
    shapes = {path: tuple(episode[path] for episode in episodes) for path in paths}
    steps = _steps({path: _lengths(rows) for path, rows in shapes.items()})
    if steps is None:
        return ()
    whole = {path for path in paths if _is_whole(shapes[path], steps, is_text=path in texts)}
    return tuple(sorted({_group(path, whole, paths) for path in whole}))


def _lengths(shapes: Sequence[Shape]) -> tuple[int, ...]:
    return tuple(shape[0] for shape in shapes)


def _steps(lengths: Mapping[str, tuple[int, ...]]) -> tuple[int, ...] | None:
    """Return the number of steps of each episode; None if no array has more than one row."""
    counts = Counter(rows for rows in lengths.values() if max(rows) > 1)
    named = {rows for path, rows in lengths.items() if ACTIONS & {*re.split(r"[._]", path.lower())}}
    return max(counts, key=lambda rows: (rows in named, len({*rows}) > 1, counts[rows], rows), default=None)


def _is_whole(shapes: Sequence[Shape], steps: tuple[int, ...], *, is_text: bool) -> bool:
    rows = _lengths(shapes)
    if len({*rows}) > 1 or rows == steps:
        return False
    if is_text or len({*steps}) > 1 or rows[0] == 1 or (rows[0] <= FEW and rows[0] * RATIO <= steps[0]):
        return True
    return shapes[0] in MATRICES or all(count in shape[1:] for shape, count in zip(shapes, steps, strict=True))


def _group(path: str, whole: set[str], paths: Sequence[str]) -> str:
    """Return the largest group around an array that contains only arrays of the whole episode, or the array itself."""
    words = path.split(".")
    for end in range(1, len(words)):
        prefix = ".".join(words[:end])
        if all(other in whole for other in paths if other.startswith(f"{prefix}.")):
            return prefix
    return path
