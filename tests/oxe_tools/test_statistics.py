"""`oxe stats` and the public functions that it calls."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import oxe_tools
from oxe_tools import NormStats, load_norm_stats, open_dataset, stats
from tests.pipelines.toy import Run, Toy, columns, make_toy, oxe


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    made = make_toy(tmp_path_factory.mktemp("stats"), [columns(i, steps=60) for i in range(4)])
    assert made.convert().code == 0
    return made


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    """The same arm in millimetres, with the gripper inverted."""
    made = []
    for i in range(4):
        episode = columns(50 + i, steps=60)
        action = np.array(episode["action"]) * np.float32([1000, 1, 1, 1])
        action[:, 3] = 0.5 + 0.5 * np.sign(action[:, 3])
        made.append(episode | {"action": action})
    folder = make_toy(tmp_path_factory.mktemp("other"), made)
    assert folder.convert().code == 0
    return folder


def run(*words: str | Path) -> Run:
    found = oxe("stats", *words)
    assert found.code == 0, found.err
    return found


def test_the_table_tells_ranges_in_units_and_what_is_not_normalized(toy: Toy) -> None:
    lines = run(toy.out).out.splitlines()
    assert lines[0] == "toy: as stored; 4 episodes, 240 steps"
    table = {line.split()[0]: line for line in lines[2:] if line.strip()}
    q01 = np.quantile(np.concatenate([e.action for e in open_dataset(toy.out)]).astype(np.float64)[:, 0], 0.01)
    assert f"{q01:.4g}" in lines[3]
    assert lines[3].split()[:2] == ["x", "m"]
    assert "not normalized" in table["gripper"]
    assert any(block in lines[3] for block in "▁▂▃▄▅▆▇█")


def test_a_selection_is_named_in_the_table(toy: Toy) -> None:
    out = run(toy.out, "--view", "late", "--split", "train", "--filter", "length>2", "--chunk", "3").out
    assert out.startswith("toy: view late, split train, length > 2; 4 episodes, 236 steps\n")
    assert "action_chunk: 228 chunks of 3 steps; q01 .. q99: x -" in out


def test_json_is_the_native_record(toy: Toy) -> None:
    found = run(toy.out, "--json").json()
    assert found == json.loads(json.dumps(stats(toy.out).to_json()))
    assert found["vectors"]["action"]["space"]["dims"][0] == {
        "name": "x",
        "unit": "m",
        "mode": "delta",
        "kind": "position",
    }


@pytest.mark.parametrize("form", ["native", "openvla", "lerobot", "openpi"])
def test_each_form_is_printed_or_written_and_read_back(toy: Toy, form: str, tmp_path: Path) -> None:
    out = tmp_path / "file.json"
    assert run(toy.out, "--format", form, "--out", out).out == f"{out}: {form} statistics of toy\n"
    assert run(toy.out, "--format", form).out == out.read_text()
    (norms,) = load_norm_stats(str(out)).values()
    ours = stats(toy.out).norm("action")
    assert norms["action"].q99 is not None
    assert np.array_equal(norms["action"].q99, ours.q99)  # type: ignore[arg-type]
    assert oxe("stats", toy.out, "--out", out).code == 2
    told = run(toy.out, "--format", form, "--out", out, "--overwrite", "--json").json()
    assert told == {"out": str(out), "format": form, "name": "toy"}


def test_diff_says_what_differs_and_whether_it_matters(toy: Toy, other: Toy, tmp_path: Path) -> None:
    found = oxe("stats", toy.out, "--diff", other.out)
    assert found.code == 1
    assert "MATTERS: action.x: unit: the range is 0.000" in found.out
    assert found.err.endswith("differences from " + str(other.out) + " that matter\n")
    report = oxe("stats", other.out, "--diff", toy.out, "--json").json()
    assert report["matters"]
    assert report["outside"]["action"]["x"] > 0.9
    same = run(toy.out, "--diff", toy.out)
    assert "no significant differences" in same.out
    file = tmp_path / "theirs.json"
    run(other.out, "--format", "openvla", "--out", file)
    assert "MATTERS: action.x: unit" in oxe("stats", toy.out, "--diff", file).out


def test_against_a_checkpoint_tells_the_share_that_falls_outside(toy: Toy, other: Toy, tmp_path: Path) -> None:
    checkpoint = tmp_path / "run"
    checkpoint.mkdir()
    run(toy.out, "--format", "openvla", "--out", checkpoint / "dataset_statistics.json")
    assert run(toy.out, "--against", checkpoint).out.startswith(
        f"{toy.out} compared with {checkpoint}#toy\naction: share outside"
    )
    found = oxe("stats", other.out, "--against", checkpoint, "--json")
    assert found.code == 1
    norm = stats(toy.out).norm("action")
    x = np.concatenate([episode.action for episode in open_dataset(other.out)]).astype(np.float64)
    share = ((x < norm.q01) | (x > norm.q99)).mean(axis=0)
    assert list(found.json()["outside"]["action"].values()) == share.tolist()


def test_a_checkpoint_may_lie_anywhere_and_hold_other_json(toy: Toy, other: Toy, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.json").write_text("{")
    run(toy.out, "--format", "openvla", "--out", tmp_path / "run/dataset_statistics.json")
    for place in (f"file://{tmp_path}/run", f"file://{tmp_path}/run/dataset_statistics.json"):
        assert oxe("stats", other.out, "--against", place, "--json").json()["theirs"] == f"{place}#toy"


def test_statistics_of_the_same_view_are_taken_where_a_file_has_several(toy: Toy, tmp_path: Path) -> None:
    run(toy.out, "--view", "late")
    found = run(toy.out, "--view", "late", "--against", toy.out / "meta/stats.json", "--json").json()
    assert (found["theirs"], found["findings"]) == (f"{toy.out}/meta/stats.json#toy, view late", [])


def test_one_of_several_datasets_in_a_file_is_named(toy: Toy, tmp_path: Path) -> None:
    entry = json.loads(run(toy.out, "--format", "openvla").out)["toy"]
    file = tmp_path / "many.json"
    file.write_text(json.dumps({"a": entry, "b": entry}))
    found = oxe("stats", toy.out, "--against", file)
    assert found.code == 2
    assert "has statistics of 2 datasets, but not of 'toy'; name one as " in found.err
    assert run(toy.out, "--against", f"{file}#b").code == 0
    assert "no statistics of 'c'" in oxe("stats", toy.out, "--against", f"{file}#c").err
    file.write_text(json.dumps({"a": entry, "toy": entry}))
    assert run(toy.out, "--against", file).code == 0


def test_merging_counts_both_and_refuses_another_embodiment(toy: Toy, other: Toy, tmp_path: Path) -> None:
    out = run(toy.out, "--merge", other.out).out
    assert out.startswith("toy_arm (toy, toy): as stored; 8 episodes, 480 steps\n")
    text = toy.spec.read_text().replace("control_hz = 10", "control_hz = 20")
    (tmp_path / "fast.toml").write_text(text)
    oxe("convert", tmp_path / "fast.toml", "--source", toy.source, "--out", tmp_path / "fast")
    found = oxe("stats", toy.out, "--merge", tmp_path / "fast")
    assert (found.code, "cannot be counted as one: control_hz is 10.0 and 20.0" in found.err) == (2, True)


def test_publishing_and_fetching_by_name(toy: Toy, tmp_path: Path) -> None:
    registry = f"file://{tmp_path}/registry"
    published = run(toy.out, "--publish", registry, "--json").json()
    assert published["uri"] == registry
    assert run(toy.out, "--publish", registry).out == f"{registry}: {published['published']}\n"
    assert run("toy", "--from", registry, "--json").json() == json.loads(json.dumps(stats(toy.out).to_json()))
    assert run(published["published"], "--from", registry).out == run(toy.out).out
    assert oxe("stats", "tyo", "--from", registry).code == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--diff", "a", "--against", "b"], "--diff and --against"),
        (["--from", "reg", "--view", "late"], "--from fetches published statistics"),
        (["--from", "reg", "--diff", "x"], "--from"),
        (["--publish", "reg", "--format", "openvla"], "--publish"),
        (["--merge", "x", "--diff", "y"], "--merge"),
    ],
)
def test_options_that_do_not_go_together_are_refused(toy: Toy, words: list[str], said: str) -> None:
    found = oxe("stats", toy.out, *words)
    assert (found.code, found.out) == (2, "")
    assert said in found.err


@pytest.mark.parametrize("command", ["stats", "convert"])
def test_options_that_cannot_be_split_are_one_line(toy: Toy, command: str) -> None:
    words = [toy.out] if command == "stats" else [toy.spec, "--source", toy.source, "--out", toy.out]
    done = oxe(command, *words, "--beam-options", "'")
    assert (done.code, done.err) == (2, "oxe: --beam-options: No closing quotation: '\n")


def test_a_folder_that_is_no_dataset_is_an_error(tmp_path: Path) -> None:
    found = oxe("stats", tmp_path)
    assert (found.code, "not a dataset" in found.err) == (2, True)


def test_statistics_normalize_what_open_dataset_gives(toy: Toy, tmp_path: Path) -> None:
    shutil.copytree(toy.out, tmp_path / "toy")
    norm = oxe_tools.stats(tmp_path / "toy", view="late").norm("action")
    assert isinstance(norm, NormStats)
    action = open_dataset(tmp_path / "toy").episode(0, view="late").action
    scaled = norm.normalize(action)
    assert np.abs(scaled[:, :3]).max() <= 1
    inside = np.abs(scaled[:, :3]) < 1
    np.testing.assert_allclose(norm.unnormalize(scaled)[:, :3][inside], action[:, :3][inside], atol=1e-6)
