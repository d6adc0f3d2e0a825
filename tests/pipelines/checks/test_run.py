"""`oxe check` as a user runs it, on converted datasets with one fault each."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg

from pipelines.checks.rules import RULES
from schemas.store import layout
from schemas.store.dataset import open_dataset
from tests.pipelines.checks.films import encoded, texture
from tests.pipelines.checks.lab import converted, episode
from tests.pipelines.toy import FIELDS, Columns, Toy, files, make_toy, oxe, write_source, write_spec

CLEAN = 12  # episodes


def check(folder: Path, *more: str | Path) -> dict[str, Any]:
    """Run the command; returns its JSON. The exit code says whether it found an error."""
    run = oxe("check", folder, *more, "--json")
    report: dict[str, Any] = run.json()
    assert run.code == (0 if report["ok"] else 1)
    assert report["ok"] == all(finding["severity"] != "error" for finding in report["findings"])
    return report


def rules_of(report: dict[str, Any], number: int) -> set[str]:
    return {finding["rule"] for finding in report["findings"] if finding["episode"] == number}


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset without faults, which no test may change."""
    return converted(tmp_path_factory.mktemp("clean"), [episode(seed) for seed in range(CLEAN)]).path


def test_a_clean_dataset_has_no_errors_or_warnings(clean: Path) -> None:
    report = check(clean)
    assert report["episodes"] == CLEAN
    assert [f for f in report["findings"] if f["severity"] in {"error", "warning"}] == []
    assert {"ok", "episodes", "findings", "accepted", "not_assessable", "look_at", "conventions"} == report.keys()


def test_a_leak_a_duplicate_and_a_missing_instruction_are_named(tmp_path: Path) -> None:
    episodes = [episode(seed) for seed in range(CLEAN)]
    episodes += [episode(3), episode(20, language_instruction=[b""] * 40), episode(5)]
    folder = converted(tmp_path, episodes, splits={"train": CLEAN + 2, "val": 1}).path
    report = check(folder)
    assert rules_of(report, CLEAN) >= {"duplicate"}
    assert rules_of(report, CLEAN + 1) >= {"language_missing"}
    assert rules_of(report, CLEAN + 2) >= {"split_leak"}
    (leak,) = [finding for finding in report["findings"] if finding["rule"] == "split_leak"]
    assert (leak["dataset"], leak["other"]) == ("toy", {"dataset": "toy", "episode": 5})
    assert (leak["severity"], leak["steps"], leak["dims"]) == ("error", [], [])
    text = oxe("check", folder)
    assert text.code == 1
    assert f"split_leak: episode {CLEAN + 2}: the actions and states are those of episode 5" in text.out
    assert RULES["split_leak"].fix in text.out


def nearly(seed: int, *, images: list[bytes]) -> Columns:
    """Make the same motion as `episode`, with a little noise."""
    same = episode(seed)
    noise = np.random.default_rng(99).normal(0, 1e-4, (40, 3)).astype(np.float32)
    return same | {"observation.state": same["observation.state"] + noise, "observation.image": images}


def again(data: bytes) -> bytes:
    """Encode an image again, with other bytes."""
    return encoded(simplejpeg.decode_jpeg(data), quality=70)


def test_one_path_in_another_scene_is_no_near_duplicate(tmp_path: Path) -> None:
    seen = {seed: episode(seed) | {"observation.image": [encoded(texture(seed, 96))] * 40} for seed in range(CLEAN)}
    pictures = [again(data) for data in seen[3]["observation.image"]]
    other = [encoded(texture(99, 96))] * 40
    folder = converted(tmp_path / "one", [*seen.values(), nearly(3, images=pictures), nearly(4, images=other)]).path
    near = [finding for finding in check(folder)["findings"] if finding["rule"] == "near_duplicate"]
    assert [(finding["episode"], finding["other"]["episode"]) for finding in near] == [(CLEAN, 3)]

    copies = converted(tmp_path / "two", [nearly(7, images=other), nearly(3, images=pictures)]).path
    near = [
        f for f in check(folder, copies)["findings"] if f["rule"] == "near_duplicate" and f["dataset"] == str(copies)
    ]
    assert [(finding["episode"], finding["other"]["episode"]) for finding in near] == [(1, 3)]  # (1, CLEAN) is equal


