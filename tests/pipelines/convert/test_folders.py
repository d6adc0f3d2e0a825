from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.convert.folders import make_output
from schemas.errors import UsageError
from tests.pipelines.toy import Toy, columns, files, make_toy, oxe, write_source, write_spec

MARKS = {"data", "meta"}


@pytest.fixture
def toy(tmp_path: Path) -> Toy:
    return make_toy(tmp_path)


def test_a_new_folder_is_made_with_its_parents(tmp_path: Path) -> None:
    make_output(tmp_path / "a" / "b", source=None, marks=MARKS, overwrite=False)
    assert (tmp_path / "a" / "b").is_dir()


def test_an_empty_folder_is_used_as_it_is(tmp_path: Path) -> None:
    make_output(tmp_path, source=None, marks=MARKS, overwrite=False)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("out", ["source", "source/below", "."], ids=["the source", "inside it", "around it"])
@pytest.mark.parametrize("scheme", ["", "file://"])
def test_an_output_that_overlaps_its_source_is_refused(tmp_path: Path, out: str, scheme: str) -> None:
    (tmp_path / "source").mkdir()
    with pytest.raises(UsageError, match="overlap"):
        make_output(tmp_path / out, source=f"{scheme}{tmp_path}/source", marks=MARKS, overwrite=True)


def test_a_link_does_not_hide_an_overlap(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "source")
    with pytest.raises(UsageError, match="overlap"):
        make_output(tmp_path / "link" / "out", source=str(tmp_path / "source"), marks=MARKS, overwrite=False)


def test_a_remote_source_overlaps_no_local_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_output(Path(), source="https://example.org/toy/1.0.0", marks=MARKS, overwrite=False)


def test_a_neighbour_whose_name_begins_alike_is_no_overlap(tmp_path: Path) -> None:
    (tmp_path / "toy").mkdir()
    make_output(tmp_path / "toy2", source=str(tmp_path / "toy"), marks=MARKS, overwrite=False)


# --- through the command line ---


def test_a_finished_conversion_is_left_as_it_is(toy: Toy) -> None:
    first = toy.convert("--json").json()
    before = {name: (toy.out / name).stat().st_mtime_ns for name in files(toy.out)}
    again = toy.convert("--json")
    assert again.code == 0
    assert {**again.json(), "seconds": 0} == {**first, "seconds": 0, "added": 0}
    assert {name: (toy.out / name).stat().st_mtime_ns for name in files(toy.out)} == before


def another_source(toy: Toy) -> list[str]:
    write_source(toy.source, [columns(9)])
    return []


def another_declaration(toy: Toy) -> list[str]:
    write_spec(toy.folder, replace={"control_hz = 10": "control_hz = 5"})
    return []


def other_options(_: Toy) -> list[str]:
    return ["--no-keep-raw"]


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (another_source, "source (changed: toy-train.tfrecord-00000-of-00001)"),
        (another_declaration, "spec_digest"),
        (other_options, "options"),
    ],
)
def test_another_conversion_into_one_output_is_refused(toy: Toy, change: Callable[[Toy], list[str]], what: str) -> None:
    assert toy.convert().code == 0
    before = files(toy.out)
    again = toy.convert(*change(toy))
    assert (again.code, again.out) == (2, "")
    words = f"contains a conversion with different {what}; pass --overwrite to replace it, or another --out"
    assert again.err == f"oxe: {toy.out}: {words}\n"
    assert files(toy.out) == before


def test_overwrite_replaces_what_the_command_wrote(toy: Toy) -> None:
    assert toy.convert().code == 0
    write_source(toy.source, [columns(9)])
    assert toy.convert("--overwrite").code == 0
    assert toy.balance()["kept"] == 1
    assert toy.verify().code == 0


@pytest.mark.parametrize(
    "theirs",
    [["thesis.tex"], ["data/chunk-000/a.parquet", "meta/info.json", "videos/a.mp4"], ["data/a", "index.html"]],
    ids=["a folder", "LeRobot", "a site"],
)
def test_overwrite_removes_nothing_of_others(toy: Toy, theirs: list[str]) -> None:
    for name in theirs:
        (toy.out / name).parent.mkdir(parents=True, exist_ok=True)
        (toy.out / name).write_text("years of work")
    done = toy.convert("--overwrite")
    assert done.code == 2
    first = min(name.split("/")[0] for name in theirs if not name.startswith("meta/"))
    assert done.err == f"oxe: {toy.out}: exists and is not a converted dataset ({first}); --out needs a new folder\n"
    assert sorted(files(toy.out)) == sorted(theirs)
    assert (toy.out / "meta").exists() == any(name.startswith("meta/") for name in theirs)


def test_overwrite_does_not_take_a_dataset_for_an_export(toy: Toy, tmp_path: Path) -> None:
    assert toy.convert().code == 0
    other = make_toy(tmp_path / "other")
    assert other.convert().code == 0
    done = oxe("export", "rlds", toy.out, "--out", other.out, "--overwrite")
    assert done.code == 2
    assert "was not written by this command" in done.err
    assert other.verify().code == 0


def test_an_output_under_a_file_is_one_line(toy: Toy) -> None:
    (toy.folder / "file").write_text("")
    for out in (toy.folder / "file", toy.folder / "file" / "below"):
        done = oxe("convert", toy.spec, "--source", toy.source, "--out", out, "--overwrite")
        assert (done.code, done.err.count("\n")) == (2, 1)
        assert done.err.startswith(f"oxe: {out}: ")


def test_an_output_inside_the_source_leaves_the_source_alone(toy: Toy) -> None:
    before = files(toy.source)
    for out in (toy.source, toy.source / "out", toy.folder):
        done = oxe("convert", toy.spec, "--source", toy.source, "--out", out, "--overwrite")
        assert done.code == 2
        assert "overlap" in done.err
    assert files(toy.source) == before


def test_an_export_into_its_dataset_is_refused(toy: Toy) -> None:
    assert toy.convert().code == 0
    done = oxe("export", "rlds", toy.out, "--out", toy.out / "rlds")
    assert done.code == 2
    assert "overlap" in done.err
    assert toy.verify().code == 0


def test_a_folder_that_cannot_be_made_is_one_line(toy: Toy) -> None:
    done = oxe("convert", toy.spec, "--source", toy.source, "--out", "/proc/oxe/out")  # not writable, even for root
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert done.err.startswith("oxe: /proc/oxe/out: cannot be written (")
