"""Exports write joints in shares of their travel with the numbers that were recorded."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pipelines.convert.convert import convert
from pipelines.convert.records import Options
from pipelines.export.recorded import inverse
from schemas.declarations import catalog, expr
from schemas.source import Array
from schemas.store.dataset import open_dataset
from tests.pipelines.toy import oxe

pytest.importorskip("h5py", reason="the extra 'hdf5'")
pytest.importorskip("av", reason="the extra 'lerobot'")

from tests.pipelines.inspect.draft.recordings import LEKIWI, SO, STEPS, Motion, lerobot, so

MOTION = so(101, 105, 98, 95, 60)


def converted(source: Path, embodiment: str, folder: Path, *, keep_raw: bool = True, more: str = "") -> Path:
    (folder / "spec.toml").write_text(
        f'name = "lab"\nsource = {{ format = "lerobot" }}\nembodiment = "{embodiment}"\ncontrol_hz = 30\n'
        f'state = "observation.state"\naction = "action"\n{more}'
    )
    spec = catalog.dataset(str(folder / "spec.toml"))
    convert(spec, folder / "out", source=str(source), options=Options(keep_raw=keep_raw))
    return folder / "out"


def lerobot_vectors(export: Path) -> tuple[Array, Array]:
    table = pq.read_table(min((export / "data").rglob("*.parquet")))
    state, action = (np.stack(table[name].to_numpy()) for name in ("observation.state", "action"))
    return state, action


@pytest.mark.parametrize("version", ["3.0", "2.1"])
def test_lerobot_gets_the_recorded_numbers_and_reads_back(version: str, tmp_path: Path) -> None:
    out = converted(lerobot(tmp_path / "so", "so101_follower", MOTION, SO), "so101_travel", tmp_path)
    assert oxe("export", "lerobot", out, "--out", tmp_path / "export", "--version", version).code == 0
    state, action = lerobot_vectors(tmp_path / "export")
    assert np.array_equal(state[:STEPS], MOTION.state[:STEPS])
    assert np.array_equal(action[:STEPS], MOTION.action[:STEPS])
    assert oxe("verify", tmp_path / "export").code == 0
    spec = catalog.dataset(str(tmp_path / "export"))
    assert {str(text).partition(" | ")[2] for text in spec.state.values()} == {
        "scale(0.01)",
        "scale(0.031415926500000003)",
    }


def test_rlds_gets_the_recorded_numbers_and_reads_back(tmp_path: Path) -> None:
    out = converted(lerobot(tmp_path / "so", "so101_follower", MOTION, SO), "so101_travel", tmp_path)
    export = tmp_path / "export/1.0.0"
    assert oxe("export", "rlds", out, "--out", export).code == 0
    assert oxe("verify", export).code == 0
    tfds = pytest.importorskip("tensorflow_datasets", reason="tensorflow-datasets reads the export")
    pytest.importorskip("array_record", reason="for reading without TensorFlow")
    assert tfds.core is not None
    assert oxe("convert", export, "--out", tmp_path / "back").code == 0
    back, first = (open_dataset(str(path)).episode(0) for path in (tmp_path / "back", out))
    assert np.array_equal(back.state, first.state)
    assert np.array_equal(back.action, first.action)


@pytest.mark.parametrize("keep_raw", [True, False])
def test_a_second_export_of_an_export_keeps_the_numbers(*, keep_raw: bool, tmp_path: Path) -> None:
    source = lerobot(tmp_path / "so", "so101_follower", MOTION, SO)
    first = converted(source, "so101_travel", tmp_path, keep_raw=keep_raw)
    assert oxe("export", "lerobot", first, "--out", tmp_path / "one").code == 0
    assert oxe("verify", tmp_path / "one").code == 0
    assert oxe("convert", tmp_path / "one", "--out", tmp_path / "again").code == 0
    assert oxe("export", "lerobot", tmp_path / "again", "--out", tmp_path / "two").code == 0
    one, two = lerobot_vectors(tmp_path / "one"), lerobot_vectors(tmp_path / "two")
    assert np.allclose(two[0], one[0], rtol=1e-6)
    assert np.allclose(one[0][:STEPS], MOTION.state[:STEPS], rtol=1e-6)
    episodes = [open_dataset(str(path)).episode(1) for path in (first, tmp_path / "again")]
    assert np.array_equal(episodes[0].state, episodes[1].state)


def test_a_view_keeps_the_recorded_unit(tmp_path: Path) -> None:
    source = lerobot(tmp_path / "so", "so101_follower", MOTION, SO)
    out = converted(source, "so101_travel", tmp_path, more='views.slow = { control_hz = 10 }\nviews.same = "action"\n')
    for view in ("slow", "same"):
        assert oxe("export", "lerobot", out, "--view", view, "--out", tmp_path / view).code == 0
        assert oxe("verify", tmp_path / view).code == 0
    _, action = lerobot_vectors(tmp_path / "same")
    assert np.allclose(action[: STEPS - 1], MOTION.action[: STEPS - 1], rtol=1e-6)


def test_a_base_beside_an_arm_is_written_as_recorded(tmp_path: Path) -> None:
    motion = Motion.of([70, 80, 60, 50, 60, 45, 0.2, 0.1, 30], [0, 0, 0, 0, 0, 50, 0, 0, 0])
    out = converted(lerobot(tmp_path / "kiwi", "lekiwi", motion, LEKIWI), "lekiwi_travel", tmp_path)
    assert oxe("export", "lerobot", out, "--out", tmp_path / "export").code == 0
    assert np.array_equal(lerobot_vectors(tmp_path / "export")[0][:STEPS], motion.state[:STEPS])


def test_vectors_without_travel_are_written_as_stored(tmp_path: Path) -> None:
    motion = so(70, 105, 90, 50, 150, is_travel=False)
    out = converted(lerobot(tmp_path / "so", "so101_follower", motion, SO), "so101_degrees", tmp_path)
    assert oxe("export", "lerobot", out, "--out", tmp_path / "export").code == 0
    state, _ = lerobot_vectors(tmp_path / "export")
    assert np.array_equal(state[:STEPS], open_dataset(str(out)).episode(0).state)


OPS = st.sampled_from(
    ["scale(1/100)", "scale(3.14159265/100)", "deg2rad", "shift(-50) | scale(1/50)", "invert", "scale(-1/65)"]
)
NUMBERS = hnp.arrays(np.float32, (20, 3), elements=st.floats(-150, 150, width=32))


@given(OPS, NUMBERS)
def test_the_inverse_of_ops_converts_to_the_same_bits(ops: str, recorded: Array) -> None:
    convert_back = expr.parse(f"v | {ops}")
    stored = convert_back({"v": recorded})
    assert np.array_equal(convert_back({"v": inverse(stored, ops)}), stored)


@pytest.mark.parametrize("form", ["rlds", "lerobot"])
def test_a_views_own_state_in_shares_of_travel_is_exported_for_the_arm_and_reads_back(
    form: str, tmp_path: Path
) -> None:
    more = '[views.half]\nstate = ["observation.state | scale(1/2)"]\n'
    source = lerobot(tmp_path / "so", "so101_follower", MOTION, SO)
    out = converted(source, "so101_travel", tmp_path, more=more)
    own = open_dataset(out).episode(0, view="half").state
    export = tmp_path / "export/1.0.0"
    assert oxe("export", form, out, "--view", "half", "--out", export).code == 0
    assert oxe("verify", export).code == 0
    if form == "lerobot":
        state, action = lerobot_vectors(export)
        np.testing.assert_allclose(state[:STEPS, 0], MOTION.state[:STEPS, 0] / 2, rtol=1e-6)
        np.testing.assert_allclose(action[:STEPS], MOTION.action[:STEPS], rtol=1e-6)
    assert oxe("convert", export, "--out", tmp_path / "back").code == 0
    np.testing.assert_array_equal(open_dataset(tmp_path / "back").episode(0).state, own)