def test_accepted_findings_do_not_fail_the_command(tmp_path: Path) -> None:
    folder = converted(tmp_path, [*(episode(seed) for seed in range(CLEAN)), episode(3)]).path
    rules = tmp_path / "rules.toml"
    rules.write_text(f'[[accept]]\nrule = "duplicate"\nepisodes = [{CLEAN}]\nreason = "shown twice on purpose"\n')
    report = check(folder, "--rules", rules)
    assert report["ok"]
    (accepted,) = report["accepted"]
    assert (accepted["rule"], accepted["reason"]) == ("duplicate", "shown twice on purpose")
    rules.write_text('[[accept]]\nrule = "duplicate"\nepisodes = [1]\nreason = "another one"\n')
    assert not check(folder, "--rules", rules)["ok"]
    rules.write_text('[rules.duplicate]\nseverity = "off"\n')
    assert check(folder, "--rules", rules)["ok"]


def test_an_unchanged_dataset_is_not_checked_again(clean: Path) -> None:
    first = check(clean, "--recompute")
    kept = clean / layout.CHECKS
    before = kept.stat().st_mtime_ns
    assert check(clean) == first
    assert kept.stat().st_mtime_ns == before
    assert check(clean, "--recompute") == first
    assert kept.stat().st_mtime_ns != before


def test_a_damaged_or_outdated_result_is_computed_again(tmp_path: Path) -> None:
    folder = converted(tmp_path, [episode(seed) for seed in range(CLEAN)]).path
    first = check(folder)
    (folder / layout.CHECKS).write_bytes(b"PAR1")
    assert check(folder) == first
    rules = tmp_path / "rules.toml"
    rules.write_text("[rules.near_duplicate]\ndistance = 1.0\nlook = 64\n")
    assert check(folder, "--rules", rules) != first


def test_workers_find_the_same(tmp_path: Path) -> None:
    pytest.importorskip("dask")
    folder = converted(tmp_path, [*(episode(seed) for seed in range(CLEAN)), episode(3)]).path
    first = check(folder)
    content = (folder / layout.CHECKS).read_bytes()
    assert check(folder, "--workers", "2", "--recompute") == first
    assert (folder / layout.CHECKS).read_bytes() == content


def test_several_datasets_are_compared(tmp_path: Path) -> None:
    one = converted(tmp_path / "a", [episode(seed) for seed in range(CLEAN)]).path
    two = converted(tmp_path / "b", [*(episode(100 + seed) for seed in range(CLEAN)), episode(4)]).path
    report = check(one, two)
    assert report["episodes"] == 2 * CLEAN + 1
    (pair,) = [finding for finding in report["findings"] if finding["rule"] == "duplicate"]
    assert (pair["dataset"], pair["episode"]) == (str(two), CLEAN)
    assert pair["other"] == {"dataset": str(one), "episode": 4}


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_tiny_datasets_have_an_answer(tmp_path: Path, steps: int) -> None:
    report = check(converted(tmp_path, [episode(0, steps=steps)]).path)
    assert report["episodes"] == 1


def test_missing_and_broken_images_have_an_answer(tmp_path: Path) -> None:
    episodes = [episode(seed) for seed in range(CLEAN)]
    episodes[2]["observation.image"] = [b""] * 40
    whole = episodes[5]["observation.image"][7]
    episodes[5]["observation.image"][7] = whole[:200] + whole[-2:]
    report = check(converted(tmp_path, episodes).path)
    (finding,) = [finding for finding in report["findings"] if finding["rule"] == "black_camera"]
    assert (finding["episode"], finding["dims"], finding["steps"]) == (5, ["image"], [[7, 8]])
    assert "cannot be decoded" in finding["message"]


