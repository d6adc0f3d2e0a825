from pathlib import Path

import pytest
import tomli_w

from schemas.declarations import catalog
from schemas.errors import SpecError
from tests.schemas.makers import TOY, load


@pytest.mark.parametrize("name", catalog.dataset_names())
def test_every_shipped_declaration_loads_under_its_own_name(name: str) -> None:
    assert catalog.dataset(name).name == name


@pytest.mark.parametrize("path", sorted((catalog.HERE / "embodiments").glob("*.toml")), ids=lambda path: path.stem)
def test_every_shipped_embodiment_loads_under_its_own_name(path: Path) -> None:
    assert catalog.embodiment(path.stem).name == path.stem


def test_a_file_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "my.toml").write_text(TOY)
    assert catalog.dataset(str(tmp_path / "my.toml")) == load(TOY)


def test_a_folder_gives_the_declaration_it_holds(tmp_path: Path) -> None:
    (tmp_path / catalog.DECLARATION).write_text(tomli_w.dumps(load(TOY).to_json()))
    assert catalog.dataset(str(tmp_path)) == load(TOY)


def test_a_shipped_name_wins_over_a_folder_of_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bridge_dataset").mkdir()
    monkeypatch.chdir(tmp_path)
    assert catalog.dataset("bridge_dataset").name == "bridge_dataset"


def test_an_unknown_name_gets_the_closest() -> None:
    with pytest.raises(SpecError) as error:
        catalog.dataset("bridge_datset")
    assert str(error.value).startswith("unknown dataset 'bridge_datset'; did you mean 'bridge_dataset'? (known: ")


def test_an_unknown_embodiment_gets_the_closest() -> None:
    with pytest.raises(SpecError, match="unknown embodiment 'ur5_tool'; did you mean 'ur5_tool_delta'"):
        catalog.embodiment("ur5_tool")


@pytest.mark.parametrize("name", ["../datasets/bridge_dataset", "../embodiments/ur5_tool_delta", "/etc/hostname"])
def test_a_name_is_never_a_path_out_of_the_catalog(name: str) -> None:
    with pytest.raises(SpecError, match=r"unknown dataset|expected a \.toml file"):
        catalog.dataset(name)
    with pytest.raises(SpecError, match="unknown embodiment"):
        catalog.embodiment(name)


def test_a_file_that_is_no_toml_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "my.json").write_text("{}")
    with pytest.raises(SpecError) as error:
        catalog.dataset(str(tmp_path / "my.json"))
    assert str(error.value) == f"{tmp_path}/my.json: is not a declaration; expected a .toml file"


def test_an_embodiment_may_lie_beside_the_declaration(tmp_path: Path) -> None:
    (tmp_path / "arm.toml").write_text((catalog.HERE / "embodiments/widowx_eef_delta.toml").read_text())
    (tmp_path / "my.toml").write_text(TOY.replace('"widowx_eef_delta"', '"arm.toml"'))
    assert catalog.dataset(str(tmp_path / "my.toml")) == load(TOY)
    (tmp_path / "arm.toml").unlink()
    with pytest.raises(SpecError, match=r"my.toml: embodiment: unknown embodiment 'arm.toml'"):
        catalog.dataset(str(tmp_path / "my.toml"))


@pytest.mark.parametrize(
    ("uri", "expected"),
    [("recordings", "{folder}/recordings"), ("/data/toy", "/data/toy"), ("gs://bucket/toy", "gs://bucket/toy")],
)
def test_a_relative_source_is_meant_from_the_declarations_folder(tmp_path: Path, uri: str, expected: str) -> None:
    declared = load(f'source = {{ uri = "{uri}" }}\n' + TOY)
    expected = expected.format(folder=tmp_path)
    assert catalog.source_of(str(tmp_path / "my.toml"), declared) == expected
    assert catalog.source_of(str(tmp_path), declared) == expected


