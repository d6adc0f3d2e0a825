from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.checks.findings import RuleFinding
from pipelines.checks.records import of_table, what_is_wrong
from schemas.store.dataset import open_dataset
from tests.pipelines.checks.lab import about, converted, episode
from tests.pipelines.toy import make_toy


def found(folder: Path, texts: list[bytes]) -> dict[str, list[RuleFinding]]:
    episodes = [episode(seed, steps=5, language_instruction=[text] * 5) for seed, text in enumerate(texts)]
    by_rule: dict[str, list[RuleFinding]] = {}
    for finding in of_table(about(), converted(folder, episodes)):
        by_rule.setdefault(finding.rule, []).append(finding)
    return by_rule


def test_outcomes_that_nobody_recorded_are_one_finding_of_the_dataset(tmp_path: Path) -> None:
    (finding,) = found(tmp_path, [b"pick up the cup", b"close the drawer"])["outcome_unknown"]
    assert (finding.episode, finding.value) == (-1, 1.0)
    assert "all 2 episodes" in finding.message


def test_missing_and_meaningless_instructions_are_found(tmp_path: Path) -> None:
    texts = [b"pick up the cup", b"", b"  ", b"TODO", b"pick up the {object}", b"Pick up the cup."]
    by_rule = found(tmp_path, texts)
    assert [finding.episode for finding in by_rule["language_missing"]] == [1, 2]
    of_episodes = [finding for finding in by_rule["language_template"] if finding.episode >= 0]
    assert [finding.episode for finding in of_episodes] == [3, 4]
    (spelled,) = [finding for finding in by_rule["language_template"] if finding.episode < 0]
    assert "'Pick up the cup.' and 'pick up the cup'" in spelled.message


def test_one_instruction_of_nearly_all_episodes_is_found(tmp_path: Path) -> None:
    (finding,) = found(tmp_path, [b"do the dishes"] * 19 + [b"fold the towel"])["language_template"]
    assert finding.value == 0.95
    assert "19 of 20 episodes" in finding.message
    assert "language_template" not in found(tmp_path / "same", [b"do the dishes"] * 5)


def test_episodes_that_were_quarantined_for_nan_are_named(tmp_path: Path) -> None:
    broken = episode(1)
    broken["action"] = np.where(np.arange(40)[:, None] == 7, np.nan, broken["action"]).astype(np.float32)
    toy = make_toy(tmp_path, [episode(0), broken, episode(2)])
    assert toy.convert().code == 1
    (finding,) = [f for f in of_table(about(), open_dataset(toy.out)) if f.rule == "non_finite"]
    assert "episode 1 of the source was quarantined" in finding.message


@pytest.mark.parametrize(
    "text",
    ["task", "Task_3", "TODO", "n/a", "None", "instruction", "no instruction given", "12", "...", "<text>", "a \ufffd"],
)
def test_placeholders_say_nothing(text: str) -> None:
    assert what_is_wrong(text)


@pytest.mark.parametrize(
    "text", ["pick up the cup", "test the switch", "open", "put 3 blocks in the box", "抓取杯子", "task: open the door"]
)
def test_instructions_say_something(text: str) -> None:
    assert what_is_wrong(text) is None


@given(st.text())
def test_any_text_has_an_answer(text: str) -> None:
    answer = what_is_wrong(text)
    assert answer is None or text.strip() in answer
