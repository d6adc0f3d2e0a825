"""What is held out is compared with what was asked for, and the advice reaches it."""

from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.mix.holdout import HeldOut, held_out, is_held_out
from pipelines.mix.report import summary
from schemas.mixture.lock import TRAIN, VALIDATION
from schemas.mixture.spec import Holdout
from tests.pipelines.mix.lab import made, make_datasets


def rows(holdout: Holdout, *, instructions: int, episodes: int = 200) -> list[dict[str, str]]:
    found = [{"instruction": f"task {i % instructions}", "id": f"e{i}"} for i in range(episodes)]
    return [{**row, "part": VALIDATION if is_held_out(holdout, row[holdout.by]) else TRAIN} for row in found]


@pytest.mark.parametrize("task", ["close the pot", "task 0", "lift"])
def test_one_instruction_for_all_episodes_gets_the_advice_to_divide_by_episode(task: str) -> None:
    holdout = Holdout(share=0.1)
    part = VALIDATION if is_held_out(holdout, task) else TRAIN
    found = HeldOut.of(holdout, [{"instruction": task, "id": f"e{i}", "part": part} for i in range(200)])
    assert found.reached in {0.0, 1.0}
    assert found.advice is not None
    assert found.advice.startswith('[holdout] by = "id" would hold out ')


def test_the_advice_is_what_another_lock_would_reach() -> None:
    holdout = Holdout(share=0.1)
    found = HeldOut.of(holdout, rows(holdout, instructions=1))
    other = Holdout(by="id", share=0.1)
    reached = sum(row["part"] == VALIDATION for row in rows(other, instructions=1)) / 200
    assert f"hold out {reached:.1%}" in str(found.advice)


@given(st.integers(1, 60), st.floats(0.01, 0.5))
def test_there_is_advice_exactly_if_the_share_is_missed(instructions: int, share: float) -> None:
    holdout = Holdout(share=share)
    found = HeldOut.of(holdout, rows(holdout, instructions=instructions))
    assert (found.advice is None) == (0 < found.reached <= 2 * share)


def test_a_few_episodes_are_too_few_for_a_small_share() -> None:
    holdout = Holdout(share=0.0001)
    found = HeldOut.of(holdout, rows(holdout, instructions=2, episodes=4))
    assert found.advice == "4 episodes are too few for this share: use another share"
    assert str(found) == "0.0% of 4 episodes are held out by instruction (0.0% asked for)"


def test_a_lock_lists_each_source_and_one_without_a_holdout_lists_none(tmp_path: Path) -> None:
    make_datasets(tmp_path)
    lock, table = made(tmp_path, tables='[holdout]\nby = "id"\nshare = 0.4')
    found = held_out(lock, table)
    assert found.keys() == {"one", "two"}
    parts = table.to_pylist()
    for name, each in found.items():
        own = [row["part"] for row in parts if row["source"] == name and row["steps"]]
        assert each.reached == own.count(VALIDATION) / len(own)
    assert summary(lock, table).to_json()["holdout"]["one"]["share"] == 0.4
    plain, table = made(tmp_path)
    assert held_out(plain, table) == {}
    assert isinstance(table, pa.Table)
