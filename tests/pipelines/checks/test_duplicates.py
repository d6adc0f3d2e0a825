from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.checks.batch import NumberBatch
from pipelines.checks.duplicates import Signed, duplicates
from pipelines.checks.findings import RuleFinding
from pipelines.checks.signature import POINTS, measures
from schemas.source import Array
from tests.pipelines.checks.lab import STATE, about

DIMS = len(STATE)


def motions(count: int, *, seed: int = 0, steps: int = 40) -> list[Array]:
    """Make smooth paths of a few tasks, as people repeat them, [T, 6] each."""
    rng = np.random.default_rng(seed)
    goals = rng.normal(size=(4, DIMS))
    phase = np.linspace(0, 1, steps)[:, None]
    return [
        (goals[i % 4] + rng.normal(0, 0.2, DIMS)) * phase + rng.normal(0, 0.2, DIMS) * np.sin(np.pi * phase)
        for i in range(count)
    ]


def signed(paths: list[Array], *, member: int = 0, splits: list[str] | None = None) -> Signed:
    """Sign episodes by their states; the actions are the changes of the states."""
    lengths = np.array([len(path) for path in paths])
    states = np.concatenate(paths).astype(np.float32)
    actions = np.concatenate([np.diff(path, axis=0, append=path[-1:]) for path in paths]).astype(np.float32)
    known = about(member=member, name="ab"[member])
    batch = NumberBatch(
        about=known,
        episodes=np.arange(len(paths)),
        starts=np.cumsum(lengths) - lengths,
        lengths=lengths,
        columns={"action": actions, "observation.state": states},
    )
    measured = {"episode": batch.episodes, **measures(batch)}
    return Signed(about=known, splits=splits or ["train"] * len(paths), columns=measured)


def pairs(found: list[RuleFinding], rule: str) -> set[tuple[int, int]]:
    return {(finding.other[1], finding.episode) for finding in found if finding.rule == rule and finding.other}


def test_equal_episodes_are_found_and_other_ones_are_not() -> None:
    paths = motions(40)
    found = list(duplicates([signed([*paths, paths[3], paths[3], paths[7]])]))
    assert pairs(found, "duplicate") == {(3, 40), (3, 41), (7, 42)}
    assert len(found) == 3


def test_a_pair_in_two_splits_is_a_leak() -> None:
    paths = motions(10)
    found = list(duplicates([signed([*paths, paths[3]], splits=["train"] * 10 + ["val"])]))
    assert pairs(found, "split_leak") == {(3, 10)}
    assert "'val' and 'train'" in found[0].message


@pytest.mark.parametrize(
    "change",
    [
        lambda path, rng: path + rng.normal(0, 1e-4, path.shape),
        lambda path, _: path[1:],
        lambda path, _: path[:-1],
        lambda path, _: np.concatenate([path, path[-1:]]),
    ],
)
def test_almost_equal_episodes_are_found(change: Callable[[Array, np.random.Generator], Array]) -> None:
    paths, rng = motions(60), np.random.default_rng(1)
    found = list(duplicates([signed([*paths, change(paths[5], rng), change(paths[6], rng)])]))
    assert pairs(found, "near_duplicate") == {(5, 60), (6, 61)}
    assert len(found) == 2


def test_only_pairs_between_datasets_are_found_when_datasets_are_compared() -> None:
    first, second = motions(20), motions(20, seed=1)
    inside = [*first, first[0]]
    found = list(duplicates([signed(inside), signed([*second, first[2], first[3] + 1e-5], member=1)], between=True))
    assert [(f.rule, f.member, f.episode, f.other) for f in found] == [
        ("duplicate", 1, 20, (0, 2)),
        ("near_duplicate", 1, 21, (0, 3)),
    ]
    assert "of 'a'" in found[0].message


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 80), st.integers(1, 60))
def test_no_pair_is_found_twice_and_none_is_far_apart(seed: int, count: int, steps: int) -> None:
    paths = motions(count, seed=seed, steps=steps)
    everything = signed(paths)
    found = list(duplicates([everything]))
    path = everything.columns["path"].astype(np.float64)
    usual = np.ptp(path, axis=(0, 1))
    for finding in found:
        assert finding.other is not None
        apart = np.abs(path[finding.episode] - path[finding.other[1]])
        assert (apart <= 0.3 * usual + 1e-6).all()
    assert len({finding.episode for finding in found}) == len(found)


def test_a_path_has_the_first_and_the_last_state() -> None:
    (path,) = motions(1, steps=23)
    columns = signed([path]).columns
    assert columns["path"].shape == (1, POINTS, DIMS)
    assert np.allclose(columns["path"][0, [0, -1]], path[[0, -1]], atol=1e-6)
