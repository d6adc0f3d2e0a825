import numpy as np

from pipelines.checks.look_at import look_at
from schemas.source import Array
from tests.pipelines.checks.lab import about


def measured(count: int = 40, **changes: Array) -> dict[str, Array]:
    rng = np.random.default_rng(0)
    return {
        "episode": np.arange(count),
        "length": rng.integers(38, 43, count),
        "idle_share": rng.uniform(0, 0.1, count),
        "jerk": rng.uniform(1, 1.2, count),
        "path": rng.normal(0, 0.01, (count, 16, 3)) + np.linspace(0, 1, 16)[None, :, None],
    } | changes


def test_unusual_episodes_are_ranked_with_their_reason() -> None:
    measures = measured()
    measures["length"][3] = 400
    measures["jerk"][5] = 3.0
    measures["path"][9, -1] += 0.5
    looks = look_at(about(), measures, ["pick"] * 40)
    assert {look.episode for look in looks} == {3, 5, 9}
    reasons = {look.episode: look.reason for look in looks}
    assert reasons[3].startswith("longer than the 39 other episodes of its task")
    assert reasons[5].startswith("jerkier than")
    assert reasons[9].startswith("ends elsewhere than")
    assert [look.score for look in looks] == sorted((look.score for look in looks), reverse=True)


def test_episodes_are_compared_within_their_task_only() -> None:
    measures = measured()
    measures["length"][:8] = 400
    assert look_at(about(), measures, ["long"] * 8 + ["short"] * 32) == []
    assert len(look_at(about(), measures, ["one"] * 40)) == 8


def test_few_and_equal_episodes_are_not_ranked() -> None:
    assert look_at(about(), measured(4), ["pick"] * 4) == []
    equal = {name: np.repeat(values[:1], 40, axis=0) for name, values in measured().items()}
    assert look_at(about(), equal | {"episode": np.arange(40)}, ["pick"] * 40) == []
