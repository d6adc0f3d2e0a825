"""Every declared dataset of Open X-Embodiment: recordings of its features convert, and its views work."""

from pathlib import Path

import numpy as np
import pytest

from oxe_tools import open_dataset, standardize
from pipelines.convert.convert import convert
from pipelines.export.plan import ExportOptions
from pipelines.export.run import export
from pipelines.verify import verify
from schemas.declarations import catalog
from schemas.errors import SourceError, ViewError
from schemas.views.views import view, view_names
from tests.oxe_tools.recordings import episode, nested, write
from tests.pipelines.toy import oxe
from tests.schemas.makers import TOY

OXE = [name for name in catalog.dataset_names() if not name.startswith("demo_")]
VIEWS = [(name, view) for name in OXE for view in view_names(catalog.dataset(name))]
DIVERSE = {
    "aloha_mobile_dataset",
    "bc_z",
    "berkeley_rpt_converted_externally_to_rlds",
    "bridge_oxe",
    "droid",
    "fractal20220817_data",
    "gnm_dataset",
    "kuka",
    "language_table",
    "maniskill_dataset_converted_externally_to_rlds",
    "uiuc_d3field",
    "viola",
}


def test_the_83_datasets_with_a_known_transform_are_declared() -> None:
    assert len(OXE) == 83


@pytest.mark.parametrize("name", OXE)
def test_a_declaration_says_how_openvla_and_octo_read_it_or_why_not(name: str) -> None:
    declared = catalog.dataset(name)
    assert {"openvla", "octo"} <= declared.views.keys()
    assert any(word in view_names(declared) for word in ("openvla", "octo"))
    for word in {"openvla", "octo"} - {*view_names(declared)}:
        with pytest.raises(ViewError, match=f"{name} has no view '{word}': O"):
            view(declared, word)


@pytest.mark.parametrize("name", OXE)
def test_a_declaration_describes_itself(name: str) -> None:
    declared = catalog.dataset(name)
    assert declared.description.endswith(".")
    assert declared.embodiment.robot
    assert all(line.endswith((".", ")")) for line in declared.errata)


@pytest.mark.parametrize(("name", "chosen"), VIEWS)
@pytest.mark.parametrize("steps", [1, 2, 11])
def test_a_view_has_the_size_that_its_space_says_however_short_the_episode(name: str, chosen: str, steps: int) -> None:
    declared = catalog.dataset(name)
    flat = episode(declared, steps, seed=steps)
    stored = standardize(name, flat)
    assert len(stored) == steps
    viewed = standardize(name, nested(flat), view=chosen)
    assert viewed.action.shape == (len(viewed), len(viewed.action_space))
    assert viewed.action.dtype == np.float32
    if viewed.state is not None:
        assert len(viewed.state) == len(viewed)
    assert stored.instructions == tuple(f"{path} {steps}" for path in declared.language_keys)


@pytest.mark.parametrize(("name", "chosen"), VIEWS)
def test_a_view_takes_integers_and_still_grippers(name: str, chosen: str) -> None:
    declared = catalog.dataset(name)
    flat = {
        path: value if isinstance(value, list) else np.ones_like(value, np.int64)
        for path, value in episode(declared, 9).items()
    }
    flat |= {
        path: value
        for path, value in episode(declared, 9).items()
        if not isinstance(value, list) and value.shape[1:] in {(4, 4), (16,), (24,)}
    }
    if chosen == "octo" and name == "gnm_dataset":
        with pytest.raises(SourceError, match="action is nan at step 0"):  # a dimension that never moves
            standardize(name, flat, view=chosen)
        return
    assert np.isfinite(standardize(name, flat, view=chosen).action).all()


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in DIVERSE else pytest.mark.slow) for name in OXE]
)
def test_recordings_of_its_declared_features_convert_verify_and_give_its_views(name: str, tmp_path: Path) -> None:
    declared = catalog.dataset(name)
    source = write(declared, tmp_path / "source", lengths=(11, 5, 9))
    report = convert(declared, tmp_path / "out", source=str(source))
    dropped = {"filter_success": 1} if declared.filters else {}
    assert (report.kept, report.dropped, report.quarantined) == (3 - len(dropped), dropped, {})
    dataset = open_dataset(tmp_path / "out")
    ends = ["success"] * 3 if declared.filters else ["success", "failure", "success"]
    assert [one.outcome for one in dataset] == (ends if declared.success else ["unknown"] * 3)[: len(dataset)]
    verified = verify(dataset, source=str(source))
    assert (verified.first, verified.source) == ([], "compared")
    assert dataset.views == view_names(declared)
    for chosen in (None, *dataset.views):
        from_disk = dataset.episode(0, view=chosen)
        in_memory = standardize(name, episode(declared, 11), view=chosen)
        np.testing.assert_array_equal(from_disk.action, in_memory.action)
        assert from_disk.action_space == in_memory.action_space
        assert from_disk.instructions == in_memory.instructions
        if in_memory.state is not None:
            assert from_disk.state is not None
            np.testing.assert_array_equal(from_disk.state, in_memory.state)


@pytest.mark.parametrize("name", ["berkeley_autolab_ur5", "kuka", "language_table", "viola"])
def test_an_export_comes_back_with_its_views_filters_applied_and_fields_decoded(name: str, tmp_path: Path) -> None:
    source = write(catalog.dataset(name), tmp_path / "source", lengths=(5, 4))
    convert(catalog.dataset(name), tmp_path / "out", source=str(source))
    first = open_dataset(tmp_path / "out")
    export(first, tmp_path / "rlds/1.0.0", ExportOptions(format="rlds", version="1.0.0"))
    declared = catalog.dataset(str(tmp_path / "rlds"))
    convert(declared, tmp_path / "again", source=str(tmp_path / "rlds"))
    again = open_dataset(tmp_path / "again")
    assert again.views == first.views
    assert [camera.channels for camera in again.columns.cameras] == [c.channels for c in first.columns.cameras]
    for view_name in (None, *first.views):
        before, after = first.episode(0, view=view_name), again.episode(0, view=view_name)
        np.testing.assert_array_equal(before.action, after.action)
        assert before.instructions == after.instructions


def test_show_tells_the_states_of_views(tmp_path: Path) -> None:
    space = 'rotation = "none"\ngripper = "none"\nparts.xyz = "position x y z, m, absolute"\n'
    text = f'{TOY}state = ["observation.state[:3]"]\n[views.openvla.state_space]\n{space}'
    (tmp_path / "toy.toml").write_text(text)
    shown = oxe("datasets", "show", tmp_path / "toy.toml")
    assert "- states of views: openvla: x y z (m, absolute); frame base\n" in shown.out
    views = oxe("datasets", "show", tmp_path / "toy.toml", "--json").json()["views"]
    assert [dim["name"] for dim in views["openvla"]["state_space"]["dims"]] == ["x", "y", "z"]
    assert len(views["eef_delta"]["state_space"]["dims"]) == 7
    assert "states of views" not in oxe("datasets", "show", "bridge_dataset").out
