from typing import Any

import numpy as np
import pytest

from pipelines.inspect.draft.clock import Clock, clock
from schemas.source import Array, Field
from tests.pipelines.inspect.draft.arm import sampled


def read(times: Array | None, **more: Any) -> Clock:
    episodes = [{"t": (times + 7 * i)[:, None]} for i in range(3)] if times is not None else [{}]
    return clock(sampled({"t": Field(path="t", kind="number")}, episodes, **more), ["t"] if times is not None else [])


STEPS = np.arange(40.0)


@pytest.mark.parametrize(("factor", "unit"), [(1, "s"), (1e3, "ms"), (1e6, "us"), (1e9, "ns")])
def test_the_rate_is_that_of_the_median_step_in_whatever_unit(factor: float, unit: str) -> None:
    found = read(STEPS / 20 * factor)
    assert (found.hz.value, found.rate) == ("20", 20)
    assert f" {unit}, " in found.hz.evidence
    assert (found.timestamp is not None) == (unit == "s")  # a declaration requires seconds


def test_a_rate_is_not_rounded_to_another_one() -> None:
    assert read(STEPS * 0.016).hz.value == "62.5"
    assert read(STEPS * 0.0333).hz.value == "30"  # 1/30 s, rounded


def test_a_constant_clock_is_called_computed_and_a_real_one_has_its_jitter() -> None:
    assert "a constant clock, so it was computed" in read(STEPS / 20).hz.evidence
    late = STEPS / 20 + np.random.default_rng(0).uniform(0, 0.01, 40)
    late[20:] += 0.1
    found = read(late)
    assert found.rate == pytest.approx(20, rel=0.01)
    assert "2.6% of the steps late" in found.hz.evidence


@pytest.mark.parametrize("times", [STEPS[::-1], np.where(STEPS == 5, 4, STEPS), np.full(40, np.nan), np.zeros(40)])
def test_times_that_do_not_go_forward_are_no_clock(times: Array) -> None:
    found = read(times / 20)
    assert found.timestamp is None
    assert found.hz.is_open
    assert "time does not increase at" in found.hz.evidence or "not finite" in found.hz.evidence


def test_what_the_source_says_counts_and_a_contradiction_is_left_open() -> None:
    assert read(None, description={"fps": 30}).hz.value == "30"
    env = {"parent.env_args": '{"env_kwargs": {"control_freq": 20}}', "attrs.broken": "{", "other": 4}
    assert read(STEPS / 20, metadata=(env,)).hz.value == "20"
    found = read(STEPS / 10, metadata=(env,))
    assert found.hz.is_open
    assert "the rates disagree: parent.env_args.env_kwargs.control_freq is 20" in found.hz.evidence


def test_what_is_no_rate_is_no_evidence() -> None:
    for fps in (0, -5, True, "30", None, float("nan"), 1e9):
        assert read(None, description={"fps": fps}).hz.is_open


def test_a_deep_description_ends() -> None:
    deep: dict[str, Any] = {"fps": 5}
    for _ in range(100):
        deep = {"inner": deep}
    assert read(None, description=deep).hz.is_open
