"""The outputs of every op and built-in view, by name and version, are those of `tests/data/op_outputs.json`.

Rows never change, because published locks and statistics depend on them. To add an op, write rows without an "output"
under `name@1`. To change the result of an op, raise its version. Then `UPDATE_GOLDEN=1 pytest
tests/schemas/declarations` computes missing outputs; a new version uses the inputs of the previous one.
"""

import base64
import copy
import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from schemas.declarations.tables import ViewSpec
from schemas.declarations.vocabulary import ARRAY_OPS, DECODERS, STEP_OPS, VERSIONS
from schemas.spaces import Space
from schemas.views import views
from schemas.views.resample import resampled
from tests.docs.toy import ROOT

FILE = ROOT / "tests/data/op_outputs.json"
UPDATE = "UPDATE_GOLDEN=1 pytest tests/schemas/declarations/test_op_outputs.py"
CURRENT = {**VERSIONS, **views.VERSIONS}
TOLERANCE = 1e-5  # absolute and relative, because processors and libraries round differently

Row = dict[str, Any]
Table = dict[str, dict[str, Row]]  # name@version -> case -> row


def table() -> Table:
    found: Table = json.loads(FILE.read_text())
    return found


# JSON of values: {"float32": [[1.0, "nan"]]}, for empty arrays with a "shape"; byte strings as {"base64": [...]}


