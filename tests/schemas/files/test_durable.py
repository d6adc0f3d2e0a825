"""Files appear whole under their names, and what a killed process leaves is removed by the next run."""

import ast
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from schemas.files import durable
from tests.power import State, record

ROOT = Path(__file__).parents[3]
PACKAGES = ("schemas", "stats", "pipelines", "finetune", "oxe_tools")
DIE = """
import os, sys
from pathlib import Path
from schemas.files import durable

with durable.{what} as path:
    print(path, flush=True)
    if sys.argv[2] == "die":
        os.kill(os.getpid(), 9)
    sys.stdin.read()
"""


def test_a_file_is_replaced_and_keeps_the_usual_permissions(tmp_path: Path) -> None:
    path = tmp_path / "new" / "below" / "file"
    durable.write(path, b"first")
    durable.write(path, b"second")
    (tmp_path / "usual").touch()
    assert path.read_bytes() == b"second"
    assert list(path.parent.iterdir()) == [path]
    assert path.stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_a_link_at_the_name_is_replaced_and_its_target_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("theirs")
    (tmp_path / "file").symlink_to("other")
    durable.write(tmp_path / "file", b"ours")
    assert (tmp_path / "other").read_text() == "theirs"
    assert not (tmp_path / "file").is_symlink()


def test_an_error_leaves_nothing_and_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "folder" / "x").mkdir(parents=True)
    with pytest.raises(IsADirectoryError, match="folder"):
        durable.write(tmp_path / "folder", b"")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_temporary_names_cannot_be_guessed_and_are_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len({durable.temporary_name() for _ in range(100)}) == 100
    name = durable.temporary_name()
    assert durable.NAME.fullmatch(name)
    (tmp_path / name).symlink_to(tmp_path / "theirs")
    monkeypatch.setattr(durable, "temporary_name", lambda: name)
    with pytest.raises(FileExistsError):
        durable.staged(tmp_path)
    assert not (tmp_path / "theirs").exists()


@pytest.mark.parametrize("what", ["scratch_folder()", 'replacing_folder(Path(sys.argv[1]) / "out")'])
def test_a_folder_of_a_killed_process_is_swept_and_one_in_use_is_not(tmp_path: Path, what: str) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-c", DIE.format(what=what), str(tmp_path)]
    subprocess.run([*command, "die"], check=False, env=environment, stdout=subprocess.DEVNULL)
    (left,) = tmp_path.iterdir()
    (left / "file").touch()
    pipe = subprocess.PIPE
    with subprocess.Popen([*command, "live"], env=environment, stdin=pipe, stdout=pipe, text=True) as live:
        assert live.stdout
        held = Path(live.stdout.readline().strip())
        assert list(tmp_path.iterdir()) == [held]
        durable.sweep(tmp_path)
        assert list(tmp_path.iterdir()) == [held]
        live.communicate("")
    assert [path.name for path in tmp_path.iterdir()] == (["out"] if "out" in what else [])


@pytest.mark.parametrize(
    "how", ["with durable.replacing_folder(out) as new: (new / 'c').write_text('new')", "durable.remove_folder(out)"]
)
def test_a_folder_that_is_replaced_or_removed_is_whole_or_gone_at_any_moment(tmp_path: Path, how: str) -> None:
    (tmp_path / "disk/out/below").mkdir(parents=True)
    for name in ("a", "b", "below/c"):
        (tmp_path / "disk/out" / name).write_text("old")
    code = f"import sys; from pathlib import Path; from schemas.files import durable; out = Path(sys.argv[1])\n{how}"
    recording = record([sys.executable, "-c", code, str(tmp_path / "disk/out")], tmp_path / "disk", tmp_path / "log")
    result = {of_out(recording.state(kept)) for kept in [*recording.prefixes(), *recording.random_losses(300, seed=0)]}
    new = {"out": None, "out/c": b"new"}
    old = {"out": None, "out/below": None, "out/a": b"old", "out/b": b"old", "out/below/c": b"old"}
    end = new if "new" in how else {}
    assert result == {of_out(state) for state in (old, {}, end)}
    durable_ops = {*range(len(recording.ops))} - {*recording.optional(len(recording.ops))}
    assert of_out(recording.state(durable_ops)) == of_out(end)


def of_out(state: State) -> tuple[tuple[str, bytes | None], ...]:
    return tuple((path, content) for path, content in sorted(state.items()) if path.startswith("out"))


def test_what_only_looks_like_a_temporary_file_is_left(tmp_path: Path) -> None:
    names = {f"tmp-{32 * '0'}", f"{durable.temporary_name()}.txt", "tmp-oxe-", f"tmp-oxe-{32 * 'G'}"}
    for name in names:
        (tmp_path / name).touch()
    os.mkfifo(tmp_path / durable.temporary_name())
    (tmp_path / "kept").write_text("")
    (tmp_path / durable.temporary_name()).symlink_to("kept")
    durable.sweep(tmp_path)
    assert {"kept", *names} <= {path.name for path in tmp_path.iterdir()}


def test_a_lock_is_not_opened_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "lock").symlink_to(tmp_path / "theirs")
    with pytest.raises(OSError, match="symbolic links"), durable.locked(tmp_path / "lock"):
        pass
    assert not (tmp_path / "theirs").exists()


def test_a_lock_can_be_waited_for(tmp_path: Path) -> None:
    with durable.locked(tmp_path / "lock"), pytest.raises(BlockingIOError), durable.locked(tmp_path / "lock"):
        pass
    code = "from pathlib import Path; from schemas.files import durable\n"
    code += f"with durable.locked(Path({str(tmp_path / 'lock')!r}), wait=True): print('ours')"
    with durable.locked(tmp_path / "lock"):
        waiting = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        with pytest.raises(subprocess.TimeoutExpired):
            waiting.wait(0.5)
    assert waiting.communicate()[0] == "ours\n"
    assert list(tmp_path.iterdir()) == []


def test_a_new_folder_can_be_listed_by_all(tmp_path: Path) -> None:
    with durable.replacing_folder(tmp_path / "out") as folder:
        (folder / "file").touch()
    (tmp_path / "usual").mkdir()
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == stat.S_IMODE((tmp_path / "usual").stat().st_mode)


WRITES = {"write_text", "write_bytes", "rename", "copyfile", "copy2", "mkstemp", "mkdtemp", "TemporaryDirectory"}
MODES = {"w", "wb", "w+b", "x", "xb"}
ALLOWED = {
    "schemas/files/durable.py",
    "schemas/mixture/lock.py",  # gives the new table its usual name after the commit
    "oxe_tools/testing.py",  # copies a source into a temporary folder of a test
    # write to a staged file that their caller adopts, or to a scratch folder
    "pipelines/export/rlds/writer.py",
    "pipelines/export/lerobot/video.py",
    "pipelines/readers/rosbag/files.py",
}


def test_no_other_module_renames_or_writes_files_itself() -> None:
    found = set()
    for path in [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                name = getattr(node.func, "attr", getattr(node.func, "id", ""))
                modes = {arg.value for arg in node.args if isinstance(arg, ast.Constant)}
                if name in WRITES or (name == "open" and modes & MODES):
                    found.add(path.relative_to(ROOT).as_posix())
    assert found == ALLOWED
