import json
from pathlib import Path

import numpy as np
import pytest

from oxe_tools.cli.main import main
from pipelines.inspect.check import check, oddities
from schemas.declarations import catalog
from schemas.errors import UsageError
from schemas.source import Field
from tests.pipelines import toy
from tests.schemas.makers import TOY, load, make_space, toy_fields, toy_values, write_source


@pytest.fixture
def source(tmp_path: Path) -> Path:
    half = np.full((5, 7), 0.5, np.float32)
    values = [{**toy_values(5, seed=seed), "action": half, "observation.state": half} for seed in range(4)]
    return write_source(tmp_path / "source", toy_fields(), values)


def test_a_declaration_that_fits_has_no_problem_and_its_ranges_are_told(source: Path) -> None:
    found = check(load(), str(source))
    assert (found.ok, found.problems, found.read, found.dropped) == (True, [], 3, 0)
    assert found.ranges["action"]["x"] == [0.5, 0.5]
    assert found.notes[0].startswith("not in the declaration, kept unchanged: episode_metadata.file_path, ")
    assert check(load(), str(source), episodes=9).read == 4
    assert check(load(), str(source), episodes=0).read == 0


@pytest.mark.parametrize(
    ("hz", "problems"), [(5, []), (15, ["episode 0: control_hz is 15, but the recorded times have 5 steps per second"])]
)
def test_a_rate_that_recorded_times_contradict_is_a_problem(tmp_path: Path, hz: int, problems: list[str]) -> None:
    clock = Field(path="clock", kind="number", dtype="float64")
    toy.write_source(tmp_path / "source", [{**toy.columns(), "clock": np.arange(3) / 5}], fields=(*toy.FIELDS, clock))
    told = {"control_hz = 10": f'control_hz = {hz}\ntimestamp = "clock"', '"action[3:]"': '"action[3:] | clip(0, 1)"'}
    spec = catalog.dataset(str(toy.write_spec(tmp_path, replace=told)))
    assert check(spec, str(tmp_path / "source")).problems == problems


def test_every_missing_key_is_named_at_once(source: Path) -> None:
    text = TOY.replace('"observation.image"', '"observation.imag"').replace('"action[:3]"', '"actoin[:3]"')
    found = check(load(text), str(source))
    assert found.problems == [
        "the source has no 'actoin'; did you mean 'action'?",
        "the source has no 'observation.imag'; did you mean 'observation.image'?",
    ]
    (known,) = [
        note for note in found.notes if note.startswith("the source has: ")
    ]  # once, however many keys are missing
    assert "observation.image" in known
    assert found.read == 0


def test_told_shapes_are_compared(source: Path) -> None:
    fields = '\n[fields]\naction = "[8] x"\n"torque" = "[3] y"\n"observation.force" = "[6] z"\n"note" = "text n"\n'
    found = check(load(TOY + fields), str(source))
    assert found.problems == ["'action': declared with shape [8] per step, the source has [7]"]
    assert found.notes[:2] == [
        "the source has no 'observation.force', which the declaration describes but does not read",
        "'torque': declared with shape [3] per step, the source has [2, 2]",
    ]


def test_images_of_another_size_are_a_note(source: Path) -> None:
    text = TOY.replace('"observation.image"', '{ key = "observation.image", shape = [256, 256, 3] }')
    found = check(load(text), str(source))
    assert found.ok
    assert "'observation.image': declared with images of [256, 256, 3], the source has [16, 24, 3]" in found.notes


def test_episodes_that_do_not_convert_are_problems_and_filtered_ones_are_counted(tmp_path: Path) -> None:
    half = np.full((5, 7), 0.5, np.float32)
    values = [{**toy_values(5, seed=seed), "action": half, "observation.state": half} for seed in range(3)]
    values[0]["action"] = half * np.nan
    source = write_source(tmp_path / "source", toy_fields(), values)
    text = TOY + '\n[filters]\nsuccess = { key = "episode_metadata.success", equals = true }\n'
    found = check(load(text), str(source))
    assert found.dropped == 1
    (problem,) = found.problems
    assert problem.startswith("episode 0: non_finite_action: ")
    assert problem.endswith("byte 0: episode toy-000000: action is nan at step 0, dimension 'x'")


def test_a_source_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no RLDS dataset here"):
        check(load(), str(tmp_path))


ODD = {
    "millimetres": (make_space(mode="absolute"), 0, 1200.0, "x ranges from 0 to 1200: too far for metres"),
    "degrees": (make_space(mode="absolute"), 3, -170.0, "r0 ranges from -170 to 0: too large for radians"),
    "a gripper from -1": (make_space(), 6, -1.0, "gripper ranges from -1 to 0: a gripper must range from 0 to 1"),
}


@pytest.mark.parametrize("what", ODD)
def test_numbers_that_contradict_their_space_are_odd(what: str) -> None:
    space, column, value, expected = ODD[what]
    values = np.zeros((2, 7), np.float32)
    values[1, column] = value
    assert [text[: len(expected)] for text in oddities(values, space)] == [expected]


def test_quaternions_have_length_one_and_grippers_may_overshoot_a_little() -> None:
    space = make_space(mode="absolute", rotation="quat_xyzw")
    values = np.float32([[0, 0, 0, 0, 0, 0.6, 0.8, 1.115]])
    assert list(oddities(values, space)) == []
    assert list(oddities(values * 2, space))[-1] == "the quaternions have lengths from 2 to 2, expected 1"


@pytest.mark.realdata
def test_bridge_as_it_is_fits_its_declaration(realdata: Path) -> None:
    found = check(catalog.dataset("bridge_dataset"), str(realdata / "rlds/octo_debug_bridge"))
    assert found.problems == []
    assert found.read == 3


def test_the_command_exits_1_with_problems(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "toy.toml").write_text(TOY.replace('"action[:3]"', '"actoin[:3]"'))
    with pytest.raises(SystemExit) as end:
        main(["datasets", "check", str(tmp_path / "toy.toml"), "--source", str(source), "--json"])
    assert end.value.code == 1
    shown = capsys.readouterr()
    assert json.loads(shown.out)["ok"] is False
    assert "oxe: toy: 1 problems" in shown.err
    (tmp_path / "toy.toml").write_text(TOY)
    with pytest.raises(SystemExit) as end:
        main(["datasets", "check", str(tmp_path / "toy.toml"), "--source", str(source)])
    assert end.value.code == 0
    with pytest.raises(SystemExit) as end:
        main(["datasets", "check", str(tmp_path / "toy.toml")])
    assert end.value.code == 2
    assert "the declaration names no source; pass --source" in capsys.readouterr().err