def from_json(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    if "base64" in value:
        return [base64.b64decode(text) for text in value["base64"]]
    dtype = next(iter(value), "")
    if dtype not in {"float32", "float64", "int32", "int64", "bool"}:
        return {name: from_json(inner) for name, inner in value.items()}
    found = np.array(value[dtype], dtype)
    return found.reshape(value["shape"]) if "shape" in value else found


def to_json(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: to_json(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return {"base64": [base64.b64encode(item).decode() for item in value]}
    numbers = [float(str(x)) if value.dtype.kind == "f" else x.item() for x in value.ravel()]
    words = np.array([x if np.isfinite(x) else str(x) for x in numbers], object).reshape(value.shape).tolist()
    return {value.dtype.name: words} | ({} if value.size else {"shape": list(value.shape)})


def written(found: Table) -> str:
    """Format the table with one line per row."""
    blocks = []
    for key, rows in found.items():
        lines = [f"  {json.dumps(case)}: {json.dumps(row)}" for case, row in rows.items()]
        blocks.append(f" {json.dumps(key)}: {{\n" + ",\n".join(lines) + "\n }")
    return "{\n" + ",\n".join(blocks) + "\n}\n"


def computed(name: str, row: Row) -> Any:
    """Compute the current output of an op or built-in view for a row's input."""
    given = {key: from_json(value) for key, value in row.items() if key not in {"output", "space", "state_space"}}
    args = [from_json(arg) for arg in row.get("args", ())]
    space = Space.from_json(row["space"]) if "space" in row else None
    state_space = Space.from_json(row["state_space"]) if row.get("state_space") else None
    if name in DECODERS:
        return DECODERS[name](given["column"])
    if name in ARRAY_OPS:
        return ARRAY_OPS[name](given["x"], *args)
    if name in STEP_OPS:
        return STEP_OPS[name](given["steps"], *args)
    assert space is not None
    if name == "resampled":
        return resampled(given["steps"], row["control_hz"], space)
    if name == "declared":
        make = partial(views._declared_view, view_spec=ViewSpec.model_validate(row["view"]), space=space)
    else:
        make = partial(views._eef_view, action=space, state=state_space)
    viewed = views._viewed(given["steps"], make, cut=row["cut"])
    return {"action": viewed.action, "mask": viewed.mask}


def differs(expected: Any, found: Any) -> str | None:
    """Describe a difference of two outputs that is larger than rounding, or return None."""
    if isinstance(expected, Mapping):
        if expected.keys() != found.keys():
            return f"columns {sorted(found)}, not {sorted(expected)}"
        return next((f"{key}: {why}" for key in expected if (why := differs(expected[key], found[key]))), None)
    if not isinstance(expected, np.ndarray):
        return None if expected == found else f"{found}, not {expected}"
    if (expected.dtype, expected.shape) != (found.dtype, found.shape):
        return f"{found.dtype} {found.shape}, not {expected.dtype} {expected.shape}"
    is_close = np.allclose(found, expected, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True)
    return None if is_close else f"{found.tolist()}, not {expected.tolist()}"


def changed(before: Table, now: Table) -> list[str]:
    """List the rows that have changed."""
    return [
        f"{key}, {case}: {'changed' if case in now.get(key, {}) else 'is gone'}"
        for key, rows in before.items()
        for case, row in rows.items()
        if now.get(key, {}).get(case) != row
    ]


def completed(found: Table) -> Table:
    """Compute only the missing outputs."""
    out = copy.deepcopy(found)
    for name, version in CURRENT.items():
        earlier = [out[f"{name}@{n}"] for n in range(version, 0, -1) if f"{name}@{n}" in out]
        inputs = [{k: v for k, v in row.items() if k != "output"} for row in earlier[0].values()] if earlier else []
        rows = out.setdefault(f"{name}@{version}", dict(zip(earlier[0], inputs, strict=True)) if earlier else {})
        for row in rows.values():
            if "output" not in row:
                row["output"] = to_json(computed(name, row))
    return out


def committed(repository: Path) -> Iterator[tuple[str, Table]]:
    """Read the table of every commit that changed it, at its path at the time."""
    glob = f":(glob)**/{FILE.name}"
    listed = git(repository, "log", "--full-history", "--diff-filter=d", "--format=#%H", "--name-only", "--", glob)
    commit = ""
    for line in filter(None, listed.splitlines()):
        if line.startswith("#"):
            commit = line[1:]
        else:
            yield commit, json.loads(git(repository, "show", f"{commit}:{line}"))


def git(repository: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(repository), *arguments], check=True, capture_output=True, text=True)
    return done.stdout


def test_every_op_and_built_in_view_has_rows_of_its_version() -> None:
    if os.environ.get("UPDATE_GOLDEN"):
        FILE.write_text(written(completed(table())))
    found = table()
    assert written(found) == FILE.read_text(), "one row a line, as the command writes them"
    assert found == completed(found), f"outputs are missing; to add them: {UPDATE}"
    few = [name for name, version in CURRENT.items() if len(found[f"{name}@{version}"]) < 2]
    assert few == [], "write at least two rows of input for each"


@pytest.mark.parametrize("name", CURRENT)
def test_what_it_computes_is_what_its_rows_say(name: str) -> None:
    for case, row in table()[f"{name}@{CURRENT[name]}"].items():
        why = differs(from_json(row["output"]), computed(name, row))
        assert why is None, f"{name}, {case}: gives {why}; if this is meant, raise its version, then {UPDATE}"


def test_another_output_is_noticed_and_rounding_is_not() -> None:
    for name, version in CURRENT.items():
        for row in table()[f"{name}@{version}"].values():
            output = from_json(row["output"])
            action = output["action"] if isinstance(output, dict) else output
            if isinstance(action, np.ndarray) and action.size:
                action[...] = action * np.float32(1 + 1e-7)
                assert differs(from_json(row["output"]), output) is None
                action.flat[-1] = 9.87
                assert differs(from_json(row["output"]), output)
            assert differs(output, action[:-1] if not isinstance(output, dict) else {}) or not len(action)


def test_no_row_that_was_ever_committed_has_changed_or_vanished() -> None:
    try:
        is_ours = Path(git(ROOT, "rev-parse", "--show-toplevel").strip()) == ROOT.resolve()
    except (OSError, subprocess.CalledProcessError):
        is_ours = False
    if not is_ours:
        pytest.skip("no git history here")
    now, commits = table(), list(committed(ROOT))
    assert commits
    for commit, before in commits:
        assert changed(before, now) == [], f"rows of commit {commit}: put them back, and raise the version instead"


def test_a_row_that_changes_or_vanishes_is_noticed_after_a_move_too(tmp_path: Path) -> None:
    before = {"clip@1": {"a": {"x": [1], "output": [1]}, "b": {"x": [2], "output": [2]}}}
    now = {"clip@1": {"a": {"x": [1], "output": [1.5]}}, "clip@2": before["clip@1"]}
    git(tmp_path, "init")
    author = ("-c", "user.name=n", "-c", "user.email=e")
    for folder, content in (("old", before), ("new", now)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / FILE.name).write_text(written(content))
        git(tmp_path, "add", "--all")
        git(tmp_path, *author, "commit", "--message", folder)
        (tmp_path / folder / FILE.name).unlink()
    seen = dict(committed(tmp_path))
    assert list(seen.values()) == [now, before]
    assert changed(before, now) == ["clip@1, a: changed", "clip@1, b: is gone"]
    assert changed(before, {**before, "clip@2": {}}) == []


def test_a_new_version_is_computed_from_the_inputs_of_the_one_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CURRENT, "invert", 2)
    monkeypatch.setitem(ARRAY_OPS, "invert", ARRAY_OPS["deg2rad"])
    before = table()
    after = completed(before)
    assert changed(before, after) == []
    assert after.keys() - before.keys() == {"invert@2"}
    for case, row in after["invert@2"].items():
        assert row["x"] == before["invert@1"][case]["x"]
        assert differs(from_json(row["output"]), computed("deg2rad", row)) is None
