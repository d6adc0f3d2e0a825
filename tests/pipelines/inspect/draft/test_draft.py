"""`oxe inspect --draft`: the drafts of whole sources, and their conversion once they are filled in."""

import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from oxe_tools.demo.recorder import LABS, record
from pipelines.convert.convert import convert
from schemas.declarations import catalog
from schemas.declarations.spec import todos
from schemas.errors import SpecError
from schemas.source import Field
from schemas.store.dataset import open_dataset
from tests.makers import write_hdf5
from tests.pipelines.toy import FIELDS, columns, oxe, write_source

WORDS = {"control_hz": "10", "frame": '"base"', "gripper": '"open_is_1"', "robot": '"arm"', "controller": '"eef"'}


def filled(text: str, words: Mapping[str, str]) -> str:
    """Replace each TODO line by line, as a user who knows the robot would."""
    lines = []
    for line in text.splitlines():
        code, mark, comment = line.partition("  # ")
        key = code.partition("=")[0].strip()
        if not line.startswith("#") and "TODO" in code:
            code = code.replace("scale(1/TODO)", f"scale(1/{words.get('width', '1')})")
            code = re.sub(r'"TODO( [^,"]+), TODO, ', rf'"{words.get(key, "other")}\1, unknown, ', code)
            code = code.replace(", TODO", ", unknown") if key.startswith("parts") else code
            code = code.replace('"TODO"', words.get(key, '"unknown"'))
        lines.append(code + mark + comment)
    return "\n".join(lines)


def drafted(source: Path, target: Path, *more: str) -> str:
    done = oxe("inspect", source, "--draft", target, *more)
    assert done.code == 0, done.err
    return target.read_text()


ROTATION = {"demo_kitchen": '"euler_xyz"', "demo_bench": "", "demo_cell": '"quat_wxyz"'}


@pytest.mark.parametrize("lab", LABS)
def test_the_draft_of_a_demo_lab_converts_to_the_numbers_of_the_shipped_declaration(lab: str, tmp_path: Path) -> None:
    record(lab, tmp_path / "source")
    text = drafted(tmp_path / "source", tmp_path / "draft.toml")
    assert f"# Shipped declarations that fit these fields ('oxe datasets show NAME'): {lab}." in text
    done = filled(text, {**WORDS, "rotation": ROTATION[lab], "width": "0.08"})
    (tmp_path / "draft.toml").write_text(done)
    spec = catalog.dataset(str(tmp_path / "draft.toml"))
    source = catalog.source_of(str(tmp_path / "draft.toml"), spec)
    assert convert(spec, tmp_path / "ours", source=source).kept == 4
    assert oxe("verify", tmp_path / "ours").code == 0
    convert(catalog.dataset(lab), tmp_path / "theirs", source=str(tmp_path / "source"))
    ours, theirs = (open_dataset(tmp_path / name) for name in ("ours", "theirs"))
    for i in range(4):
        a, b = ours.episode(i), theirs.episode(i)
        assert a.state is not None
        assert b.state is not None
        assert np.abs(a.action - b.action).max() < 1e-6
        assert np.abs(a.state - b.state).max() < 1e-6
        assert a.instructions == b.instructions
    assert {c.role for c in ours.columns.cameras} == {c.role for c in theirs.columns.cameras}


def test_a_draft_is_refused_by_name_until_it_is_filled_in(tmp_path: Path) -> None:
    record("demo_kitchen", tmp_path / "source")
    left = todos(tomllib.loads(drafted(tmp_path / "source", tmp_path / "draft.toml")))
    assert {"embodiment.robot", "embodiment.state.rotation", "control_hz"} <= {*left}
    calls: list[list[Any]] = [
        ["convert", tmp_path / "draft.toml", "--out", tmp_path / "out"],
        ["convert", tmp_path / "draft.toml", "--out", tmp_path / "out", "--dry-run"],
        ["datasets", "check", tmp_path / "draft.toml"],
    ]
    for call in calls:
        done = oxe(*call)
        assert (done.code, done.err.count("\n")) == (2, 1)
        assert f"TODO is left in {len(left)} keys: {', '.join(left)}" in done.err
    assert not (tmp_path / "out").exists()