def test_a_folder_that_names_no_source_is_its_own(tmp_path: Path) -> None:
    assert catalog.source_of(str(tmp_path), load()) == str(tmp_path)
    assert catalog.source_of(str(tmp_path / "my.toml"), load()) is None


def test_a_file_that_is_not_there_is_said_so() -> None:
    with pytest.raises(SpecError, match=r"^nowhere/my.toml: no such file$"):
        catalog.dataset("nowhere/my.toml")


def test_a_folder_without_a_declaration_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(SpecError) as error:
        catalog.dataset(str(tmp_path))
    assert str(error.value) == (
        f"{tmp_path}: no oxe_spec.toml in this folder; name a declaration and use --source {tmp_path}"
    )


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "my.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(SpecError, match=r"my.toml: cannot be read \(.*codec"):
        catalog.dataset(str(tmp_path / "my.toml"))


def test_a_wrong_file_is_named_by_the_path_that_was_given(tmp_path: Path) -> None:
    path = tmp_path / "my.toml"
    path.write_text(TOY.replace("control_hz = 5", "control_hz = -1"))
    with pytest.raises(SpecError) as error:
        catalog.dataset(str(path))
    assert str(error.value).startswith(f"{path}: control_hz: must be")


def test_a_declaration_like_another_takes_all_that_it_does_not_say(tmp_path: Path) -> None:
    (tmp_path / "toy.toml").write_text(TOY)
    (tmp_path / "faster.toml").write_text(
        'name = "faster"\nlike = "toy.toml"\ncontrol_hz = 10\n[cameras]\nwrist = "observation.wrist"\n'
    )
    (tmp_path / "renamed.toml").write_text('name = "renamed"\nlike = "faster.toml"\nlanguage = "task"\n')
    faster, renamed = (catalog.dataset(str(tmp_path / f"{name}.toml")) for name in ("faster", "renamed"))
    assert (faster.name, faster.control_hz, faster.language) == ("faster", 10, "language_instruction")
    assert {role: camera.key for role, camera in faster.cameras.items()} == {
        "primary": "observation.image",
        "wrist": "observation.wrist",
    }
    assert renamed == faster.model_copy(update={"name": "renamed", "language": "task"})


def test_a_name_is_meant_from_the_folder_of_the_declaration_that_says_it(tmp_path: Path) -> None:
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab/toy.toml").write_text(TOY)
    (tmp_path / "lab/faster.toml").write_text('name = "faster"\nlike = "toy.toml"\ncontrol_hz = 10\n')
    (tmp_path / "mine.toml").write_text('name = "mine"\nlike = "lab/faster.toml"\n')
    assert catalog.dataset(str(tmp_path / "mine.toml")).control_hz == 10


def test_a_declaration_may_be_like_a_shipped_one(tmp_path: Path) -> None:
    (tmp_path / "my.toml").write_text('name = "my"\nlike = "bridge_orig"\n')
    shipped = catalog.dataset("bridge_dataset")
    found = catalog.dataset(str(tmp_path / "my.toml"))
    assert found.views == shipped.views
    assert found.embodiment == shipped.embodiment


@pytest.mark.parametrize(
    ("like", "why"),
    [
        ("bridge_datset", "no declaration 'bridge_datset'; did you mean 'bridge_dataset'?"),
        ("none.toml", "no declaration 'none.toml'"),
        ("my.toml", "'my.toml' refers back to this file"),
    ],
)
def test_a_declaration_like_nothing_says_why(like: str, why: str, tmp_path: Path) -> None:
    (tmp_path / "my.toml").write_text(f'name = "my"\nlike = "{like}"\n')
    with pytest.raises(SpecError) as error:
        catalog.dataset(str(tmp_path / "my.toml"))
    assert f"my.toml: like: {why}" in str(error.value)


@pytest.mark.parametrize(
    ("other", "name"),
    [("rt1", "fractal20220817_data"), ("fmb", "fmb_dataset"), ("robo_set", "roboset"), ("bridge", "bridge_oxe")],
)
def test_a_shipped_declaration_is_found_by_its_other_names(other: str, name: str) -> None:
    assert catalog.dataset(other).name == name
    assert catalog.source_of(other, catalog.dataset(other)) == catalog.dataset(name).source.uri


def test_a_folder_wins_over_another_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rt1").mkdir()
    (tmp_path / "rt1" / catalog.DECLARATION).write_text(tomli_w.dumps(load(TOY).to_json()))
    monkeypatch.chdir(tmp_path)
    assert catalog.dataset("rt1").name == "toy"


def test_what_a_base_in_another_folder_names_is_found_from_there(tmp_path: Path) -> None:
    (tmp_path / "lab/arms").mkdir(parents=True)
    (tmp_path / "lab/more").mkdir()
    arm = catalog.HERE / "embodiments/widowx_eef_delta.toml"
    (tmp_path / "lab/arms/arm.toml").write_text(arm.read_text())
    text = TOY.replace('"widowx_eef_delta"', '"arms/arm.toml"').replace(
        "[cameras]", '[source]\nuri = "rlds"\n[cameras]'
    )
    (tmp_path / "lab/toy.toml").write_text(text)
    (tmp_path / "lab/more/faster.toml").write_text('name = "faster"\nlike = "../toy.toml"\n')
    (tmp_path / "mine.toml").write_text('name = "mine"\nlike = "lab/more/faster.toml"\n')
    for name in ("mine.toml", "lab/more/faster.toml", "lab/toy.toml"):
        declared = catalog.dataset(str(tmp_path / name))
        assert declared.embodiment == load(TOY).embodiment
        found = catalog.source_of(str(tmp_path / name), declared)
        assert found is not None
        assert Path(found).resolve() == tmp_path / "lab/rlds"


def test_an_alias_wins_over_a_folder_without_a_declaration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fmb").mkdir()
    assert catalog.dataset("fmb").name == "fmb_dataset"
    assert catalog.source_of("fmb", catalog.dataset("fmb")) == catalog.dataset("fmb_dataset").source.uri
    (tmp_path / "fmb" / catalog.DECLARATION).write_text(tomli_w.dumps(load(TOY).to_json()))
    assert catalog.dataset("fmb").name == "toy"


@pytest.mark.parametrize("name", catalog.dataset_names())
def test_no_space_contradicts_itself(name: str) -> None:
    """A Space has a convention for each kind of dimension it has, and for no other."""
    declared = catalog.dataset(name)
    spaces = [declared.action_space, *filter(None, [declared.state_space])]
    spaces += [declared.view_space(view) for view, given in declared.views.items() if not given.unavailable]
    for space in spaces:
        grippers = [space.dims[i] for i in space.indices("gripper")]
        assert (space.gripper != "none") == bool(grippers), space
        assert (space.rotation != "none") == bool(space.indices("rotation")), space
        if space.gripper in {"open_is_1", "closed_is_1"}:
            assert all(dim.mode != "unknown" for dim in grippers), space


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("QT-Opt", "kuka"),
        ("BC-Z", "bc_z"),
        ("VINN", "nyu_door_opening_surprising_effectiveness"),
        ("Dobb-E", "dobbe"),
        ("Bridge Dataset", "bridge_dataset"),
    ],
)
def test_a_name_may_be_punctuated_as_in_papers(word: str, name: str) -> None:
    assert catalog.dataset(word).name == name


@pytest.mark.parametrize("path", ["./kuka", "kuka/", "lab/kuka"])
def test_a_path_is_never_an_alias(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / path).mkdir(parents=True)
    with pytest.raises(SpecError, match=r"no oxe_spec.toml in this folder"):
        catalog.dataset(path)


def test_a_known_set_without_a_published_transform_says_so() -> None:
    assert len(catalog.UNDECLARED) == 12
    assert not set(catalog.UNDECLARED) & set(catalog.dataset_names())
    with pytest.raises(SpecError, match="no declaration for the Open X-Embodiment dataset 'tidybot': its actions"):
        catalog.dataset("tidybot")
