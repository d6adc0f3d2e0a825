import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.declarations import catalog, robots, spec
from schemas.declarations.spec import DatasetSpec
from schemas.declarations.tables import SpaceSpec
from schemas.declarations.vocabulary import ARRAY_OPS
from schemas.errors import SpecError
from schemas.spaces import Dim, Space
from tests.schemas.makers import TOY, load, make_space

NAMES = catalog.dataset_names()


def vector(declared: DatasetSpec, steps: dict[str, Any]) -> list[float]:
    """Compute the stored action."""
    return np.concatenate([expression(steps) for expression in declared.action_parts], axis=1)[0].tolist()


def test_the_parts_are_put_in_the_spaces_order_however_the_table_is_written() -> None:
    table = 'xyz     = "action[:3]"\nrpy     = "action[3:6]"\ngripper = "action[6:] | binarize_gripper"'
    assert table in TOY
    declared = load(TOY.replace(table, "\n".join(reversed(table.splitlines()))))
    assert list(declared.action) == ["gripper", "rpy", "xyz"]
    action = np.float32([[1, 2, 3, 4, 5, 6, 0]])
    again = spec.from_json(json.loads(json.dumps(declared.to_json())), where="manifest")
    for one in (declared, again):
        assert vector(one, {"action": action}) == action[0].tolist()
        assert [dim.name for dim in one.action_space.dims] == ["x", "y", "z", "roll", "pitch", "yaw", "gripper"]


def test_the_state_is_put_in_the_spaces_order_too() -> None:
    declared = load(
        TOY.replace('xyz     = "observation.state[:3]"\n', "").replace(
            "[action]", 'xyz = "observation.state[:3]"\n[action]', 1
        )
    )
    assert list(declared.state) == ["rpy", "gripper", "xyz"]
    state = np.float32([[1, 2, 3, 4, 5, 6, 7]])
    parts = [expression({"observation.state": state}) for expression in declared.state_parts]
    assert np.concatenate(parts, axis=1).tolist() == state.tolist()


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_declaration_survives_json(name: str) -> None:
    declared = catalog.dataset(name)
    again = spec.from_json(json.loads(json.dumps(declared.to_json())), where="manifest")
    assert again == declared
    assert again.digest() == declared.digest()
    assert list(again.action) == list(declared.action)
    assert again.views == declared.views


def changed(old: str, new: str) -> str:
    assert TOY.count(old) == 1, old
    return TOY.replace(old, new)