def test_nothing_is_overwritten_unasked_and_a_dash_prints(tmp_path: Path) -> None:
    source = write_source(tmp_path / "toy", [columns(0, steps=40)])
    target = tmp_path / "draft.toml"
    text = drafted(source, target)
    again = oxe("inspect", source, "--draft", target)
    assert (again.code, again.err) == (2, f"oxe: {target}: exists; pass --overwrite to replace it\n")
    assert drafted(source, target, "--overwrite") == text
    printed = oxe("inspect", source, "--draft", "-")
    assert tomllib.loads(printed.out)["source"] == {"format": "rlds", "uri": str(source)}
    assert "expected a .toml file" in oxe("inspect", source, "--draft", tmp_path / "draft.json").err


def test_the_source_is_named_as_seen_from_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_source(tmp_path / "data/toy", [columns(0, steps=40)])
    (tmp_path / "specs").mkdir()
    monkeypatch.chdir(tmp_path)
    text = drafted(Path("data/toy"), Path("specs/toy.toml"))
    assert tomllib.loads(text)["source"]["uri"] == "../data/toy"


def test_json_has_every_claim_with_its_confidence_and_evidence(tmp_path: Path) -> None:
    record("demo_bench", tmp_path / "source")
    told = oxe("inspect", tmp_path / "source", "--draft", "-", "--json").json()["draft"]
    assert told["action"]["frame"]["value"] == "tool"
    assert told["action"]["frame"]["confidence"] == "high"
    assert "R2 1.00" in told["action"]["frame"]["evidence"]
    assert told["todo"] == todos(tomllib.loads(told["text"]))
    assert told["state"]["parts"]["xyz"]["expression"] == "observation.tcp_pose[0:3] | scale(1/1000)"


@pytest.mark.parametrize("how", ["next_state", "achieved_delta"])
def test_a_source_without_actions_offers_to_derive_them_and_converts_then(how: str, tmp_path: Path) -> None:
    fields = [field for field in FIELDS if field.path != "action"]
    fields = [*fields, Field(path="observation.tcp_pose", kind="number", dtype="float32", shape=(7,))]
    turns = np.random.default_rng(0).normal(size=(40, 4))
    pose = np.concatenate(
        [np.linspace(0.1, 0.5, 120).reshape(40, 3), turns / np.linalg.norm(turns, axis=1)[:, None]], 1
    )
    source = write_source(
        tmp_path / "toy",
        [columns(0, steps=40) | {"observation.tcp_pose": pose.astype(np.float32)}],
        fields=[field for field in fields if field.path != "observation.state"],
    )
    text = drafted(source, tmp_path / "draft.toml")
    assert tomllib.loads(text)["action"] == {"derive": "TODO"}
    assert all(word in text for word in ("next_state", "achieved_delta"))
    done = filled(text, {**WORDS, "rotation": '"quat_xyzw"'}).replace('"unknown" }', f'"{how}" }}')
    (tmp_path / "draft.toml").write_text(done)
    spec = catalog.dataset(str(tmp_path / "draft.toml"))
    assert convert(spec, tmp_path / "out", source=str(source)).kept == 1
    assert len(open_dataset(tmp_path / "out").episode(0).action_space) == {"next_state": 7, "achieved_delta": 6}[how]


def test_a_field_that_is_called_success_is_the_outcome_where_it_is_true_or_false(tmp_path: Path) -> None:
    for dtype, found in (("bool", "episode_metadata.success"), ("float32", None)):
        field = Field(path="episode_metadata.success", kind="number", dtype=dtype, per_step=False)
        made = [columns(i, steps=9) | {field.path: np.array([i / 2]).astype(dtype)} for i in range(3)]
        source = write_source(tmp_path / dtype, made, fields=[*FIELDS, field])
        assert tomllib.loads(drafted(source, tmp_path / f"{dtype}.toml")).get("success") == found


def test_a_draft_says_of_how_many_episodes_its_evidence_is(tmp_path: Path) -> None:
    source = write_source(tmp_path / "toy", [columns(i, steps=20) for i in range(3)])
    head = "# Proposed by 'oxe inspect --draft' from "
    assert drafted(source, tmp_path / "all.toml").startswith(f"{head}3 episodes (60 steps) of ")
    assert drafted(source, tmp_path / "few.toml", "--limit", "2").startswith(f"{head}2 of 3 episodes (40 steps) of ")


def test_texts_of_the_source_cannot_break_out_of_a_comment(tmp_path: Path) -> None:
    text = 'open\n"] = 1 \x00 \u2028 [evil]'.encode()
    source = write_source(tmp_path / "toy", [columns(0, steps=3, language_instruction=[text] * 3)])
    told = tomllib.loads(drafted(source, tmp_path / "draft.toml"))
    assert told["language"] == "language_instruction"
    assert "evil" not in told