def test_a_dataset_without_states_cameras_or_episodes_has_an_answer(tmp_path: Path) -> None:
    toy = make_toy(tmp_path / "bare", [episode(seed) for seed in range(3)])
    text = toy.spec.read_text().replace('[state]\nxyz = "observation.state"\n', "")
    start, stop = text.index("[embodiment.state]"), text.index("[embodiment.action]")
    toy.spec.write_text(text[:start] + text[stop:])
    assert toy.convert().code == 0
    report = check(toy.out)
    why = {entry["rule"]: entry["why"] for entry in report["not_assessable"]}
    assert "state" in why["lag"]
    empty = make_toy(tmp_path / "empty", [episode(0, steps=0)])
    assert empty.convert().code == 0
    report = check(empty.out)
    assert (report["episodes"], report["findings"]) == (0, [])
    assert {entry["why"] for entry in report["not_assessable"]} >= {"the dataset has no steps"}


def test_nan_in_a_column_of_the_source_is_found(tmp_path: Path) -> None:
    torque = np.zeros((40, 2)) + np.arange(40)[:, None]
    torque[7, 1] = np.nan
    episodes = [episode(seed) for seed in range(CLEAN)] + [episode(CLEAN, torque=torque)]
    episodes[-1]["observation.torque"] = torque
    episodes[-1].pop("torque")
    report = check(converted(tmp_path, episodes).path)
    (finding,) = [finding for finding in report["findings"] if finding["rule"] == "non_finite"]
    assert (finding["episode"], finding["steps"]) == (CLEAN, [[7, 8]])
    assert "observation.torque" in finding["dims"][0]


@pytest.mark.parametrize(
    ("name", "copied", "expected"),
    [
        ("action_dict.torque", range(CLEAN), {None}),  # a command that equals what was measured
        ("observation.velocity", range(CLEAN), {None}),  # another quantity
        ("observation.velocity", [2, 7], {2, 7}),
        ("observation.motor_torque", range(CLEAN), set()),  # another name of the same thing
    ],
)
def test_columns_of_the_source_that_were_copied_are_found(
    tmp_path: Path, name: str, copied: Sequence[int], expected: set[int | None]
) -> None:
    rng = np.random.default_rng(0)
    episodes = []
    for seed in range(CLEAN):
        torque, other = rng.normal(size=(2, 40, 2))
        episodes.append(episode(seed, **{"observation.torque": torque, name: torque if seed in copied else other}))
    toy = Toy(folder=tmp_path)
    torque_field = next(field for field in FIELDS if field.path == "observation.torque")
    write_source(toy.source, episodes, fields=(*FIELDS, replace(torque_field, path=name)))
    write_spec(tmp_path)
    assert toy.convert().code == 0
    findings = [finding for finding in check(toy.out)["findings"] if finding["rule"] == "copied_field"]
    assert {finding["episode"] for finding in findings} == expected
    for finding in findings:
        assert set(finding["dims"]) == {"raw.observation.torque", f"raw.{name}"}


def test_a_declaration_that_the_motion_contradicts_is_named_by_every_command(tmp_path: Path) -> None:
    episodes = [episode(seed) for seed in range(CLEAN)]
    for one in episodes:
        one["action"] = one["action"] * np.array([1, -1, 1, 1], np.float32)
    toy = make_toy(tmp_path, episodes)
    run = toy.convert()
    assert run.code == 0
    assert "the motion contradicts the declared axes of the action: position: y is negated" in run.err
    report = check(toy.out)
    assert not report["ok"]
    (finding,) = [f for f in report["findings"] if f["rule"] == "convention"]
    assert (finding["dims"], finding["episode"], finding["severity"]) == (["axes"], None, "error")
    judged = report["conventions"]["toy"]["action"]
    assert judged["axes"]["verdict"] == "contradicts"
    assert judged["axes"]["confidence"] > 0.99
    assert {aspect for aspect, one in judged.items() if one["verdict"] == "contradicts"} == {"axes"}
    assert "y is negated" in oxe("check", toy.out).out
    declared = oxe("datasets", "check", toy.spec, "--source", toy.source, "--limit", "12")
    assert declared.code == 1
    assert "action: axes: position: y is negated" in declared.err
    rules = tmp_path / "rules.toml"
    rules.write_text('[[accept]]\nrule = "convention"\nreason = "our y axis points to the right"\n')
    assert check(toy.out, "--rules", rules)["ok"]


