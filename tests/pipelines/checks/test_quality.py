"""How many injected faults the rules find, and how many sound episodes they flag. docs/checks.md has the goals."""

from pathlib import Path

import numpy as np
import pytest

from pipelines.checks.findings import RuleFinding
from pipelines.checks.rules import RULES
from pipelines.checks.run import check_datasets
from tests.pipelines.checks.demos import FAULTS, ROBOTS, batch_of, demos, findings, findings_of, split
from tests.pipelines.checks.films import FILM_FAULTS, filmed_episode
from tests.pipelines.checks.lab import filmed

EPISODES, FAULTY = 100, 10
RECALL, PRECISION = {"error": 0.98, "warning": 0.9}, {"error": 0.99, "warning": 0.9}
HARD = {"drop_and_restamp": 0.95}  # lost steps may leave no trace at the end of a motion; docs/checks.md says so


def flagged(found: list[RuleFinding]) -> set[int]:
    return {f.episode for f in found if f.episode >= 0 and RULES[f.rule].severity in {"error", "warning"}}


@pytest.mark.parametrize("name", ROBOTS)
def test_at_most_one_in_200_sound_episodes_is_flagged(name: str) -> None:
    count = 0
    for seed in range(4):
        rng = np.random.default_rng([seed, 11])
        count += len(flagged(findings(batch_of(ROBOTS[name], demos(ROBOTS[name], rng, EPISODES)))))
    assert count <= 0.005 * 4 * EPISODES


@pytest.mark.parametrize(
    ("fault", "robot"), [(name, robot) for name, (*_, robots) in FAULTS.items() for robot in robots]
)
def test_faults_in_numbers_are_found(fault: str, robot: str) -> None:
    rule, inject, _ = FAULTS[fault]
    found = wanted = right = 0
    for seed, size in enumerate((0.5, 1.0, 2.0)):
        rng = np.random.default_rng([seed, 3])
        made = demos(ROBOTS[robot], rng, EPISODES)
        faulty = set(rng.choice(EPISODES, FAULTY, replace=False).tolist())
        made = [inject(ROBOTS[robot], demo, rng, size) if i in faulty else demo for i, demo in enumerate(made)]
        episodes = {f.episode for f in findings(batch_of(ROBOTS[robot], made)) if f.rule == rule and f.episode >= 0}
        found, wanted, right = found + len(episodes), wanted + len(faulty), right + len(episodes & faulty)
    severity = RULES[rule].severity
    assert right >= HARD.get(fault, RECALL[severity]) * wanted
    assert right >= PRECISION[severity] * found


@pytest.mark.parametrize("name", ROBOTS)
def test_findings_do_not_depend_on_which_episodes_are_read_together(name: str) -> None:
    rng, robot = np.random.default_rng(7), ROBOTS[name]
    made = demos(robot, rng, 40)
    for place, (_, inject, robots) in enumerate(FAULTS.values()):
        if name in robots:
            made[3 * place] = inject(robot, made[3 * place], rng, 1.0)
    batch = batch_of(robot, made)
    together, apart = findings(batch), findings_of(split(batch))
    assert len(together) > 5
    assert sorted(map(RuleFinding.order, together)) == sorted(map(RuleFinding.order, apart))


@pytest.mark.slow
@pytest.mark.parametrize("fault", FILM_FAULTS)
def test_faults_of_cameras_are_found_and_sound_episodes_are_not(tmp_path: Path, fault: str) -> None:
    rule, inject = FILM_FAULTS[fault]
    rng = np.random.default_rng(3)
    faulty = set(rng.choice(40, 8, replace=False).tolist())
    films = [filmed_episode(500 + i, fault=inject if i in faulty else None) for i in range(40)]
    found = list(check_datasets([filmed(tmp_path, films)]).findings)
    assert {f.episode for f in found if f.rule == rule} == faulty
    assert flagged(found) == faulty
