"""A view with its own state: the same in memory, materialized, in statistics, in batches, and in exports."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oxe_tools import open_dataset, standardize, torch_dataset
from pipelines.convert.binding import bind
from pipelines.convert.convert import convert
from pipelines.statistics.numbers import Selection
from pipelines.statistics.statistics import statistics
from pipelines.verify import verify
from schemas.declarations import catalog
from schemas.errors import SourceError, SpecError, UsageError, ViewError
from schemas.source import Array
from schemas.store.arrow import Layout
from schemas.store.dataset import Dataset
from schemas.store.layout import MANIFEST
from schemas.store.manifest import encode_manifest
from schemas.views.views import view
from tests.pipelines.toy import columns, make_toy, oxe, write_spec
from tests.pipelines.toy import write_source as write_toy_source
from tests.schemas.makers import TOY, load, make_episode, publish, toy_fields, toy_values, write_source

LENGTHS = (5, 13, 4)
OWN = """
state = ["observation.state[:3] | scale(1000)", "raw.torque[1:3]", "observation.state[6:] | invert"]

[views.openvla.state_space]
rotation      = "none"
gripper       = "closed_is_1"
parts.xyz     = "position x y z, unknown, absolute"
parts.torque  = "other torque_1 torque_2, unknown, absolute"
parts.gripper = "gripper, 1, absolute"
"""
TEXT = TOY + OWN
NAMES = ["x", "y", "z", "torque_1", "torque_2", "gripper"]


def expected(state: Array, torque: Array) -> Array:
    """Compute the view's state of all stored steps by hand."""
    parts = [state[:, :3] * np.float32(1000), torque.reshape(len(torque), 4)[:, 1:3], 1 - state[:, 6:]]
    return np.concatenate(parts, axis=1).astype(np.float32)


def state_of_steps(dataset: Dataset, i: int) -> Array:
    """Compute the view's state of the steps that it keeps by hand: all but the first and the last."""
    stored = dataset.episode(i)
    assert stored.state is not None
    return expected(stored.state, np.asarray(stored.raw["torque"]))[1:-1]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("states")
    return open_dataset(publish(folder, lengths=LENGTHS, text=TEXT, materialize=("openvla",)))


def test_a_view_has_its_own_state_and_its_meaning(dataset: Dataset) -> None:
    for i, length in enumerate(LENGTHS):
        viewed, stored = dataset.episode(i, view="openvla"), dataset.episode(i)
        assert viewed.state is not None
        np.testing.assert_array_equal(viewed.state, state_of_steps(dataset, i))
        assert viewed.state.dtype == np.float32
        assert (len(viewed), stored.state.shape) == (length - 2, (length, 7))  # type: ignore[union-attr]
        space = viewed.state_space
        assert space is not None
        assert space == dataset.state_space("openvla")
        assert [dim.name for dim in space.dims] == NAMES
        assert (space.frame, space.rotation, space.gripper, space.origin) == ("base", "none", "closed_is_1", "achieved")
        assert stored.state_space == dataset.state_space(None) == dataset.state_space("eef_delta")


def test_step_ops_read_the_stored_state_after_the_views_own_is_computed(dataset: Dataset) -> None:
    """`relabel_achieved_delta(observation.state[:6])` still subtracts stored states."""
    stored, viewed = dataset.episode(0), dataset.episode(0, view="openvla")
    assert stored.state is not None
    np.testing.assert_array_equal(viewed.action[:, :6], np.diff(stored.state[1:, :6], axis=0))


def test_a_materialized_state_is_a_column_with_nulls_where_steps_are_masked(dataset: Dataset) -> None:
    (file,) = dataset.manifest["files"]
    table = pq.read_table(dataset.path / file["path"])
    names = [name for name in table.column_names if "state" in name or "action" in name]
    names = [name for name in names if not name.startswith("raw.")]
    assert names == ["observation.state", "action", "action.openvla", "observation.state.openvla"]
    field = json.loads(table.schema.field("observation.state.openvla").metadata[b"oxe"])
    assert [dim["name"] for dim in field["space"]["dims"]] == NAMES
    assert field["digest"] == dataset.view("openvla").digest
    cells = table["observation.state.openvla"].to_pylist()
    start = 0
    for i, length in enumerate(LENGTHS):
        own = cells[start : start + length]
        assert [cell is None for cell in own] == [True, *[False] * (length - 2), True]
        np.testing.assert_array_equal(np.float32(own[1:-1]), state_of_steps(dataset, i))
        start += length
    assert [dim.name for dim in dataset.columns.views[0].state.dims] == NAMES  # type: ignore[union-attr]


