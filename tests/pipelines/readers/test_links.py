"""Links, FIFOs and devices in a source of every format: what is followed, and what is refused."""

import contextlib
import os
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.readers.folder import SourceFolder
from pipelines.readers.links import links_followed
from pipelines.readers.reader import Reader, plan
from pipelines.readers.registry import open_source
from schemas.declarations.formats import SourceSpec
from schemas.errors import SourceError
from schemas.source import RawEpisode, Unreadable
from tests.makers import write_hdf5
from tests.pipelines.readers.writers import WRITERS
from tests.pipelines.toy import Toy, make_toy, oxe

OPTION = "--follow-links"


@pytest.fixture(params=WRITERS)
def declared(request: pytest.FixtureRequest, tmp_path: Path) -> SourceSpec:
    return WRITERS[request.param](tmp_path / "source")


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def move(source: Path, to: Callable[[Path], Path]) -> None:
    """Move every file of a source, and leave a link to it."""
    for file in files(source):
        target = to(file)
        target.parent.mkdir(parents=True, exist_ok=True)
        file.rename(target)
        file.symlink_to(os.path.relpath(target, file.parent))


def opened(source: Path, declared: SourceSpec, *, follow: bool = False) -> Reader:
    return open_source(str(source), declared, follow_links=follow)


def values(source: Path, declared: SourceSpec, *, follow: bool = False) -> list[str]:
    """Return everything that a source holds; no episode may be unreadable."""
    reader = opened(source, declared, follow=follow)
    episodes = [raw for ref in plan(reader.files()) for raw in reader.read(ref)]
    assert [raw.detail for raw in episodes if isinstance(raw, Unreadable)] == []
    columns = [{**raw.steps, **raw.metadata} for raw in episodes if isinstance(raw, RawEpisode)]
    return [str({path: plain(column) for path, column in each.items()}) for each in columns]


def plain(column: Any) -> Any:
    if isinstance(column, memoryview):
        return bytes(column)
    if isinstance(column, np.ndarray):
        return column.tolist()
    return [*map(plain, column)] if isinstance(column, Sequence) and not isinstance(column, str | bytes) else column


def refusals(source: Path, declared: SourceSpec, *, follow: bool = False) -> list[tuple[str, str]]:
    """Return the reason and the message of each error; the episodes that are read must be those that were recorded."""
    try:
        reader = opened(source, declared, follow=follow)
        values = [value for ref in plan(reader.files()) for value in reader.read(ref)]
    except SourceError as error:
        return [(error.reason, str(error))]
    return [(value.reason, value.detail) for value in values if isinstance(value, Unreadable)]


# --- every format ---


def test_links_inside_a_source_are_followed(declared: SourceSpec, tmp_path: Path) -> None:
    source = tmp_path / "source"
    before = values(source, declared)
    move(source, lambda file: source / ".store" / file.relative_to(source).as_posix().replace("/", "_"))
    assert values(source, declared) == before


def test_links_of_a_hugging_face_cache_are_followed(declared: SourceSpec, tmp_path: Path) -> None:
    snapshot = tmp_path / "hub/datasets--lab--arm/snapshots/0123abc"
    snapshot.parent.mkdir(parents=True)
    before = values(tmp_path / "source", declared)
    (tmp_path / "source").rename(snapshot)
    move(snapshot, lambda file: snapshot.parents[1] / "blobs" / str(abs(hash(file))))
    assert values(snapshot, declared) == before


def test_the_source_itself_may_be_a_link(declared: SourceSpec, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "source")
    assert values(tmp_path / "link", declared) == values(tmp_path / "source", declared)


def test_links_that_leave_a_source_are_refused_unless_they_are_followed(declared: SourceSpec, tmp_path: Path) -> None:
    source = tmp_path / "source"
    before = values(source, declared)
    move(source, lambda file: tmp_path / "outside" / file.relative_to(source))
    errors = refusals(source, declared)
    assert errors
    assert {reason for reason, _ in errors} == {"unsafe_link"}
    assert all(OPTION in message for _, message in errors)
    assert values(source, declared, follow=True) == before


def test_a_folder_that_is_a_link_is_a_link(declared: SourceSpec, tmp_path: Path) -> None:
    source = tmp_path / "source"
    before = values(source, declared)
    for folder in [path for path in source.iterdir() if path.is_dir()]:
        folder.rename(tmp_path / folder.name)
        folder.symlink_to(tmp_path / folder.name)
        errors = refusals(source, declared)
        assert errors
        assert all(reason == "unsafe_link" and OPTION in message for reason, message in errors)
        assert values(source, declared, follow=True) == before
        folder.unlink()
        (tmp_path / folder.name).rename(folder)


def put(path: Path, kind: str, outside: Path) -> None:
    """Put something at a path that is not a regular file of the source."""
    if kind == "FIFO":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as unix, contextlib.chdir(path.parent):  # a socket's path must be short
            unix.bind(path.name)
    else:
        path.symlink_to({"device": Path("/dev/zero"), "link": outside}[kind])