STATELESS = """
name       = "toy"
control_hz = 5

[embodiment]
name       = "toy"
robot      = "toy"
controller = "eef_delta"
action     = { origin = "commanded", frame = "base", parts = { xyz = "position x y z, m, delta" } }

[action]
xyz = "action"

[views.openvla]
"""
WRONG = {
    "an unknown key": (
        changed("control_hz", "control_hx"),
        (
            "toy.toml: unknown key 'control_hx'; did you mean 'control_hz'? (known: action, aliases, cameras, "
            "citation, control_hz, decode, depth, description, embodiment, errata, fields, filters, homepage, id, "
            "language, last_action, license, max_pixels, name, raw, size, source, state, success, and 3 more)"
        ),
    ),
    "an unknown key of a view": (
        changed("before =", "befor ="),
        (
            "toy.toml: views.openvla: unknown key 'befor'; did you mean 'before'? (known: action, after, before, "
            "control_hz, space, state, state_space, unavailable)"
        ),
    ),
    "an unknown key of a source": (
        'source = { format = "rlds", url = "x" }\n' + TOY,
        ("toy.toml: source: unknown key 'url'; did you mean 'uri'? (known: format, mirror, uri, version)"),
    ),
    "a missing name": (changed('name       = "toy"', ""), "toy.toml: name: Field required"),
    "a name that is a path": (
        changed('"toy"', '"../toy"'),
        "toy.toml: name: String should match pattern '^[A-Za-z0-9][A-Za-z0-9_.-]*$'",
    ),
    "a missing part": (
        changed('rpy     = "action[3:6]"', ""),
        "toy.toml: action.rpy: is required; the embodiment's action has this part",
    ),
    "an unknown part": (
        changed('rpy     = "action[3:6]"', 'ryp = "action[3:6]"'),
        "toy.toml: action.ryp: the embodiment has no such part; did you mean 'rpy'? (known: gripper, rpy, xyz)",
    ),
    "an unknown state part": (
        changed('rpy     = "observation.state[3:6]"', 'joints = "observation.state[3:6]"'),
        "toy.toml: state.joints: the embodiment has no such part. (known: gripper, rpy, xyz)",
    ),
    "a bad expression": (
        changed("binarize_gripper", "binarise_gripper"),
        (
            "toy.toml: action.gripper: unknown op 'binarise_gripper'; did you mean 'binarize_gripper'? "
            f"(known: {', '.join(sorted(ARRAY_OPS))})"
        ),
    ),
    "an expression that is not a text": (changed('"action[:3]"', "3"), "toy.toml: action.xyz: must be a string"),
    "a bad step op": (
        changed("drop_first(1)", "drop_first(x)"),
        (
            "toy.toml: views.openvla.before.0: op 'drop_first' is used as drop_first(count): "
            "count must be a whole number from 0"
        ),
    ),
    "an unknown embodiment": (
        changed("widowx_eef_delta", "widowx_eef"),
        "toy.toml: embodiment: unknown embodiment 'widowx_eef'; did you mean 'widowx_eef_delta'? (known: "
        + ", ".join([*catalog.embodiment_names()[:24], f"and {len(catalog.embodiment_names()) - 24} more)"]),
    ),
    "a word that a view's space does not know": (
        changed('origin = "achieved"', 'origin = "measured"'),
        "toy.toml: views.openvla.space: origin: Input should be 'commanded' or 'achieved'",
    ),
    "a key that a view's space does not know": (
        changed('origin = "achieved"', 'orgin = "achieved"'),
        (
            "toy.toml: views.openvla.space: unknown key 'orgin'; did you mean 'origin'? (known: frame, gripper, "
            "origin, parts, rotation)"
        ),
    ),
    "a view's state that is not an expression": (
        changed("before =", 'state = ["observation.state[:3"]\nbefore ='),
        "toy.toml: views.openvla.state.0: 'observation.state[:3': expected ']', found 'the end'",
    ),
    "a view's state in one text": (
        changed("before =", 'state = "observation.state"\nbefore ='),
        "toy.toml: views.openvla.state: Input should be a valid tuple",
    ),
    "a word that the space of a view's state does not know": (
        changed("before =", 'state = ["raw.width"]\nstate_space.parts.width = "gripper width, cm, absolute"\nbefore ='),
        (
            "toy.toml: views.openvla.state_space: parts.width.unit: Input should be 'm', 'rad', 'm/s', 'rad/s', 's', "
            "'1', 'travel', 'controller' or 'unknown'"
        ),
    ),
    "a Space without the view's state that it describes": (
        changed("before =", 'state_space.frame = "world"\nbefore ='),
        ("toy.toml: views.openvla: state_space: describes the view's own state; add its expressions, state = [...]"),
    ),
    "a view's state whose embodiment has none, without its Space": (
        STATELESS.replace("[views.openvla]", '[views.openvla]\nstate = ["raw.width"]'),
        "toy.toml: views.openvla.state_space: origin: Field required; parts: Field required",
    ),
    "a format nobody reads": (
        'source = { format = "rldz" }\n' + TOY,
        (
            "toy.toml: source.format: unknown format 'rldz'; did you mean 'rlds'? "
            "(known: folder, hdf5, lerobot, rlds, rosbag, zarr)"
        ),
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_declaration_names_file_key_and_fix(what: str) -> None:
    text, message = WRONG[what]
    with pytest.raises(SpecError) as error:
        load(text)
    assert str(error.value) == message


@pytest.mark.parametrize("hz", ["0", "-5", "nan", "inf", "-inf"])
def test_a_rate_that_is_not_above_zero_is_refused(hz: str) -> None:
    with pytest.raises(SpecError) as error:
        load(changed("control_hz = 5", f"control_hz = {hz}"))
    assert str(error.value) == "toy.toml: control_hz: must be a number above 0; leave it out if it is unknown"


def test_an_unknown_rate_is_left_out() -> None:
    assert load(changed("control_hz = 5", "")).control_hz is None


def test_text_that_is_not_toml_is_refused_with_its_place() -> None:
    with pytest.raises(SpecError, match=r"toy.toml: is not TOML \(.*line 2"):
        load("a = 1\nb =\n")


EMBODIMENT = """
name = "arm"
robot = "Arm"
controller = "delta"
[action]
origin = "commanded"
[action.parts]
xyz = { kind = "position", dims = ["x", "y", "z"], unit = "m", mode = "delta" }
"""


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            '"m"',
            '"mm"',
            (
                "action.parts.xyz.unit: Input should be 'm', 'rad', 'm/s', 'rad/s', 's', '1', 'travel', 'controller' "
                "or 'unknown'"
            ),
        ),
        (
            '"delta" }',
            '"relative" }',
            "action.parts.xyz.mode: Input should be 'delta', 'absolute', 'velocity' or 'unknown'",
        ),
        ('kind = "position", ', "", "action.parts.xyz.kind: Field required"),
        (
            "unit =",
            "units =",
            "action.parts.xyz: unknown key 'units'; did you mean 'unit'? (known: dims, kind, mode, unit)",
        ),
    ],
)
def test_a_wrong_embodiment_names_file_key_and_fix(old: str, new: str, message: str) -> None:
    assert old in EMBODIMENT
    with pytest.raises(SpecError) as error:
        robots.load(EMBODIMENT.replace(old, new), where="arm.toml")
    assert str(error.value) == f"arm.toml: {message}"