def test_verify_compares_materialized_states_with_the_view(dataset: Dataset, tmp_path: Path) -> None:
    source = str(dataset.path.parent / "source")
    assert verify(dataset, source=source).first == []
    shutil.copytree(dataset.path, tmp_path / "copy")
    spec = load(TEXT.replace("scale(1000)", "scale(999)"))
    manifest = {key: value for key, value in dataset.manifest.items() if key != "xxh3_128"}
    (tmp_path / "copy" / MANIFEST).write_bytes(encode_manifest({**manifest, "spec": spec.to_json()}))
    result = verify(open_dataset(tmp_path / "copy"), source=source).first
    wrong = "observation.state.openvla does not match the view"
    assert result[-3:] == [f"episode {i} (toy-00000{i}): {wrong}" for i in range(3)]


def test_the_layout_of_a_dataset_of_an_earlier_version_is_unchanged() -> None:
    """A view without its own state has no key for it, so an append to such a dataset finds equal columns."""
    layout = bind(load(), toy_fields(), materialize=["openvla"]).layout
    (column,) = layout.to_json()["views"]
    assert column.keys() == {"name", "space", "digest"}
    assert Layout.from_json(json.loads(json.dumps(layout.to_json()))).views == layout.views


def test_an_append_adds_to_the_columns(tmp_path: Path) -> None:
    toy = make_toy(tmp_path, [columns(0), columns(1)])
    write_spec(
        tmp_path, extra='state = ["observation.state[1:]"]\nstate_space.parts.yz = "position y z, m, absolute"\n'
    )
    assert toy.convert("--materialize", "late").code == 0
    write_toy_source(toy.source, [columns(i) for i in range(3)], splits={"train": (2, 1)})
    done = toy.convert("--append", "--materialize", "late")
    assert done.code == 0, done.err
    assert toy.verify().code == 0
    cells = open_dataset(toy.out).to_datasets("train", streaming=True)
    own = [step["observation.state.late"] for step in cells]
    assert [cell is None for cell in own] == [True, False, False] * 3
    wanted = [np.asarray(columns(i)["observation.state"])[1:, 1:] for i in range(3)]
    np.testing.assert_array_equal(np.float32([cell for cell in own if cell is not None]), np.concatenate(wanted))


def test_statistics_are_of_the_views_state(dataset: Dataset) -> None:
    result = statistics(dataset, selection=Selection(view="openvla")).vectors["state"]
    values = np.concatenate([state_of_steps(dataset, i) for i in range(len(LENGTHS))]).astype(np.float64)
    assert [dim.name for dim in result.space.dims] == NAMES
    assert result.count == len(values)
    assert result.mask.all()
    for name, wanted in (("mean", values.mean(axis=0)), ("std", values.std(axis=0))):
        np.testing.assert_allclose(getattr(result, name), wanted, rtol=1e-6, atol=1e-9)
    np.testing.assert_array_equal(result.min, values.min(axis=0))
    np.testing.assert_array_equal(result.max, values.max(axis=0))
    for name, q in (("q01", 0.01), ("q50", 0.5), ("q99", 0.99)):
        np.testing.assert_allclose(getattr(result, name), np.quantile(values, q, axis=0), rtol=1e-6, atol=1e-9)
    stored = statistics(dataset).vectors["state"]
    assert (len(stored.space), stored.count) == (7, sum(LENGTHS))


def test_oxe_stats_writes_it_as_proprio(dataset: Dataset) -> None:
    result = json.loads(oxe("stats", dataset.path, "--view", "openvla", "--format", "openvla").out)["toy"]
    values = np.concatenate([state_of_steps(dataset, i) for i in range(len(LENGTHS))])
    assert result["proprio"].keys() == {"mean", "std", "max", "min", "q01", "q99"}
    np.testing.assert_array_equal(np.float32(result["proprio"]["max"]), values.max(axis=0))


def test_chunks_are_relative_to_the_views_state(tmp_path: Path) -> None:
    """An absolute action minus the state dimension of the same name and unit: here, the view's."""
    text = (
        TOY
        + """
[views.abs]
action = ["observation.state[:3]"]
state  = ["raw.torque[:1]", "observation.state[:3] | shift(1)"]

[views.abs.space]
parts.xyz = "position x y z, m, absolute"

[views.abs.state_space]
parts.torque = "other torque, unknown, absolute"
parts.xyz    = "position x y z, m, absolute"
"""
    )
    dataset = open_dataset(publish(tmp_path, lengths=(6,), text=text))
    result = statistics(dataset, selection=Selection(view="abs", chunk=2)).vectors["action_relative"]
    np.testing.assert_allclose(result.mean[0], [-1, -1, -1], atol=1e-6)