@pytest.mark.parametrize(
    ("kind", "follow", "reason"),
    [
        ("FIFO", False, "special_file"),
        ("FIFO", True, "special_file"),
        ("socket", False, "special_file"),
        ("device", False, "unsafe_link"),
        ("device", True, "special_file"),
        ("link", False, "unsafe_link"),
    ],
)
def test_any_file_that_is_not_a_regular_one_inside_is_refused(
    declared: SourceSpec, tmp_path: Path, kind: str, *, follow: bool, reason: str
) -> None:
    source, outside = tmp_path / "source", tmp_path / "outside"
    chosen = files(source)
    for file in chosen[:: max(1, len(chosen) // 3)]:
        file.rename(outside)
        put(file, kind, outside)
        errors = refusals(source, declared, follow=follow)
        assert reason in {reason for reason, _ in errors}, file
        assert all(OPTION in message for found, message in errors if found == reason)
        file.unlink()
        outside.rename(file)


# --- the rules ---


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Write files inside and outside of a source."""
    for name in ("source/a/x", "source/b/y", "outside/z"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    return tmp_path / "source"


def link(path: Path, target: Path | str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)


def reason(read: Callable[[], object]) -> str:
    with pytest.raises(SourceError) as raised:
        read()
    return raised.value.reason


@pytest.mark.parametrize(
    "name", ["leaf", "folder/z", "folder/deep/../z", "chain", "dangling", "prefix", "up/outside/z"]
)
def test_each_way_out_is_refused(source: Path, name: str) -> None:
    outside = source.parent / "outside"
    (outside / "deep").mkdir()
    link(source / "leaf", outside / "z")
    link(source / "folder", "../outside")
    link(source / "chain", "link")
    link(source / "link", "../outside/z")
    link(source / "dangling", "/nonexistent/file")
    link(source / "prefix", f"{source}-more")  # its path starts with that of the source
    Path(f"{source}-more").write_bytes(b"")
    link(source / "up", "..")
    folder = SourceFolder.at(str(source))
    for read in (folder.read, folder.open, folder.open_parts, folder.size, folder.local_path):
        assert reason(lambda read=read: read(name)) == "unsafe_link"  # type: ignore[misc]
    assert reason(lambda: folder.sizes(["a/x", name])) == "unsafe_link"
    assert reason(lambda: folder.tails(["a/x", name], 1)) == "unsafe_link"
    assert reason(lambda: folder.child("folder").names()) == "unsafe_link"
    assert reason(lambda: folder.is_folder("folder")) == "unsafe_link"


@pytest.mark.parametrize("name", ["../outside/z", "a/../../outside/z", ".."])
def test_a_name_that_goes_up_is_refused(source: Path, name: str) -> None:
    assert reason(lambda: SourceFolder.at(str(source)).read(name)) == "unsafe_path"


def test_links_that_stay_inside_are_followed(source: Path) -> None:
    link(source / "b/to_file", "../a/x")
    link(source / "to_folder", source / "a")
    link(source / "round/about", "../../source/a/x")  # leaves the source and comes back
    folder = SourceFolder.at(str(source))
    for name in ("b/to_file", "to_folder/x", "round/about", "./a//x"):
        assert folder.read(name) == b"source/a/x"
    assert folder.is_folder("to_folder")
    assert folder.names("to_folder") == ("x",)
    assert folder.child("b").read("to_file") == b"source/a/x"


def test_the_root_of_the_file_system_contains_every_link(source: Path) -> None:
    link(source / "leaf", "../outside/z")
    assert SourceFolder.at("/").read(str(source / "leaf").lstrip("/")) == b"outside/z"


def test_a_file_that_is_the_source_may_be_a_link(source: Path) -> None:
    link(source / "z.hdf5", "../outside/z")
    link(source / "other.hdf5", source.parent / "elsewhere")
    folder, name = SourceFolder.around(str(source / "z.hdf5"), (".hdf5",))
    assert folder.read(name) == b"outside/z"
    assert reason(lambda: folder.read("other.hdf5")) == "unsafe_link"


@pytest.mark.parametrize(
    ("target", "loop"),
    [("back", "a/back"), (".", "a/back"), ("..", "a/back"), ("../../source", "a/back"), ("../b", "a/back/forth")],
)
def test_a_loop_of_links_is_one_error(source: Path, target: str, loop: str) -> None:
    link(source / "a/back", target)
    link(source / "b/forth", "../a")
    folder = SourceFolder.at(str(source))
    assert not folder.is_folder(loop)
    assert folder.names(loop) == ()
    for name in (loop, f"{loop}/x", f"{loop}/{loop}"):
        assert reason(lambda name=name: folder.read(name)) == "unsafe_link"  # type: ignore[misc]


@pytest.mark.parametrize("kind", ["datasets", "models", "spaces"])
def test_a_cache_of_hugging_face_links_to_its_own_blobs_only(tmp_path: Path, kind: str) -> None:
    for repository in (f"{kind}--lab--arm", f"{kind}--lab--other", "plain"):
        (tmp_path / repository / "snapshots/0/data").mkdir(parents=True)
        (tmp_path / repository / "blobs").mkdir()
        (tmp_path / repository / "blobs/f00").write_bytes(repository.encode())
        link(tmp_path / repository / "snapshots/0/data/x.hdf5", "../../../blobs/f00")
    mine = tmp_path / f"{kind}--lab--arm"
    link(mine / "snapshots/0/data/stolen", tmp_path / f"{kind}--lab--other/blobs/f00")
    link(mine / "snapshots/0/data/ref", "../../../refs/main")
    for below, name in (
        ("snapshots/0", "data/x.hdf5"),
        ("snapshots/0/data", "x.hdf5"),
        ("", "snapshots/0/data/x.hdf5"),
    ):
        assert SourceFolder.at(str(mine / below)).read(name) == mine.name.encode()
    link(tmp_path / "link", mine / "snapshots/0/data")
    assert SourceFolder.at(str(tmp_path / "link")).read("x.hdf5") == mine.name.encode()
    file = mine / "snapshots/0/data/x.hdf5"
    folder, name = SourceFolder.around(str(file), (".hdf5",))
    assert folder.read(name) == mine.name.encode()
    snapshot = SourceFolder.at(str(mine / "snapshots/0"))
    for name in ("data/stolen", "data/ref"):
        assert reason(lambda name=name: snapshot.read(name)) == "unsafe_link"  # type: ignore[misc]
    assert reason(lambda: SourceFolder.at(str(tmp_path / "plain/snapshots/0")).read("data/x.hdf5")) == "unsafe_link"


def test_the_setting_ends_with_its_block(source: Path) -> None:
    link(source / "leaf", "../outside/z")
    with links_followed(follow=True):
        followed = SourceFolder.at(str(source))
    assert followed.read("leaf") == b"outside/z"
    assert reason(lambda: SourceFolder.at(str(source)).read("leaf")) == "unsafe_link"


# --- the commands ---


@pytest.fixture
def toy(tmp_path: Path) -> Toy:
    """Write a source whose shards are links to a folder outside."""
    toy = make_toy(tmp_path)
    for shard in toy.source.glob("*.tfrecord*"):
        (tmp_path / "outside").mkdir(exist_ok=True)
        shard.rename(tmp_path / "outside" / shard.name)
        link(shard, tmp_path / "outside" / shard.name)
    return toy


@pytest.mark.parametrize(
    "command",
    [
        "inspect {source}",
        "inspect {source} --draft -",
        "datasets check {spec} --source {source}",
        "convert {spec} --source {source} --out {out} --dry-run",
        "convert {spec} --source {source} --out {out}",
    ],
)
def test_each_command_that_opens_a_source_names_the_option_and_has_it(toy: Toy, command: str) -> None:
    words = command.format(source=toy.source, spec=toy.spec, out=toy.out).split()
    refused = oxe(*words)
    assert (refused.code, refused.out) == (2, "")
    assert "a link that leaves the source: refused; pass --follow-links" in refused.err
    assert not toy.out.exists()
    assert oxe(*words, OPTION).code != 2


def test_a_conversion_that_followed_links_is_continued_and_verified_in_the_same_way(toy: Toy) -> None:
    assert toy.convert(OPTION).code == 0
    assert toy.convert(OPTION).code == 0
    assert toy.convert().code == 2  # other options than before
    assert toy.verify().code == 0
    moved = toy.source.rename(toy.folder / "moved")
    assert toy.verify("--source", str(moved)).code == 0


def test_links_that_appear_after_a_conversion_are_refused_by_verify(tmp_path: Path) -> None:
    toy = make_toy(tmp_path)
    assert toy.convert().code == 0
    for shard in toy.source.glob("*.tfrecord*"):
        shard.rename(tmp_path / shard.name)
        link(shard, tmp_path / shard.name)
    refused = toy.verify("--source", str(toy.source))
    assert (refused.code, OPTION in refused.err) == (2, True)
    assert toy.verify("--source", str(toy.source), OPTION).code == 0


def test_workers_follow_links_too(toy: Toy) -> None:
    assert toy.convert(OPTION, "--workers", "2").code == 0
    assert toy.balance()["kept"] == 3


def test_a_link_out_that_is_not_read_is_counted(tmp_path: Path) -> None:
    write_hdf5(tmp_path / "source/demo.hdf5", {"data/demo_0": {"action": np.zeros((3, 2))}})
    link(tmp_path / "source/notes", tmp_path)
    link(tmp_path / "source/manual.pdf", "/etc/hostname")
    seen = oxe("inspect", tmp_path / "source")
    assert seen.code == 0
    assert "not read: 2 files, such as manual.pdf" in seen.out
