"""Recordings without actions: declared derivations, from the source to the export and back."""

from pathlib import Path

import numpy as np
import pytest

from oxe_tools import open_dataset, standardize
from pipelines.convert.convert import convert
from pipelines.verify import verify
from schemas.declarations import catalog
from schemas.declarations.spec import DatasetSpec
from schemas.errors import SpecError
from schemas.source import Column, Field
from tests.pipelines.toy import oxe
from tests.schemas.declarations.test_derive import ACTION, TOY, declared
from tests.schemas.makers import load, toy_fields, toy_values, write_source


def source(folder: Path, fields: list[Field] | None = None) -> Path:
    """Write recordings without actions."""
    kept = [field for field in fields or toy_fields() if field.path != "action"]
    episodes: list[dict[str, Column]] = [toy_values(steps, seed=seed) for seed, steps in enumerate((5, 3, 1))]
    return write_source(folder, kept, episodes)


def declaration(folder: Path, derivation: str) -> Path:
    path = folder / "toy.toml"
    path.write_text(f'action = {{ derive = "{derivation}" }}\n{TOY.replace(ACTION, "")}')
    return path


@pytest.mark.parametrize("derivation", ["next_state", "achieved_delta"])
def test_what_is_derived_is_stored_verified_and_said(tmp_path: Path, derivation: str) -> None:
    spec = declared(derivation)
    convert(spec, tmp_path / "out", source=str(source(tmp_path / "source")))
    dataset = open_dataset(tmp_path / "out")
    assert verify(dataset, source=str(tmp_path / "source")).first == []
    assert dataset.manifest["spec"]["action"] == {"derive": derivation}
    assert dataset.manifest["columns"]["origins"]["action"] == f"{derivation}(observation.state)"
    assert dataset.columns.action == dataset.spec.action_space
    assert dataset.columns.action.origin == "achieved"
    for i, steps in enumerate((5, 3, 1)):
        stored = dataset.episode(i)
        assert stored.state is not None
        assert len(stored) == steps
        if derivation == "next_state":
            np.testing.assert_array_equal(stored.action, np.concatenate([stored.state[1:], stored.state[-1:]]))
        else:
            assert stored.action[-1].tolist() == [0] * 6 + [stored.state[-1, 6]]
        viewed = dataset.episode(i, view="eef_delta")
        assert len(viewed) == steps - 1
        np.testing.assert_allclose(viewed.action[:, :3], np.diff(stored.state[:, :3], axis=0), atol=1e-6)


@pytest.mark.parametrize("derivation", ["next_state", "achieved_delta"])
def test_an_export_holds_them_as_columns_and_still_says_that_the_last_is_none(tmp_path: Path, derivation: str) -> None:
    convert(declared(derivation), tmp_path / "out", source=str(source(tmp_path / "source")))
    first = open_dataset(tmp_path / "out")
    assert oxe("export", "rlds", first.path, "--out", tmp_path / "rlds/1.0.0").code == 0
    carried = catalog.dataset(str(tmp_path / "rlds/1.0.0"))
    assert (carried.derived, carried.last_action) == (None, "placeholder")
    assert carried.action_space == first.columns.action
    assert oxe("convert", tmp_path / "rlds/1.0.0", "--out", tmp_path / "back").code == 0
    assert oxe("verify", tmp_path / "back").code == 0
    back = open_dataset(tmp_path / "back")
    assert [e.content_hash() for e in back] == [e.content_hash() for e in first]
    assert back.views == first.views
    for view in back.views:
        one, two = first.episode(0, view=view), back.episode(0, view=view)
        assert one.action.tobytes() == two.action.tobytes()
    again = tmp_path / "viewed"
    assert oxe("export", "rlds", first.path, "--view", "eef_delta", "--out", again).code == 0
    assert catalog.dataset(str(again)).has_last_action


def test_in_memory_it_is_the_same(tmp_path: Path) -> None:
    path, values = declaration(tmp_path, "achieved_delta"), toy_values(5, seed=0)
    convert(catalog.dataset(str(path)), tmp_path / "out", source=str(source(tmp_path / "source")))
    dataset = open_dataset(tmp_path / "out")
    steps = {"observation.state": values["observation.state"]}
    for view in (None, "eef_delta", "openvla"):
        assert standardize(str(path), steps, view=view).action.tobytes() == dataset.episode(0, view).action.tobytes()
    with pytest.raises(SpecError, match=r"toy: the action needs the column 'observation.state'"):
        standardize(str(path), {"torque": np.zeros(3)})


def test_actions_that_are_not_there_are_not_made_up(tmp_path: Path) -> None:
    folder = source(tmp_path / "source")
    with pytest.raises(SpecError) as error:
        convert(load(), tmp_path / "out", source=str(folder))
    assert str(error.value).startswith("toy: action.gripper: the source has no 'action'") or str(
        error.value
    ).startswith("toy: action.xyz: the source has no 'action'")
    assert str(error.value).endswith(
        "; if no actions were recorded, derive them from the state: "
        "action = { derive = 'next_state' } or { derive = 'achieved_delta' }"
    )


def test_a_misspelt_action_gets_the_closest_and_no_such_advice(tmp_path: Path) -> None:
    write_source(tmp_path / "source", toy_fields(), [toy_values(3, seed=0)])
    spec: DatasetSpec = load(TOY.replace('xyz     = "action[:3]"', 'xyz     = "actoin[:3]"'))
    with pytest.raises(SpecError, match=r"no 'actoin'; did you mean 'action'\? \(known: [^;]*\)$"):
        convert(spec, tmp_path / "out", source=str(tmp_path / "source"))