def test_an_embodiment_may_stand_in_the_declaration_itself() -> None:
    inline = EMBODIMENT.replace("[action", "[embodiment.action").replace('name = "arm"', '[embodiment]\nname = "arm"')
    declared = load(f'name = "toy"\naction = {{ xyz = "a" }}\n{inline}')
    assert declared.action_space.name == "action"
    assert declared.state_space is None


def test_the_digest_follows_the_content_and_not_the_comments() -> None:
    assert load(TOY).digest() == load("# a comment\n" + TOY).digest()
    assert load(TOY).digest() != load(changed("action[:3]", "action[0:3]")).digest()


def test_one_language_key_is_a_list_of_one() -> None:
    assert load(TOY).language_keys == ("language_instruction",)
    assert load(changed('"language_instruction"', '["a", "b"]')).language_keys == ("a", "b")


def test_a_view_changes_what_it_says_of_the_space_and_nothing_else() -> None:
    declared = load()
    space = declared.view_space("openvla")
    assert space.origin == "achieved"
    assert space.name == "openvla"
    assert space.dims == declared.action_space.dims


DIMS = st.builds(
    Dim,
    st.text("abc", min_size=1),
    st.sampled_from(["m", "rad", "1"]),
    st.sampled_from(["delta", "absolute"]),
    st.sampled_from(["position", "rotation", "gripper", "joint"]),
)


@given(st.lists(DIMS, max_size=12))
def test_a_space_can_be_described_and_built_again(dims: list[Dim]) -> None:
    space = make_space(dims=tuple(dims))
    described = SpaceSpec.of(space)
    assert described.space(space.name) == space
    values = np.arange(len(dims))
    taken = [values[slice(*map(int, part[2:-1].split(":")))] for part in described.slices("a").values()]
    assert np.concatenate([*taken, np.zeros(0, int)]).tolist() == values.tolist()