def test_in_memory_it_is_the_same(tmp_path: Path) -> None:
    (tmp_path / "toy.toml").write_text(TEXT)
    dataset = open_dataset(publish(tmp_path, lengths=(13,), text=TEXT))
    values = toy_values(13, seed=0)
    steps: dict[str, Any] = {name: values[name] for name in ("action", "observation.state", "torque")}
    ours = standardize(str(tmp_path / "toy.toml"), steps, view="openvla")
    np.testing.assert_array_equal(ours.state, dataset.episode(0, view="openvla").state)
    assert ours.state_space == dataset.state_space("openvla")
    del steps["torque"]
    with pytest.raises(ViewError, match=r"view 'openvla': unknown key 'raw.torque'"):
        standardize(str(tmp_path / "toy.toml"), steps, view="openvla")


@pytest.mark.parametrize("form", ["rlds", "lerobot"])
def test_an_export_of_the_view_reads_back_its_state(dataset: Dataset, form: str, tmp_path: Path) -> None:
    out = tmp_path / "out/1.0.0"
    more = ("--images", "png") if form == "lerobot" else ()
    done = oxe("export", form, dataset.path, "--view", "openvla", "--out", out, *more)
    assert done.code == 0, done.err
    declared = catalog.dataset(str(out))
    assert declared.state_space is not None
    assert declared.state_space.digest() == dataset.state_space("openvla").digest()  # type: ignore[union-attr]
    assert oxe("convert", out, "--out", tmp_path / "back").code == 0
    back = open_dataset(tmp_path / "back")
    for i in range(len(LENGTHS)):
        np.testing.assert_array_equal(back.episode(i).state, state_of_steps(dataset, i))


def test_frames_for_torch_have_the_views_state(dataset: Dataset) -> None:
    frames = torch_dataset(dataset.path, view="openvla", cameras=(), delta_timestamps={"observation.state": [0, 0.2]})
    first = state_of_steps(dataset, 0)
    np.testing.assert_array_equal(frames[1]["observation.state"], first[1:3])
    assert frames._names["observation.state"] == NAMES


def test_datasets_of_hugging_face_name_its_dimensions(dataset: Dataset) -> None:
    pytest.importorskip("datasets")
    steps = dataset.to_datasets("train", streaming=True)
    assert json.loads(steps.info.description)["names"]["observation.state.openvla"] == NAMES  # type: ignore[union-attr]


def test_a_lower_rate_keeps_the_states_of_its_steps(tmp_path: Path) -> None:
    text = TOY + '\n[views.slow]\nstate = ["observation.state[:3] | scale(2)"]\ncontrol_hz = 2\n'
    text += '\n[views.slow.state_space]\nparts.xyz = "position x y z, unknown, absolute"\n'
    dataset = open_dataset(publish(tmp_path, lengths=(13,), text=text, materialize=("slow",)))
    viewed, stored = dataset.episode(0, view="slow"), dataset.episode(0)
    assert stored.state is not None
    np.testing.assert_array_equal(viewed.state, 2 * stored.state[[0, 2, 5, 7, 10, 12], :3])
    assert verify(dataset, source=str(tmp_path / "source")).first == []


STATELESS = """
name       = "toy"
control_hz = 5

[embodiment]
name       = "toy"
robot      = "toy"
controller = "eef_delta"
action     = { origin = "commanded", frame = "base", parts = { all = "position a b c d e f g, m, delta" } }

[action]
all = "action"

[views.own]
before = ["drop_first(1)"]
state  = ["raw.torque[:3]"]

[views.own.state_space]
origin       = "achieved"
parts.torque = "other t1 t2 t3, unknown, absolute"
"""


def test_a_view_may_have_a_state_where_none_is_stored(tmp_path: Path) -> None:
    dataset = open_dataset(publish(tmp_path, lengths=(5,), text=STATELESS, materialize=("own",)))
    own = np.float32(np.asarray(dataset.episode(0).raw["torque"]).reshape(5, 4)[1:, :3])
    assert (dataset.state_space(None), dataset.episode(0).state) == (None, None)
    np.testing.assert_array_equal(dataset.episode(0, view="own").state, own)
    assert statistics(dataset, selection=Selection(view="own")).vectors["state"].count == 4
    assert "state" not in statistics(dataset).vectors
    assert oxe("verify", dataset.path).code == 0
    assert oxe("export", "rlds", dataset.path, "--view", "own", "--out", tmp_path / "rlds").code == 0
    assert oxe("convert", tmp_path / "rlds", "--out", tmp_path / "back").code == 0
    np.testing.assert_array_equal(open_dataset(tmp_path / "back").episode(0).state, own)


