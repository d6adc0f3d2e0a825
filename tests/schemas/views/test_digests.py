"""The digest of a view changes with its result, and not with the location of its code."""

import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest

from schemas.declarations import catalog, ops, vocabulary
from schemas.views import views
from schemas.views.digests import SCHEME, outdated
from schemas.views.views import view, view_names
from tests.schemas.makers import TOY, load

HOOK = '''"""Our lab."""

from schemas.declarations.ops import Steps

FACTOR = 2


def drop_slow(steps: Steps, count: int) -> Steps:
    """Leave out slow steps."""
    return {path: kept(column, count) for path, column in steps.items()}


def kept(column, count):
    return column[:: int(count) * FACTOR]  # every other one
'''


def toy_digest(text: str = TOY, name: str = "openvla") -> str:
    return view(load(text), name).digest


def test_a_digest_says_of_which_kind_it_is() -> None:
    for name in ("openvla", "eef_delta"):
        digest = toy_digest(name=name)
        assert digest.startswith("2-")
        assert len(bytes.fromhex(digest.removeprefix(SCHEME))) == 32


def test_the_digest_is_the_same_in_another_process() -> None:
    names = [(name, v) for name in catalog.dataset_names() for v in view_names(catalog.dataset(name))]
    code = (
        "from schemas.declarations import catalog; from schemas.views.views import view; "
        f"print([view(catalog.dataset(n), v).digest for n, v in {names}])"
    )
    other = subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        capture_output=True,
        text=True,
        cwd=catalog.HERE.parent,
        env={"PYTHONHASHSEED": "7"},
    )
    assert other.stdout.strip() == str([view(catalog.dataset(n), v).digest for n, v in names])


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("drop_first(1)", "drop_first(2)"),
        ("observation.state[:6])", "observation.state[:5])"),
        ('after  = ["relabel', 'action = ["action"]\nafter = ["relabel'),
        ('origin = "achieved"', 'origin = "achieved", frame = "world"'),
    ],
)
def test_the_digest_changes_with_the_declaration(old: str, new: str) -> None:
    assert TOY.count(old) == 1
    assert toy_digest(TOY.replace(old, new)) != toy_digest()


def test_the_digest_does_not_change_with_what_the_view_does_not_use(monkeypatch: pytest.MonkeyPatch) -> None:
    before = toy_digest(), toy_digest(name="eef_delta")
    for word in vocabulary.VERSIONS.keys() - {"drop_first", "relabel_achieved_delta"}:
        monkeypatch.setitem(vocabulary.VERSIONS, word, 2)
    monkeypatch.setitem(views.VERSIONS, "resampled", 2)
    assert (toy_digest(), toy_digest(name="eef_delta")) == before
    assert toy_digest("# comment\n" + TOY.replace("control_hz = 5", "control_hz = 6")) == before[0]


def drop_first(steps: ops.Steps, number: int) -> ops.Steps:
    """Drop the first steps."""
    return ops.drop_first(steps, number)


def test_the_digest_does_not_change_when_an_op_moves_to_another_module(monkeypatch: pytest.MonkeyPatch) -> None:
    before = toy_digest()
    monkeypatch.setitem(vocabulary.STEP_OPS, "drop_first", drop_first)
    assert toy_digest() == before


@pytest.mark.parametrize("word", ["drop_first", "invert", "relabel_achieved_delta"])
def test_the_digest_changes_with_the_version_of_an_op(word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text = TOY.replace('after  = ["relabel', 'action = ["action[:6]", "action[6:] | invert"]\nafter = ["relabel')
    before = toy_digest(text)
    monkeypatch.setitem(vocabulary.VERSIONS, word, 2)
    assert toy_digest(text) != before


def test_the_digest_changes_with_the_version_of_a_built_in_view(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, changes in (("declared", "openvla"), ("eef_delta", "eef_delta")):
        before = {shown: toy_digest(name=shown) for shown in ("openvla", "eef_delta")}
        monkeypatch.setitem(views.VERSIONS, name, 2)
        assert [shown for shown, digest in before.items() if toy_digest(name=shown) != digest] == [changes]


def hook_digest(source: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Register a user's hook without a version, and return the digest of a view that calls it."""
    folder.mkdir(exist_ok=True)
    file = folder / "our_lab.py"
    file.write_text(source)
    spec: Any = spec_from_file_location("our_lab", file)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setitem(vocabulary.STEP_OPS, "drop_slow", module.drop_slow)
    return toy_digest(TOY.replace("drop_first(1)", "drop_slow(1)"))


def test_the_digest_changes_with_the_code_of_a_hook_without_a_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = hook_digest(HOOK, tmp_path, monkeypatch)
    for old, new in (
        ("FACTOR = 2", "FACTOR = 3"),
        ("column[::", "column[1::"),
        ("column, count) for", "column, 1) for"),
    ):
        assert HOOK.count(old) == 1
        assert hook_digest(HOOK.replace(old, new), tmp_path, monkeypatch) != before


def test_the_digest_does_not_change_with_the_layout_or_place_of_a_hook(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = hook_digest(HOOK, tmp_path, monkeypatch)
    for old, new in (("Our lab", "Their lab"), ("out slow", "out"), ("  # every other one", ""), ("\n\n\n", "\n")):
        assert old in HOOK
        assert hook_digest(HOOK.replace(old, new), tmp_path / "elsewhere", monkeypatch) == before


def test_a_hook_gets_a_version_when_it_is_shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(vocabulary.VERSIONS, "drop_slow", 1)
    before = hook_digest(HOOK, tmp_path, monkeypatch)
    assert hook_digest(HOOK.replace("FACTOR = 2", "FACTOR = 1 + 1"), tmp_path, monkeypatch) == before


def test_only_a_digest_from_before_versions_is_outdated() -> None:
    assert outdated(None, "the lock", fix="") is None
    assert outdated(toy_digest(), "the lock", fix="") is None
    assert outdated("0" * 64, "the lock", fix="lock it again") == (
        "the lock was made before views had versions and cannot be checked: lock it again"
    )