@pytest.mark.parametrize("name", NAMES)
def test_the_shipped_spaces_can_be_described_and_built_again(name: str) -> None:
    declared = catalog.dataset(name)
    spaces: list[Space | None] = [declared.action_space, declared.state_space]
    assert all(SpaceSpec.of(space).space(space.name) == space for space in spaces if space)


# Short forms


def test_a_view_may_be_the_stored_action_or_another_view() -> None:
    views = load(TOY + '\n[views]\nplain = "action"\nocto = "openvla"\nagain = "octo"\n').views
    assert views["octo"] == views["again"] == views["openvla"]
    assert views["plain"].model_dump(exclude_defaults=True) == {}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('octo = "opnvla"', "views.octo: 'opnvla' is neither 'action' nor another view"),
        ('a = "b"\nb = "a"', "views.a: 'b' is neither 'action' nor another view"),
    ],
)
def test_a_view_named_after_nothing_is_refused(line: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        load(TOY + f"\n[views]\n{line}\n")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ('[decode]\n"x" = "zlib"', "decode.x: unknown decoder 'zlib'. .known: code_points, zlib_float32"),
        ('[decode]\n"x" = "zlib_float32"', "decode.x: its decoded type is required in .fields."),
    ],
)
def test_a_decoder_must_be_known_and_its_result_described(table: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        load(f"{TOY}\n{table}\n")


@pytest.mark.parametrize("name", catalog.dataset_names())
def test_a_shipped_declaration_survives_its_json(name: str) -> None:
    declared = catalog.dataset(name)
    assert spec.from_json(json.loads(json.dumps(declared.to_json())), where="test") == declared


def test_every_key_that_is_still_to_do_is_named_at_once() -> None:
    data = {"name": "lab", "description": "TODO: write more", "source": {"ignore": ["TODO", "a"]}, "control_hz": "TODO"}
    assert spec.todos(data) == ["source.ignore", "control_hz"]
    assert spec.todos({"embodiment": {"state": {"parts": {"xyz": "position x y z, TODO, TODO"}}}}) == [
        "embodiment.state.parts.xyz"
    ]
    assert spec.todos({"name": "TODOS"}) == []


def test_a_declaration_with_something_to_do_is_refused_before_anything_else() -> None:
    with pytest.raises(SpecError, match=r"TODO is left in 1 key: control_hz; replace it with the real value"):
        spec.load('name = "lab"\ncontrol_hz = "TODO"\nnonsense = 1', where="lab.toml", robot=catalog.robot)
    with pytest.raises(SpecError, match="TODO is left in 1 key: robot"):
        robots.load('name = "arm"\nrobot = "TODO"', where="arm.toml")


WHOLE = """
name = "lab"
embodiment = "so101_travel"
state = "observation.state"
action = "both[6:12] | permute(1, 0, 2, 3, 4, 5)"
"""


def test_one_expression_reads_a_whole_vector_as_the_robots_recordings_store_it() -> None:
    declared = spec.load(WHOLE, where="lab.toml", robot=catalog.robot)
    assert {name: str(text) for name, text in declared.state.items()} == {
        "joints": "observation.state[0:4] | scale(1/100)",
        "wrist_roll": "observation.state[4:5] | scale(3.14159265/100)",
        "gripper": "observation.state[5:6] | scale(1/100)",
    }
    numbers = np.arange(12, dtype=np.float32)[None]
    parts = [text({"both": numbers}) for text in declared.action_parts]
    factors = np.float32([0.01] * 4 + [3.14159265 / 100, 0.01])
    assert np.allclose(np.concatenate(parts, axis=1), numbers[:, [7, 6, 8, 9, 10, 11]] * factors)
    assert spec.from_json(declared.to_json(), where="manifest").digest() == declared.digest()


def test_one_expression_needs_an_embodiment_by_name() -> None:
    text = WHOLE.replace('"so101_travel"', '{ name = "arm", robot = "arm", controller = "c" }')
    with pytest.raises(SpecError, match=r"lab.toml: state: give an expression for each part, or name an embodiment"):
        spec.load(text, where="lab.toml", robot=catalog.robot)
