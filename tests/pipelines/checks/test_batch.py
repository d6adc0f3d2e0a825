from itertools import groupby

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipelines.checks.batch import NumberBatch
from pipelines.checks.images.black import ranges_of
from pipelines.conventions.trajectories import wrapped
from tests.pipelines.checks.lab import about


def batch(lengths: list[int]) -> NumberBatch:
    sizes = np.array(lengths)
    rows = np.zeros((sizes.sum(), 6), np.float32)
    starts = np.cumsum(sizes) - sizes
    return NumberBatch(
        about=about(), episodes=np.arange(len(sizes)), starts=starts, lengths=sizes, columns={"action": rows}
    )


masks = st.lists(st.lists(st.booleans(), min_size=1, max_size=12), min_size=1, max_size=6)


@given(masks, st.integers(1, 4))
def test_runs_are_those_of_each_episode(episodes: list[list[bool]], at_least: int) -> None:
    expected = []
    for number, mask in enumerate(episodes):
        step = 0
        for value, group in groupby(mask):
            count = len(list(group))
            if value and count >= at_least:
                expected.append((number, step, step + count))
            step += count
    joined = np.array([value for mask in episodes for value in mask])
    assert list(batch([len(mask) for mask in episodes]).runs(joined, at_least=at_least)) == expected


@given(masks)
def test_changes_do_not_cross_episodes(episodes: list[list[bool]]) -> None:
    values = np.concatenate([np.array(mask, np.float32) for mask in episodes])
    expected = np.concatenate([np.append(np.diff(np.array(mask, np.float32)), 0) for mask in episodes])
    assert batch([len(mask) for mask in episodes]).changes(values).tolist() == expected.tolist()


@given(st.lists(st.booleans(), max_size=20))
def test_ranges_cover_exactly_a_mask(mask: list[bool]) -> None:
    covered = [False] * len(mask)
    for first, stop in ranges_of(np.array(mask, bool)):
        assert first < stop
        covered[first:stop] = [True] * (stop - first)
    assert covered == mask


@given(st.floats(-1000, 1000))
def test_wrapped_angles_are_the_same_angles(angle: float) -> None:
    (turned,) = wrapped(np.array([angle]))
    assert -np.pi <= turned <= np.pi
    assert np.isclose(np.cos(turned), np.cos(angle), atol=1e-9)
    assert np.isclose(np.sin(turned), np.sin(angle), atol=1e-9)
