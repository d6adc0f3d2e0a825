"""The commands `oxe mix`, run as a user runs them."""

import json
from pathlib import Path

import pytest

from tests.pipelines.mix.lab import again, make_datasets
from tests.pipelines.toy import Run, oxe

MIX = """
name      = "toy"
view      = "late"
weighting = "relative"

[weights]
one = 1.0
two = 2.0

[sources]
one = { uri = "one" }
two = { uri = "two" }
"""


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    make_datasets(tmp_path)
    (tmp_path / "toy.toml").write_text(MIX)
    return tmp_path


def locked(lab: Path) -> Run:
    run = oxe("mix", "lock", lab / "toy.toml")
    assert run.code == 0, run.err
    return run


def test_a_mixture_is_locked_beside_its_file_and_shown(lab: Path) -> None:
    assert "toy" in locked(lab).out
    assert {path.name for path in lab.glob("toy.lock*")} == {"toy.lock", "toy.lock.parquet"}
    for target in ("toy.toml", "toy.lock"):
        shown = oxe("mix", "stats", lab / target, "--json").json()
        assert {name: row["repeats"] for name, row in shown["sources"].items()} == {"one": 1.0, "two": 2.0}
    assert "29.41%" not in oxe("mix", "stats", lab / "toy.lock").out
    assert "20.00%" in oxe("mix", "stats", lab / "toy.lock").out  # 14 of 14 + 2 * 28 steps


def test_nothing_is_overwritten_unless_asked(lab: Path) -> None:
    locked(lab)
    run = oxe("mix", "lock", lab / "toy.toml")
    assert (run.code, "exists; pass --overwrite" in run.err) == (2, True)
    assert oxe("mix", "lock", lab / "toy.toml", "--overwrite").code == 0


def test_a_dry_run_writes_nothing(lab: Path) -> None:
    run = oxe("mix", "lock", lab / "toy.toml", "--dry-run", "--json")
    assert (run.code, run.json()["lock"]) == (0, None)
    assert not list(lab.glob("*.lock*"))


def test_a_lock_elsewhere_finds_its_datasets_too(lab: Path) -> None:
    (lab / "locks").mkdir()
    assert oxe("mix", "lock", lab / "toy.toml", "--out", lab / "locks/a.lock").code == 0
    assert json.loads((lab / "locks/a.lock").read_text())["sources"]["one"]["uri"] == "../one"
    assert oxe("mix", "verify", lab / "locks/a.lock", "--deep").code == 0


def test_verify_names_the_drift_and_exits_with_1(lab: Path) -> None:
    locked(lab)
    run = oxe("mix", "verify", lab / "toy.toml", "--deep")
    assert (run.code, "unchanged since the lock" in run.out) == (0, True)
    again(lab, "two", seed=77)
    (lab / "toy.toml").write_text(MIX.replace("2.0", "3.0"))
    run = oxe("mix", "verify", lab / "toy.lock")
    assert run.code == 1
    assert "the mixture file has changed: weights" in run.err
    assert "two: the dataset has changed" in run.err
    assert oxe("mix", "verify", lab / "toy.lock", "--json").json()["ok"] is False


def test_diff_and_sample(lab: Path) -> None:
    locked(lab)
    (lab / "other.toml").write_text(MIX.replace("2.0", "3.0"))
    assert oxe("mix", "lock", lab / "other.toml").code == 0
    run = oxe("mix", "diff", lab / "toy.lock", lab / "other.lock")
    assert run.code == 1
    assert "the mixture file differs in weights" in run.out
    assert oxe("mix", "diff", lab / "toy.lock", lab / "toy.lock").code == 0
    run = oxe("mix", "sample", lab / "toy.lock", "--draws", "5000", "--json")
    assert (run.code, run.json()["ok"], run.json()["draws"]) == (0, True, 5000)


def test_what_is_no_lock_is_an_input_error(lab: Path) -> None:
    (lab / "bad.lock").write_text("{}")
    for word in ("stats", "verify", "sample"):
        run = oxe("mix", word, lab / "bad.lock")
        assert (run.code, "bad.lock" in run.err) == (2, True)


def test_paraphrases_are_counted_and_an_unknown_instruction_is_an_input_error(lab: Path) -> None:
    table = '[paraphrases]\n"task 0 ☂" = ["do 0"]\n"task 4 ☂" = ["do 4", "four"]\n'
    (lab / "toy.toml").write_text(MIX + table)
    locked(lab)
    assert "paraphrases: 3, of 2 instructions" in oxe("mix", "stats", lab / "toy.lock").out
    assert oxe("mix", "stats", lab / "toy.lock", "--json").json()["paraphrases"]["task 0 ☂"] == ["do 0"]
    (lab / "toy.toml").write_text(MIX + table.replace("task 4 ", "task 4"))
    run = oxe("mix", "lock", lab / "toy.toml", "--overwrite")
    assert (run.code, "no step of the mixture has the instruction 'task 4☂'" in run.err) == (2, True)
    assert "did you mean 'task 4 ☂'?" in run.err
    assert oxe("mix", "verify", lab / "toy.lock").code == 1