def test_odd_paths_are_quoted_and_the_draft_still_loads(tmp_path: Path) -> None:
    odd = Field(path="observation.wrist cam #1", kind="image", dtype="uint8", shape=(None, None, 3), encoding="jpeg")
    made = columns(0, steps=3)
    source = write_source(tmp_path / "toy", [made | {odd.path: made["observation.image"]}], fields=[*FIELDS, odd])
    assert tomllib.loads(drafted(source, tmp_path / "draft.toml"))["cameras"]["wrist"] == odd.path


@pytest.fixture
def teleop(tmp_path: Path) -> Path:
    """Record joints in degrees as HDF5: T + 1 observations, a slower clock, timestamps and a robot."""
    pytest.importorskip("h5py", reason="the extra 'hdf5'")
    groups = {}
    for i in range(3):
        rng = np.random.default_rng(i)
        angles = 60 * np.cumsum(rng.normal(size=(61, 6)), axis=0) / 8 + 40
        groups[f"data/demo_{i}"] = {
            "action": angles[1:],
            "observations/joint_position": angles,
            "observations/top": np.zeros((61, 4, 4, 3), np.uint8),
            "observations/side": np.zeros((60, 4, 4, 3), np.float32),
            "observations/ticks": np.zeros(20),
            "observations/scan": np.zeros(20 + i),
            "timestamp": np.arange(60) / 30 + rng.uniform(0, 0.002, 60),
        }
    env = {"data": {"env_args": json.dumps({"env_kwargs": {"robots": "Panda", "control_freq": 30}})}}
    return write_hdf5(tmp_path / "lab/demo.hdf5", groups, env).parent


def test_fields_of_other_lengths_are_declared_and_the_draft_converts(teleop: Path, tmp_path: Path) -> None:
    done = oxe("inspect", teleop, "--draft", tmp_path / "draft.toml")
    assert done.code == 1  # columns of unequal length without drop_last and ignore
    text = (tmp_path / "draft.toml").read_text()
    told = tomllib.loads(text)
    assert told["source"]["drop_last"] == ["observations.joint_position", "observations.top"]
    assert (
        "observations.side: [4, 4, 3] numbers per step may be an image. If so, declare its layout in source.frames"
        in text
    )
    assert told["source"]["per_episode"] == ["observations.ticks"]
    assert told["source"]["ignore"] == ["observations.scan"]
    assert "(1, with the same number of rows in each): observations.ticks (rows: 20, steps: 60)." in text
    assert "(1, with other numbers of rows than steps): observations.scan (rows: 20, steps: 60)." in text
    assert (told["control_hz"], told["timestamp"], told["id"]) == (30, "timestamp", "episode_path")
    assert told["embodiment"]["robot"] == "Panda"
    assert told["state"] == {"joints": "observations.joint_position | deg2rad"}
    (tmp_path / "draft.toml").write_text(filled(text, {"parts.part": "joint", "controller": '"joint_position"'}))
    spec = catalog.dataset(str(tmp_path / "draft.toml"))
    assert convert(spec, tmp_path / "out", source=str(teleop)).kept == 3


def test_a_controller_that_the_recording_describes_is_known(tmp_path: Path) -> None:
    pytest.importorskip("h5py", reason="the extra 'hdf5'")
    told = {"robots": ["Panda", "Sawyer"], "control_freq": 20}
    told |= {"controller_configs": {"type": "OSC_POSE", "control_delta": True}}
    actions = np.sign(np.random.default_rng(0).normal(size=(40, 14)))
    env = {"data": {"env_args": json.dumps({"env_kwargs": told})}}
    source = write_hdf5(tmp_path / "lab/demo.hdf5", {"data/demo_0": {"actions": actions}}, env).parent
    draft = tomllib.loads(drafted(source, tmp_path / "draft.toml"))
    assert draft["embodiment"]["action"]["parts"]["arm1_xyz"] == "position arm1_x arm1_y arm1_z, controller, delta"
    assert draft["action"]["arm1_gripper"] == "actions[13:14] | shift(1) | scale(1/2) | invert"
    assert draft["embodiment"]["robot"] == "Panda and Sawyer"
    assert todos(draft) == ["embodiment.action.frame"]