WRONG = {
    "a column that the source does not have": (
        TEXT.replace("raw.torque", "raw.torqe"),
        "toy: views.openvla: view 'openvla': unknown key 'raw.torqe'; did you mean 'raw.torque'?",
    ),
    "fewer numbers than names": (
        TEXT.replace("raw.torque[1:3]", "raw.torque[1:2]"),
        "toy: views.openvla: view 'openvla': its state has 5 columns, its state_space has 6 dimensions",
    ),
    "the meaning of the stored state for fewer numbers": (
        TOY + 'state = ["observation.state[:6]"]',
        "toy: views.openvla: view 'openvla': its state has 6 columns, its state_space has 7 dimensions",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_state_that_does_not_fit_is_refused_before_the_first_episode(what: str, tmp_path: Path) -> None:
    text, message = WRONG[what]
    with pytest.raises(SpecError) as error:
        publish(tmp_path, text=text)
    assert str(error.value).startswith(message)


def test_numbers_that_are_not_finite_are_found(tmp_path: Path) -> None:
    values = toy_values(6, seed=0)
    np.asarray(values["torque"])[3, 0, 1] = np.nan
    source = write_source(tmp_path / "source", toy_fields(), [values])
    convert(load(TEXT), tmp_path / "out", source=str(source))
    dataset = open_dataset(tmp_path / "out")
    with pytest.raises(SourceError, match="state is nan at step 2, dimension 'torque_1'"):
        dataset.episode(0, view="openvla")
    with pytest.raises(UsageError, match="state contains values that are not finite"):
        statistics(dataset, selection=Selection(view="openvla"))
    with pytest.raises(ViewError, match=r"observation\.state has values that are not finite"):
        torch_dataset(dataset.path, view="openvla", cameras=())


def test_datasets_whose_views_have_states_of_other_units_are_not_counted_as_one(tmp_path: Path) -> None:
    one = open_dataset(publish(tmp_path / "one", lengths=LENGTHS, text=TEXT))
    other = TEXT.replace("torque_2, unknown", "torque_2, rad/s")
    assert other != TEXT
    two = open_dataset(publish(tmp_path / "two", lengths=(9,), text=other))
    with pytest.raises(UsageError, match=r"cannot be counted as one: state: .*torque_2"):
        statistics(one, two, selection=Selection(view="openvla"))


def test_the_digest_covers_the_state_and_is_unchanged_without_one() -> None:
    plain, own = view(load(), "openvla"), view(load(TEXT), "openvla")
    digests = {view(load(text), "openvla").digest for text in (TEXT.replace("1000", "10"), TEXT.replace("1:3", "2:4"))}
    digests |= {view(load(TEXT.replace('"closed_is_1"', '"unknown"')), "openvla").digest, own.digest, plain.digest}
    assert len(digests) == 5
    assert plain.digest == "2-3516e4c56b81b75a967268ef1a0d71af8da753d878317bea1d56e35a46d174d5"  # before states
    assert own.columns == {"action", "observation.state", "raw.torque"}
    assert (own.has_state, plain.has_state) == (True, False)


def test_a_state_of_actions_leaves_out_the_placeholder_of_a_derived_action() -> None:
    text = TOY + '\n[views.prior]\naction = ["observation.state"]\nstate = ["action"]\n'
    text = text.replace("language   =", 'last_action = "placeholder"\nlanguage   =')
    assert view(load(text), "prior").of(make_episode(4)).mask.tolist() == [True, True, True, False]


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_rows_of_the_state_are_those_of_the_action(data: st.DataObject) -> None:
    """Whatever steps the ops keep, each state is that of its own stored step."""
    ops = data.draw(st.lists(st.sampled_from(["drop_first(1)", "drop_last(2)", "stride(2)", "drop_noops"]), max_size=4))
    cut = data.draw(st.integers(0, len(ops)))
    text = TOY + "\n[views.some]\n" + f"before = {json.dumps(ops[:cut])}\nafter = {json.dumps(ops[cut:])}\n"
    text += 'state = ["observation.state[2:3]", "raw.torque[1]"]\n'
    text += '\n[views.some.state_space.parts]\na = "other a b, unknown, absolute"\n'
    episode = make_episode(data.draw(st.integers(1, 12)))
    viewed = view(load(text), "some").of(episode)
    assert episode.state is not None
    rows = np.concatenate([episode.state[:, 2:3], np.float32(episode.raw["torque"])[:, 1:2]], axis=1)  # type: ignore[arg-type]
    np.testing.assert_array_equal(viewed.state, rows[viewed.mask])
    assert viewed.state is not None
    assert len(viewed.state) == len(viewed.action)
