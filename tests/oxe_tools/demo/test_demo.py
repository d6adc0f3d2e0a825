"""`oxe demo`. No other test relies on its recordings alone."""

from pathlib import Path

import numpy as np
import pytest

from oxe_tools import open_dataset
from oxe_tools.demo.recorder import EPISODES, LABS, STEPS, motion
from tests.pipelines.toy import Run, files, oxe, oxe_process


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def shown(folder: Path) -> Run:
    return oxe_process("demo", cwd=folder)


def test_the_demo_shows_one_motion_before_and_after(shown: Run, folder: Path) -> None:
    assert shown.code == 0
    assert "Before: step 6 of one motion, as each lab recorded it" in shown.out
    assert "After: the same step in the view 'eef_delta'" in shown.out
    for lab in LABS:
        assert shown.out.count(lab) >= 2
    assert f"Verified against the recordings: {3 * EPISODES} episodes" in shown.out
    assert "Try next:" in shown.out
    assert shown.err.splitlines() == [f"{verb} {lab}" for lab in LABS for verb in ("recording", "converting")]
    assert sorted(path.name for path in (folder / "oxe_demo").iterdir()) == ["datasets", "recordings"]


def test_what_it_says_to_try_next_works(shown: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    tries = [line.split() for line in shown.out.splitlines() if line.startswith("  oxe ")]
    assert [words[1] for words in tries] == ["inspect", "verify", "export"]
    for words in tries:
        assert oxe(*words[1:]).code == 0


def test_its_datasets_verify_and_agree(shown: Run, folder: Path) -> None:
    for lab in LABS:
        path = folder / "oxe_demo/datasets" / lab
        assert oxe("verify", path, "--source", folder / "oxe_demo/recordings" / lab).code == 0
        dataset = open_dataset(path)
        assert len(dataset) == EPISODES
        for i in range(EPISODES):
            viewed = dataset.episode(i, "eef_delta")
            assert (len(viewed), viewed.instruction) == (STEPS, motion(i).instruction)
            np.testing.assert_allclose(viewed.action, motion(i).deltas(), atol=1e-5)


def test_its_json_is_one_object(tmp_path: Path) -> None:
    done = oxe("demo", "--out", tmp_path / "demo", "--json")
    found = done.json()
    assert (done.code, list(found)) == (0, list(LABS))
    for lab in found.values():
        assert lab["verified"] is True
        assert lab["max_error"] < 1e-4
        assert lab["episodes"]["kept"] == EPISODES


def test_a_second_run_is_refused_until_told(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    assert oxe("demo", "--out", out).code == 0
    before = {name: data for name, data in files(out).items() if not name.endswith("runs.jsonl")}
    again = oxe("demo", "--out", out)
    assert (again.code, again.out) == (2, "")
    assert again.err == f"oxe: {out}: exists; pass --overwrite to replace it\n"
    assert oxe("demo", "--out", out, "--overwrite").code == 0
    assert {name: data for name, data in files(out).items() if not name.endswith("runs.jsonl")} == before