@pytest.mark.parametrize(
    ("thing", "turns"), [("cube_orientations", 12), ("lamp_quat", 4), ("Can_to_robot0_eef_quat", 4)]
)
def test_the_rotation_of_the_state_is_the_tools_and_not_an_objects(thing: str, turns: int, tmp_path: Path) -> None:
    pytest.importorskip("h5py", reason="the extra 'hdf5'")
    groups = {}
    for i in range(2):
        rng = np.random.default_rng(i)
        drawn = rng.normal(size=(40, 4 + turns))
        quaternions = drawn.reshape(40, -1, 4) / np.linalg.norm(drawn.reshape(40, -1, 4), axis=2)[..., None]
        groups[f"data/demo_{i}"] = {
            "actions": rng.normal(size=(40, 7)),
            "obs/eef_pos": np.cumsum(rng.normal(size=(40, 3)), axis=0) / 50,
            "obs/eef_quat": quaternions[:, 0],
            f"obs/{thing}": quaternions[:, 1:].reshape(40, turns),
        }
    source = write_hdf5(tmp_path / "lab/demo.hdf5", groups).parent
    text = drafted(source, tmp_path / "draft.toml")
    assert tomllib.loads(text)["state"] == {"xyz": "obs.eef_pos", "rotation": "obs.eef_quat"}
    assert f"# By their names not of the robot, kept as raw.*: obs.{thing}." in text


def test_nothing_readable_is_an_error_of_one_line(tmp_path: Path) -> None:
    source = write_source(tmp_path / "toy", [])
    done = oxe("inspect", source, "--draft", "-")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "cannot draft: none of the first episodes can be read" in done.err


@pytest.mark.realdata
def test_bridge_is_recognized_and_what_its_numbers_do_not_show_is_open(realdata: Path) -> None:
    told = oxe("inspect", realdata / "rlds/octo_debug_bridge", "--draft", "-", "--json").json()["draft"]
    assert told["shipped"] == ["bridge_dataset"]
    assert told["action"]["parts"]["xyz"]["mode"]["value"] == "delta"
    assert told["action"]["frame"]["value"] == "TODO"
    assert "have the same direction (correlation 0.8" in told["state"]["gripper"]["evidence"]
    assert told["action"]["gripper"]["value"] == "TODO"
    assert told["text"].count("| invert") == 1


@pytest.mark.realdata
@pytest.mark.parametrize("name", ["v1.4.1/lift", "v1.4.1/handover/panda_panda", "v1.0.1/wipe/panda"])
def test_drafts_of_robosuite_convert_when_filled_in(realdata: Path, name: str, tmp_path: Path) -> None:
    source = realdata / "hdf5_robosuite" / name
    oxe("inspect", source, "--draft", tmp_path / "draft.toml")
    text = (tmp_path / "draft.toml").read_text()
    assert 'robot      = "Panda' in text
    (tmp_path / "draft.toml").write_text(filled(text, {**WORDS, "control_hz": "20"}))
    with pytest.raises(SpecError, match="TODO is left"):
        catalog.dataset(_written(tmp_path / "again.toml", text))
    spec = catalog.dataset(str(tmp_path / "draft.toml"))
    report = convert(spec, tmp_path / "out", source=str(source))
    assert (report.kept, report.quarantined) == (report.source, {})
    assert oxe("verify", tmp_path / "out").code == 0


def _written(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


@pytest.mark.realdata
@pytest.mark.parametrize("name", ["lerobot_v30/rebot_devarm", "lerobot_v20/gr1_picknplace"])
def test_drafts_of_lerobot_take_its_names_rate_and_robot_and_convert(realdata: Path, name: str, tmp_path: Path) -> None:
    pytest.importorskip("av", reason="the extra 'lerobot'")
    text = drafted(realdata / name, tmp_path / "draft.toml")
    told = tomllib.loads(text)
    assert told["embodiment"]["robot"] in {"reBot B601 (DM)", "GR1ArmsOnly"}
    assert told["control_hz"] in {20, 30}
    assert len(todos(told)) <= 2
    (tmp_path / "draft.toml").write_text(filled(text, WORDS))
    spec = catalog.dataset(str(tmp_path / "draft.toml"))
    source = catalog.source_of(str(tmp_path / "draft.toml"), spec)
    report = convert(spec, tmp_path / "out", source=source)
    assert (report.kept, report.quarantined) == (report.source, {})
