"""Convert, export and convert again: numbers, counts, instructions and flags stay the same."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from schemas.episode import Episode
from schemas.store.dataset import Dataset, open_dataset
from tests.pipelines.export.makers import converted, depth_field, episodes, export, picture_of_depth, with_field
from tests.pipelines.toy import oxe

pytest.importorskip("av", reason="videos are the extra 'lerobot'")
FORMS = [
    pytest.param([*version, "--video", video], id=f"{video} {version[1]}")
    for version in (["--version", "3.0"], ["--version", "2.1"])
    for video in ("none", "h264", "av1")
]


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    made = episodes(4)
    made[1]["language_instruction"] = [b"", *[b"task 0 \xe2\x98\x82"] * 3, *[b"another"] * 3]
    depths = [[picture_of_depth(10 * i + t) for t in range(len(e["action"]))] for i, e in enumerate(made)]
    more = with_field(made, depth_field(), depths)
    return converted(tmp_path_factory.mktemp("toy"), made, splits={"val": 1, "train": 3}, **more)


@pytest.fixture(scope="module")
def bridge(realdata: Path, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    out = tmp_path_factory.mktemp("bridge") / "unified"
    source = realdata / "rlds/octo_debug_bridge/bridge_dataset/1.0.0"
    assert oxe("convert", "bridge_dataset", "--source", source, "--out", out).code == 0
    return open_dataset(out)


def there_and_back(dataset: Dataset, folder: Path, *more: str) -> Dataset:
    """Export, verify, convert with the export's own declaration, and verify again."""
    export(dataset, folder / "lerobot", *more)
    verified = oxe("verify", folder / "lerobot")
    assert verified.code == 0, verified.err
    done = oxe("convert", folder / "lerobot", "--out", folder / "back")
    assert (done.code, "quarantined (none)" in done.out) == (0, True), done.err
    assert oxe("verify", folder / "back").code == 0
    return open_dataset(folder / "back")


def texts(episode: Episode) -> list[str]:
    assert episode.instruction_index is not None
    return [episode.instructions[i] for i in episode.instruction_index]


def assert_same(dataset: Dataset, back: Dataset, *, view: str | None = None) -> None:
    """Compare everything except images, bit for bit, in the order of the dataset's splits."""
    assert len(back) == len(dataset)
    assert {name: split["steps"] for name, split in back.manifest["splits"].items()} == {
        name: sum(len(dataset.episode(i, view)) for i in range(len(dataset)) if dataset.episode(i).split == name)
        for name in dataset.manifest["splits"]
    }
    for i in range(len(dataset)):
        one, other = dataset.episode(i, view), back.episode(i)
        assert (one.id, one.split, set(one.instructions)) == (other.id, other.split, set(other.instructions))
        assert texts(one) == texts(other)
        columns = {name: column for name, column in one.columns().items() if not name.startswith("observation.images.")}
        columns = {
            name: c for name, c in columns.items() if name != "instruction" and not (view and name[:4] == "raw.")
        }
        for name, column in columns.items():
            found: Any = other.columns()[name]
            if isinstance(column, np.ndarray):
                assert (found.dtype, found.tobytes()) == (column.dtype, np.ascontiguousarray(column).tobytes()), name
            else:
                assert list(found) == list(column), name  # type: ignore[arg-type]
        assert other.metadata == one.metadata


@pytest.mark.parametrize("form", FORMS)
def test_a_small_set_comes_back(toy: Dataset, tmp_path: Path, form: list[str]) -> None:
    back = there_and_back(toy, tmp_path, *form)
    assert_same(toy, back)
    assert back.views == toy.views
    assert {c.role: c.is_depth for c in back.columns.cameras} == {c.role: c.is_depth for c in toy.columns.cameras}
    if "none" in form:
        assert [back.episode(i).images["primary"] for i in range(4)] == [
            toy.episode(i).images["image"] for i in range(4)
        ]


@pytest.mark.parametrize("form", FORMS)
def test_a_view_comes_back(toy: Dataset, tmp_path: Path, form: list[str]) -> None:
    assert_same(toy, there_and_back(toy, tmp_path, "--view", "late", *form), view="late")


@pytest.mark.parametrize("form", FORMS)
def test_the_real_bridge_set_comes_back(bridge: Dataset, tmp_path: Path, form: list[str]) -> None:
    back = there_and_back(bridge, tmp_path, *form)
    assert_same(bridge, back)
    assert (len(back), back.manifest["steps"]) == (50, 500)
    for i in (0, 49):
        np.testing.assert_array_equal(bridge.episode(i, "openvla").action, back.episode(i, "openvla").action)


def test_an_export_of_an_export_comes_back_too(toy: Dataset, tmp_path: Path) -> None:
    once = there_and_back(toy, tmp_path / "once", "--video", "none")
    twice = there_and_back(once, tmp_path / "twice", "--video", "none")
    assert_same(toy, twice)


def test_recorded_times_that_are_not_even_come_back(tmp_path: Path) -> None:
    from schemas.source import Field
    from tests.pipelines.toy import FIELDS, write_source, write_spec

    made = episodes(2)
    rng = np.random.default_rng(0)
    field = Field(path="clock", kind="number", dtype="float64")
    for episode in made:
        episode["clock"] = 1e9 + np.cumsum(rng.uniform(0.05, 0.15, len(episode["action"])))
    write_source(tmp_path / "source", made, fields=(*FIELDS, field))
    spec = write_spec(tmp_path, replace={"control_hz = 10\n": 'control_hz = 10\ntimestamp = "clock"\n'})
    assert oxe("convert", spec, "--source", tmp_path / "source", "--out", tmp_path / "ds").code == 0
    dataset = open_dataset(tmp_path / "ds")
    assert_same(dataset, there_and_back(dataset, tmp_path))
