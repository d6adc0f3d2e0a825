"""Real robosuite recordings: each oddity is a clear error, a key of the declaration, or a counted quarantine."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.convert.convert import ConversionReport, convert
from pipelines.verify import verify
from schemas.declarations import catalog
from schemas.errors import SpecError
from schemas.source import Array
from schemas.store.dataset import Dataset, open_dataset
from tests.pipelines.readers.demos import DEMOS, SPEC, outcome
from tests.pipelines.toy import oxe

h5py = pytest.importorskip("h5py", reason="the extra 'hdf5'")
pytestmark = pytest.mark.realdata
TOLD = 'format = "hdf5", episodes = "data/demo_*"'
STEPS = {"door": 261, "lift": 412, "nut-assembly": 1036, "pick-place": 1482, "stack": 532, "wipe": 174}


def truth(file: Path, path: str) -> Array:
    with h5py.File(file) as opened:
        values: Array = opened[path][()]
        return values


REAL = SPEC.replace("joint a b,", "joint a b c d e f g,")


@pytest.mark.parametrize(
    ("name", "lengths"), [("v1.0.1/lift/panda", {1: 412}), ("v1.4.1/lift", {1: 482, 2: 510, 3: 392})]
)
def test_lift_is_stored_as_it_is(realdata: Path, tmp_path: Path, name: str, lengths: dict[int, int]) -> None:
    """Idle steps and actions far outside [-1, 1] are stored too."""
    file = realdata / "hdf5_robosuite" / name / "demo.hdf5"
    (tmp_path / "toy.toml").write_text(f'source = {{ format = "hdf5", episodes = "data/demo_*" }}\n{REAL}')
    convert(catalog.dataset(str(tmp_path / "toy.toml")), tmp_path / "out", source=str(file.parent))
    dataset = open_dataset(tmp_path / "out")
    assert [len(dataset.episode(i)) for i in range(len(dataset))] == list(lengths.values())
    for i, number in enumerate(lengths):
        episode, at = dataset.episode(i), f"data/demo_{number}"
        assert np.array_equal(episode.action, truth(file, f"{at}/actions").astype(np.float32))
        for path in ("actions", "states"):
            assert np.array_equal(np.asarray(episode.raw[path]), truth(file, f"{at}/{path}"))
    assert verify(dataset, source=str(file.parent)).first == []


def test_the_handover_is_quarantined_until_its_other_clocks_are_left_out(realdata: Path, tmp_path: Path) -> None:
    file = realdata / "hdf5_robosuite/v1.4.1/handover/panda_panda/demo.hdf5"
    fourteen = "joint " + " ".join(f"j{i}" for i in range(14)) + ","
    told = '{ format = "hdf5", episodes = "data/demo_*"%s }'
    ignored = ', ignore = ["user_info", "controller_info"]'
    reports = []
    for name, more in (("whole", ""), ("part", ignored)):
        (tmp_path / f"{name}.toml").write_text(f"source = {told % more}\n" + SPEC.replace("joint a b,", fourteen))
        reports.append(convert(catalog.dataset(str(tmp_path / f"{name}.toml")), tmp_path / name, source=str(file)))
    assert [(r.kept, r.quarantined, r.steps) for r in reports] == [(0, {"unequal_lengths": 7}, 0), (7, {}, 2775)]
    dataset = open_dataset(tmp_path / "part")
    table = dataset.episodes.collect()
    assert table["length"].to_list() == table["metadata.attrs.num_samples"].to_list()
    assert np.array_equal(np.asarray(dataset.episode(6).raw["actions"]), truth(file, "data/demo_6/actions"))


def declared(folder: Path, source: str, *, dims: int = 7) -> Any:
    joints = "joint " + " ".join(f"j{i}" for i in range(dims)) + ","
    (folder / "toy.toml").write_text(f"source = {{ {TOLD}{source} }}\n" + SPEC.replace("joint a b,", joints))
    return catalog.dataset(str(folder / "toy.toml"))


def stored(folder: Path, uri: Path, source: str = "", *, dims: int = 7) -> tuple[ConversionReport, Dataset]:
    """Convert a source and compare every value with it."""
    report = convert(declared(folder, source, dims=dims), folder / "out", source=str(uri))
    assert verify(open_dataset(folder / "out"), source=str(uri)).first == []
    return report, open_dataset(folder / "out")


@pytest.mark.parametrize("task", STEPS)
def test_every_task_is_stored_as_it_is(realdata: Path, tmp_path: Path, task: str) -> None:
    file = realdata / "hdf5_robosuite/v1.0.1" / task / "panda/demo.hdf5"
    report, dataset = stored(
        tmp_path, file, ', in_json = ["parent.env_info.env_name"]', dims=6 if task == "wipe" else 7
    )
    assert (report.source, report.kept, report.steps, report.quarantined) == (1, 1, STEPS[task], {})
    episode = dataset.episode(0)
    assert episode.id == "demo.hdf5/data/demo_1"
    assert episode.images == {}
    assert episode.metadata["parent.env_info.env_name"] == truth_attr(file, "data", "env")
    for path in ("actions", "states", "joint_torques"):
        assert np.array_equal(np.asarray(episode.raw[path]), truth(file, f"data/demo_1/{path}"))


def truth_attr(file: Path, path: str, name: str) -> Any:
    with h5py.File(file) as opened:
        return opened[path].attrs[name]


def test_wipe_has_six_numbers_and_says_so_where_seven_are_declared(realdata: Path, tmp_path: Path) -> None:
    file = realdata / "hdf5_robosuite/v1.0.1/wipe/panda/demo.hdf5"
    with pytest.raises(SpecError, match=r"'actions' returns 6 numbers, the embodiment expects 7"):
        convert(declared(tmp_path, ""), tmp_path / "out", source=str(file))


def test_the_same_recording_in_two_releases_has_one_content_hash(realdata: Path, tmp_path: Path) -> None:
    _, dataset = stored(
        tmp_path, realdata / "hdf5_robosuite", ', files = "v*/wipe/panda/demo.hdf5", ignore = ["parent"]', dims=6
    )
    first, second = (dataset.episode(i) for i in range(2))
    assert (first.id, second.id) == tuple(f"{v}/wipe/panda/demo.hdf5/data/demo_1" for v in ("v1.0.1", "v1.4.1"))
    assert np.array_equal(first.action, second.action)
    assert np.array_equal(np.asarray(first.raw["states"]), np.asarray(second.raw["states"]))


def test_tasks_in_one_folder_differ_in_their_states_and_are_counted_until_these_are_left_out(
    realdata: Path, tmp_path: Path
) -> None:
    folder = realdata / "hdf5_robosuite/v1.0.1"
    words = {"files": "*/panda/demo.hdf5", "episodes": DEMOS}
    assert outcome(folder, **words) == ["ok", *["contradicts_fields"] * 5]
    report, dataset = stored(tmp_path, folder, ', files = "*/panda/demo.hdf5", ignore = ["states"]')
    assert (report.kept, report.quarantined) == (5, {"contradicts_fields": 1})  # wipe's six numbers
    assert [len(dataset.episode(i)) for i in range(5)] == [steps for task, steps in STEPS.items() if task != "wipe"]


def test_actions_outside_the_controllers_range_are_shown(realdata: Path) -> None:
    for name, dims, low in (("v1.0.1/wipe/panda", 6, -1.24), ("v1.4.1/lift", 7, -3.75)):
        found = oxe("inspect", realdata / "hdf5_robosuite" / name / "demo.hdf5", "--json").json()
        assert found["features"]["actions"]["shape"] == [dims]
        assert found["features"]["actions"]["range"][0] == pytest.approx(low, abs=0.01)
        assert found["unreadable"] == {}


def test_the_handovers_clocks_are_named_with_their_lengths(realdata: Path) -> None:
    found = oxe("inspect", realdata / "hdf5_robosuite/v1.4.1/handover/panda_panda/demo.hdf5", "--json").json()
    assert (found["episodes"], found["read"], found["unreadable"]) == (7, 0, {"unequal_lengths": 7})
    for words in ("controller_info.counters and 26 more have 1380 steps", "actions and 14 more have 641 steps"):
        assert words in found["first_unreadable"]