def test_first_steps_without_motion_and_badly_distributed_dimensions_are_named(tmp_path: Path) -> None:
    episodes = [episode(seed) for seed in range(CLEAN)]
    rng = np.random.default_rng(1)
    for number, one in enumerate(episodes):
        one["action"] = one["action"].copy()
        one["action"][:, 0] = np.where(rng.random(40) < 0.3, 0.1, rng.uniform(-0.1, 0.1, 40))  # at its bound
        one["action"][:, 1] = 1e-5 * rng.normal(size=40)
        one["action"][3, 1] = 0.5 if number == 4 else 0  # one value is far away
        one["action"][0, :3] = 0 if number in {2, 6} else one["action"][0, :3]
    toy = make_toy(tmp_path, episodes)
    assert toy.convert().code == 0
    found = check(toy.out)["findings"]
    named = {
        rule: [f for f in found if f["rule"] == rule] for rule in ("noop_first", "saturation", "quantile_collapse")
    }
    assert {finding["episode"] for finding in named["noop_first"]} == {2, 6}
    assert [finding["dims"] for finding in named["saturation"]] == [["action.x"]]
    assert [finding["dims"] for finding in named["quantile_collapse"]] == [["action.y"]]


def test_constant_dimensions_are_named(tmp_path: Path) -> None:
    episodes = [episode(seed) for seed in range(CLEAN)]
    for one in episodes:
        one["action"][:, 2] = 0.25
    (finding,) = [f for f in check(converted(tmp_path, episodes).path)["findings"] if f["rule"] == "constant_dim"]
    assert (finding["dims"], finding["severity"], finding["episode"]) == (["action.z"], "info", None)


def test_statistics_that_do_not_belong_to_the_data_are_found(tmp_path: Path) -> None:
    folder = converted(tmp_path, [episode(seed) for seed in range(CLEAN)]).path
    content = json.loads((folder / layout.STATS).read_text())
    content["statistics"][0]["vectors"]["action"]["max"][0] += 1
    (folder / layout.STATS).write_text(json.dumps(content))
    (finding,) = [finding for finding in check(folder)["findings"] if finding["rule"] == "stale_stats"]
    assert finding["episode"] is None


def test_a_mixture_and_statistics_can_leave_out_episodes_with_findings(tmp_path: Path) -> None:
    folder = converted(tmp_path, [*(episode(seed) for seed in range(CLEAN)), episode(3)]).path
    condition = "not finding('duplicate')"
    refused = oxe("stats", folder, "--filter", condition, "--json")
    assert refused.code == 2
    assert f"run 'oxe check {folder}' first" in refused.err
    check(folder)
    unknown = oxe("stats", folder, "--filter", "finding('duplicat')")
    assert unknown.code == 2
    assert "did you mean 'duplicate'?" in unknown.err
    assert oxe("stats", folder, "--filter", condition, "--json").json()["episodes"] == CLEAN
    assert oxe("stats", folder, "--filter", "finding('duplicate')", "--json").json()["episodes"] == 1
    mixture = tmp_path / "mix.toml"
    mixture.write_text(
        f'name = "mix"\nweighting = "relative"\nfilter = "{condition}"\n[weights]\ntoy = 1.0\n'
        f'[sources]\ntoy = {{ uri = "{folder}" }}\n'
    )
    locked = oxe("mix", "lock", mixture, "--out", tmp_path / "mix.lock", "--json")
    assert locked.code == 0, locked.err
    assert json.loads((tmp_path / "mix.lock").read_text())["sources"]["toy"]["stages"]["filtered"]["episodes"] == CLEAN


def test_an_append_removes_the_result_and_verify_accepts_it(tmp_path: Path) -> None:
    toy = make_toy(tmp_path, [episode(seed) for seed in range(3)])
    assert toy.convert().code == 0
    check(toy.out)
    assert layout.CHECKS in files(toy.out)
    assert toy.verify().code == 0


def test_a_wrong_call_is_one_message(tmp_path: Path, clean: Path) -> None:
    for words in ((tmp_path,), (clean, "--rules", tmp_path / "none.toml")):
        run = oxe("check", *words)
        assert run.code == 2
        assert run.err.startswith("oxe: ")
        assert run.err.count("\n") == 1
    assert open_dataset(clean).manifest["balance"]["kept"] == CLEAN
